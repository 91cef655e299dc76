"""Several requests side by side for one round, where the API gives few choices a request.

Choices of one round are independent draws after the same text, so it does not matter which
request drew which. What one request fails with, the round fails with; the others are cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from proxy.sampling.questions import Drafted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.sampling.questions import Draft
    from proxy.upstream.continuing import Upstream
    from watermark.wire.openai_requests import GenerationRequest

    Pairs = list[tuple[bytes, bytes]]


class ParallelUpstream:
    """Asks an upstream for at most so many choices at a time."""

    def __init__(self, upstream: Upstream, *, max_n: int) -> None:
        """Ask through an upstream.

        Args:
            upstream: How one request is made.
            max_n: Most choices a request.
        """
        self._upstream = upstream
        self._max_n = max_n

    async def context_limit(self, model: str, headers: Pairs) -> int | None:
        """Return how many tokens a model's context holds, None where it cannot be known now."""
        return await self._upstream.context_limit(model, headers)

    async def prompt_ids(self, request: GenerationRequest, headers: Pairs) -> list[int]:
        """Return the ids of the request's prompt; none where the upstream continues text."""
        return await self._upstream.prompt_ids(request, headers)

    async def draft(
        self, request: GenerationRequest, prompt: Sequence[int], draft: Draft, headers: Pairs
    ) -> Drafted:
        """Return continuations.

        Raises:
            UpstreamError: A request was refused, not answered, or not in form.
        """
        parts = self._parts(draft)
        if len(parts) == 1:
            return await self._upstream.draft(request, prompt, draft, headers)
        tasks = [
            asyncio.ensure_future(self._upstream.draft(request, prompt, part, headers))
            for part in parts
        ]
        try:
            return _joined(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    def _parts(self, draft: Draft) -> list[Draft]:
        """Return drafts of few choices; choice i of a seeded request draws with seed + i."""
        return [
            replace(
                draft,
                n=min(self._max_n, draft.n - start),
                seed=None if draft.seed is None else draft.seed + start,
            )
            for start in range(0, draft.n, self._max_n)
        ]


def _joined(answers: Sequence[Drafted]) -> Drafted:
    rooms = [one.room for one in answers if one.room is not None]
    return Drafted(
        tuple(each for one in answers for each in one.continuations),
        prompt_tokens=answers[0].prompt_tokens,
        room=min(rooms, default=None),
        requests=sum(one.requests for one in answers),
    )
