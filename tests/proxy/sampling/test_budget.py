"""A path stops at the first limit it reaches."""

from __future__ import annotations

import pytest

from proxy.sampling.budget import Budget, BudgetLimits
from proxy.sampling.questions import Continuation, Drafted, Finish
from tests.support.drive import no_clock

ONE = Drafted((Continuation(tokens=(1, 2, 3), finish=Finish.LENGTH),) * 2)


@pytest.mark.parametrize(
    ("limits", "answers"),
    [
        (BudgetLimits(requests=2), 2),
        (BudgetLimits(tokens=7), 2),
        (BudgetLimits(tokens=6), 1),
        (BudgetLimits(requests=0), 0),
    ],
)
def test_a_limit_is_reached(limits: BudgetLimits, answers: int) -> None:
    budget = Budget(limits, no_clock)
    for _ in range(answers):
        assert not budget.is_spent
        budget.charge(ONE)
    assert budget.is_spent


def test_time_counts_from_the_start() -> None:
    times = iter([10.0, 10.5, 11.9, 12.0])
    budget = Budget(BudgetLimits(seconds=2.0), lambda: next(times))
    assert [budget.is_spent for _ in range(3)] == [False, False, True]


def test_no_limits_are_never_reached() -> None:
    budget = Budget(BudgetLimits(), no_clock)
    for _ in range(100):
        budget.charge(ONE)
    assert (budget.requests, budget.tokens) == (100, 600)
    assert not budget.is_spent
