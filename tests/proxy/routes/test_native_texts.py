"""What an engine's answer says, in every dialect: kept in the ledger, and tested for its mark."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.support.disks import Disk
from tests.support.ledgers import by_kind, make_settings, open_ledger, rows_in
from tests.support.native import CHAT, URL, deaf, engine_key, say, serving
from tests.support.servers import eventually
from watermark.ledger import Kind, engine_context_key, unpack_fingerprints
from watermark.seeding import ContextPRF, context_windows
from watermark.text import TokenizerUnit
from watermark.wire.sse import DONE, json_event, typed_event

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.fake_upstream import Turn
    from tests.support.native import On
    from watermark.keys import KeyRecord
    from watermark.ledger import LedgerSettings, Row

N_ANSWERS = 6


def vllm_key(unit: str) -> KeyRecord:
    """A key of the one engine that marks in every dialect."""
    return replace(engine_key(unit, "vllm-gumbel"), context_width=4)


@pytest.fixture
def unit(tokenizer: Path) -> TokenizerUnit:
    return TokenizerUnit.read(tokenizer)


def whole_of(path: str, texts: list[str]) -> dict[str, Any]:
    """Return an answer with other things between its texts."""
    if path == "/v1/messages":
        call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
        parts: list[dict[str, Any]] = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
        for text in texts:
            parts += [{"type": "text", "text": text, "citations": None}, call]
        return {"type": "message", "content": parts, "usage": {"output_tokens": 160}}
    if path == "/v1/responses":
        items: list[dict[str, Any]] = [{"type": "reasoning", "content": None, "summary": []}]
        for text in texts:
            part = {"type": "output_text", "text": text, "annotations": []}
            items += [{"type": "message", "content": [part]}, {"type": "function_call"}]
        return {"object": "response", "output": items, "usage": {"output_tokens": 160}}
    listed = [{"type": "text", "text": text} for text in texts[:1]]
    message = {"content": [{"type": "thinking", "thinking": []}, *listed]}
    return {"choices": [{"message": message}], "usage": {"completion_tokens": 80}}


def events_of(path: str, texts: list[str]) -> list[dict[str, Any]]:
    """Return the same as the events of a stream."""
    events: list[dict[str, Any]] = []
    for place, text in enumerate(texts, start=1):
        for part in (text[:50], text[50:]):
            if path == "/v1/messages":
                delta = {"type": "text_delta", "text": part}
                events.append({"type": "content_block_delta", "index": place, "delta": delta})
            else:
                where = {"output_index": place, "content_index": 0, "delta": part}
                events.append({"type": "response.output_text.delta"} | where)
    if path == "/v1/messages":
        return [*events, {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 160}}]
    usage = {"usage": {"output_tokens": 160}, "output": None}
    return [*events, {"type": "response.completed", "response": usage}]


def written(path: str, texts: list[str], *, is_streamed: bool) -> tuple[bytes, str]:
    """Return the bytes of an answer, and what they are called."""
    if not is_streamed:
        return json.dumps(whole_of(path, texts)).encode(), "application/json"
    if path == URL:
        deltas = [{"content": [{"type": "text", "text": part}]} for part in (*texts, None, "")]
        bodies = [{"choices": [{"index": 0, "delta": one}]} for one in deltas]
        return b"".join(map(json_event, bodies)) + DONE, "text/event-stream"
    return b"".join(map(typed_event, events_of(path, texts))), "text/event-stream"


def asked(path: str, *, is_streamed: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "m", "stream": is_streamed}
    if path == "/v1/responses":
        return body | {"input": "?", "max_output_tokens": 200}
    return body | {"messages": CHAT["messages"], "max_tokens": 200}


def check_contents(
    rows: list[Row], spoken: list[list[str]], unit: TokenizerUnit, settings: LedgerSettings
) -> None:
    """Hold rows against the contexts of every text alone."""
    prf = ContextPRF(engine_context_key(settings.secret()))
    assert len(rows) == len(spoken)
    for row, texts in zip(rows, spoken, strict=True):
        ids = [unit.encode(text) for text in texts]
        assert row.n_tokens == sum(map(len, ids))
        contexts = np.concatenate([context_windows(one, 2)[: len(one) - 2] for one in ids])
        wanted = sorted(set(prf.evaluate(contexts)[0].tolist()))
        assert unpack_fingerprints(row.contents or b"").tolist() == wanted


async def effect_of(on: On, n_texts: int) -> float:
    """Return the effect once all texts were tested."""
    deadline = asyncio.get_running_loop().time() + 10
    while await on.metric("watermark_selftest_replies_total") < n_texts:
        assert asyncio.get_running_loop().time() < deadline
    return await on.metric("watermark_selftest_effect")


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", URL])
@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("is_marked", [False, True])
def test_every_text_of_an_answer_is_kept_and_tested_apart(
    tokenizer: Path,
    unit: TokenizerUnit,
    tmp_path: Path,
    *,
    path: str,
    is_streamed: bool,
    is_marked: bool,
) -> None:
    """Two items, a call of a tool between them; an engine begins its contexts anew after it."""
    settings, disk = make_settings(tmp_path), Disk(f"native{path}-{is_streamed}-{is_marked}")
    speak: Callable[[Any], str] = say(vllm_key(unit.unit_id), unit) if is_marked else deaf(unit)
    spoken: list[list[str]] = []

    def said(_turn: Turn, text: str) -> tuple[bytes, str]:
        spoken.append([text] if path == URL else [text, speak(None)])
        return written(path, spoken[-1], is_streamed=is_streamed)

    async def work() -> None:
        opener = lambda: open_ledger(settings, disk)
        async with serving(tokenizer, vllm_key, "vllm", speak, ledger=opener, said=said) as on:
            for _ in range(N_ANSWERS):
                answer = await on.client.post(path, json=asked(path, is_streamed=is_streamed))
                assert answer.headers["x-watermark"] == "marked; path=native; key=engine"
                assert answer.content == on.answers[-1]
            effect = await effect_of(on, sum(map(len, spoken)))
            assert (effect > 1) == is_marked

    asyncio.run(work())
    check_contents(by_kind(rows_in(settings, disk))[Kind.END], spoken, unit, settings)


def test_who_leaves_before_the_end_is_counted_with_what_he_had(
    tokenizer: Path, unit: TokenizerUnit, tmp_path: Path
) -> None:
    settings, disk = make_settings(tmp_path), Disk("native-left")

    async def work() -> None:
        opener = lambda: open_ledger(settings, disk)
        async with serving(tokenizer, vllm_key, "vllm", ledger=opener) as on:
            on.upstream.behave = never_ends
            async with on.client.stream("POST", URL, json=CHAT | {"stream": True}) as answer:
                await anext(answer.aiter_raw())
            await eventually(on.upstream.left.is_set)
            deadline = asyncio.get_running_loop().time() + 10
            while not await on.metric("watermark_delivered_tokens_total"):
                assert asyncio.get_running_loop().time() < deadline

    async def never_ends(turn: Turn) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        await turn.raw(head + b"transfer-encoding: chunked\r\n\r\n")
        await turn.chunk(json_event({"choices": [{"delta": {"content": "kept so far"}}]}))
        await turn.until_gone()

    asyncio.run(work())
    (row,) = by_kind(rows_in(settings, disk))[Kind.END]
    assert (row.outcome, row.n_tokens) == ("abort", len(unit.encode("kept so far")))
