"""From observations and keys to what an audit says.

Null hypothesis: the suspect is independent of all keys of the audit. Then all scores, over pairs
and keys, are independent Exp(1) (see `view`), so that

- the bet on all of them in the order of the audit, that a share of them which is the pair's weight
  times the design's comes from marked text (`stats.diluted`), is a non-negative martingale:
  P(sup E >= 1 / alpha) <= alpha, whenever one looks and stops. It is the test of the audit;
- T, the logarithm of that bet on a single share, is a sum of independent terms with an exact tail,
  for a number of answers fixed beforehand;
- the rank of T among the same under decoy keys is a p-value without any formula.

The keys of an audit share what a student learned (each text was marked under one of them), which
is why they are pooled; each key's own p-value stands beside, with Holm's correction.

Every statement is conditional on pairs and weights; that those are free of the key is the business
of `view`, `pairs` and `delivered`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from watermark.detection.result import DecoyRank
from watermark.radioactivity.dose import Dose, dose
from watermark.radioactivity.scoring import Scorer
from watermark.stats import decoys_reached, diluted_log_growth, holm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from watermark.keys import KeyRecord
    from watermark.radioactivity.design import Design
    from watermark.radioactivity.pairs import Observation
    from watermark.radioactivity.scoring import KeyScores
    from watermark.stats import DilutedSum


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEvidence:
    """What one key of an audit says alone.

    Attributes:
        key_id: The key.
        n_scored: Pairs that count for it.
        log_pvalue: Natural log of its exact p-value.
        log_pvalue_family: The same after Holm over the keys of the audit.
        effect: As `Evidence` has it.
    """

    key_id: str
    n_scored: int
    log_pvalue: float
    log_pvalue_family: float
    effect: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the observations say under all keys together.

    Attributes:
        n_answers: Answers, those without a new pair included.
        n_units: Units in them.
        n_scored: Scores, over all pairs and keys.
        statistic: Sum of the terms of `DilutedSum`, in nats; in the mean 0 under the null.
        log_pvalue: Natural log of the exact p-value, for a number of answers fixed beforehand.
        effect: Statistic over its standard deviation and the root of `n_scored`.
        log_evalue: Natural log of the bet's value at the end.
        log_evalue_peak: Of its largest value, which decides.
        peak_after: Answers after which the largest value was reached.
        path: Of each answer: scores so far, and natural log of the bet's value after it.
        answer_units: Of each answer: units in it.
        decoys: Rank among decoy keys.
        decoy_statistics: The statistic under each decoy, shape (n_decoys,).
        dose: How much.
        keys: Each key alone.
    """

    n_answers: int
    n_units: int
    n_scored: int
    statistic: float
    log_pvalue: float
    effect: float
    log_evalue: float
    log_evalue_peak: float
    peak_after: int
    path: tuple[tuple[int, float], ...]
    answer_units: tuple[int, ...]
    decoys: DecoyRank
    decoy_statistics: NDArray[np.float64] = field(repr=False, compare=False)
    dose: Dose
    keys: tuple[KeyEvidence, ...]

    def rejects_null(self, *, alpha: float) -> bool:
        """Return whether the bet has reached 1 / alpha at any time."""
        return self.log_evalue_peak >= -math.log(alpha)


def weigh_evidence(
    records: Sequence[KeyRecord], observations: Sequence[Observation], design: Design
) -> Evidence:
    """Return what an audit says.

    Args:
        records: Its keys, of one unit, context width and account share.
        observations: From one `PairCollector`, in the order of the audit.
        design: What was fixed beforehand.

    Raises:
        AuditDesignError: The keys do not belong together.
    """
    scorer = Scorer(records, observations, design.weights)
    per_key = [scorer.scores(index) for index in range(len(records))]
    pooled = _pooled(per_key)
    path = _bet(pooled, len(observations), design.shares)
    alone = [_tested(one, design.statistic) for one in per_key]
    tested = alone[0] if len(alone) == 1 else _tested(pooled, design.statistic)
    decoys = scorer.decoy_statistics(design.statistic, scorer.n_decoys(design.n_decoys))
    (reached,) = decoys_reached(np.array([tested.value]), decoys)
    log_evalues = [0.0, *(log_evalue for _, log_evalue in path)]
    return Evidence(
        n_answers=len(observations),
        n_units=sum(one.n_units for one in observations),
        n_scored=len(pooled.scores),
        statistic=tested.value,
        log_pvalue=tested.log_pvalue,
        effect=tested.effect,
        log_evalue=log_evalues[-1],
        log_evalue_peak=max(log_evalues),
        peak_after=int(np.argmax(log_evalues)),
        path=tuple(path),
        answer_units=tuple(one.n_units for one in observations),
        decoys=DecoyRank.of(len(decoys), int(reached)),
        decoy_statistics=decoys,
        dose=_dose(pooled, len(observations), design, n_keys=len(records)),
        keys=_key_evidence(records, alone),
    )


def bet_path(
    records: Sequence[KeyRecord], observations: Sequence[Observation], design: Design
) -> list[tuple[int, float]]:
    """Return the bet alone: of each answer, scores so far and natural log of its value.

    What a running audit looks at; it needs no decoys.

    Raises:
        AuditDesignError: The keys do not belong together.
    """
    scorer = Scorer(records, observations, design.weights)
    pooled = _pooled([scorer.scores(index) for index in range(len(records))])
    return _bet(pooled, len(observations), design.shares)


def _pooled(parts: Sequence[KeyScores]) -> KeyScores:
    """Return the scores of all keys, answer by answer."""
    answers = np.concatenate([one.answers for one in parts])
    order = np.argsort(answers, kind="stable")
    scores = np.concatenate([one.scores for one in parts])[order]
    weights = np.concatenate([one.weights for one in parts])[order]
    return type(parts[0])(scores, weights, answers[order])


def _bet(pooled: KeyScores, n_answers: int, shares: tuple[float, ...]) -> list[tuple[int, float]]:
    """Return after each answer: scores so far, and natural log of the mixture of bets."""
    ends = np.searchsorted(pooled.answers, np.arange(n_answers), side="right").tolist()
    capitals = np.full(len(shares), -math.log(len(shares)))
    path: list[tuple[int, float]] = []
    start = 0
    for end in ends:
        scores, weights = pooled.scores[start:end], pooled.weights[start:end]
        capitals = capitals + diluted_log_growth(shares, scores, weights)
        path.append((end, float(np.logaddexp.reduce(capitals))))
        start = end
    return path


@dataclass(frozen=True, slots=True)
class _Tested:
    """What the statistic makes of some scores."""

    n_scored: int
    value: float
    log_pvalue: float
    effect: float


def _tested(part: KeyScores, statistic: DilutedSum) -> _Tested:
    value = float(statistic.terms(part.scores, part.weights).sum())
    spread = statistic.spread(part.weights) * math.sqrt(len(part.scores))
    return _Tested(
        n_scored=len(part.scores),
        value=value,
        log_pvalue=statistic.log_sf(value, part.weights),
        effect=value / spread if spread else 0.0,
    )


def _dose(pooled: KeyScores, n_answers: int, design: Design, *, n_keys: int) -> Dose:
    """Return the dose. Text is marked under one of several keys, and scored under all of them.

    So the mean over keys of what marked text shows is the reference over their number: all keys
    weigh a context alike.
    """

    def sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(pooled.answers, values, minlength=n_answers).astype(np.float64)

    return dose(
        sums(pooled.weights * (pooled.scores - 1.0)),
        sums(pooled.weights),
        reference=design.reference / n_keys,
        n_planned=design.n_answers,
    )


def _key_evidence(
    records: Sequence[KeyRecord], tested: Sequence[_Tested]
) -> tuple[KeyEvidence, ...]:
    families = holm([one.log_pvalue for one in tested])
    return tuple(
        KeyEvidence(
            key_id=record.key_id,
            n_scored=one.n_scored,
            log_pvalue=one.log_pvalue,
            log_pvalue_family=family,
            effect=one.effect,
        )
        for record, one, family in zip(records, tested, families, strict=True)
    )
