"""`reply`: what is no text of the chosen reply reaches the client as the upstream gave it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from proxy.accounts.book import AccountHolder
from proxy.config import Capabilities, ReplyConfig
from tests.support.accounts import account, book
from tests.support.asgi import proxied, scenario
from watermark.wire.sse import EventDecoder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx2

    from tests.support.fake_upstream import Turn

CHAT_URL, TEXT_URL = "/v1/chat/completions", "/v1/completions"
TEXTS = ("the first of all", "the second of them", "the third and last")
ENVELOPE = (
    '"id": "up-1", "created": 17, "model": "m-2026", "system_fingerprint": "fp", "cost": 1.50'
)
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 60,
    "total_tokens": 71,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 30},
}
NOTE = {"type": "url_citation", "url_citation": {"url": "https://e.test", "start_index": 0}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
LISTED = {"token": "the", "logprob": -0.5, "bytes": None, "top_logprobs": []}


def message(text: str | None, number: int) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": text,
        "refusal": None,
        "reasoning_content": f"thought {number}",
        "annotations": [NOTE],
        "novel": {"of": number},
    }


def choice(number: int, **fields: Any) -> dict[str, Any]:
    text = TEXTS[number]
    listed = {"content": [LISTED | {"token": text}], "refusal": None}
    said = {"index": number, "message": message(text, number), "finish_reason": "stop"}
    return said | {"logprobs": listed, "odd": [number], "token_ids": [number]} | fields


def answering(make: Callable[[int], dict[str, Any]], asked: list[Any]) -> Callable[[Turn], Any]:
    """Return an upstream that gives as many choices as it is asked for."""

    async def behave(turn: Turn) -> None:
        if turn.request.target == b"/v1/models":
            await turn.answer({"data": []})
            return
        body = turn.request.json()
        asked.append(body)
        choices = json.dumps([make(number) for number in range(body.get("n", 1))])
        usage = json.dumps(USAGE)
        await turn.answer(f'{{{ENVELOPE}, "choices": {choices}, "usage": {usage}}}'.encode())

    return behave


def whole_model(*, max_n: int = 3) -> dict[str, Any]:
    able = Capabilities(continuation="none", max_n=max_n, parallel=3 // max_n)
    return {"capabilities": able, "unit": "words/v1", "reply": ReplyConfig(candidates=3)}


def post(
    tokenizer: Path,
    path: str,
    body: dict[str, Any],
    make: Callable[[int], dict[str, Any]] = choice,
    **options: Any,
) -> tuple[httpx2.Response, list[Any]]:
    asked: list[Any] = []
    answers: list[httpx2.Response] = []
    model = whole_model(max_n=options.pop("max_n", 3))
    headers = {"authorization": "Bearer sk-a"}

    async def work() -> None:
        async with proxied(answering(make, asked), tokenizer, model=model, **options) as on:
            answers.append(await on.client.post(path, json={"model": "m"} | body, headers=headers))

    scenario(work)
    (answer,) = answers
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-watermark"] == "marked; path=reply; key=test"
    return answer, asked


def events(answer: httpx2.Response) -> list[dict[str, Any]]:
    return [json.loads(e.data) for e in EventDecoder().feed(answer.content) if not e.is_done]


MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 90}


def test_chat_choices_are_the_upstreams_with_every_digit(tokenizer: Path) -> None:
    answer, asked = post(tokenizer, CHAT_URL, MESSAGES | {"logprobs": True})
    body = answer.json()
    assert b'"cost":1.50' in answer.content
    assert asked == [{"model": "m", "n": 3, "logprobs": True} | MESSAGES]
    (said,) = body.pop("choices")
    usage = body.pop("usage")
    assert body == json.loads(f"{{{ENVELOPE}}}") | {"object": "chat.completion"}
    number = TEXTS.index(said["message"]["content"])
    assert said == choice(number) | {"index": 0}
    # 60 tokens were drawn in three replies; the client had one of them, and one prompt.
    assert usage["prompt_tokens"] == 11
    assert 15 <= usage["completion_tokens"] <= 25
    assert usage["total_tokens"] == 11 + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 4}
    assert "completion_tokens_details" not in usage  # of all three, nobody knows whose


@pytest.mark.parametrize("path", ["chat/completions", "messages", "responses"])
def test_what_a_client_does_not_say_of_sampling_nobody_says(tokenizer: Path, path: str) -> None:
    """Models that reason refuse a temperature, even the one that they have."""
    said = {"messages": MESSAGES["messages"]} if path != "responses" else {"input": "?"}
    bound = {"max_tokens": 90} if path == "messages" else {}
    _, asked = post(tokenizer, f"/v1/{path}", said | bound)
    (body,) = asked
    assert body.keys() <= {"model", "messages", "n", "max_tokens"}
    assert ("max_tokens" in body) is bool(bound)


def test_usage_of_a_reply_that_was_counted_alone_goes_on(tokenizer: Path) -> None:
    answer, asked = post(tokenizer, CHAT_URL, MESSAGES, max_n=1)
    assert len(asked) == 3
    assert answer.json()["usage"] == USAGE


def test_several_choices_are_each_one_of_its_own_draw(tokenizer: Path) -> None:
    answer, asked = post(tokenizer, CHAT_URL, MESSAGES | {"n": 2})
    assert len(asked) == 2
    said = answer.json()
    assert [one["index"] for one in said["choices"]] == [0, 1]
    for one in said["choices"]:
        assert one == choice(one["odd"][0]) | {"index": one["index"]}
    assert said["usage"]["prompt_tokens"] == 11  # a prompt counts once for all choices


def test_a_chat_stream_has_the_same_in_a_delta(tokenizer: Path) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    answer, _ = post(tokenizer, CHAT_URL, MESSAGES | options)
    role, said, usage = events(answer)
    assert answer.content.endswith(b"data: [DONE]\n\n")
    assert b'"cost":1.50' in answer.content
    assert {one["id"] for one in (role, said, usage)} == {"up-1"}
    assert {one["object"] for one in (role, said, usage)} == {"chat.completion.chunk"}
    (delta,) = said["choices"]
    number = delta["odd"][0]
    expected = choice(number) | {"index": 0}
    spoken = expected.pop("message")
    del spoken["role"]
    assert delta == expected | {"delta": spoken}
    assert usage["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}


@pytest.mark.parametrize("is_streamed", [False, True])
def test_completions(tokenizer: Path, is_streamed: bool) -> None:
    def make(number: int) -> dict[str, Any]:
        one = choice(number, text=TEXTS[number], finish_reason="length", stop_reason=None)
        del one["message"]
        return one

    asked = {"prompt": "?", "logprobs": 1, "max_tokens": 90, "stream": is_streamed}
    answer, _ = post(tokenizer, TEXT_URL, asked | {"return_token_ids": True}, make)
    body = events(answer)[0] if is_streamed else answer.json()
    (said,) = body["choices"]
    assert said == make(TEXTS.index(said["text"])) | {"index": 0}
    assert (body["id"], body["cost"], body["object"]) == ("up-1", 1.5, "text_completion")


@pytest.mark.parametrize("is_streamed", [False, True])
def test_responses_have_items_for_what_is_no_text(tokenizer: Path, is_streamed: bool) -> None:
    make = lambda number: choice(number, finish_reason="content_filter")
    asked = {"input": "?", "max_output_tokens": 90, "stream": is_streamed}
    answer, _ = post(tokenizer, "/v1/responses", asked, make)
    body = events(answer)[-1]["response"] if is_streamed else answer.json()
    thought, said = body["output"]
    (part,) = said["content"]
    number = TEXTS.index(part["text"])
    assert thought["type"] == "reasoning"
    assert thought["content"] == [{"type": "reasoning_text", "text": f"thought {number}"}]
    assert part["annotations"] == [NOTE["url_citation"] | {"type": "url_citation"}]  # type: ignore[operator]
    assert part["logprobs"] == [LISTED | {"token": TEXTS[number]}]
    assert (body["status"], body["incomplete_details"]) == (
        "incomplete",
        {"reason": "content_filter"},
    )
    assert (body["system_fingerprint"], body["cost"]) == ("fp", 1.5)
    assert body["usage"]["input_tokens_details"] == {"cached_tokens": 4}
    if is_streamed:
        said_events = events(answer)
        assert [one["sequence_number"] for one in said_events] == [*range(len(said_events))]
        places = [(one["type"], one.get("output_index")) for one in said_events]
        assert ("response.output_item.done", 0) in places
        assert ("response.output_text.delta", 1) in places
        assert ("response.output_item.done", 1) in places


@pytest.mark.parametrize("is_streamed", [False, True])
def test_messages_have_blocks_for_what_is_no_text(tokenizer: Path, is_streamed: bool) -> None:
    answer, _ = post(tokenizer, "/v1/messages", MESSAGES | {"stream": is_streamed})
    if is_streamed:
        said = events(answer)
        starts = [one for one in said if one["type"] == "content_block_start"]
        assert [(one["index"], one["content_block"]["type"]) for one in starts] == [
            (0, "thinking"),
            (1, "text"),
        ]
        deltas = [one for one in said if one["type"] == "content_block_delta"]
        thought, text = (one["delta"] for one in deltas)
        stops = [one["index"] for one in said if one["type"] == "content_block_stop"]
        assert stops == [0, 1]
        body = said[0]["message"] | said[-2]["delta"]
    else:
        body = answer.json()
        thought, text = body["content"]
        assert body["usage"] | {"output_tokens": 0} == {
            "input_tokens": 7,
            "output_tokens": 0,
            "cache_read_input_tokens": 4,
        }
    assert thought["thinking"] == f"thought {TEXTS.index(text['text'])}"
    assert (body["stop_reason"], body["cost"]) == ("end_turn", 1.5)


def calling(number: int) -> dict[str, Any]:
    """A call that nobody asked for, and no text."""
    said = message(None, number) | {"tool_calls": [CALL], "reasoning_content": None}
    return choice(number, message=said, finish_reason="tool_calls")


def refusing(number: int) -> dict[str, Any]:
    said = message(None, number) | {"refusal": "I will not", "reasoning_content": None}
    return choice(number, message=said, finish_reason="stop")


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_call_that_nobody_asked_for_is_one_in_every_dialect(
    tokenizer: Path, is_streamed: bool
) -> None:
    stream = {"stream": is_streamed}
    answer, _ = post(tokenizer, CHAT_URL, MESSAGES | stream, calling)
    (said,) = (events(answer)[1] if is_streamed else answer.json())["choices"]
    number = {"index": 0} if is_streamed else {}
    assert said["delta" if is_streamed else "message"]["tool_calls"] == [number | CALL]
    assert said["finish_reason"] == "tool_calls"
    answer, _ = post(tokenizer, "/v1/messages", MESSAGES | stream, calling)
    if is_streamed:
        start, delta, stop, ending, _ = events(answer)[1:]
        assert start["content_block"] == {"type": "tool_use", "id": "c", "name": "f", "input": {}}
        assert json.loads(delta["delta"]["partial_json"]) == {"a": 1}
        assert stop["index"] == 0
        assert ending["delta"]["stop_reason"] == "tool_use"
    else:
        (block,) = answer.json()["content"]
        assert block == {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}
        assert answer.json()["stop_reason"] == "tool_use"
    answer, _ = post(tokenizer, "/v1/responses", {"input": "?"} | stream, calling)
    body = events(answer)[-1]["response"] if is_streamed else answer.json()
    called = body["output"][-1]
    assert (called["type"], called["call_id"], called["name"]) == ("function_call", "c", "f")
    assert called["arguments"] == '{"a": 1}'


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_refusal_is_one_in_every_dialect(tokenizer: Path, is_streamed: bool) -> None:
    stream = {"stream": is_streamed}
    answer, _ = post(tokenizer, CHAT_URL, MESSAGES | stream, refusing)
    (said,) = (events(answer)[1] if is_streamed else answer.json())["choices"]
    assert said["delta" if is_streamed else "message"]["refusal"] == "I will not"
    answer, _ = post(tokenizer, "/v1/messages", MESSAGES | stream, refusing)
    assert b"I will not" in answer.content
    assert b'"stop_reason":"refusal"' in answer.content
    answer, _ = post(tokenizer, "/v1/responses", {"input": "?"} | stream, refusing)
    body = events(answer)[-1]["response"] if is_streamed else answer.json()
    assert body["output"][0]["content"][-1] == {"type": "refusal", "refusal": "I will not"}
    if is_streamed:
        kinds = [one["type"] for one in events(answer)]
        assert "response.refusal.delta" in kinds
        assert kinds.index("response.refusal.done") < kinds.index("response.output_item.done")


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_stop_string_that_the_upstream_names_is_named(tokenizer: Path, is_streamed: bool) -> None:
    make = lambda number: choice(number, stop_reason="END")
    asked = MESSAGES | {"stop_sequences": ["END"], "stream": is_streamed}
    answer, _ = post(tokenizer, "/v1/messages", asked, make)
    assert b'"stop_reason":"stop_sequence","stop_sequence":"END"' in answer.content


def test_a_stop_string_that_the_upstream_ignores_is_cut(tokenizer: Path) -> None:
    make = lambda number: choice(number, finish_reason="length")
    answer, _ = post(tokenizer, CHAT_URL, MESSAGES | {"stop": [" "]}, make)
    (said,) = answer.json()["choices"]
    assert (said["message"]["content"], said["finish_reason"]) == ("the", "stop")


def test_content_in_parts_is_read_and_passes_as_it_is(tokenizer: Path) -> None:
    def make(number: int) -> dict[str, Any]:
        parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": TEXTS[number]}]
        return choice(number, message=message(None, number) | {"content": parts})

    answer, _ = post(tokenizer, CHAT_URL, MESSAGES, make)
    (said,) = answer.json()["choices"]
    assert said == make(said["odd"][0]) | {"index": 0}


def test_fields_of_other_forms_go_on(tokenizer: Path) -> None:
    """What is no text need not be understood."""
    odd = {"refusal": {"of": 1}, "tool_calls": "none", "annotations": 3, "reasoning": [1]}

    def make(number: int) -> dict[str, Any]:
        said = {"content": TEXTS[number]} | odd
        return {"index": number, "message": said, "finish_reason": None, "logprobs": [1]}

    for path, asked in (
        (CHAT_URL, MESSAGES),
        ("/v1/messages", MESSAGES),
        ("/v1/responses", {"input": "?"}),
    ):
        answer, _ = post(tokenizer, path, asked, make)
        if path == CHAT_URL:
            (said,) = answer.json()["choices"]
            assert said == make(TEXTS.index(said["message"]["content"])) | {"index": 0}


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("path", [CHAT_URL, "/v1/messages", "/v1/responses"])
def test_an_account_without_reasoning_gets_no_trace(
    tokenizer: Path, tmp_path: Path, path: str, is_streamed: bool
) -> None:
    holder = AccountHolder(book(account("a", "sk-a", reasoning=False)))
    asked = {"input": "?"} if path == "/v1/responses" else MESSAGES
    body = asked | {"stream": is_streamed}
    answer, _ = post(tokenizer, path, body, accounts=holder, state=str(tmp_path))
    assert b"thought" not in answer.content
    assert any(text.encode() in answer.content for text in TEXTS)
