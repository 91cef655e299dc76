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


def test_only_time_spent_waiting_for_the_upstream_counts() -> None:
    # begin, charge, a client that reads nothing for 90 seconds, begin, charge
    times = iter([10.0, 11.0, 101.0, 102.5])
    budget = Budget(BudgetLimits(seconds=2.0), lambda: next(times))
    budget.begin()
    budget.charge(ONE)
    assert not budget.is_spent
    budget.begin()
    budget.charge(ONE)
    assert budget.is_spent


def test_no_limits_are_never_reached() -> None:
    budget = Budget(BudgetLimits(), no_clock)
    for _ in range(100):
        budget.charge(ONE)
    assert (budget.requests, budget.tokens) == (100, 600)
    assert not budget.is_spent
