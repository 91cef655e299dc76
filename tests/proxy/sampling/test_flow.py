"""What one path's budget leaves, the next one takes, and the law stays."""

from __future__ import annotations

import numpy as np
import pytest

from proxy.sampling.budget import BudgetLimits
from proxy.sampling.candidates import ListReader, LogprobsMode
from proxy.sampling.flow import MarkPlan, mark
from proxy.sampling.questions import Finish
from proxy.sampling.select import SelectPlan
from proxy.sampling.splice import SplicePlan
from proxy.sampling.units import TokenUnits
from tests.support.drive import Driven, drive, law_pvalue, make_reply, no_clock
from tests.support.toy_model import PLAIN, ToyModel

END = 3
TABLE = np.array([[0.5, 0.25, 0.15, 0.1], [0.15, 0.5, 0.3, 0.05], [0.3, 0.1, 0.5, 0.1]])
NOTHING = BudgetLimits(requests=0)


def make_plan(
    *, splice: BudgetLimits | None, select: BudgetLimits, drafts: int = 0, end: int | None = END
) -> MarkPlan:
    end_ids = frozenset() if end is None else frozenset({end})
    reader = ListReader(parameters=PLAIN, mode=LogprobsMode.TEMPERED, size=2, vocab_size=4)
    return MarkPlan(
        splice=None
        if splice is None
        else SplicePlan(reader=reader, draft_tokens=2, drafts=drafts, end_ids=end_ids),
        splice_limits=splice or NOTHING,
        select=SelectPlan(
            parameters=PLAIN,
            units=TokenUnits(),
            chunk_tokens=2,
            candidates=3,
            logprobs=0,
            end_ids=end_ids,
        ),
        select_limits=select,
    )


def run_one(model: ToyModel, plan: MarkPlan, seed: int, max_tokens: int) -> Driven:
    return drive(mark(make_reply(seed, max_tokens=max_tokens), plan, no_clock), model.answer)


def test_the_law_holds_across_both_handovers() -> None:
    model = ToyModel(TABLE, END, np.random.default_rng(0))
    for drafts in (0, 2):
        plan = make_plan(
            splice=BudgetLimits(requests=1), select=BudgetLimits(requests=1), drafts=drafts
        )
        found = [run_one(model, plan, seed, 5).sequence for seed in range(500)]
        assert law_pvalue(found, model.law(5)) > 1e-4


def test_paths_take_over_in_order() -> None:
    model = ToyModel(TABLE, None, np.random.default_rng(1))
    limits = BudgetLimits(requests=2)
    run = run_one(model, make_plan(splice=limits, select=limits, drafts=2, end=None), 0, 60)
    assert run.finish is Finish.LENGTH
    assert len(run.sequence) == 60
    assert [question.n for question in run.questions[:5]] == [2, 2, 3, 3, 1]
    assert {question.n for question in run.questions[5:]} == {1}
    assert run.questions[4].max_tokens == 32


def test_without_splice_select_begins() -> None:
    plan = make_plan(splice=None, select=BudgetLimits())
    model = ToyModel(TABLE, END, np.random.default_rng(2))
    assert {question.n for question in run_one(model, plan, 0, 9).questions} == {3}


def test_nothing_at_all_may_be_spent_and_the_text_still_comes() -> None:
    model = ToyModel(TABLE, END, np.random.default_rng(3))
    run = run_one(model, make_plan(splice=NOTHING, select=NOTHING), 0, 20)
    assert run.finish is not None
    assert {question.n for question in run.questions} == {1}


@pytest.mark.parametrize("max_tokens", [1, 2, 3])
def test_the_reply_is_never_longer_than_asked(max_tokens: int) -> None:
    model = ToyModel(TABLE, None, np.random.default_rng(4))
    one = BudgetLimits(requests=1)
    for seed in range(20):
        run = run_one(model, make_plan(splice=one, select=one, end=None), seed, max_tokens)
        assert len(run.sequence) == max_tokens
