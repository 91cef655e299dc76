"""Upstreams that continue text: what is asked, vendor by vendor, and how answers are read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import numpy as np
import pytest

from proxy.config import Capabilities, UpstreamConfig
from proxy.errors import UpstreamProtocolError
from proxy.sampling.questions import UNREAD_TOKEN, Draft, Drafted, Finish
from proxy.sampling.spelling import Spelling
from proxy.upstream.client import UpstreamClient
from proxy.upstream.echo import BEGUN
from proxy.upstream.text_prompts import TextUpstream
from watermark.text import TokenTable
from watermark.wire.openai_requests import DialectName, GenerationRequest, parse_request

if TYPE_CHECKING:
    from collections.abc import Callable

USER = {"role": "user", "content": "Hi"}
CONTENT = (b" the", b" cat", b"s", b"\xc3", b"\xa9", b"twin", b"twin", b"")
THE, CAT, S, HALF, _, TWIN, _, END = range(8)
SPELLING = Spelling(
    TokenTable(
        content=CONTENT,
        labels=(*(one.decode("utf-8", "replace") for one in CONTENT[:END]), "</s>"),
        special=frozenset({END}),
        strips_first_space=True,
    )
)
Answer = dict[str, Any]


def text(**fields: Any) -> GenerationRequest:
    return parse_request(
        DialectName.TEXT, msgspec.json.encode({"model": "m", "prompt": "Once"} | fields)
    )


def chat(*messages: Any, **fields: Any) -> GenerationRequest:
    body = {"model": "m", "messages": [USER, *messages]} | fields
    return parse_request(DialectName.CHAT, msgspec.json.encode(body))


def ask(given: str = "", **fields: Any) -> Draft:
    asked: dict[str, Any] = {"tokens": (), "text": given, "n": 1, "max_tokens": 4}
    return Draft(**(asked | fields))


class Vendor:
    """An upstream that remembers what it was asked."""

    def __init__(self, answer: Callable[[Any], Answer] | Answer, limit: int | None = None) -> None:
        self.answer = answer
        self.limit = limit
        self.bodies: list[Any] = []
        self.listed = 0

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/models":
            self.listed += 1
            entry = {"id": "m"} | ({"max_model_len": self.limit} if self.limit else {})
            return httpx2.Response(200, json={"data": [entry]})
        body = msgspec.json.decode(request.content)
        self.bodies.append(body)
        answer = self.answer(body) if callable(self.answer) else self.answer
        return httpx2.Response(200, json=answer)

    def draft(
        self, *asked: tuple[GenerationRequest, Draft], is_read: bool = True, **able: Any
    ) -> list[Drafted]:
        async def work() -> list[Drafted]:
            transport = httpx2.MockTransport(self.handle)
            said: dict[str, Any] = {"continuation": "prefix", "logprobs": 3}
            given = Capabilities(**(said | able))
            async with UpstreamClient(
                UpstreamConfig(url="http://u"), transport=transport
            ) as client:
                upstream = TextUpstream(client, given, SPELLING if is_read else None)
                assert await upstream.context_limit("m", []) is None
                return [await upstream.draft(request, [], one, []) for request, one in asked]

        return asyncio.run(work())


def completion(*texts: str, finish: str = "length", **fields: Any) -> Answer:
    choices = [
        {"index": i, "text": one, "finish_reason": finish} | fields for i, one in enumerate(texts)
    ]
    return {"choices": choices}


def message(*texts: str, finish: str = "length", **fields: Any) -> Answer:
    choices = [
        {"index": i, "message": {"content": one}, "finish_reason": finish} | fields
        for i, one in enumerate(texts)
    ]
    return {"choices": choices}


# --- what is asked


def test_a_text_prompt_goes_on_with_the_reply() -> None:
    vendor = Vendor(completion(" the", logprobs=merged(" the")))
    vendor.draft((text(temperature=0.5), ask(" upon", n=3, logprobs=2, seed=5, bias={4: -1.0})))
    assert vendor.bodies == [
        {
            "model": "m",
            "prompt": "Once upon",
            "max_tokens": 4,
            "temperature": 0.5,
            "top_p": 1.0,
            "n": 3,
            "logprobs": 2,
            "logit_bias": {"4": -1.0},
            "seed": 5,
        }
    ]


@pytest.mark.parametrize(
    ("prefix", "last", "flags"),
    [
        ("prefix", {"prefix": True}, {}),
        ("trailing", {}, {}),
        (
            "continue-final-message",
            {},
            {"add_generation_prompt": False, "continue_final_message": True},
        ),
    ],
)
def test_a_chat_goes_on_as_the_vendor_wants(prefix: str, last: Answer, flags: Answer) -> None:
    vendor = Vendor(message(" the"))
    vendor.draft((chat(), ask()), (chat(), ask("So")), prefix=prefix)
    first, second = vendor.bodies
    common = {"model": "m", "max_tokens": 4, "temperature": 1.0, "top_p": 1.0}
    assert first == common | {"messages": [USER]}
    reply = {"role": "assistant", "content": "So"} | last
    assert second == common | {"messages": [USER, reply]} | flags


@pytest.mark.parametrize(
    ("prefix", "said", "fields"),
    [
        ("prefix", {"prefix": True}, {}),
        ("trailing", {}, {}),
        ("continue-final-message", {}, {"continue_final_message": True}),
    ],
)
def test_what_the_client_began_is_one_message_with_the_reply(
    prefix: str, said: Answer, fields: Answer
) -> None:
    vendor = Vendor(message(" the"))
    begun = {"role": "assistant", "content": "Well, "} | said
    request = chat(begun, **fields)
    vendor.draft((request, ask()), (request, ask("so")), prefix=prefix)
    assert vendor.bodies[0]["messages"] == [USER, begun]
    assert [one["content"] for one in vendor.bodies[1]["messages"]] == ["Hi", "Well, so"]


@pytest.mark.parametrize(
    ("prefix", "last", "flags"),
    [
        ("prefix", {"prefix": True}, {}),
        ("trailing", {}, {}),
        (
            "continue-final-message",
            {},
            {"add_generation_prompt": False, "continue_final_message": True},
        ),
    ],
)
def test_what_a_client_of_anthropics_began_goes_on_as_the_vendor_wants(
    prefix: str, last: Answer, flags: Answer
) -> None:
    """In that dialect a closing message of the assistant's is the beginning of the reply."""
    vendor = Vendor(message(" the"))
    begun = {"role": "assistant", "content": "Well, "}
    body = {"model": "m", "max_tokens": 9, "messages": [USER, begun]}
    request = parse_request(DialectName.MESSAGES, msgspec.json.encode(body))
    vendor.draft((request, ask()), (request, ask("so")), prefix=prefix)
    for asked, said in zip(vendor.bodies, ("Well, ", "Well, so"), strict=True):
        assert asked["messages"] == [USER, begun | {"content": said} | last]
        named = ("add_generation_prompt", "continue_final_message")
        assert {name: asked[name] for name in named if name in asked} == flags


def test_a_finished_turn_of_the_assistant_is_not_gone_on_with() -> None:
    vendor = Vendor(message(" the"))
    vendor.draft((chat({"role": "assistant", "content": "Done."}), ask("So")), prefix="prefix")
    assert [one["content"] for one in vendor.bodies[0]["messages"]] == ["Hi", "Done.", "So"]


def test_top_k_is_said_where_it_was_and_only_there() -> None:
    vendor = Vendor(completion(" the"))
    vendor.draft((text(top_k=0), ask()), (text(top_k=7), ask()), (text(), ask()))
    assert [body.get("top_k") for body in vendor.bodies] == [0, 7, None]


# --- how it is read


def test_an_unfinished_character_is_cut_off_unless_the_text_ends() -> None:
    cut, ended = (completion("caf\ufffd"), completion("caf\ufffd", finish="stop"))
    (one,) = Vendor(cut).draft((text(), ask()))
    (two,) = Vendor(ended).draft((text(), ask()))
    assert one.continuations[0].text == "caf"
    assert two.continuations[0].text == "caf\ufffd"


@pytest.mark.parametrize(
    ("finishes", "total", "counts"),
    [
        (["length", "length"], 8, [4, 4]),
        (["length", "length"], None, [4, 4]),
        (["length", "stop"], 6, [4, 2]),
        (["stop", "stop"], 5, [2, 2]),
        (["length", "length"], 4, [2, 2]),  # the context is full
        (["stop", "stop"], 0, [1, 1]),
    ],
)
def test_tokens_are_counted(finishes: list[str], total: int | None, counts: list[int]) -> None:
    answer = completion("a", "b")
    for choice, finish in zip(answer["choices"], finishes, strict=True):
        choice["finish_reason"] = finish
    if total is not None:
        answer["usage"] = {"prompt_tokens": 9, "completion_tokens": total}
    (drafted,) = Vendor(answer, limit=20).draft((text(), ask(n=2)))
    assert [one.n_tokens for one in drafted.continuations] == counts
    assert drafted.room == (None if total is None else 11)
    assert drafted.prompt_tokens == (None if total is None else 9)


def test_a_limit_is_asked_for_once_and_not_with_every_draft() -> None:
    vendor = Vendor(completion("a"))
    vendor.draft((text(), ask()), (text(), ask()), (text(), ask()))
    assert vendor.listed == 1


def given_in(body: Any) -> str:
    given: str = body["messages"][-1]["content"]
    return given


def test_an_upstream_that_repeats_what_it_was_given() -> None:
    """llama-server, not streamed."""
    vendor = Vendor(lambda body: message(*[given_in(body) + " the"] * body.get("n", 1)))
    drafted = vendor.draft((chat(), ask("So", n=2)), (chat(), ask("So the", n=2)))
    assert [one.continuations[1].text for one in drafted] == [" the", " the"]
    assert [given_in(body) for body in vendor.bodies] == ["So", BEGUN, "So the"]
    assert vendor.bodies[1]["max_tokens"] == 1


def chanting(body: Any) -> Answer:
    """Say once more what was given, where there is room for it."""
    said = given_in(body)[: 4 * body["max_tokens"]] + ", said the cat"
    return message(*[said] * body.get("n", 1))


def test_text_that_merely_repeats_itself_is_kept() -> None:
    """One answer, or all of several: chance must not decide for the process."""
    vendor = Vendor(chanting)
    asked = [(chat(), ask("ha", n=n)) for n in (1, 2, 1)]
    drafted = vendor.draft(*asked, (chat(), ask("ho ho", max_tokens=1)))
    texts = [one.text for each in drafted for one in each.continuations]
    assert texts == ["ha, said the cat"] * 4 + ["ho h, said the cat"]
    assert [given_in(body) for body in vendor.bodies].count(BEGUN) == 1


def test_answers_that_repeat_nothing_raise_no_question() -> None:
    vendor = Vendor(message(" ha", " no"))
    vendor.draft(*[(chat(), ask(" ha", n=2))] * 3)
    assert len(vendor.bodies) == 3


def test_what_the_config_says_is_not_asked() -> None:
    vendor = Vendor(lambda body: message(given_in(body) + " the"))
    (cut,) = vendor.draft((chat(), ask("So")), echo=True)
    (kept,) = vendor.draft((chat(), ask("So")), echo=False)
    assert (cut.continuations[0].text, kept.continuations[0].text) == (" the", "So the")
    assert len(vendor.bodies) == 2


def test_a_question_that_fails_leaves_it_open() -> None:
    answers = iter([message("So the"), {"choices": "none"}, message("So the"), message("gr")])

    async def work() -> str:
        transport = httpx2.MockTransport(Vendor(lambda _: next(answers)).handle)
        async with UpstreamClient(UpstreamConfig(url="http://u"), transport=transport) as client:
            upstream = TextUpstream(client, Capabilities(continuation="prefix"), None)
            with pytest.raises(UpstreamProtocolError):
                await upstream.draft(chat(), [], ask("So"), [])
            return (await upstream.draft(chat(), [], ask("So"), [])).continuations[0].text

    assert asyncio.run(work()) == "So the"


def test_an_upstream_that_repeats_now_and_then_is_refused() -> None:
    vendor = Vendor(message("the"))
    with pytest.raises(UpstreamProtocolError, match="set echo = false"):
        vendor.draft((chat(), ask("So")), echo=True)


def test_an_upstream_that_reasons_is_refused() -> None:
    answer = message("the")
    answer["choices"][0]["message"]["reasoning_content"] = "hm"
    with pytest.raises(UpstreamProtocolError, match="shows its reasoning"):
        Vendor(answer).draft((chat(), ask()))


# --- labels


def merged(*labels: str, top: list[dict[str, float]] | None = None) -> Answer:
    likely = {" the": -0.5, " cat": -1.5, "s": -3.0}
    lists = [likely | ({} if one in likely else {one: -4.0}) for one in labels]
    return {"tokens": list(labels), "top_logprobs": top or lists}


def entry(label: str, logprob: float, data: bytes | None, **fields: Any) -> Answer:
    return {"token": label, "logprob": logprob, "bytes": data and list(data)} | fields


def separate(*tokens: tuple[str, bytes | None], top: list[Answer]) -> Answer:
    return {"content": [entry(label, -1.0, data, top_logprobs=top) for label, data in tokens]}


TOP = [entry(" the", -0.5, b" the"), entry("\ufffd", -1.5, b"\xc3"), entry("s", -2.5, b"s")]


def test_tokens_are_read_from_labels() -> None:
    answer = completion(" the cats", logprobs=merged(" the", " cat", "s"))
    (drafted,) = Vendor(answer).draft((text(), ask("!", logprobs=3)))
    (one,) = drafted.continuations
    assert one.tokens == (THE, CAT, S)
    assert [piece.text for piece in one.pieces] == [" the", " cat", "s"]
    assert one.logprobs[0].ids.tolist() == [THE, CAT, S]
    np.testing.assert_allclose(one.logprobs[0].logprobs, [-0.5, -1.5, -3.0])


def test_a_drawn_token_below_the_list_does_not_enter_it() -> None:
    answer = completion(
        " the", logprobs=merged(" the", top=[{"s": -0.9, " cat": -1.0, " the": -3}])
    )
    (drafted,) = Vendor(answer).draft((text(), ask("!", logprobs=2)))
    assert drafted.continuations[0].logprobs[0].ids.tolist() == [S, CAT]


@pytest.mark.parametrize("unread", ["twin", "\ufffd"])
def test_a_list_ends_before_a_label_of_several_tokens(unread: str) -> None:
    top = [{" cat": -0.5, unread: -1.5, "s": -2.0}]
    answer = completion(" cat", logprobs=merged(" cat", top=top))
    (drafted,) = Vendor(answer).draft((text(), ask("!", logprobs=5)))
    assert drafted.continuations[0].logprobs[0].ids.tolist() == [CAT]


def test_a_list_that_is_too_short_is_refused() -> None:
    """A drawn token of low rank could hide in it."""
    answer = completion(" cat", logprobs=merged(" cat"))
    with pytest.raises(UpstreamProtocolError, match="listed 3 tokens where 5"):
        Vendor(answer).draft((text(), ask("!", logprobs=5)))


def test_separate_entries_name_tokens_by_their_bytes() -> None:
    logprobs = separate((" the", b" the"), ("s", b"s"), top=TOP)
    (drafted,) = Vendor(message(" thes", logprobs=logprobs)).draft((chat(), ask("!", logprobs=3)))
    (one,) = drafted.continuations
    assert one.tokens == (THE, S)
    assert one.logprobs[0].ids.tolist() == [THE]  # then comes half a character


@pytest.mark.parametrize("told", [True, False])
def test_a_character_of_two_tokens_is_one_piece(told: bool) -> None:
    if told:
        tokens = ((" cat", b" cat"), ("\ufffd", b"\xc3"), ("\ufffd", b"\xa9"), ("s", b"s"))
        logprobs = separate(*tokens, top=TOP)
    else:
        logprobs = merged(" cat", "\ufffd", "\ufffd", "s")
    answer = completion(" cat\u00e9s", logprobs=logprobs)
    (drafted,) = Vendor(answer).draft((text(), ask("!", logprobs=3)))
    (one,) = drafted.continuations
    assert one.tokens == (CAT, UNREAD_TOKEN)
    assert [piece.text for piece in one.pieces] == [" cat", "\u00e9"]
    assert one.n_tokens == 4


def test_a_character_that_the_draft_cuts_is_no_text() -> None:
    logprobs = separate((" cat", b" cat"), ("\ufffd", b"\xc3"), top=TOP)
    (drafted,) = Vendor(completion(" cat\ufffd", logprobs=logprobs)).draft(
        (text(), ask("!", logprobs=3))
    )
    assert [piece.text for piece in drafted.continuations[0].pieces] == [" cat", ""]


def test_a_text_that_ends_at_once() -> None:
    for logprobs in (None, {}, merged(), merged("</s>")):
        answer = completion("", finish="stop", logprobs=logprobs)
        (drafted,) = Vendor(answer).draft((text(), ask("!", logprobs=3)))
        assert drafted.continuations[0].tokens == ()
        assert drafted.continuations[0].n_tokens == 1


@pytest.mark.parametrize("labels", [(" cat",), (" cat", "</s>")])
def test_the_end_is_no_token_listed_or_not(labels: tuple[str, ...]) -> None:
    answer = completion(" cat", finish="stop", logprobs=merged(*labels))
    (drafted,) = Vendor(answer).draft((text(), ask("!", logprobs=3)))
    (one,) = drafted.continuations
    assert one.tokens == (CAT,)
    assert one.finish is Finish.STOP


def test_a_special_token_within_the_text_leaves_nothing() -> None:
    answer = completion(" cat the", logprobs=merged(" cat", "</s>", " the"))
    (drafted,) = Vendor(answer).draft((text(), ask("!", logprobs=3)))
    (one,) = drafted.continuations
    assert one.tokens == (CAT, UNREAD_TOKEN)
    assert one.text == " cat"


def test_a_decoder_may_drop_the_first_space() -> None:
    answer = completion("the", logprobs=merged(" the"))
    (drafted,) = Vendor(answer).draft((text(), ask(logprobs=3)))
    assert drafted.continuations[0].text == "the"
    with pytest.raises(UpstreamProtocolError, match="do not spell"):
        Vendor(answer).draft((text(), ask("so", logprobs=3)))


@pytest.mark.parametrize(
    "logprobs",
    [merged(" the"), merged(" cat", "s"), {"tokens": [" cat"], "top_logprobs": []}, None, {}],
)
def test_labels_that_do_not_spell_the_text_are_refused(logprobs: Answer | None) -> None:
    answer = completion(" cat", logprobs=logprobs)
    with pytest.raises(UpstreamProtocolError, match=r"do not spell|lists no log-prob"):
        Vendor(answer).draft((text(), ask("!", logprobs=3)))


def test_without_a_tokenizer_only_text_is_read() -> None:
    (drafted,) = Vendor(completion(" the cats")).draft((text(), ask()), is_read=False)
    (one,) = drafted.continuations
    assert one.tokens == ()
    assert one.text == " the cats"
    assert one.n_tokens == 4
