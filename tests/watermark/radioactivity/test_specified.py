"""A stranger recomputes the figures of an audit from the words of `watermark/spec/audit.md`."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from tests.watermark.suspects.audits import UNIT, key, marked_text, plain_text
from watermark.detection.key_scores import key_score_blocks
from watermark.keys import LABEL_CONTEXT
from watermark.radioactivity import (
    ContextWeights,
    Design,
    PairCollector,
    Traffic,
    View,
    Weighting,
    weigh_evidence,
)

A = 0.4
SHARE = 0.3
CELLS = 2.0**52


def gain(s: np.ndarray) -> np.ndarray:
    return (1 - A) * np.exp(A * s) - 1


def scores_under(keys: np.ndarray, contexts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return what `seeding.md` says, which has vectors of its own; shape (keys, pairs)."""
    return np.concatenate([block for _, block in key_score_blocks(keys, contexts, tokens)])


class Law:
    """A rounded term of one weight: its masses, and its mean."""

    def __init__(self, w: float) -> None:
        self.step = 2.0 ** math.floor(math.log2(SHARE / 64))
        e = SHARE * w
        self.low = math.floor(math.log(1 - A * e) / self.step)
        largest = 53 * math.log(2)
        high = math.floor(math.log(1 + e * float(gain(np.array(largest)))) / self.step)
        above = [1.0]
        for j in range(self.low + 1, high + 1):
            v = ((math.expm1(j * self.step) / e + 1) / (1 - A)) ** (-1 / A)
            above.append(min(1.0, math.floor(CELLS * v + 0.5) / CELLS))
        self.masses = np.array(above) - np.array([*above[1:], 0.0])
        values = self.step * (self.low + np.arange(len(above)))
        self.mean = float(self.masses @ values)
        self.variance = float(self.masses @ (values - self.mean) ** 2)
        self.center = round(self.mean * 2**26) / 2**26


def tail(laws: list[Law], at: float) -> float:
    """Return P(sum >= at), by convolution."""
    masses, low = np.ones(1), 0
    for law in laws:
        masses, low = np.convolve(masses, law.masses), low + law.low
    first = round(at / laws[0].step) - low
    return float(masses[max(0, first) :].sum())


@pytest.mark.parametrize("is_marked", [False, True])
def test_the_specification_gives_the_same_figures(*, is_marked: bool) -> None:
    record = key(3)
    texts = [marked_text(record, i, 4) if is_marked else plain_text(i, 4) for i in range(24)]
    traffic = Traffic.of_conversations([[UNIT.encode(one)] for one in texts[::2]], 2)
    weights = ContextWeights(
        weighting=Weighting.ALL_KEYS, full_at=4, floor=0.25, traffic=(traffic,)
    )
    collector = PairCollector(View(2))
    said = [collector.answer(UNIT.encode(one)) for one in texts]
    design = Design(share=SHARE, n_decoys=1500, weights=weights, n_answers=40, reference=0.8)
    found = weigh_evidence([record], said, design)

    contexts = np.concatenate([one.contexts for one in said])
    tokens = np.concatenate([one.tokens for one in said])
    counts = traffic.counts(contexts)
    assert {0, 1} <= set(counts.tolist())
    exact = 0.25 + 0.75 * np.minimum(1.0, np.log1p(counts) / np.log1p(4))
    w = np.ceil(exact * 32) / 32
    own = np.frombuffer(record.secret.subkey(LABEL_CONTEXT, 16), np.uint8).reshape(1, 16)
    s = scores_under(own, contexts, tokens)[0]

    bets = [
        np.prod([1 + e * one * g for one, g in zip(w, gain(s), strict=True)])
        for e in (SHARE / 2, SHARE, min(1.0, 2 * SHARE))
    ]
    assert found.log_evalue == pytest.approx(math.log(np.mean(bets)), abs=1e-9)

    by_weight = {one: Law(one) for one in set(w.tolist())}
    laws = [by_weight[one] for one in w.tolist()]
    step, centers = laws[0].step, sum(law.center for law in laws)

    def statistic(scores: np.ndarray) -> float:
        terms = step * np.floor(np.log1p(SHARE * w * gain(scores)) / step)
        return float(terms.sum() - centers)

    t = statistic(s)
    assert found.statistic == t
    p = tail(laws, t + centers)
    assert found.log_pvalue == pytest.approx(math.log(p), abs=1e-6)
    spread = math.sqrt(sum(law.variance for law in laws))
    assert found.effect == pytest.approx(t / spread / math.sqrt(len(s)))

    digest = hashlib.shake_256(b"output-watermark/v1/decoys/keys/")
    for part in (contexts, tokens):
        digest.update(part.size.to_bytes(8, "little") + part.astype("<u4").tobytes())
    seed = int.from_bytes(digest.digest(32), "little")
    rng = np.random.Generator(np.random.PCG64DXSM(seed))
    decoys = np.concatenate([rng.integers(0, 256, (n, 16), dtype=np.uint8) for n in (1024, 476)])
    ranked = [statistic(row) for row in scores_under(decoys, contexts, tokens)]
    assert found.decoys.n_reached == sum(one >= t for one in ranked)
    assert found.decoys.log_pvalue == pytest.approx(math.log((1 + found.decoys.n_reached) / 1501))

    answers = np.repeat(np.arange(len(said)), [len(one) for one in said])
    big = np.bincount(answers, w, minlength=len(said))
    x = np.bincount(answers, w * (s - 1), minlength=len(said))[big > 0]
    big = big[big > 0]
    n, m = len(x), x.sum() / big.sum()
    t0 = -2 * math.log(0.05)
    r = (t0 + math.log(t0 + 1)) / 40
    b = math.sqrt(2 * (n * r + 1) / (n**2 * r) * math.log(math.sqrt(n * r + 1) / 0.05))
    half = float(np.std(x - m * big, ddof=1)) / float(big.mean()) * b
    assert found.dose.estimate == pytest.approx(m / 0.8)
    assert found.dose.low == pytest.approx((m - half) / 0.8)
    assert found.dose.high == pytest.approx((m + half) / 0.8)
