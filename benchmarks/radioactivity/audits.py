"""What an audit says about a student: p-values and bets from the library, on the same pairs.

Every scheme is given the same treatment: distinct pairs outside all prompts of the audit, at
contexts that were delivered (a filter by contexts, never by tokens). Ours then goes through
`weigh_evidence`, a peer through its own exact audit.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from benchmarks.radioactivity.marks import GAMMA, PEERS, peer_scores
from watermark.radioactivity import (
    Choices,
    ContextWeights,
    Design,
    Observation,
    PairCollector,
    Passage,
    Path,
    Traffic,
    View,
    Weighting,
    bet_path,
    weigh_evidence,
)
from watermark.radioactivity.scoring import Scorer
from watermark.schemes import text_identities
from watermark.seeding import first_occurrences
from watermark.stats import DilutedSum, binomial_log_sf, share_of, weighted_exponentials_log_sf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from benchmarks.radioactivity.laboratory import Laboratory
    from benchmarks.radioactivity.networks import Network
    from benchmarks.radioactivity.recipes import AnswersRecipe, StudentRecipe, TextRecipe
    from watermark.keys import KeyRecord
    from watermark.radioactivity.scoring import KeyScores

    Tokens = NDArray[np.uint32]

ALPHA: Final = 1e-6
LOG_ALPHA: Final = math.log(ALPHA)
Z_ALPHA: Final = 4.7534
"""Normal deviate of ALPHA."""
CAP: Final = 50_000
PLANNED_SHARE: Final = share_of(0.1)
"""What the tests are tuned for, an effect of .1; fixed before any student was made."""
PLANNED_OPEN: Final = share_of(0.5)
"""The same in reading mode, where a context tells more."""
LOOKS: Final = 200
_WEAK: Final = 0.01  # below, what it takes is so much that the tails agree
TOP: Final = 64
FILTER: Final = ContextWeights(weighting=Weighting.ALL_KEYS, full_at=1)
GRADED: Final = ContextWeights(weighting=Weighting.ALL_KEYS, full_at=8)
FLAT: Final = ContextWeights()
WEIGHTINGS: Final = {"none": FLAT, "filter": FILTER, "weights": GRADED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One audit of one student.

    Attributes:
        n_answers: Answers, or passages read.
        n_units: Tokens in them, in the key's unit.
        n_scored: Scores, one a key for every pair; in reading mode contexts.
        effect: Standard deviations a score.
        error: Its standard error under the null.
        log10_p: Of all scores.
        reached: Scores at the first look with p <= 1e-6, of looks after so many answers that each
            has a few percent more than the last; none is corrected for the others. None where
            there was none.
        reached_units: Tokens at that look.
        tail: Scores at which the exact tail at this effect is 1e-6, over those of a normal law.
        half: Scores at which half of the audits of this effect have p <= 1e-6: extrapolated
            where it is above `n_scored`; None where the effect is not above two errors.
        plain_half: The same for the sum of the scores itself, by its own effect and tail; None for
            peers, too.
        bet_reached: Scores at which the anytime-valid test rejects; None where it does not.
        log10_e: Of the bet, its largest value.
        decoy_p: By rank among decoy keys; None for peers.
    """

    n_answers: int
    n_units: int
    n_scored: int
    effect: float
    error: float
    log10_p: float
    reached: int | None
    reached_units: int | None
    tail: float
    half: float | None
    plain_half: float | None = None
    bet_reached: int | None = None
    log10_e: float | None = None
    decoy_p: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def half_of(effect: float, error: float, tail: float) -> float | None:
    """Return the scores at which half of the audits reach 1e-6."""
    return tail * (Z_ALPHA / effect) ** 2 if effect > 2.0 * error else None


def tail_of(effect: float, log_sf: Callable[[int], float]) -> float:
    """Return what an exact tail asks for, over what a normal law does.

    Args:
        effect: Standard deviations a score.
        log_sf: Natural log of the tail at so many scores of this effect each.
    """
    if effect < _WEAK:
        return 1.0
    normal = (Z_ALPHA / effect) ** 2
    low, high = math.floor(0.25 * normal), math.ceil(4.0 * normal)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if log_sf(middle) <= LOG_ALPHA else (middle + 1, high)
    return low / normal


def closed(
    laboratory: Laboratory,
    recipe: AnswersRecipe,
    *,
    weights: ContextWeights = FILTER,
) -> Measured:
    """Audit a student by what it says.

    Args:
        laboratory: Makes what is missing.
        recipe: The student, and how it is asked.
        weights: How contexts count; traffic is added.
    """
    text = recipe.student.text
    records = laboratory.records(text)
    prompts, said = in_unit(laboratory, recipe, records[0])
    collector = PairCollector(View(text.context_width, prompts))
    observations = [collector.answer(ids) for ids in said]
    traffic = traffic_of(laboratory, recipe.student, records)
    weights = replace(weights, traffic=traffic)
    if text.mark in PEERS:
        return _peer(records[0], observations, weights)
    return _ours(records, observations, weights)


def in_unit(
    laboratory: Laboratory, recipe: AnswersRecipe, record: KeyRecord
) -> tuple[list[Tokens], list[Tokens]]:
    """Return prompts and answers in the unit of a key."""
    from watermark.text import WORDS_V1, WordsUnit

    prompts, said = laboratory.answers(recipe)
    teacher = laboratory.network(recipe.student.text.teacher).unit
    unit = WordsUnit() if record.unit == WORDS_V1 else teacher
    asked = [unit.encode(one) for one in prompts]
    if recipe.student.base == recipe.student.text.teacher and unit is teacher:
        return asked, said
    speaker = laboratory.network(recipe.student.base).unit
    return asked, [unit.encode(speaker.decode(ids.tolist())) for ids in said]


def traffic_of(
    laboratory: Laboratory, recipe: StudentRecipe, records: Sequence[KeyRecord]
) -> tuple[Traffic, ...]:
    """Return the contexts that were delivered under each key."""
    ids = _reply_units(laboratory, recipe.text, laboratory.ledger(recipe), records[0])
    return tuple(
        Traffic.of_conversations(
            [[one] for one in ids[turn :: len(records)]],
            recipe.text.context_width,
            key_id=record.key_id,
        )
        for turn, record in enumerate(records)
    )


def _reply_units(
    laboratory: Laboratory, text: TextRecipe, rows: NDArray[np.int64], record: KeyRecord
) -> list[Tokens]:
    from watermark.text import WORDS_V1, WordsUnit

    replies = [row[1 + text.prompt_tokens :].astype(np.uint32) for row in rows]
    if record.unit != WORDS_V1:
        return replies
    teacher = laboratory.network(text.teacher).unit
    return [WordsUnit().encode(teacher.decode(ids.tolist())) for ids in replies]


def _ours(
    records: Sequence[KeyRecord],
    observations: Sequence[Observation],
    weights: ContextWeights,
    *,
    by_context: bool = False,
) -> Measured:
    share = PLANNED_OPEN if by_context else PLANNED_SHARE
    design = Design(alpha=ALPHA, share=share, n_decoys=999, weights=weights)
    light = replace(design, n_decoys=1)
    evidence = weigh_evidence(records, observations, design)
    path = bet_path(records, observations, design)
    rejected = [scored for scored, log_e in path if log_e >= -LOG_ALPHA]

    def at(n: int) -> tuple[int, float]:
        part = weigh_evidence(records, observations[:n], light)
        return part.n_scored, part.log_pvalue

    reached, units = first_look(observations, at)
    n_scored, effect, shrink = evidence.n_scored, evidence.effect, 1.0
    scorer = Scorer(records, observations, weights)
    tail = tail_of(effect, partial(_log_sf_of, design.statistic, scorer.weights, effect))
    plain_half = _plain_half([scorer.scores(index) for index in range(len(records))])
    if by_context and n_scored:
        windows = np.concatenate([one.contexts for one in observations])
        shrink = int(first_occurrences(text_identities(windows)).sum()) / n_scored
        n_scored, effect = round(n_scored * shrink), effect / math.sqrt(shrink)
    error = 1.0 / math.sqrt(max(1, n_scored))
    return Measured(
        n_answers=evidence.n_answers,
        n_units=evidence.n_units,
        n_scored=n_scored,
        effect=effect,
        error=error,
        log10_p=evidence.log_pvalue / math.log(10.0),
        reached=None if reached is None else round(reached * shrink),
        reached_units=units,
        tail=tail,
        half=half_of(effect, error, tail),
        plain_half=None if plain_half is None else plain_half * shrink,
        bet_reached=round(rejected[0] * shrink) if rejected else None,
        log10_e=evidence.log_evalue_peak / math.log(10.0),
        decoy_p=math.exp(evidence.decoys.log_pvalue),
    )


def _peer(
    record: KeyRecord, observations: Sequence[Observation], weights: ContextWeights
) -> Measured:
    kept = [weights.of([record.key_id], one.contexts) > 0 for one in observations]
    contexts = np.concatenate([o.contexts[k] for o, k in zip(observations, kept, strict=True)])
    tokens = np.concatenate([o.tokens[k] for o, k in zip(observations, kept, strict=True)])
    ends = np.cumsum([int(one.sum()) for one in kept])
    scores = peer_scores(record, contexts, tokens)
    n = len(tokens)
    effect = float(scores.excess.mean()) if n else 0.0
    error = 1.0 / math.sqrt(max(1, n))
    is_green = record.scheme != "hf-synthid"  # else as good as normal: thirty coins a score
    tail = tail_of(effect, partial(_log_sf_green, effect)) if is_green else 1.0

    def at(answers: int) -> tuple[int, float]:
        end = int(ends[answers - 1])
        return end, scores.log_pvalue(end)

    reached, units = first_look(observations, at)
    return Measured(
        n_answers=len(observations),
        n_units=sum(one.n_units for one in observations),
        n_scored=n,
        effect=effect,
        error=error,
        log10_p=scores.log_pvalue(n) / math.log(10.0),
        reached=reached,
        reached_units=units,
        tail=tail,
        half=half_of(effect, error, tail),
    )


def _log_sf_of(statistic: DilutedSum, weights: NDArray[np.float64], effect: float, n: int) -> float:
    """Return the tail at n scores of an effect, weighted as those that were seen."""
    alike = _alike(weights, n)
    return statistic.log_sf(effect * math.sqrt(n) * statistic.spread(alike), alike)


def _plain_half(parts: Sequence[KeyScores]) -> float | None:
    """Return the scores at which half of the audits by the sum of the scores reach 1e-6."""
    weights = np.concatenate([one.weights for one in parts])
    scores = np.concatenate([one.scores for one in parts])
    seen, spread = max(1, len(scores)), math.sqrt(float(weights @ weights))
    effect = float(weights @ (scores - 1.0)) / spread / math.sqrt(seen) if spread else 0.0

    def log_sf(n: int) -> float:
        alike = _alike(weights, n)
        excess = effect * math.sqrt(n * float(alike @ alike))
        return weighted_exponentials_log_sf(float(alike.sum()) + excess, alike)

    error = 1.0 / math.sqrt(seen)
    return half_of(effect, error, tail_of(effect, log_sf)) if effect > 2.0 * error else None


def _alike(weights: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return n weights that are spread as those that were seen."""
    return np.sort(weights)[np.arange(n) * len(weights) // n]


def _log_sf_green(effect: float, n: int) -> float:
    n_green = n * (GAMMA + effect * math.sqrt(GAMMA * (1 - GAMMA)))
    return binomial_log_sf(math.ceil(n_green), n, GAMMA)


def first_look(
    observations: Sequence[Observation], at: Callable[[int], tuple[int, float]]
) -> tuple[int | None, int | None]:
    """Return scores and units at the first look with p <= 1e-6, up to the cap."""
    units = np.cumsum([one.n_units for one in observations])
    looks = np.geomspace(1, max(1, len(observations)), LOOKS).round().astype(int)
    for n in np.unique(looks).tolist():
        scored, log_p = at(n)
        if scored > CAP:
            break
        if log_p <= LOG_ALPHA:
            return scored, int(units[n - 1])
    return None, None


def reading(laboratory: Laboratory, recipe: StudentRecipe, *, argmax: bool) -> Measured:
    """Audit a student by its weights: what it would say along the marked text.

    Args:
        laboratory: Makes what is missing.
        recipe: The student; it shares the teacher's tokenizer.
        argmax: Whether its likeliest token alone counts, or its distribution.
    """
    text = recipe.text
    records = laboratory.records(text)
    network = laboratory.student(recipe)
    collector = PairCollector(View(text.context_width))
    begin = 1 + text.prompt_tokens
    observations = []
    for row in laboratory.ledger(recipe):
        choices = _choices(network, row, begin)
        if argmax:
            choices = [one.likeliest() for one in choices]
        passage = Passage(
            ids=row[begin:].astype(np.uint32),
            path=Path.SPLICE,
            before=(row[1:begin].astype(np.uint32),),
        )
        observations.append(collector.reading(passage, choices))
    return _ours(records, observations, FLAT, by_context=True)


def _choices(network: Network, row: NDArray[np.int64], begin: int) -> list[Choices]:
    """Return what a network would say at each position of a reply, the reply itself unseen."""
    ids = torch.from_numpy(row[None, :-1]).to(network.device)
    with torch.inference_mode():
        logits = network.module(input_ids=ids, use_cache=False).logits[0, begin - 1 :]
        best = torch.softmax(logits.double(), dim=-1).topk(TOP, dim=-1)
    tokens, p = best.indices.cpu().numpy().astype(np.uint32), best.values.cpu().numpy()
    kept = p >= 1.0 / TOP
    return [
        Choices(tokens=t[k], probabilities=q[k]) for t, q, k in zip(tokens, p, kept, strict=True)
    ]
