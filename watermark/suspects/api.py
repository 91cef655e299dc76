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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import httpx2

from watermark.errors import SuspectError
from watermark.suspects.answers import Attempt, Outcome, answered
from watermark.suspects.dialects import Dialect, Sampling, body_of, headers_of, read_said

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watermark.suspects.answers import Prompt

MAX_BYTES: Final = 1 << 22
_FOR_GOOD: Final = frozenset({401, 402, 403, 404, 405})
_OF_A_PROMPT: Final = frozenset({400, 413, 422})
_DOWN_AFTER: Final = 5  # prompts in a row that nobody answered
_LONGEST_WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """How a server is asked.

    Attributes:
        url: Its base, ending before `/v1`.
        model: The model's name.
        dialect: The endpoint.
        sampling: How it is to answer.
        api_key: Sent as the dialect has it; empty for none.
        concurrency: Requests at a time, >= 1.
        requests_per_minute: At most; 0 for no limit.
        timeout_s: For one whole answer, from the request to its last byte.
        tries: Requests a prompt, >= 1.
        first_wait_s: Before the second try; doubled for each one after.
    """

    url: str
    model: str
    dialect: Dialect = Dialect.CHAT
    sampling: Sampling = field(default_factory=Sampling)
    api_key: str = field(default="", repr=False)
    concurrency: int = 4
    requests_per_minute: float = 0.0
    timeout_s: float = 120.0
    tries: int = 4
    first_wait_s: float = 1.0


class _TryAgainError(Exception):
    """What failed may work later."""

    def __init__(self, reason: str, wait_s: float = 0.0, tokens: tuple[int, int] = (0, 0)) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
        self.tokens = tokens


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
        self._transport = transport
        self._next_start = 0.0
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
        headers = headers_of(self._settings.dialect, self._settings.api_key)
        async with httpx2.AsyncClient(
            base_url=self._settings.url,
            headers=headers,
            timeout=self._settings.timeout_s,
            transport=self._transport,
        ) as client:

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
        settings, spent = self._settings, [0, 0]
        reason = ""
        for number in range(1, settings.tries + 1):
            await self._pace()
            try:
                attempt = await self._try(client, prompt)
            except _TryAgainError as err:
                reason = str(err)
                spent = [spent[0] + err.tokens[0], spent[1] + err.tokens[1]]
                if number < settings.tries:
                    wait = max(err.wait_s, settings.first_wait_s * 2 ** (number - 1))
                    await asyncio.sleep(min(wait, _LONGEST_WAIT_S))
                continue
            self._failed_in_a_row = 0
            return _billed(attempt, spent, number)
        outcome = Outcome.EMPTY if reason == _EMPTY else Outcome.FAILED
        self._failed_in_a_row = 0 if outcome is Outcome.EMPTY else self._failed_in_a_row + 1
        failed = Attempt(prompt=prompt.id, outcome=outcome, detail=reason)
        return _billed(failed, spent, settings.tries)

    async def _pace(self) -> None:
        """Wait until the rate allows another request."""
        if not self._settings.requests_per_minute:
            return
        now = asyncio.get_running_loop().time()  # the same clock in every session
        start = max(now, self._next_start)
        self._next_start = start + 60.0 / self._settings.requests_per_minute
        await asyncio.sleep(start - now)

    async def _try(self, client: httpx2.AsyncClient, prompt: Prompt) -> Attempt:
        settings = self._settings
        body = body_of(settings.dialect, settings.model, prompt.prompt, settings.sampling)
        status, retry_after, data = await _send(
            client, settings.dialect.path, body, settings.timeout_s
        )
        if status in _OF_A_PROMPT:
            return Attempt(
                prompt=prompt.id, outcome=Outcome.UNANSWERABLE, detail=f"status {status}"
            )
        if status in _FOR_GOOD:
            raise SuspectError(
                f"the suspect answered with status {status}; correct URL, model, dialect or API key"
            )
        if status != httpx2.codes.OK:
            raise _TryAgainError(f"status {status}", retry_after)
        if data is None:
            detail = f"more than {MAX_BYTES} bytes"
            return Attempt(prompt=prompt.id, outcome=Outcome.TOO_LARGE, detail=detail)
        try:
            said = read_said(settings.dialect, data)
        except SuspectError as err:
            raise _TryAgainError(str(err)) from None
        if not said.text.strip():
            raise _TryAgainError(_EMPTY, tokens=(said.prompt_tokens, said.completion_tokens))
        return answered(
            prompt,
            said.text,
            model=said.model,
            prompt_tokens=said.prompt_tokens,
            completion_tokens=said.completion_tokens,
        )


_EMPTY: Final = "empty answers"


async def _send(
    client: httpx2.AsyncClient, path: str, body: bytes, timeout_s: float
) -> tuple[int, float, bytes | None]:
    """Return status, seconds that the server asks to wait, and the body; None where it is huge."""
    try:
        async with (
            asyncio.timeout(timeout_s),
            client.stream("POST", path, content=body) as response,
        ):
            data = bytearray()
            async for part in response.aiter_bytes():
                data += part
                if len(data) > MAX_BYTES:
                    return response.status_code, 0.0, None
            retry_after = response.headers.get("retry-after", "")
            wait = float(retry_after) if retry_after.isdigit() else 0.0
            return response.status_code, wait, bytes(data)
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, ValueError) as err:
        raise _TryAgainError(type(err).__name__) from None


def _billed(attempt: Attempt, spent: Sequence[int], tries: int) -> Attempt:
    return Attempt(
        prompt=attempt.prompt,
        outcome=attempt.outcome,
        text=attempt.text,
        model=attempt.model,
        prompt_tokens=attempt.prompt_tokens + spent[0],
        completion_tokens=attempt.completion_tokens + spent[1],
        tries=tries,
        detail=attempt.detail,
    )
