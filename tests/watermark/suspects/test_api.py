"""Suspects that refuse, fail, lie about their name, say nothing or too much: counted, in bounds."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from typing import TYPE_CHECKING

import httpx2
import pytest

from watermark.errors import SuspectError
from watermark.radioactivity.plan import TokensField
from watermark.suspects import ApiSettings, ApiSuspect, Attempt, Dialect, Outcome, Prompt, Sampling
from watermark.suspects import client as client_module
from watermark.suspects.answers import count_kinds, is_refusal, script_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PROMPTS = [Prompt(id=f"p{i}", prompt=f"Tell story {i}") for i in range(6)]
Answer = httpx2.Response


def chat(text: str | None, model: str = "m") -> Answer:
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    choice = {"message": {"role": "assistant", "content": text}}
    return Answer(200, json={"model": model, "choices": [choice], "usage": usage})


def ask(
    handler: Callable[[httpx2.Request], Answer], prompts: list[Prompt] = PROMPTS, **changes: object
) -> list[Attempt]:
    settings = {"url": "http://suspect", "model": "m", "first_wait_s": 0.0, "tries": 3}
    suspect = ApiSuspect(
        ApiSettings(**(settings | changes)),  # type: ignore[arg-type]
        transport=httpx2.MockTransport(handler),
    )
    kept: list[Attempt] = []
    suspect.ask(prompts, kept.append)
    return sorted(kept, key=lambda one: one.prompt)


@pytest.mark.parametrize("dialect", list(Dialect))
def test_every_dialect_is_asked_in_its_own_way(dialect: Dialect) -> None:
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> Answer:
        seen.append(request)
        if dialect is Dialect.MESSAGES:
            content = [{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "Once"}]
            usage = {"input_tokens": 3, "output_tokens": 5}
            return Answer(200, json={"model": "m", "content": content, "usage": usage})
        if dialect is Dialect.CHAT:
            return chat("Once")
        body = {"model": "m", "choices": [{"text": "Once"}], "usage": {"completion_tokens": 5}}
        return Answer(200, json=body)

    sampling = Sampling(temperature=0.5, max_tokens=9, system="Be brief.")
    kept = ask(handler, PROMPTS[:1], dialect=dialect, sampling=sampling, api_key="secret")
    assert [(one.outcome, one.text, one.completion_tokens) for one in kept] == [
        (Outcome.ANSWER, "Once", 5)
    ]
    body = json.loads(seen[0].content)
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("m", 9, 0.5)
    assert "Tell story 0" in str(body)
    assert "Be brief." in str(body)
    header = "x-api-key" if dialect is Dialect.MESSAGES else "authorization"
    assert seen[0].headers[header].endswith("secret")
    assert seen[0].url.path == dialect.path


@pytest.mark.parametrize("field", list(TokensField))
@pytest.mark.parametrize("dialect", [Dialect.CHAT, Dialect.COMPLETIONS])
def test_fields_that_a_server_refuses_are_left_out_or_renamed(
    field: TokensField, dialect: Dialect
) -> None:
    seen: list[dict[str, object]] = []

    def handler(request: httpx2.Request) -> Answer:
        seen.append(json.loads(request.content))
        return chat("Once")

    sampling = Sampling(temperature=None, max_tokens=9, max_tokens_as=field)
    ask(handler, PROMPTS[:1], dialect=dialect, sampling=sampling)
    expected = {} if field is TokensField.NONE else {field.value: 9}
    assert {name: seen[0][name] for name in seen[0] if "max" in name} == expected
    assert "temperature" not in seen[0]


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"total_tokens": 9}, {"prompt_tokens": 0, "completion_tokens": 0}],
)
def test_tokens_are_estimated_where_the_server_gives_no_numbers(usage: object) -> None:
    silent = {"choices": [{"message": {"content": "Once upon"}}], "usage": usage}
    (kept,) = ask(lambda _: Answer(200, json=silent), PROMPTS[:1])
    assert (kept.prompt_tokens, kept.completion_tokens, kept.is_estimated) == (6, 5, True)
    assert count_kinds(PROMPTS, [kept])["tokens-estimated"] == 1
    (kept,) = ask(lambda _: chat("Once upon"), PROMPTS[:1])
    assert (kept.prompt_tokens, kept.completion_tokens, kept.is_estimated) == (3, 5, False)


@pytest.mark.parametrize("usage", [{"prompt_tokens": 2.5, "completion_tokens": "5"}, [], "x"])
def test_parts_of_text_are_joined_and_odd_numbers_are_no_error(usage: object) -> None:
    parts = [{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "Once"}, " upon"]
    body = {"choices": [{"message": {"content": parts}}], "usage": usage}
    (kept,) = ask(lambda _: Answer(200, json=body), PROMPTS[:1])
    assert (kept.outcome, kept.text) == (Outcome.ANSWER, "Once upon")
    expected = (3, 5) if isinstance(usage, dict) else (6, 5)
    assert (kept.prompt_tokens, kept.completion_tokens) == expected
    assert kept.is_estimated is not isinstance(usage, dict)


def test_what_is_in_flight_when_a_session_ends_is_paid_for() -> None:
    async def handler(request: httpx2.Request) -> Answer:
        if said_by(request)[-1] == "5":
            await asyncio.sleep(0.05)
            return Answer(401)
        await asyncio.sleep(60)
        return chat("Once")

    kept: list[Attempt] = []
    settings = ApiSettings(url="http://s", model="m", tries=1, concurrency=6)
    with pytest.raises(SuspectError, match="status 401"):
        ApiSuspect(settings, httpx2.MockTransport(handler)).ask(PROMPTS, kept.append)
    assert {(one.outcome, one.detail) for one in kept} == {(Outcome.FAILED, "interrupted")}
    assert len(kept) == 5
    assert {(one.prompt_tokens, one.completion_tokens) for one in kept} == {(6, 400)}
    assert all(one.is_estimated for one in kept)


def test_what_is_in_flight_at_ctrl_c_is_paid_for() -> None:
    async def handler(request: httpx2.Request) -> Answer:
        if said_by(request)[-1] == "0":
            return chat("Once")
        if said_by(request)[-1] == "5":
            signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(60)
        return chat("Once")

    kept: list[Attempt] = []
    settings = ApiSettings(url="http://s", model="m", tries=1, concurrency=6)
    with pytest.raises(KeyboardInterrupt):
        ApiSuspect(settings, httpx2.MockTransport(handler)).ask(PROMPTS, kept.append)
    assert [one.outcome for one in kept] == [Outcome.ANSWER] + [Outcome.FAILED] * 5
    assert {one.completion_tokens for one in kept[1:]} == {400}


@pytest.mark.parametrize("status", [301, 429])
def test_why_a_suspect_is_down_is_told(status: int) -> None:
    stopped(lambda _: Answer(status), rf"in a row \(at last status {status}\)")


def test_what_fails_for_a_while_is_tried_again_and_billed() -> None:
    calls = 0

    def handler(_request: httpx2.Request) -> Answer:
        nonlocal calls
        calls += 1
        if calls == 1:
            return Answer(429, headers={"retry-after": "0"})
        if calls == 2:
            raise httpx2.ReadError("cut off in the middle")
        return chat("At last")

    (kept,) = ask(handler, PROMPTS[:1])
    assert (kept.outcome, kept.tries, kept.text) == (Outcome.ANSWER, 3, "At last")
    assert (kept.prompt_tokens, kept.completion_tokens) == (6 + 3, 400 + 5)  # one was cut off
    assert kept.is_estimated


def said_by(request: httpx2.Request) -> str:
    return str(json.loads(request.content)["messages"][-1]["content"])


def stopped(
    handler: Callable[[httpx2.Request], Answer], match: str, prompts: list[Prompt] = PROMPTS
) -> list[Attempt]:
    """Ask until it makes no sense to go on, and return what was kept."""
    settings = ApiSettings(url="http://s", model="m", tries=3, concurrency=1, first_wait_s=0.0)
    kept: list[Attempt] = []
    with pytest.raises(SuspectError, match=match):
        ApiSuspect(settings, httpx2.MockTransport(handler)).ask(prompts, kept.append)
    return kept


@pytest.mark.parametrize("place", [0, 3, 5])
def test_an_empty_answer_is_final_where_another_prompt_has_text(place: int) -> None:
    kept = ask(lambda one: chat("  " if said_by(one)[-1] == str(place) else "Once"), concurrency=1)
    empty = kept.pop(place)
    assert (empty.outcome, empty.tries, empty.is_final) == (Outcome.EMPTY, 3, True)
    assert empty.completion_tokens == 15
    assert all(one.counts for one in kept)


def test_a_suspect_that_answers_with_nothing_but_empty_text_burns_no_plan() -> None:
    many = [Prompt(id=f"p{i}", prompt="x") for i in range(20)]
    kept = stopped(lambda _: chat(None), "larger --max-tokens", many)
    assert [one.outcome for one in kept] == [Outcome.FAILED] * 5  # paid for, and asked again
    assert sum(one.completion_tokens for one in kept) == 5 * 3 * 5
    stopped(lambda _: chat(None), "larger --max-tokens", many[:1])


def test_an_empty_answer_is_final_where_an_earlier_session_had_text() -> None:
    settings = ApiSettings(url="http://s", model="m", tries=1, first_wait_s=0.0)
    suspect = ApiSuspect(settings, httpx2.MockTransport(lambda _: chat(None)))
    suspect.standing.has_answered = True
    kept: list[Attempt] = []
    suspect.ask(PROMPTS, kept.append)
    assert [one.outcome for one in kept] == [Outcome.EMPTY] * 6


def test_an_enormous_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_BYTES", 1000)
    kept, *_ = ask(lambda one: chat("word " * (1000 if said_by(one)[-1] == "0" else 1)))
    assert (kept.outcome, kept.text, kept.counts) == (Outcome.TOO_LARGE, "", False)
    assert (kept.prompt_tokens, kept.completion_tokens, kept.is_estimated) == (6, 400, True)
    untold = Sampling(max_tokens_as=TokensField.NONE)
    kept, *_ = ask(
        lambda one: chat("word " * (1000 if said_by(one)[-1] == "0" else 1)), sampling=untold
    )
    assert kept.completion_tokens > 1 << 20  # a token for every two bytes of the limit


@pytest.mark.parametrize("broken", [b"{", b"[]", b'{"choices": []}', b"\xff", b"<html>"])
def test_an_answer_that_cannot_be_read_is_no_answer(broken: bytes) -> None:
    (kept,) = ask(lambda _: Answer(200, content=broken), PROMPTS[:1])
    assert (kept.outcome, kept.is_final) == (Outcome.FAILED, False)
    assert (kept.prompt_tokens, kept.completion_tokens, kept.is_estimated) == (18, 1200, True)


def test_a_suspect_that_is_down_ends_the_session_and_keeps_what_came() -> None:
    calls = 0

    def handler(_request: httpx2.Request) -> Answer:
        nonlocal calls
        calls += 1
        if calls <= 2:
            return chat("Once")
        raise httpx2.ConnectError("down")

    kept: list[Attempt] = []
    settings = ApiSettings(url="http://s", model="m", tries=1, concurrency=1, first_wait_s=0.0)
    many = [Prompt(id=f"p{i}", prompt="x") for i in range(20)]
    with pytest.raises(
        SuspectError, match=r"no answer to 5 prompts in a row \(at last ConnectError\)"
    ):
        ApiSuspect(settings, transport=httpx2.MockTransport(handler)).ask(many, kept.append)
    assert [one.outcome for one in kept[:2]] == [Outcome.ANSWER] * 2
    assert len(kept) == 7
    assert kept[-1].completion_tokens == 0  # nobody was reached


@pytest.mark.parametrize("bad", ["Tell story 0", "Tell story 3", "Tell story 5"])
@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_prompt_that_is_not_taken_is_final_where_others_are(bad: str, status: int) -> None:
    def handler(request: httpx2.Request) -> Answer:
        said = json.loads(request.content)["messages"][-1]["content"]
        return Answer(status) if said == bad else chat("Once")

    kept = ask(handler, concurrency=1)
    outcomes = {one.prompt: one.outcome for one in kept}
    assert outcomes.pop(f"p{bad[-1]}") is Outcome.UNANSWERABLE
    assert set(outcomes.values()) == {Outcome.ANSWER}
    assert all(one.is_final for one in kept)
    assert count_kinds(PROMPTS, kept)["unanswerable"] == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_fails_for_good_ends_at_once_without_the_prompt(status: int) -> None:
    with pytest.raises(SuspectError, match=f"status {status}") as caught:
        ask(lambda _: Answer(status, text="Tell story"))
    assert "Tell" not in str(caught.value)


class Trickle(httpx2.AsyncByteStream):
    """A body that never stays away for long, and never ends."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.01)
            yield b" "


def test_an_answer_that_trickles_in_runs_out_of_time() -> None:
    (kept,) = ask(lambda _: Answer(200, stream=Trickle()), PROMPTS[:1], timeout_s=0.2, tries=2)
    assert (kept.outcome, kept.detail, kept.tries) == (Outcome.FAILED, "TimeoutError", 2)
    assert (kept.prompt_tokens, kept.completion_tokens, kept.is_estimated) == (12, 800, True)


def test_the_rate_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    here, wait = threading.get_ident(), asyncio.sleep

    async def sleep(seconds: float) -> None:
        if threading.get_ident() != here:  # a server of other tests, in its own thread
            await wait(seconds)
        else:
            slept.append(seconds)

    monkeypatch.setattr("watermark.suspects.client.asyncio.sleep", sleep)
    ask(lambda _: chat("Once"), requests_per_minute=60.0, concurrency=2)
    assert len(slept) == len(PROMPTS)
    assert max(slept) == pytest.approx(5.0, abs=0.5)


def test_kinds_of_answers_are_counted_and_all_of_them_count() -> None:
    texts = [
        "I'm sorry, I can't help.",
        "Once",
        "Once",
        "\u0416\u0438\u043b \u0431\u044b\u043b",
        "",
    ]
    attempts = [
        Attempt(
            prompt=f"p{i}",
            outcome=Outcome.ANSWER if text else Outcome.EMPTY,
            text=text,
            tries=1 + (i == 1),
        )
        for i, text in enumerate(texts)
    ]
    assert count_kinds(PROMPTS, attempts) == {
        "answer": 4, "empty": 1, "other-script": 1, "refusal": 1, "repeated": 1, "retried": 1,
    }  # fmt: skip
    assert sum(one.counts for one in attempts) == 4
    assert is_refusal("As an AI, I")
    assert not is_refusal("I can tell you")
    assert script_of("123") == ""
