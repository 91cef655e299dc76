"""Select delivers the upstream's law, and each score takes part in one race only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from proxy.errors import UpstreamProtocolError
from proxy.sampling.budget import Budget, BudgetLimits
from proxy.sampling.parameters import SamplingParameters
from proxy.sampling.questions import Continuation, Draft, Drafted, Finish
from proxy.sampling.reply import Reply
from proxy.sampling.select import SelectPlan, select
from proxy.sampling.units import Reading, TokenUnits
from tests.support.drive import drive, law_pvalue, make_record, make_reply, no_clock
from tests.support.toy_model import PLAIN, ToyModel
from watermark.schemes import Candidate
from watermark.seeding import KeyedUniforms

if TYPE_CHECKING:
    from collections.abc import Sequence

END = 3
TABLE = np.array([[0.5, 0.25, 0.15, 0.1], [0.15, 0.5, 0.3, 0.05], [0.3, 0.1, 0.5, 0.1]])
SIGNIFICANCE = 1e-4


class PairUnits:
    """Two tokens make a unit, read modulo 3: different texts can have the same units."""

    def read(self, reply: Reply, continuations: Sequence[Continuation]) -> Reading:
        before = self._read(reply.tokens, is_ended=False)
        candidates = []
        for one in continuations:
            is_ended = one.finish is Finish.STOP
            tokens = [*reply.tokens, *(one.tokens[:-1] if is_ended else one.tokens)]
            units = self._read(tokens, is_ended=is_ended)[len(before) :]
            candidates.append(Candidate(units, is_ended))
        return Reading(before, tuple(candidates))

    def _read(self, tokens: Sequence[int], *, is_ended: bool) -> tuple[int, ...]:
        whole = len(tokens) if is_ended else len(tokens) // 2 * 2
        return tuple(sum(tokens[i : i + 2]) % 3 for i in range(0, whole, 2))


def make_plan(parameters: SamplingParameters = PLAIN, **changed: Any) -> SelectPlan:
    given: dict[str, Any] = {
        "parameters": parameters,
        "units": TokenUnits(),
        "chunk_tokens": 2,
        "candidates": 4,
        "logprobs": 0,
        "end_ids": frozenset({END}),
    }
    return SelectPlan(**(given | changed))


def sample(model: ToyModel, plan: SelectPlan, count: int, **reply: Any) -> list[tuple[int, ...]]:
    found = []
    for seed in range(count):
        flow = select(make_reply(seed, **reply), plan, Budget(BudgetLimits(), no_clock))
        found.append(drive(flow, model.answer).sequence)
    return found


@pytest.mark.parametrize("count", [500, pytest.param(6000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("parameters", "changed", "width"),
    [
        pytest.param({}, {}, 1, id="plain"),
        pytest.param({}, {"candidates": 3, "chunk_tokens": 3}, 2, id="width-2"),
        pytest.param({}, {"units": PairUnits()}, 1, id="units-of-two-tokens"),
        pytest.param({"temperature": 0.7, "top_p": 0.9}, {"logprobs": 2}, 1, id="cooled-top-p"),
        pytest.param({"frequency_penalty": 0.8, "logit_bias": {2: 1.0}}, {}, 1, id="penalties"),
    ],
)
def test_the_law_of_replies_is_the_upstreams(
    parameters: dict[str, Any], changed: dict[str, Any], width: int, count: int
) -> None:
    given = SamplingParameters(max_tokens=4, **parameters)
    model = ToyModel(TABLE, END, np.random.default_rng(0), given)
    sequences = sample(model, make_plan(given, **changed), count, max_tokens=4, width=width)
    assert law_pvalue(sequences, model.law(4)) > SIGNIFICANCE


def test_a_score_takes_part_in_one_race_only() -> None:
    reply = make_reply(0, max_tokens=None)
    assert reply.score((1,), 2) is not None
    assert reply.score((1,), 2) is None
    assert reply.score((1,), 3) is not None
    assert reply.score((2,), 2) is not None


class ForgetfulReply(Reply):
    """A reply whose losers' scores come back in later chunks."""

    __slots__ = ()

    def score(self, context: tuple[int, ...], unit: int) -> float | None:
        self._scored.clear()
        return super().score(context, unit)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "is_exact"), [(Reply, True), (ForgetfulReply, False)])
def test_losers_scores_used_again_bend_the_law(kind: type[Reply], *, is_exact: bool) -> None:
    """Negative control beside the real thing, 20,000 replies of two chunks each."""
    table = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.3, 0.2, 0.5]])
    model = ToyModel(table, None, np.random.default_rng(0))
    plan = make_plan(end_ids=frozenset())
    sequences = []
    for seed in range(20_000):
        keyed = KeyedUniforms(make_record(seed))
        reply = kind(keyed, np.random.default_rng([seed, 1]), max_tokens=4)
        flow = select(reply, plan, Budget(BudgetLimits(), no_clock))
        sequences.append(drive(flow, model.answer).sequence)
    assert (law_pvalue(sequences, model.law(4)) > SIGNIFICANCE) == is_exact


def test_the_mark_is_in_the_reply() -> None:
    model = ToyModel(TABLE, None, np.random.default_rng(1))
    plan = make_plan(candidates=8, end_ids=frozenset())
    scores = []
    for seed, sequence in enumerate(sample(model, plan, 300, max_tokens=2)):
        scores.append(make_reply(seed, max_tokens=2).score(sequence[:1], sequence[1]))
    assert np.mean([score for score in scores if score is not None]) > 1.25


def test_a_context_limit_ends_the_reply() -> None:
    model = ToyModel(TABLE, None, np.random.default_rng(2), context=3)
    plan = make_plan(end_ids=frozenset())
    reply = make_reply(0, max_tokens=None)
    run = drive(select(reply, plan, Budget(BudgetLimits(), no_clock)), model.answer)
    assert run.finish is Finish.LENGTH
    assert len(run.sequence) == 3


def test_the_end_token_is_given_out_and_is_no_part_of_the_reply() -> None:
    model = ToyModel(TABLE, END, np.random.default_rng(3))
    reply = make_reply(1, max_tokens=None)
    run = drive(select(reply, make_plan(), Budget(BudgetLimits(), no_clock)), model.answer)
    assert run.finish is Finish.STOP
    assert run.sequence == (*reply.tokens, END)


def test_listed_log_probabilities_are_the_chosen_ones() -> None:
    model = ToyModel(TABLE, END, np.random.default_rng(4))
    plan = make_plan(logprobs=2)
    reply = make_reply(1, max_tokens=6)
    run = drive(select(reply, plan, Budget(BudgetLimits(), no_clock)), model.answer)
    for i, one in enumerate(run.chosen):
        p = model.at(run.sequence[:i], {}).tempered
        assert one.logprob == pytest.approx(np.log(p[one.token]))
        assert one.alternatives is not None


def test_a_budget_ends_between_chunks() -> None:
    model = ToyModel(TABLE, None, np.random.default_rng(5))
    reply = make_reply(0, max_tokens=50)
    budget = Budget(BudgetLimits(tokens=20), no_clock)
    run = drive(select(reply, make_plan(end_ids=frozenset()), budget), model.answer)
    assert run.finish is None
    assert len(run.questions) == 3  # eight tokens each: spent at 24
    assert len(reply.tokens) == 6


def test_missing_or_empty_continuations_are_refused() -> None:
    model = ToyModel(TABLE, None, np.random.default_rng(6))

    def fewer(question: Draft) -> Drafted:
        return Drafted(model.answer(question).continuations[1:])

    def empty(question: Draft) -> Drafted:
        nothing = Continuation(tokens=(), finish=Finish.STOP)
        return Drafted((nothing, *model.answer(question).continuations[1:]))

    for answer in (fewer, empty):
        flow = select(make_reply(0, max_tokens=8), make_plan(), Budget(BudgetLimits(), no_clock))
        with pytest.raises(UpstreamProtocolError):
            drive(flow, answer)


def test_a_seed_repeats_the_reply() -> None:
    def once() -> tuple[int, ...]:
        model = ToyModel(TABLE, END, np.random.default_rng())
        keyed = KeyedUniforms(make_record(1))
        reply = Reply(keyed, np.random.default_rng(8), max_tokens=9, repeats_seed=True)
        flow = select(reply, make_plan(), Budget(BudgetLimits(), no_clock))
        return drive(flow, model.answer).sequence

    assert len({once() for _ in range(5)}) == 1
