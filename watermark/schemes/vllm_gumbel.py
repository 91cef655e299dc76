r"""Read the Gumbel-max mark that vLLM makes, under one key or two.

Rule 1: the first token of each context of a reply is scored; where a reply begins, what is
missing of a context is padding, so that every token has one. Rule 2: what the engine computes in
float32 is computed in float32 here, so that the scores are its own.

Single key: s = -log(1 - u), u one of 2^24 equally likely values. The sum over n distinct pairs
is Gamma(n, 1), which is the law that the engine takes. The grid moves it a little: where u >= 1/2
a score is the lower end of its cell's exponential scores, below that at most 2^-24 above that
end, so that P(S >= x) <= Q(n, x - n 2^-24) strictly. At 10,000 pairs p could be 0.06% larger at
most; the discreteness itself pulls the other way.

Two keys: each pair has a score under either, and the statistic is (1 - alpha) A + alpha B with
A, B ~ Gamma(n, 1) independent: a hypoexponential law, exact. The engine's own detector fits a
Gamma by its moments, which understates p 1.3 to 2.4 times in the tail.

Source: vLLM 0.33.0, `vllm/v1/watermarking/gumbel.py`, `detector.py`, and
`vllm/config/watermarking.py` for the derivation of the two keys; Aaronson 2022.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from watermark.schemes.philox import PhiloxPRF
from watermark.schemes.reader import (
    GAMMA,
    NO_CONTEXTS,
    NullLaw,
    Pairs,
    Positions,
    all_windows,
    counted,
)
from watermark.seeding import context_windows, pair_values
from watermark.stats import gamma_log_sf, weighted_gammas_log_sf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from watermark.keys import ForeignKey, KeyRecord

_PADDING: Final = 0xFFFFFFFF  # -1 as the engine's 32-bit word
_DUAL: Final = "dual_key_gumbel"
_SHIFT: Final = np.uint64(32)


@dataclass(frozen=True, slots=True)
class VllmReader:
    """One engine key.

    Attributes:
        context_width: Preceding tokens in a context.
        alpha: Weight of the second key; 0 where there is one.
    """

    context_width: int
    alpha: float
    _prfs: tuple[PhiloxPRF, ...] = field(repr=False)

    @classmethod
    def of(cls, record: KeyRecord) -> VllmReader:
        """Return the reader of a key record."""
        (key,) = cast("ForeignKey", record.secret).integers
        is_dual = record.parameter("algorithm") == _DUAL
        alpha = float(record.parameter("alpha")) if is_dual else 0.0
        return cls(record.context_width, alpha, _prfs(key, is_dual=is_dual))

    def positions(self, ids: NDArray[np.uint32]) -> Positions:
        """Return every position of a reply, its beginning padded."""
        padded = np.concatenate([np.full(self.context_width, _PADDING, np.uint32), ids])
        return Positions(context_windows(padded, self.context_width), ids)

    def contexts(self, ids: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Return the identity of every context that occurs in a text, its end included."""
        return _identities(self._prfs[0].states(all_windows(ids, self.context_width)))

    def read(self, positions: Positions, *, excluded: NDArray[np.uint64] = NO_CONTEXTS) -> Pairs:
        """Return the pairs of one reply, each context once."""
        states = self._prfs[0].states(positions.contexts)
        counts = counted(_identities(states), excluded)
        if counts is None:
            return self._pairs(states, positions)
        kept = Positions(positions.contexts[counts], positions.tokens[counts])
        return self._pairs(states[:, counts], kept)

    def evaluate(self, positions: Positions) -> Pairs:
        """Return the pair at every position."""
        return self._pairs(self._prfs[0].states(positions.contexts), positions)

    def statistic(self, pairs: Pairs) -> float:
        """Return the sum of -log(1 - u) in nats, weighted over the keys."""
        sums = _scores(pairs.draws).sum(axis=0)
        weights = (1 - self.alpha, self.alpha)[: len(self._prfs)]
        return float(np.dot(sums, weights))

    def log_pvalue(self, statistic: float, pairs: Pairs) -> float:
        """Return the log upper tail of the law."""
        if len(self._prfs) == 1:
            return gamma_log_sf(statistic, len(pairs))
        return weighted_gammas_log_sf(statistic, len(pairs), (1 - self.alpha, self.alpha))

    def law(self, pairs: Pairs) -> NullLaw:  # noqa: ARG002 - the same for all
        """Return Gamma under one key, hypoexponential under two."""
        if len(self._prfs) == 1:
            return GAMMA
        return NullLaw("hypoexponential", score_sd=float(np.hypot(1 - self.alpha, self.alpha)))

    def decoy(self, rng: np.random.Generator) -> VllmReader:
        """Return the same scheme under a random 64-bit key."""
        key = int(rng.integers(2**64, dtype=np.uint64))
        return VllmReader(self.context_width, self.alpha, _prfs(key, is_dual=len(self._prfs) > 1))

    def _pairs(self, states: NDArray[np.uint64], positions: Positions) -> Pairs:
        """Return identities, and the outputs under every key, shape (n, keys)."""
        first, *others = self._prfs
        outputs = [first.outputs(states, positions.tokens)]
        outputs += [prf.outputs(prf.states(positions.contexts), positions.tokens) for prf in others]
        identities = pair_values(_identities(states), positions.tokens)
        return Pairs(identities, np.stack(outputs, axis=1))


def _prfs(key: int, *, is_dual: bool) -> tuple[PhiloxPRF, ...]:
    """Return the functions of an engine key: its own, or those of the two derived from it."""
    if not is_dual:
        return (PhiloxPRF(key),)
    names = (b"key_a", b"key_b")
    digests = [hashlib.sha256(name + key.to_bytes(8, "big")).digest() for name in names]
    return tuple(PhiloxPRF(int.from_bytes(digest[:8], "big")) for digest in digests)


def _identities(states: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return half of every context's state."""
    identities: NDArray[np.uint64] = states[0] | states[1] << _SHIFT
    return identities


def _scores(outputs: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Return -log(1 - u) of every output, u rounded to float32 as the engine has it."""
    uniforms = ((outputs >> np.uint32(8)) + 1.0) / (2**24 + 1)
    rounded = uniforms.astype(np.float32).astype(np.float64)
    scores: NDArray[np.float64] = -np.log1p(-rounded)
    return scores
