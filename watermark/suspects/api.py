"""A suspect behind a URL: many requests at a time, within a rate, and never more than were agreed.

Rule 1: what fails for a while (429, 5xx, a cut connection, an answer that cannot be read, an empty
one) is tried again within bounds, later each time; what fails for good (401, 404) ends the session
at once; what fails as one prompt may (400, 413, 422) is final once another prompt is answered
(`standing`). Rule 2: whatever may have been billed is booked, by what the server says, else by a
guess that is flagged: an answer that was given up or cut off, and one in flight when the session
ends. Rule 3: prompts and answers go to this server and into no message.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from watermark.errors import SuspectError
from watermark.radioactivity.plan import TokensField
from watermark.suspects.answers import Attempt, Outcome, answered
from watermark.suspects.client import MAX_BYTES, OF_A_PROMPT, ApiSettings, Line, TryAgainError
from watermark.suspects.dialects import body_of, read_said
from watermark.suspects.spending import BYTES_A_TOKEN, estimated_tokens
from watermark.suspects.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import httpx2

    from watermark.suspects.answers import Prompt
    from watermark.suspects.dialects import Said

_EMPTY: Final = "empty answers"
_INTERRUPTED: Final = "interrupted"


class ApiSuspect:
    """One model behind a URL.

    Args:
        settings: How it is asked.
        transport: What carries requests; None for the network.

    Attributes:
        standing: Whether it is up.
    """

    def __init__(
        self, settings: ApiSettings, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._settings = settings
        self._line = Line(settings, transport)
        self.standing = Standing(
            remedy="run the command again once it is up",
            refused="correct URL, model, dialect or API key",
        )

    def __repr__(self) -> str:
        """Show where it is."""
        return f"<ApiSuspect {self._settings.model!r} at {self._settings.url!r}>"

    def ask(self, prompts: Sequence[Prompt], keep: Callable[[Attempt], None]) -> None:
        """Ask every prompt, several at a time.

        Raises:
            SuspectError: The server refuses for good, or is down.
        """
        asyncio.run(self._ask_all(prompts, keep))

    async def _ask_all(self, prompts: Sequence[Prompt], keep: Callable[[Attempt], None]) -> None:
        waiting = list(reversed(prompts))
        async with self._line.client() as client:

            async def work() -> None:
                while waiting:
                    self.standing.take(await self._ask(client, waiting.pop(), keep), keep)

            tasks = [asyncio.create_task(work()) for _ in range(self._settings.concurrency)]
            try:
                await asyncio.gather(*tasks)
                self.standing.check_answers()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self.standing.end(keep)

    async def _ask(
        self, client: httpx2.AsyncClient, prompt: Prompt, keep: Callable[[Attempt], None]
    ) -> Attempt:
        """Return how asking one prompt ended, after several tries where it takes them (rule 1)."""
        sampling = self._settings.sampling
        bill = _Bill(estimated_tokens(sampling.system + prompt.prompt), sampling.max_tokens)
        try:
            attempt, _ = await self._line.persist(
                lambda: self._try(client, prompt, bill), bill.fail
            )
        except asyncio.CancelledError:
            if bill.is_open:
                bill.guess()
                found = Attempt(prompt=prompt.id, outcome=Outcome.FAILED, detail=_INTERRUPTED)
                keep(bill.booked(found))
            raise
        if attempt is None:
            outcome = Outcome.EMPTY if bill.reason == _EMPTY else Outcome.FAILED
            attempt = Attempt(prompt=prompt.id, outcome=outcome, detail=bill.reason)
        return bill.booked(attempt)

    async def _try(self, client: httpx2.AsyncClient, prompt: Prompt, bill: _Bill) -> Attempt:
        settings = self._settings
        body = body_of(settings.dialect, settings.model, prompt.prompt, settings.sampling)
        bill.begin()
        reply = await self._line.send(client, settings.dialect.path, body)
        bill.is_open = False
        if reply.status in OF_A_PROMPT:
            detail = f"status {reply.status}"
            return Attempt(prompt=prompt.id, outcome=Outcome.UNANSWERABLE, detail=detail)
        if reply.data is None:
            is_untold = settings.sampling.max_tokens_as is TokensField.NONE
            bill.guess(MAX_BYTES // BYTES_A_TOKEN if is_untold else 0)
            detail = f"more than {MAX_BYTES} bytes"
            return Attempt(prompt=prompt.id, outcome=Outcome.TOO_LARGE, detail=detail)
        try:
            said = read_said(settings.dialect, reply.data)
        except SuspectError as err:
            raise TryAgainError(str(err), may_be_billed=True) from None
        bill.add(said)
        if not said.text.strip():
            raise TryAgainError(_EMPTY)
        return answered(prompt, said.text, model=said.model)


@dataclass(slots=True)
class _Bill:
    """What asking one prompt costs, over all tries (rule 2).

    Attributes:
        likely_prompt: Tokens of the prompt, guessed.
        most_said: Tokens of the longest answer.
        is_open: Whether a request is on its way.
        reason: Why the last try failed.
    """

    likely_prompt: int
    most_said: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    is_estimated: bool = False
    tries: int = 0
    is_open: bool = False
    reason: str = ""

    def begin(self) -> None:
        self.is_open = True
        self.tries += 1

    def guess(self, at_least: int = 0) -> None:
        self.prompt_tokens += self.likely_prompt
        self.completion_tokens += max(self.most_said, at_least)
        self.is_estimated = True

    def add(self, said: Said) -> None:
        """Add an answer; of one without text that says no number everything may be billed."""
        guessed = estimated_tokens(said.text) if said.text.strip() else self.most_said
        prompt, completion = said.prompt_tokens, said.completion_tokens
        self.prompt_tokens += self.likely_prompt if prompt is None else prompt
        self.completion_tokens += guessed if completion is None else completion
        self.is_estimated |= prompt is None or completion is None

    def fail(self, err: TryAgainError) -> None:
        self.is_open, self.reason = False, str(err)
        if err.may_be_billed:
            self.guess()

    def booked(self, attempt: Attempt) -> Attempt:
        return msgspec.structs.replace(
            attempt,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            is_estimated=self.is_estimated,
            tries=self.tries,
        )
