"""An engine's mark is read by its key; one that ignores its switch is found out."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest

from proxy.config import UpstreamConfig
from proxy.errors import UpstreamUnreachableError
from proxy.upstream.client import UpstreamClient
from proxy.upstream.native_probing import NativeMark, read_native_mark
from tests.support.native import KEY, deaf, engine_key, own_key, say
from watermark.keys import ForeignKey
from watermark.text import TokenizerUnit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from watermark.keys import KeyRecord

SGLANG = {"enabled": True, "key": f"{KEY:016x}", "context_window": 1}
SCHEMES = [("vllm-gumbel", {"watermarking": True}), ("sglang-gumbel", {"watermark": SGLANG})]


@pytest.fixture
def unit(tokenizer: Path) -> TokenizerUnit:
    return TokenizerUnit.read(tokenizer)


def ask(
    handle: Callable[[httpx2.Request], httpx2.Response],
    record: KeyRecord | None,
    unit: TokenizerUnit,
) -> tuple[NativeMark, str]:
    async def work() -> tuple[NativeMark, str]:
        transport = httpx2.MockTransport(handle)
        async with UpstreamClient(UpstreamConfig(url="http://u"), transport=transport) as client:
            headers = [(b"authorization", b"Bearer sk")]
            return await read_native_mark(client, "m", record, unit, headers)

    return asyncio.run(work())


def engine(speak: Callable[[Any], str], asked: list[Any], *, chats: bool = True) -> Any:
    def handle(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        asked.append(body)
        if "messages" in body and not chats:
            return httpx2.Response(400, json={"error": "no chat template"})
        said = speak(body)
        choice = {"message": {"content": said}} if "messages" in body else {"text": said}
        return httpx2.Response(200, json={"choices": [choice]})

    return handle


@pytest.mark.parametrize(("scheme", "switch"), SCHEMES)
@pytest.mark.parametrize("chats", [True, False])
def test_a_mark_is_read_and_an_ignored_switch_is_found_out(
    unit: TokenizerUnit, scheme: str, switch: Any, chats: bool
) -> None:
    record, asked = engine_key(unit.unit_id, scheme), list[Any]()
    mark, how = ask(engine(say(record, unit), asked, chats=chats), record, unit)
    assert mark is NativeMark.READ
    assert "over" in how
    assert len(asked) == (1 if chats else 2)
    assert asked[-1].items() >= switch.items()
    mark, how = ask(engine(deaf(unit), asked), record, unit)
    assert mark is NativeMark.IGNORED
    assert how.startswith("log10 p -")


def test_what_is_ignored_is_taken_for_read_no_oftener_than_it_says(unit: TokenizerUnit) -> None:
    """Over 300 keys of ours and one text without a mark: at one in a thousand, two are too many."""
    rng = np.random.default_rng(0)
    text = deaf(unit)(None)
    read = 0
    for _ in range(300):
        secret = ForeignKey("engine", [int(rng.integers(2**63))])
        record = replace(engine_key(unit.unit_id, "vllm-gumbel"), secret=secret)
        mark, _how = ask(engine(lambda _asked: text, []), record, unit)
        read += mark is NativeMark.READ
    assert read <= 2


def test_a_key_of_ours_in_sglang_is_read_too(unit: TokenizerUnit) -> None:
    record = own_key(unit.unit_id)
    assert ask(engine(say(record, unit), []), record, unit)[0] is NativeMark.READ


def test_what_tells_nothing(unit: TokenizerUnit) -> None:
    record = own_key(unit.unit_id)
    assert ask(engine(deaf(unit), []), None, unit)[0] is NativeMark.NO_KEY
    assert ask(engine(lambda _asked: "", []), record, unit)[0] is NativeMark.UNANSWERED
    refused = lambda _request: httpx2.Response(500, json={})
    assert ask(refused, record, unit)[0] is NativeMark.UNANSWERED

    def gone(_request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("no")

    with pytest.raises(UpstreamUnreachableError):
        ask(gone, record, unit)
