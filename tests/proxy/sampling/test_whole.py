"""`reply` delivers the upstream's law: all draws enumerated, beside a rule that does not."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from proxy.sampling.budget import Budget, BudgetLimits
from proxy.sampling.flow import MarkPlan, mark
from proxy.sampling.parameters import SamplingParameters
from proxy.sampling.questions import UNBOUNDED, Continuation, Draft, Drafted, Finish, Path
from proxy.sampling.select import SelectPlan
from proxy.sampling.units import TokenUnits
from proxy.sampling.whole import choose_whole
from tests.support.drive import drive, law_pvalue, make_reply, no_clock
from tests.support.toy_model import PLAIN, ToyModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.sampling.reply import Reply

END = 2
TABLE = np.array([[0.55, 0.3, 0.15], [0.25, 0.55, 0.2], [0.5, 0.2, 0.3]])
Text = tuple[int, ...]


def make_plan(n: int, **parameters: Any) -> SelectPlan:
    return SelectPlan(
        parameters=SamplingParameters(**parameters),
        units=TokenUnits(),
        chunk_tokens=1,
        candidates=n,
        logprobs=0,
        end_ids=frozenset({END}),
        path=Path.REPLY,
    )


def by_flow(drawn: Sequence[Text], reply: Reply) -> Text:
    """Deliver one of the replies that an upstream drew."""
    answer = Drafted(tuple(continuation(one) for one in drawn))
    flow = choose_whole(reply, make_plan(len(drawn), max_tokens=3), free())
    return drive(flow, lambda _: answer).sequence


def by_best_score(drawn: Sequence[Text], reply: Reply) -> Text:
    """The largest mean score wins: what no reply may be chosen by."""

    def strength(text: Text) -> float:
        reply._scored.clear()
        free_text = text[:-1] if text[-1] == END else text
        pairs = {(free_text[i - 1 : i], free_text[i]) for i in range(1, len(free_text))}
        scores = [reply.score(*pair) for pair in sorted(pairs)]
        known = [score for score in scores if score is not None]
        return float(np.mean(known)) if known else 1.0

    return max(drawn, key=strength)


def free() -> Budget:
    return Budget(BudgetLimits(), no_clock)


def continuation(text: Text) -> Continuation:
    finish = Finish.STOP if text[-1] == END else Finish.LENGTH
    return Continuation(tokens=text, finish=finish)


def delivered(
    choose: Callable[[Sequence[Text], Reply], Text], law: dict[Text, float], *, n: int, keys: int
) -> tuple[dict[Text, float], dict[Text, float]]:
    """Return the delivered law over all draws of n with their exact mass, and its variance.

    The keys' randomness is simulated; given a draw each reply must win with its share of it.
    """
    out, variance = dict.fromkeys(law, 0.0), dict.fromkeys(law, 0.0)
    seeds = itertools.count()
    for drawn in itertools.combinations_with_replacement(law, n):
        counts = Counter(drawn)
        mass = math.factorial(n) * math.prod(law[one] ** k for one, k in counts.items())
        mass /= math.prod(math.factorial(k) for k in counts.values())
        wins = Counter(choose(drawn, make_reply(next(seeds), max_tokens=None)) for _ in range(keys))
        for one, k in counts.items():
            out[one] += mass * wins[one] / keys
            variance[one] += mass**2 * (k / n) * (1 - k / n) / keys
    return out, variance


@pytest.mark.parametrize(("choose", "is_exact"), [(by_flow, True), (by_best_score, False)])
def test_the_delivered_law_is_the_upstreams(
    choose: Callable[[Sequence[Text], Reply], Text], *, is_exact: bool
) -> None:
    """Enumerated draws of n = 2; the rule that takes the best score is the negative control."""
    law = ToyModel(TABLE, END, np.random.default_rng(0)).law(3)
    out, variance = delivered(choose, law, n=2, keys=30)
    assert sum(out.values()) == pytest.approx(1)
    off = [abs(out[one] - law[one]) / math.sqrt(variance[one]) for one in law]
    assert (max(off) < 5) == is_exact


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 8])
def test_the_law_of_many_replies_is_the_upstreams(n: int) -> None:
    model = ToyModel(TABLE, END, np.random.default_rng(n))
    sequences = []
    for seed in range(1500):
        reply = make_reply(seed, max_tokens=4)
        flow = choose_whole(reply, make_plan(n, max_tokens=4), free())
        sequences.append(drive(flow, model.answer).sequence)
    assert law_pvalue(sequences, model.law(4)) > 1e-4


def test_one_question_is_asked_and_it_is_the_clients_own() -> None:
    model = ToyModel(TABLE, END, np.random.default_rng(1))
    plan = make_plan(3, max_tokens=4, presence_penalty=1.0, logit_bias={1: 0.5})
    run = drive(choose_whole(make_reply(0, max_tokens=4), plan, free()), model.answer)
    assert run.questions == (
        Draft(
            tokens=(), n=3, max_tokens=4, bias={1: 0.5}, path=Path.REPLY, is_whole=True, seed=None
        ),
    )
    assert run.finish in (Finish.STOP, Finish.LENGTH)


def test_a_client_that_names_no_length_gets_all() -> None:
    model = ToyModel(TABLE, END, np.random.default_rng(1), context=9)
    reply = make_reply(0, max_tokens=None)
    run = drive(choose_whole(reply, make_plan(2), free()), model.answer)
    assert run.questions[0].max_tokens == UNBOUNDED
    assert len(run.sequence) <= 9
    assert reply.by_path[Path.REPLY] == len(reply.tokens)


def test_the_mark_is_in_the_replies_together() -> None:
    """Mean excess a score of n = 8 replies, over many keys."""
    model = ToyModel(np.full((1, 40), 1 / 40), None, np.random.default_rng(2), PLAIN)
    scores = []
    for seed in range(300):
        reply = make_reply(seed, max_tokens=8)
        plan = replace(make_plan(8, max_tokens=8), end_ids=frozenset())
        flow = choose_whole(reply, plan, free())
        text = drive(flow, model.answer).sequence
        fresh, first = make_reply(seed, max_tokens=8), set()
        for i in range(1, len(text)):
            if text[i - 1] not in first:
                first.add(text[i - 1])
                scores.append(fresh.score(text[i - 1 : i], text[i]) or 0.0)
    assert np.mean(scores) > 1.2


def test_a_plan_of_whole_replies_is_the_only_path() -> None:
    model = ToyModel(TABLE, END, np.random.default_rng(3))
    whole = make_plan(2, max_tokens=3)
    plan = MarkPlan(
        splice=None,
        splice_limits=BudgetLimits(),
        select=whole,
        select_limits=BudgetLimits(),
        whole=whole,
    )
    drive(mark(make_reply(0, max_tokens=3), plan, no_clock), model.answer)
    assert [one.is_whole for one in model.questions] == [True]
