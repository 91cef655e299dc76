"""More than a thousand streams at a time through one worker: none is lost, none is cut.

Source: bugs of gateways that end at a thousand streams (production-stack #448).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx2
import pytest

from benchmarks.ban import OTHER, Stream, serving, write_folder
from tests.support.fake_upstream import FakeUpstream

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_upstream import Turn

STREAMS = 1100
BETWEEN_S = 0.01
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BODY = (b'data: {"n": 1}\n\n', b'data: {"n": 2}\n\n', b"data: [DONE]\n\n")


async def run(folder: Path) -> list[bytes]:
    """Open the streams, have all of them open at once, and return what each got."""
    may_end = asyncio.Event()

    async def behave(turn: Turn) -> None:
        if turn.request.target == b"/v1/models":
            await turn.answer({"data": [{"id": "m", "max_model_len": 100_000}]})
            return
        await turn.raw(HEAD)
        await turn.chunk(BODY[0])
        await may_end.wait()
        for event in BODY[1:]:
            await turn.chunk(event)
        await turn.raw(b"0\r\n\r\n")

    async with FakeUpstream(behave).serving() as upstream:
        write_folder(folder, upstream.url, 1)
        async with serving(folder) as address:
            streams = [Stream() for _ in range(STREAMS)]
            tasks = []
            for one in streams:
                tasks.append(asyncio.ensure_future(one.run(address, OTHER, is_marked=False)))
                await asyncio.sleep(BETWEEN_S)
            await asyncio.gather(*(one.has_begun.wait() for one in streams))
            assert not any(task.done() for task in tasks)  # all are open now
            async with httpx2.AsyncClient(trust_env=False, timeout=60) as client:
                (await client.get(f"http://{address}/watermark/health")).raise_for_status()
            may_end.set()
            await asyncio.gather(*tasks)
            return [bytes(one.data) for one in streams]


@pytest.mark.slow
def test_more_than_a_thousand_streams_are_open_at_once(tmp_path: Path) -> None:
    found = asyncio.run(asyncio.wait_for(run(tmp_path), 240))
    for data in found:
        places = [data.find(event.strip()) for event in BODY]
        assert -1 < places[0] < places[1] < places[2], data[-300:]
        assert data.startswith(b"HTTP/1.1 200 ")
