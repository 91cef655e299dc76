"""Clean suspects: ledger, weights and prompts made anew with the very key that is then tested.

Each design of the audit is run under many keys on suspects that never saw them, and each rule of
the audit is then broken in turn: what is broken must be seen to fail.

    python -m benchmarks.radioactivity.clean --keys 500
"""

from __future__ import annotations

import argparse
import enum
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from benchmarks.radioactivity.ngram import (
    WIDTH,
    Chain,
    answers,
    in_topics,
    key_of,
    marked,
    selected,
)
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
    weigh_evidence,
)
from watermark.schemes import text_identities
from watermark.seeding import context_windows, pair_values
from watermark.stats import share_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from watermark.keys import KeyRecord

    Tokens = NDArray[np.uint32]

ALPHA = 0.05
CHUNK = 12


class Trial(enum.Enum):
    """A design of the audit, as it is or with one of its rules broken."""

    CLOSED = "closed, prompts of marked text, filter by delivered contexts"
    WEIGHTED = "closed, the same with weights by conversations"
    SEEDS = "closed, prompts free of the key, weights by conversations"
    OTHER_KEYS = "closed, weights by traffic under another key"
    SELECT_CUT = "closed, prefixes of select cut at the end of a chunk"
    ARGMAX = "open, reading marked text, argmax"
    EXPECTATION = "open, reading marked text, expectation"
    READ_SELECT = "open, reading text of select at the ends of chunks"
    BROKEN_VIEW = "BROKEN: contexts of prompts scored"
    BROKEN_PAIRS = "BROKEN: filter by delivered pairs"
    BROKEN_OCCURRENCES = "BROKEN: weights by occurrences"
    BROKEN_CUT = "BROKEN: prefixes cut inside a chunk of select"
    BROKEN_READING = "BROKEN: text of select read inside chunks"

    @property
    def is_broken(self) -> bool:
        """Whether a rule is broken, so that the trial has to fail."""
        return self.name.startswith("BROKEN")


@dataclass(frozen=True)
class Outcome:
    """What an audit of a clean suspect said."""

    log_pvalue: float
    log_evalue_peak: float
    decoy_pvalue: float


_CHUNKED = {
    Trial.SELECT_CUT,
    Trial.BROKEN_CUT,
    Trial.READ_SELECT,
    Trial.BROKEN_READING,
}
_LOOPED = {Trial.WEIGHTED, Trial.BROKEN_OCCURRENCES}
_FILTER = ContextWeights(weighting=Weighting.ALL_KEYS, full_at=1)
_GRADED = replace(_FILTER, full_at=12)


@dataclass(frozen=True)
class _Stage:
    """One audit: its key, the law of its texts, and everybody's randomness."""

    trial: Trial
    chain: Chain
    record: KeyRecord
    rng: np.random.Generator
    rows: int
    length: int


def _chain(trial: Trial) -> Chain:
    """Return the law that shows best what the broken rule does, and serves the kept one too."""
    if trial in _CHUNKED:  # many contexts with few choices: a suspect says what was delivered
        return Chain.branching(0)
    if trial in _LOOPED:  # what leads straight back
        return Chain.of(0, vocab=24, concentration=0.2).with_loops(0.7)
    return Chain.of(0)


def run(trial: Trial, seed: int, *, rows: int = 32, length: int = 64) -> Outcome:
    """Return what an audit of a clean suspect says under the key of a seed."""
    rng = np.random.default_rng([seed, 1])
    record = key_of(seed)
    stage = _Stage(trial, _chain(trial), record, rng, rows, length)
    open_trials = {Trial.ARGMAX, Trial.EXPECTATION, Trial.READ_SELECT, Trial.BROKEN_READING}
    if trial in open_trials:
        observations, weights = _open(stage)
    else:
        observations, weights = _closed(stage)
    design = Design(alpha=ALPHA, share=share_of(0.1), n_decoys=19, weights=weights)
    evidence = weigh_evidence([record], observations, design)
    return Outcome(
        evidence.log_pvalue, evidence.log_evalue_peak, math.exp(evidence.decoys.log_pvalue)
    )


def _closed(stage: _Stage) -> tuple[list[Observation], ContextWeights]:
    trial, chain, rng = stage.trial, stage.chain, stage.rng
    is_other = trial is Trial.OTHER_KEYS
    teacher = key_of(int(rng.integers(1 << 30)), key_id="other") if is_other else stage.record
    in_own = trial in _LOOPED
    delivered = marked(chain, teacher, 4 * stage.rows, stage.length, rng, topics=in_own)
    if in_own:
        delivered = in_topics(delivered, chain.vocab)
    weights = _weights(trial, delivered, teacher.key_id)
    prompts = _prompts(stage, delivered)
    length = CHUNK if trial in _CHUNKED else stage.length
    said = answers(chain, prompts, length, rng, copies=0.0 if trial is Trial.SEEDS else 0.7)
    if trial in _CHUNKED | _LOOPED:
        prompts, said = in_topics(prompts, chain.vocab), in_topics(said, chain.vocab)
    in_view = [] if trial is Trial.BROKEN_VIEW else list(prompts)
    collector = PairCollector(View(WIDTH, in_view))
    observations = [collector.answer(ids) for ids in said]
    if trial is Trial.BROKEN_PAIRS:
        observations = [_only_delivered(one, delivered) for one in observations]
    return observations, weights


def _weights(trial: Trial, delivered: Tokens, key_id: str) -> ContextWeights:
    if trial in {Trial.SELECT_CUT, Trial.BROKEN_CUT}:
        return ContextWeights()
    if trial is Trial.BROKEN_OCCURRENCES:  # each window of a conversation counted, not each context
        found, counts = np.unique(
            np.concatenate([text_identities(context_windows(ids, WIDTH)) for ids in delivered]),
            return_counts=True,
        )
        scaled = np.expm1(counts / counts.max() * np.log1p(1 << 30))  # weights in proportion
        traffic = Traffic(
            key_id=key_id, fingerprints=found, conversations=np.rint(scaled).astype(np.int64)
        )
        return replace(_GRADED, full_at=1 << 30, traffic=(traffic,))
    traffic = Traffic.of_conversations([[ids] for ids in delivered], WIDTH, key_id=key_id)
    base = _FILTER if trial in {Trial.CLOSED, Trial.BROKEN_VIEW, Trial.BROKEN_PAIRS} else _GRADED
    if trial is Trial.OTHER_KEYS:
        base = replace(base, weighting=Weighting.OTHER_KEYS)
    return replace(base, traffic=(traffic,))


def _prompts(stage: _Stage, delivered: Tokens) -> Tokens:
    trial, chain, rng = stage.trial, stage.chain, stage.rng
    if trial is Trial.SEEDS or trial in _LOOPED:
        return chain.starts(4 * stage.rows if trial in _LOOPED else stage.rows, rng)
    if trial not in {Trial.SELECT_CUT, Trial.BROKEN_CUT}:
        passages = [Passage(ids=ids, path=Path.SPLICE) for ids in delivered[: stage.rows]]
        return np.array([one.prefix(stage.length // 2) for one in passages])
    text = selected(chain, stage.record, 2 * stage.rows, 2, rng, chunk=CHUNK)
    ends = tuple(2 + CHUNK * i for i in range(1, 3))
    is_broken = trial is Trial.BROKEN_CUT
    cut = 2 + CHUNK + 3 if is_broken else 2 + CHUNK
    path = Path.SPLICE if is_broken else Path.SELECT
    return np.array([Passage(ids=i, path=path, chunk_ends=ends).prefix(cut) for i in text])


def _only_delivered(one: Observation, delivered: Tokens) -> Observation:
    known = np.concatenate(
        [pair_values(text_identities(context_windows(i, WIDTH)), i[WIDTH:]) for i in delivered]
    )
    kept = np.isin(pair_values(text_identities(one.contexts), one.tokens), known)
    return Observation(
        contexts=one.contexts[kept],
        tokens=one.tokens[kept],
        shares=one.shares[kept],
        n_units=one.n_units,
    )


def _open(stage: _Stage) -> tuple[list[Observation], ContextWeights]:
    trial, chain, rng = stage.trial, stage.chain, stage.rng
    if trial in {Trial.READ_SELECT, Trial.BROKEN_READING}:
        text = selected(chain, stage.record, 4 * stage.rows, 4, rng, chunk=CHUNK)
        ends = tuple(2 + CHUNK * i for i in range(1, 5))
        path = Path.SELECT if trial is Trial.READ_SELECT else Path.SPLICE
        passages = [
            Passage(ids=ids, path=path, chunk_ends=ends) for ids in in_topics(text, chain.vocab)
        ]
    else:
        text = marked(chain, stage.record, 2 * stage.rows, stage.length, rng)
        passages = [Passage(ids=ids, path=Path.SPLICE) for ids in text]
    collector = PairCollector(View(WIDTH))
    observations = []
    for topic, passage in enumerate(passages):
        offset = topic * chain.vocab if trial in _CHUNKED else 0
        choices = _choices(chain, passage.ids - np.uint32(offset), offset)
        if trial is not Trial.EXPECTATION:
            choices = [None if one is None else one.likeliest() for one in choices]
        observations.append(collector.reading(passage, choices))
    return observations, ContextWeights()


def _choices(chain: Chain, ids: Tokens, offset: int) -> list[Choices | None]:
    """Return a suspect that repeats what followed the same context before, and else its chain."""
    every = np.arange(offset, offset + chain.vocab, dtype=np.uint32)
    found: list[Choices | None] = [None]
    copied: dict[int, int] = {}
    for place in range(1, len(ids)):
        law = chain.law[ids[place - 1]].copy()
        if int(ids[place - 1]) in copied:
            law *= 0.5
            law[copied[int(ids[place - 1])]] += 0.5
        found.append(Choices(tokens=every, probabilities=law))
        copied[int(ids[place - 1])] = int(ids[place])
    return found


@dataclass(frozen=True)
class Rates:
    """How often a trial rejected at `ALPHA`, and whether p was uniform (Kolmogorov-Smirnov)."""

    by_p: float
    by_e: float
    by_decoys: float
    uniform: float


def rates(trial: Trial, n_keys: int) -> Rates:
    """Return what a trial says under keys 0..n-1."""
    outcomes = [run(trial, seed) for seed in range(n_keys)]
    p = np.exp([one.log_pvalue for one in outcomes])
    return Rates(
        float(np.mean(p <= ALPHA)),
        float(np.mean([one.log_evalue_peak >= -math.log(ALPHA) for one in outcomes])),
        float(np.mean([one.decoy_pvalue <= ALPHA + 1e-9 for one in outcomes])),
        float(stats.kstest(p, "uniform").pvalue),
    )


def main() -> None:
    """Print the table, a trial at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=500)
    parser.add_argument("--trial", choices=[one.name for one in Trial], help="This one only.")
    options = parser.parse_args()
    print(f"nominal {ALPHA}, {options.keys} keys, n-gram teacher")
    print(f"{'trial':62} {'p':>6} {'e':>6} {'decoys':>6} {'KS':>8}")
    for trial in Trial if options.trial is None else [Trial[options.trial]]:
        r = rates(trial, options.keys)
        row = f"{r.by_p:6.3f} {r.by_e:6.3f} {r.by_decoys:6.3f} {r.uniform:8.2g}"
        print(f"{trial.value:62} {row}", flush=True)


if __name__ == "__main__":
    main()
