"""Drive choices: put their questions to the upstream, and merge their pieces."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeAlias

from proxy.sampling.questions import Draft

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence

    from proxy.sampling.questions import Drafted
    from watermark.wire.openai_answers import Piece

Ask: TypeAlias = "Callable[[Draft], Awaitable[Drafted]]"
Pieces: TypeAlias = "tuple[Piece, ...]"


async def pieces_of(
    choice: Generator[Draft | Pieces, Drafted | None, None], ask: Ask
) -> AsyncGenerator[Pieces]:
    """Yield a choice's pieces, asking the upstream between them."""
    answer: Drafted | None = None
    while True:
        try:
            event = choice.send(answer)
        except StopIteration:
            return
        if isinstance(event, Draft):
            answer = await ask(event)
        else:
            answer = None
            yield event


async def merge(sources: Sequence[AsyncGenerator[Pieces]]) -> AsyncGenerator[Pieces]:
    """Yield from all sources as they come; the first failure ends all of them.

    Close it (`contextlib.aclosing`): whoever leaves early leaves no request behind.
    """
    queue: asyncio.Queue[Pieces | BaseException | None] = asyncio.Queue(maxsize=len(sources))
    tasks = [asyncio.ensure_future(_feed(source, queue)) for source in sources]
    try:
        running = len(tasks)
        while running:
            item = await queue.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _feed(
    source: AsyncGenerator[Pieces], queue: asyncio.Queue[Pieces | BaseException | None]
) -> None:
    try:
        async with contextlib.aclosing(source):
            async for pieces in source:
                await queue.put(pieces)
        await queue.put(None)
    except Exception as error:  # noqa: BLE001 - raised again by whoever reads the queue
        await queue.put(error)
