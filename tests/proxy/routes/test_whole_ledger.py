"""`reply` in every dialect: the chosen text reaches the ledger and the running self-test."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from proxy.config import LedgerConfig, SelftestConfig
from tests.proxy.routes.test_whole_fields import TEXTS, answering, choice, whole_model
from tests.support.asgi import proxied, scenario
from tests.support.disks import Disk
from tests.support.ledgers import by_kind, make_settings, open_ledger, rows_in
from watermark.keys import SecretKey
from watermark.ledger import Kind, unpack_fingerprints
from watermark.seeding import ContextPRF
from watermark.text import WordsUnit

if TYPE_CHECKING:
    from pathlib import Path

MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 90}
ASKED = {
    "/v1/chat/completions": MESSAGES | {"n": 2},
    "/v1/messages": MESSAGES,
    "/v1/responses": {"input": "?"},
}


def contexts_of(text: str) -> set[tuple[int, int]]:
    ids = WordsUnit().encode(text).tolist()
    return {(ids[i - 2], ids[i - 1]) for i in range(2, len(ids))}


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_what_was_chosen_is_kept_and_tested(
    tokenizer: Path, tmp_path: Path, path: str, is_streamed: bool
) -> None:
    settings, disk = make_settings(tmp_path), Disk(f"whole{path}-{is_streamed}")
    body: dict[str, Any] = {"model": "m", "stream": is_streamed} | ASKED[path]
    said: list[str] = []

    async def work() -> None:
        async with proxied(
            answering(choice, []),
            tokenizer,
            model=whole_model(),
            selftest=SelftestConfig(share=1.0),
            ledger=LedgerConfig(file="LEDGER.toml"),
            open_ledger=lambda: open_ledger(settings, disk),
        ) as on:
            answer = await on.client.post(path, json=body)
            assert answer.headers["x-watermark"] == "marked; path=reply; key=test"
            said.append(answer.text)
            deadline = asyncio.get_running_loop().time() + 10
            while await on.metric("watermark_selftest_replies_total") < body.get("n", 1):
                assert asyncio.get_running_loop().time() < deadline

    scenario(work)
    rows = by_kind(rows_in(settings, disk))
    (begun,), (ended,) = rows[Kind.BEGIN], rows[Kind.END]
    assert (begun.path, begun.unit, ended.outcome) == ("reply", "words/v1", "finish")
    chosen = [text for text in TEXTS if text in said[0]]
    contexts = set[tuple[int, int]]().union(*map(contexts_of, chosen))
    prf = ContextPRF(SecretKey("test", b"k" * 32).subkey("context", 16))
    wanted = sorted(prf.evaluate(np.array(sorted(contexts), np.uint32))[0].tolist())
    assert unpack_fingerprints(ended.contents or b"").tolist() == wanted
