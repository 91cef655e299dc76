"""A suspect behind a URL: many requests at a time, within a rate, and never more than were agreed.

Rule 1: what fails for a while (429, 5xx, a cut connection, an answer that cannot be read, an empty
one) is tried again within bounds, later each time; what fails for good (401, 404) ends the session
at once. What fails as one prompt may (400, 413, 422) is put aside until another prompt is answered,
which shows that it is the prompt; then it is final. Rule 2: after a run of
prompts without an answer the suspect counts as down. Rule 3: prompts and answers go to this server
and into no message.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from watermark.errors import SuspectError
from watermark.suspects.answers import Attempt, Outcome, answered
from watermark.suspects.client import MAX_BYTES, OF_A_PROMPT, ApiSettings, Line, TryAgainError
from watermark.suspects.dialects import body_of, read_said
from watermark.suspects.spending import estimated_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import httpx2

    from watermark.suspects.answers import Prompt

_DOWN_AFTER: Final = 5  # prompts in a row that nobody answered
_EMPTY: Final = "empty answers"


class ApiSuspect:
    """One model behind a URL.

    Args:
        settings: How it is asked.
        transport: What carries requests; None for the network.
    """

    def __init__(
        self, settings: ApiSettings, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._settings = settings
        self._line = Line(settings, transport)
        self._failed_in_a_row = 0
        self._has_answered = False
        self._aside: list[Attempt] = []

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
                    for attempt in self._ready(await self._ask(client, waiting.pop())):
                        keep(attempt)
                    self._check_up()

            tasks = [asyncio.create_task(work()) for _ in range(self._settings.concurrency)]
            try:
                await asyncio.gather(*tasks)
                self._check_answers()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _ready(self, attempt: Attempt) -> list[Attempt]:
        """Return what may be kept now: what was not taken waits for an answer (rule 1)."""
        self._has_answered |= attempt.counts
        if attempt.outcome is not Outcome.UNANSWERABLE:
            found = [attempt]
        else:
            self._aside.append(attempt)
            found = []
        if self._has_answered:
            found, self._aside = [*found, *self._aside], []
        return found

    def _check_answers(self) -> None:
        """Refuse to call prompts unanswerable where none was answered."""
        if self._aside:
            raise SuspectError(
                f"the suspect answered with {self._aside[0].detail}, and to nothing; correct URL, "
                "model, dialect or API key"
            )

    def _check_up(self) -> None:
        if len(self._aside) >= _DOWN_AFTER:
            self._check_answers()
        if self._failed_in_a_row >= _DOWN_AFTER:
            raise SuspectError(
                f"the suspect gave no answer to {self._failed_in_a_row} prompts in a row; run the "
                "command again once it is up"
            )

    async def _ask(self, client: httpx2.AsyncClient, prompt: Prompt) -> Attempt:
        """Return how asking one prompt ended, after several tries where it takes them (rule 1)."""
        spent, reason = [0, 0], ""

        def failed(err: TryAgainError) -> None:
            nonlocal reason
            reason = str(err)
            spent[:] = [spent[0] + err.tokens[0], spent[1] + err.tokens[1]]

        attempt, tries = await self._line.persist(lambda: self._try(client, prompt), failed)
        if attempt is not None:
            self._failed_in_a_row = 0
            return _billed(attempt, spent, tries)
        outcome = Outcome.EMPTY if reason == _EMPTY else Outcome.FAILED
        self._failed_in_a_row = 0 if outcome is Outcome.EMPTY else self._failed_in_a_row + 1
        return _billed(Attempt(prompt=prompt.id, outcome=outcome, detail=reason), spent, tries)

    async def _try(self, client: httpx2.AsyncClient, prompt: Prompt) -> Attempt:
        settings = self._settings
        body = body_of(settings.dialect, settings.model, prompt.prompt, settings.sampling)
        reply = await self._line.send(client, settings.dialect.path, body)
        if reply.status in OF_A_PROMPT:
            detail = f"status {reply.status}"
            return Attempt(prompt=prompt.id, outcome=Outcome.UNANSWERABLE, detail=detail)
        if reply.data is None:
            detail = f"more than {MAX_BYTES} bytes"
            return Attempt(prompt=prompt.id, outcome=Outcome.TOO_LARGE, detail=detail)
        try:
            said = read_said(settings.dialect, reply.data)
        except SuspectError as err:
            raise TryAgainError(str(err)) from None
        if not said.text.strip():
            raise TryAgainError(_EMPTY, tokens=(said.prompt_tokens, said.completion_tokens))
        tokens = said.prompt_tokens, said.completion_tokens
        if not said.has_usage:
            system = settings.sampling.system
            tokens = estimated_tokens(system + prompt.prompt), estimated_tokens(said.text)
        return answered(
            prompt,
            said.text,
            model=said.model,
            prompt_tokens=tokens[0],
            completion_tokens=tokens[1],
            is_estimated=not said.has_usage,
        )


def _billed(attempt: Attempt, spent: Sequence[int], tries: int) -> Attempt:
    return Attempt(
        prompt=attempt.prompt,
        outcome=attempt.outcome,
        text=attempt.text,
        model=attempt.model,
        prompt_tokens=attempt.prompt_tokens + spent[0],
        completion_tokens=attempt.completion_tokens + spent[1],
        tries=tries,
        is_estimated=attempt.is_estimated,
        detail=attempt.detail,
    )
