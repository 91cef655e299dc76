"""What does an oracle tell about its key, and what do its honest callers lose?

    python -m benchmarks.oracle [--bits 1000] [--texts 20000]

A *bit* is whether the score of one (context, unit) pair lies above its median. The attacker holds
a text at the boundary of a level, may change every pair of it independently of the others (more
than any real unit allows), and knows how the oracle works. Four answers are compared: the exact z
(what this service never says), z with the noise, the levels of the service, and the verdict alone.

- *Sensitivity attack*: for one bit, many texts with and without its pair, everything else fresh
  enough that the noise is drawn anew; the averages are compared. Reported: questions until 90% of
  the bits are right (half are by guessing), and the share right after 1,000 questions a bit.
- *Random design*: every question changes half of the pairs, and one regression reads all bits
  at once (ridge). Reported: the area under the curve after 300, 3,000 and 10,000 questions in all.

Scores are drawn, not computed from a key: Exp(1), which is their law under a random key; what the
attacker does sees nothing else.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special, stats

from benchmarks.story import print_table
from watermark.detection.oracle import LEVELS
from watermark.stats import gamma_log_sf

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Answer = Callable[[Floats, np.random.Generator], Floats]

SIGMAS = (1.0, 2.0)
LENGTHS = (200, 400, 1000)
QUESTIONS = tuple(int(n) for n in np.geomspace(1, 32_768, 31))
ALPHA = 1e-6
RIGHT = 0.9
DESIGNS = ((300, 20), (3000, 6), (10_000, 2))  # questions, repetitions
EXACT = "exact z"
# Of the levels, as z: an answer is a step function of the noisy z.
STEPS = -special.ndtri_exp(np.log(np.array(LEVELS[:-1])))
BOUNDARY = float(STEPS[1])


@dataclass(frozen=True)
class Kind:
    """A way to answer."""

    name: str
    answer: Answer


def kinds(sigma: float) -> list[Kind]:
    """Return the ways to answer, from the most telling to the least."""

    def noisy(z: Floats, rng: np.random.Generator) -> Floats:
        added: Floats = (z + sigma * rng.standard_normal(z.shape)) / math.hypot(1.0, sigma)
        return added

    def levels(z: Floats, rng: np.random.Generator) -> Floats:
        return np.searchsorted(STEPS[::-1], noisy(z, rng), side="left").astype(float)

    def verdict(z: Floats, rng: np.random.Generator) -> Floats:
        return (noisy(z, rng) >= BOUNDARY).astype(float)

    return [
        Kind(EXACT, lambda z, _: z),
        Kind("noisy z", noisy),
        Kind("levels", levels),
        Kind("verdict", verdict),
    ]


def boundary(sigma: float, kind: str) -> float:
    """Return the z at which an answer is most telling: where the noisy one meets a level."""
    return BOUNDARY if kind == EXACT else BOUNDARY * math.hypot(1.0, sigma)


def sensitivity(
    kind: Kind, sigma: float, length: int, bits: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the questions a bit that get 90% right, and the share right after 1,000.

    A question holds the pair or leaves it out; one other pair varies from question to question, so
    that the noise is fresh, and what it adds is noise too. The exact z needs none of that.
    """
    scores = rng.standard_exponential(bits)
    is_high = scores > math.log(2)
    lift = (scores - math.log(2)) / math.sqrt(length)
    base = boundary(sigma, kind.name)
    total = np.zeros(bits)
    right: list[float] = []
    asked = 0
    for count in QUESTIONS:
        pairs = max(1, count // 2) - asked
        asked += pairs
        for begun in range(0, pairs, 256):
            n = min(256, pairs - begun)
            other = (rng.standard_exponential((2, n, bits)) - 1) / math.sqrt(length)
            other *= kind.name != EXACT
            total += (
                kind.answer(base + lift / 2 + other[0], rng)
                - kind.answer(base - lift / 2 + other[1], rng)
            ).sum(axis=0)
        guess = rng.random(bits) < 0.5
        share = (np.where(total == 0, guess, total > 0) == is_high).mean()
        right.append(float(share))
        if kind.name == EXACT:  # one question and its twin say it all
            return 1.0, right[0]
    reached = [q for q, share in zip(QUESTIONS, right, strict=True) if share >= RIGHT]
    at_thousand = float(np.interp(1000, QUESTIONS, right))
    return (float(reached[0]) if reached else math.inf), at_thousand


def random_design(
    kind: Kind, sigma: float, length: int, questions: int, rng: np.random.Generator
) -> float:
    """Return the area under the curve of bits recovered by one regression over all questions."""
    scores = rng.standard_exponential((2, length))  # of the two forms of each place
    design = rng.random((questions, length)) < 0.5
    mean = scores.mean()
    z = np.where(design, scores[0], scores[1]).sum(axis=1) - length * mean
    z = boundary(sigma, kind.name) + z / math.sqrt(length)
    answers = kind.answer(z, rng)
    centered = design - 0.5
    # Ridge regression with the scores' own law as the prior; noise of about one.
    weight = 1e-6 if kind.name == EXACT else float(length)
    gram = centered.T @ centered + weight * np.eye(length)
    estimate = np.linalg.solve(gram, centered.T @ (answers - answers.mean()))
    is_high = scores[0] > scores[1]
    ranks = stats.rankdata(estimate)
    n_high = int(is_high.sum())
    above = ranks[is_high].sum() - n_high * (n_high + 1) / 2
    return float(above / (n_high * (length - n_high)))


def detections(
    effect: float, units: int, sigma: float, texts: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the shares of marked texts found at 1e-6, offline and by the oracle.

    A marked score is drawn as (1 + effect) Exp(1): mean and spread grow together, as measured.
    """
    statistic = (1 + effect) * rng.standard_gamma(units, texts)
    log_p = np.array([gamma_log_sf(float(one), units) for one in statistic])
    z = -special.ndtri_exp(np.minimum(log_p, -math.ulp(0.0)))
    noisy = (z + sigma * rng.standard_normal(texts)) / math.hypot(1.0, sigma)
    return float((log_p <= math.log(ALPHA)).mean()), float((noisy >= BOUNDARY).mean())


def attack_rows(args: argparse.Namespace) -> list[tuple[object, ...]]:
    """Return the rows of the attacks."""
    rows: list[tuple[object, ...]] = []
    for sigma in SIGMAS:
        for length in LENGTHS:
            for place, kind in enumerate(kinds(sigma)):
                rng = np.random.default_rng([int(sigma * 10), length, place])
                reached, share = sensitivity(kind, sigma, length, args.bits, rng)
                areas = [
                    np.mean([random_design(kind, sigma, length, n, rng) for _ in range(repeats)])
                    for n, repeats in DESIGNS
                ]
                rows.append((sigma, length, kind.name, reached, share, *map(float, areas)))
                print(rows[-1], flush=True)
    return rows


def honest_rows(args: argparse.Namespace) -> list[tuple[object, ...]]:
    """Return the rows of what callers lose; effects are those of `benchmarks.effect`."""
    rows: list[tuple[object, ...]] = []
    named = (
        ("splice top-20, 1.0", 1.02),
        ("splice top-20, 0.7", 0.79),
        ("select k=8 m=8, 1.0", 0.57),
        ("select k=16 m=8, 1.0", 0.39),
        ("a third of it left", 0.30),
        ("a fifth of it left", 0.20),
    )
    for name, effect in named:
        for sigma in SIGMAS:
            rng = np.random.default_rng([int(effect * 100), int(sigma * 10)])
            shares = []
            for units in (400, 1000):
                offline, oracle = detections(effect, units, sigma, args.texts, rng)
                shares += [100 * offline, 100 * (offline - oracle)]
            rows.append((name, effect, sigma, *shares))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bits", type=int, default=1000, help="bits a sensitivity attack is for")
    parser.add_argument("--texts", type=int, default=20_000, help="marked texts a row")
    args = parser.parse_args()
    print_table(
        "What honest callers lose at 1e-6",
        ("text", "effect", "sigma", "400 units, found %", "lost", "1,000 units, found %", "lost"),
        honest_rows(args),
    )
    print_table(
        "What attackers learn",
        (
            "sigma",
            "pairs",
            "answer",
            "questions a bit (90%)",
            "right after 1,000",
            "design AUC 300",
            "3,000",
            "10,000",
        ),
        attack_rows(args),
    )


if __name__ == "__main__":
    main()
