"""A round of choices over several requests side by side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from proxy.errors import UpstreamProtocolError
from proxy.sampling.budget import Budget, BudgetLimits
from proxy.sampling.questions import Continuation, Draft, Drafted, Finish
from proxy.upstream.parallel import ParallelUpstream
from watermark.wire.openai_requests import DialectName, parse_request

if TYPE_CHECKING:
    from collections.abc import Sequence

REQUEST = parse_request(DialectName.TEXT, msgspec.json.encode({"model": "m", "prompt": "x"}))


class Slow:
    """Answers once all requests of the round are under way, or refuses one of them."""

    def __init__(self, *, refuses: int = -1) -> None:
        self.drafts: list[Draft] = []
        self.cancelled = 0
        self._refuses = refuses

    async def context_limit(self, model: str, headers: Any) -> int | None:
        return len(model) + len(headers)

    async def prompt_ids(self, request: Any, headers: Any) -> list[int]:
        return [len(request.model), len(headers)]

    async def draft(
        self, _request: Any, _prompt: Sequence[int], draft: Draft, _headers: Any
    ) -> Drafted:
        place = len(self.drafts)
        self.drafts.append(draft)
        try:
            await asyncio.sleep(0.01 if place == self._refuses else 0.05)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if place == self._refuses:
            raise UpstreamProtocolError("no")
        one = Continuation(tokens=(place,), finish=Finish.LENGTH)
        return Drafted((one,) * draft.n, prompt_tokens=5, room=20 - place)


def ask(upstream: Slow, n: int, *, max_n: int, seed: int | None = None) -> Drafted:
    draft = Draft(tokens=(), n=n, max_tokens=1, seed=seed)
    return asyncio.run(ParallelUpstream(upstream, max_n=max_n).draft(REQUEST, [], draft, []))


def test_a_round_is_split_and_joined() -> None:
    upstream = Slow()
    answer = ask(upstream, 5, max_n=2, seed=10)
    assert [(one.n, one.seed) for one in upstream.drafts] == [(2, 10), (2, 12), (1, 14)]
    assert [one.tokens for one in answer.continuations] == [(0,), (0,), (1,), (1,), (2,)]
    assert (answer.prompt_tokens, answer.room, answer.requests) == (5, 18, 3)
    budget = Budget(BudgetLimits(requests=3), lambda: 0.0)
    budget.charge(answer)
    assert budget.is_spent


def test_a_round_that_fits_is_one_request() -> None:
    upstream = Slow()
    assert ask(upstream, 2, max_n=2).requests == 1
    assert len(upstream.drafts) == 1


def test_a_request_that_fails_cancels_the_others() -> None:
    upstream = Slow(refuses=1)
    with pytest.raises(UpstreamProtocolError, match="no"):
        ask(upstream, 3, max_n=1)
    assert upstream.cancelled == 2


def test_prompts_and_limits_are_the_upstreams() -> None:
    one = ParallelUpstream(Slow(), max_n=1)
    assert asyncio.run(one.context_limit("abc", [])) == 3
    assert asyncio.run(one.prompt_ids(REQUEST, [])) == [1, 0]
