"""Whatever the continuations share, each of them wins with probability one in m."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import special, stats

from watermark.errors import SchemeParameterError
from watermark.schemes import Candidate, race
from watermark.schemes import trie_race as module

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIGNIFICANCE = 1e-4
Context = tuple[int, ...]


class FreshScores:
    """Independent Exp(1) scores, one a pair; what was asked is counted."""

    def __init__(self, rng: np.random.Generator, width: int, unkeyed: Context = ()) -> None:
        self._rng = rng
        self._width = width
        self._unkeyed = unkeyed
        self.asked: Counter[tuple[Context, int]] = Counter()
        self.given: dict[tuple[Context, int], float] = {}

    @property
    def context_width(self) -> int:
        return self._width

    def score(self, context: Context, unit: int) -> float | None:
        self.asked[context, unit] += 1
        if context == self._unkeyed:
            return None
        if (context, unit) not in self.given:
            self.given[context, unit] = float(self._rng.standard_exponential())
        return self.given[context, unit]


def by_race(
    candidates: Sequence[Candidate],
    scores: FreshScores,
    rng: np.random.Generator,
    history: Context,
) -> int:
    return race(candidates, history, frozenset(), scores, rng)


def by_plain_rule(
    candidates: Sequence[Candidate],
    scores: FreshScores,
    rng: np.random.Generator,
    history: Context,
) -> int:
    """argmax of CDF_n(sum)^(1/c) over whole continuations: what the race replaces."""
    groups: dict[Candidate, list[int]] = {}
    for index, candidate in enumerate(candidates):
        groups.setdefault(candidate, []).append(index)
    best, winner = -1.0, 0
    for candidate, members in groups.items():
        path = (*history, *candidate.units)
        width = scores.context_width
        pairs = {(path[i - width : i], path[i]) for i in range(max(width, len(history)), len(path))}
        known = [scores.score(context, unit) for context, unit in sorted(pairs)]
        values = [value for value in known if value is not None]
        u = special.gammainc(len(values), sum(values)) if values else rng.random()
        if u ** (1 / len(members)) > best:
            best, winner = u ** (1 / len(members)), members[int(rng.integers(len(members)))]
    return winner


# A small language model: two units, and an end, after each of which nothing comes.


def continuations(length: int) -> dict[Candidate, float]:
    """Return the law of a continuation: a Markov chain on {0, 1} with an end after a 1."""
    law: dict[Candidate, float] = {}
    stack: list[tuple[Context, float]] = [((), 1.0)]
    while stack:
        units, mass = stack.pop()
        if len(units) == length:
            law[Candidate(units)] = law.get(Candidate(units), 0.0) + mass
            continue
        p = 0.75 if not units or units[-1] == 0 else 0.35
        if units and units[-1] == 1:
            law[Candidate(units, is_ended=True)] = 0.2 * mass
            mass *= 0.8
        stack += [((*units, 0), mass * p), ((*units, 1), mass * (1 - p))]
    return law


def delivered(
    select: Callable[..., int], *, m: int, length: int, width: int, streams: int, seed: int = 0
) -> tuple[dict[Candidate, float], dict[Candidate, float], dict[Candidate, float]]:
    """Return the delivered law over all draws of m, the model's law, and a variance bound.

    Draws are enumerated with their exact mass (multisets, since the race does not see the order
    of draws but through a private coin); the key's randomness is simulated.
    """
    law = continuations(length)
    rng = np.random.default_rng(seed)
    out = dict.fromkeys(law, 0.0)
    variance = dict.fromkeys(law, 0.0)
    for drawn in itertools.combinations_with_replacement(law, m):
        counts = Counter(drawn)
        mass = math.factorial(m) * math.prod(law[c] ** k for c, k in counts.items())
        mass /= math.prod(math.factorial(k) for k in counts.values())
        wins: Counter[Candidate] = Counter()
        for _ in range(streams):
            wins[drawn[select(drawn, FreshScores(rng, width), rng, (0,) * width)]] += 1
        for candidate, count in counts.items():
            share = wins[candidate] / streams
            out[candidate] += mass * share
            true = count / m
            variance[candidate] += mass**2 * true * (1 - true) / streams
    return out, law, variance


CASES = [(2, 3, 1, 60), (3, 2, 1, 100), (4, 2, 1, 60), (3, 2, 2, 60)]


@pytest.mark.parametrize(("m", "length", "width", "streams"), CASES)
def test_the_delivered_law_is_the_models(m: int, length: int, width: int, streams: int) -> None:
    """Enumerated draws, simulated keys: every continuation within five standard errors."""
    out, law, variance = delivered(by_race, m=m, length=length, width=width, streams=streams)
    assert sum(out.values()) == pytest.approx(1)
    for candidate, mass in law.items():
        assert abs(out[candidate] - mass) <= 5 * math.sqrt(variance[candidate]) + 1e-12


def test_the_plain_rule_has_another_law() -> None:
    """Negative control: the same enumeration, continuations that share their first units."""
    out, law, variance = delivered(by_plain_rule, m=4, length=3, width=1, streams=30)
    off = [abs(out[c] - law[c]) / math.sqrt(variance[c]) for c in law if variance[c]]
    assert max(off) > 5


SHAPES = [
    pytest.param([(0, 0), (0, 1), (1, 0), (1, 1)], id="full-tree"),
    pytest.param([(0, 0, 0), (0, 0, 1), (0, 1), (2,)], id="lopsided"),
    pytest.param([(1, 2, 1, 2), (1, 2, 1, 3), (2, 1)], id="contexts-repeat-on-a-path"),
    pytest.param([(1, 2, 3), (3, 1, 2), (2, 3, 1)], id="pairs-on-two-edges"),
    pytest.param([(1, 2), (1, 2), (1, 2), (1, 3)], id="equal-ones"),
    pytest.param([(), (1,), (1, 2), (1, 2, 3)], id="each-a-prefix-of-the-next"),
    pytest.param([(), ()], id="nothing-complete"),
    pytest.param([(7,) * 30, (7,) * 29 + (8,), (9,) * 30], id="long"),
]


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("units", SHAPES)
def test_given_any_draws_each_is_as_likely(units: list[Context], width: int) -> None:
    rng = np.random.default_rng(width)
    candidates = [Candidate(one) for one in units] + [Candidate(units[-1], is_ended=True)]
    wins = np.zeros(len(candidates))
    for _ in range(800):
        wins[race(candidates, (0, 1), {(3,)}, FreshScores(rng, width, (2,)), rng)] += 1
    assert stats.chisquare(wins).pvalue > SIGNIFICANCE


def asked(
    units: list[Context], *, width: int, spent: set[Context], history: Context
) -> set[object]:
    rng = np.random.default_rng(0)
    scores = FreshScores(rng, width)
    race([Candidate(one) for one in units], history, spent, scores, rng)
    assert set(scores.asked.values()) <= {1}
    return set(scores.asked)


def test_only_new_pairs_on_one_edge_are_scored() -> None:
    # (0,) -> 1 and 2; (1,) -> 2; (2,) -> 1
    plain = asked([(1, 2), (2, 1)], width=1, spent=set(), history=(5, 0))
    assert plain == {((0,), 1), ((0,), 2), ((1,), 2), ((2,), 1)}
    assert asked([(1, 2), (2, 1)], width=1, spent={(0,)}, history=(0,)) == {((1,), 2), ((2,), 1)}
    # (1,) -> 2 sits on two edges
    assert asked([(1, 2), (3, 1, 2)], width=1, spent=set(), history=(0,)) == {
        ((0,), 1),
        ((0,), 3),
        ((3,), 1),
    }
    # the second (1,) on the path is a repeat, whatever follows it
    assert ((1,), 3) not in asked([(1, 2, 1, 3)], width=1, spent=set(), history=(0,))
    # the pair of a repeat still counts as an edge of that pair
    assert ((1,), 3) not in asked([(1, 2, 1, 3), (2, 1, 3)], width=1, spent=set(), history=(0,))
    # without a whole context nothing is scored
    assert asked([(1, 2)], width=2, spent=set(), history=()) == set()
    assert asked([(1, 2, 3)], width=2, spent=set(), history=()) == {((1, 2), 3)}


def test_the_value_passed_up_is_uniform_and_independent_of_who_won() -> None:
    """A two-level trie: V, read back from G' of the upper node, for each winner apart."""
    rng = np.random.default_rng(0)
    values: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for _ in range(3000):
        lower = module._compete(
            [module._Entrant(0, float(rng.standard_gamma(2)), 2, 1), module._Entrant(1, 0.0, 0, 2)],
            rng,
        )
        climbed = module._climb(lower, float(rng.standard_exponential()))
        other = module._Entrant(2, float(rng.standard_gamma(3)), 3, 2)
        top = module._compete([climbed, other], rng)
        assert top.weight == 5
        assert top.shape == {0: 3, 1: 1, 2: 3}[top.winner]
        values[top.winner].append(float(special.gammainc(top.shape, top.total)))
    counts = [len(values[i]) for i in range(3)]
    assert stats.chisquare(counts, 3000 * np.array([0.2, 0.4, 0.4])).pvalue > SIGNIFICANCE
    for found in values.values():
        assert stats.kstest(found, "uniform").pvalue > SIGNIFICANCE


def test_a_lone_continuation_wins() -> None:
    rng = np.random.default_rng(0)
    assert race([Candidate((1, 2))], (), frozenset(), FreshScores(rng, 1), rng) == 0


def test_none_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(SchemeParameterError):
        race([], (), frozenset(), FreshScores(rng, 1), rng)


def test_the_winner_has_more_than_its_share_of_score() -> None:
    rng = np.random.default_rng(5)
    candidates = [Candidate((first, second)) for first in (1, 2) for second in (3, 4, 5)]
    found = []
    for _ in range(1500):
        scores = FreshScores(rng, 1)
        units = candidates[race(candidates, (0,), frozenset(), scores, rng)].units
        found.append(scores.given[(0,), units[0]] + scores.given[(units[0],), units[1]])
    assert np.mean(found) > 2 + 0.8
    assert np.mean(found) < 2 + math.log(6) + 1


@pytest.mark.parametrize("shape", [1, 3, 50, 400])
def test_quantiles_undo_distributions(shape: int) -> None:
    for log_cdf in (-700.0, -50.0, -1.0, -0.1, -1e-6, -1e-14):
        total = module._gamma_quantile(shape, log_cdf)
        entrant = module._Entrant(0, total, shape, 1)
        back = module._log_uniform(entrant, np.random.default_rng(0))
        assert back == pytest.approx(log_cdf, rel=1e-6)
