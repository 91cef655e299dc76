"""Continuous batching: all replies in progress advance together, one token a step.

One thread runs the model; the event loop only hands work over and takes results. Choices join and
leave the batch between steps, whatever request they belong to.

Rules:

1. Work that nobody waits for any more leaves the batch at the next step.
2. A step that fails fails the requests in it; the engine goes on.
3. The event loop is woken once a step, and by replies that are not streamed only at their end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

from proxy.errors import EmbeddedError
from watermark.wire.usage import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from proxy.embedded.generation import Generation
    from proxy.embedded.language_model import LanguageModel, Session
    from watermark.wire.openai_answers import Piece

logger = logging.getLogger(__name__)


class Ticket:
    """A request's choices in the engine, and the way back to the one who asked."""

    def __init__(
        self,
        generations: Sequence[Generation],
        *,
        prompts: Sequence[Sequence[int]],
        is_streamed: bool,
    ) -> None:
        self.generations = tuple(generations)
        self._prompts = prompts
        self.is_streamed = is_streamed
        self._queue: asyncio.Queue[list[Piece] | EmbeddedError] = asyncio.Queue()
        self._unfinished = len(self.generations)

    def usage(self) -> Usage:
        """Return the token counts so far."""
        per_prompt = len(self.generations) // len(self._prompts)
        return Usage(
            prompt_tokens=sum(map(len, self._prompts)),
            completion_tokens=sum(len(generation.pieces) for generation in self.generations),
            cached_tokens=sum(one.row.cached_tokens for one in self.generations[::per_prompt]),
        )

    def put(self, item: list[Piece] | EmbeddedError) -> None:
        """Take pieces, or the failure of a step; called on the event loop."""
        self._queue.put_nowait(item)

    def cancel(self) -> None:
        """Say that nobody waits any more."""
        for generation in self.generations:
            generation.is_cancelled = True

    async def batches(self) -> AsyncIterator[list[Piece]]:
        """Yield pieces as they come, all that have come at a time.

        Raises:
            EmbeddedError: The model failed.
        """
        while self._unfinished:
            pieces = self._take(await self._queue.get())
            while not self._queue.empty():
                pieces = pieces + self._take(self._queue.get_nowait())
            self._unfinished -= sum(piece.finish_reason is not None for piece in pieces)
            yield pieces

    async def finished(self) -> None:
        """Wait until every choice is complete.

        Raises:
            EmbeddedError: The model failed.
        """
        async for _pieces in self.batches():
            pass

    @staticmethod
    def _take(item: list[Piece] | EmbeddedError) -> list[Piece]:
        if isinstance(item, EmbeddedError):
            raise item
        return item


class Engine:
    """Runs one model for many requests; started and stopped by the server's lifespan."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._wake = threading.Condition()
        self._waiting: deque[tuple[Ticket, Generation]] = deque()
        self._active: list[tuple[Ticket, Generation]] = []
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def active_rows(self) -> int:
        """How many choices the last step advanced or the next one will."""
        return len(self._active)

    @property
    def waiting_rows(self) -> int:
        """How many choices wait for a place in the batch."""
        return len(self._waiting)

    def start(self) -> None:
        """Start the thread; called on the event loop that takes the results."""
        self._loop = asyncio.get_running_loop()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="embedded-engine", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Let the step in progress end, fail what is left, and join the thread."""
        if self._thread is None:
            return
        with self._wake:
            self._is_stopping = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)
        self._thread = None
        for ticket, _generation in (*self._active, *self._waiting):
            ticket.put(EmbeddedError("the server is shutting down"))
        self._active.clear()
        self._waiting.clear()

    def submit(self, ticket: Ticket) -> None:
        """Queue a request's choices; they join the batch at the next step with room."""
        with self._wake:
            self._waiting.extend((ticket, generation) for generation in ticket.generations)
            self._wake.notify()

    def _run(self) -> None:
        session = self._model.open_session()
        while self._await_work(session):
            if not self._active:
                continue
            try:
                self._step(session)
            except Exception:  # Any fault of a model must not end the service of the others.
                logger.exception("a step of the embedded model failed")
                self._fail_active(session)

    def _await_work(self, session: Session) -> bool:
        with self._wake:
            while not (self._waiting or self._active or self._is_stopping):
                self._wake.wait()
            if self._is_stopping:
                return False
            self._drop_cancelled(session)
            while self._waiting and len(self._active) < session.max_rows:
                ticket, generation = self._waiting.popleft()
                if not generation.is_cancelled:
                    self._active.append((ticket, generation))
            return True

    def _drop_cancelled(self, session: Session) -> None:
        for _ticket, generation in self._active:
            if generation.is_cancelled:
                session.release(generation.row)
        self._active = [entry for entry in self._active if not entry[1].is_cancelled]

    def _step(self, session: Session) -> None:
        logits = session.logits([generation.row for _ticket, generation in self._active])
        staying: list[tuple[Ticket, Generation]] = []
        news: dict[Ticket, list[Piece]] = {}
        for entry, row_logits in zip(self._active, logits, strict=True):
            ticket, generation = entry
            piece = generation.advance(row_logits)
            if piece.finish_reason is None:
                staying.append(entry)
            else:
                session.release(generation.row)
            if ticket.is_streamed or piece.finish_reason is not None:
                news.setdefault(ticket, []).append(piece)
        self._active = staying
        if news:
            self._post([*news.items()])

    def _fail_active(self, session: Session) -> None:
        failed, self._active = self._active, []
        for ticket, generation in failed:
            session.release(generation.row)
            ticket.cancel()
        error = EmbeddedError("the model failed at this step; the server's log has the cause")
        self._post([(ticket, error) for ticket, _generation in failed])

    def _post(self, news: list[tuple[Ticket, list[Piece] | EmbeddedError]]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # The loop closed without a lifespan's end.
                self._loop.call_soon_threadsafe(_deliver, news)


def _deliver(news: list[tuple[Ticket, list[Piece] | EmbeddedError]]) -> None:
    for ticket, item in news:
        ticket.put(item)
