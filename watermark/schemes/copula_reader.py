"""Read the mark of Gumbel-max with a Gaussian copula.

Rule 1: of the positions with a context, the first of each context in a reply is scored.
Rule 2: positions of the account channel are not scored by the epoch test.

Why the p-value is exact: the key is drawn independently of the text under the null, and the
stream of a context is a pseudorandom function of it, so distinct pairs have independent uniform u
whatever the text is; which positions are scored depends on the text's equalities, on what is
excluded beforehand and (Rule 2) on route bits that are independent of the stream bits, never on
u. The sum of n scores -log(1 - u) is then Gamma(n, 1), and its upper tail at the observed sum is
the p-value. Repeats are found on the 64-bit stream of a context: two contexts that share it share
every u, so leaving the second out is what independence asks for.

Source: `watermark/spec/seeding.md`; Aaronson 2022 for the score; Fernandez et al. 2023
(2308.00113) for the Gamma tail and for scoring each pair once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from watermark.keys import LABEL_CONTEXT
from watermark.schemes.gumbel_copula import score_sum
from watermark.schemes.reader import (
    GAMMA,
    NO_CONTEXTS,
    NullLaw,
    Pairs,
    Positions,
    all_windows,
    counted,
    sliding_positions,
)
from watermark.seeding import ContextPRF, is_account_channel, pair_values
from watermark.stats import gamma_log_sf

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from watermark.keys import KeyRecord


@dataclass(frozen=True, slots=True)
class CopulaReader:
    """One epoch key of this project's own scheme.

    Attributes:
        context_width: Preceding units in a context, 1..4.
        account_share_q16: Share of the positions, in 65536ths, that carry the account.
    """

    context_width: int
    account_share_q16: int
    _prf: ContextPRF = field(repr=False)

    @classmethod
    def of(cls, record: KeyRecord) -> CopulaReader:
        """Return the reader of a key record."""
        prf = ContextPRF(record.secret.subkey(LABEL_CONTEXT, 16))
        return cls(record.context_width, record.account_share_q16, prf)

    def positions(self, ids: NDArray[np.uint32]) -> Positions:
        """Return every position that has a whole context before it in the reply."""
        return sliding_positions(ids, self.context_width)

    def contexts(self, ids: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Return the stream of every context that occurs in a text, its end included."""
        return self._prf.evaluate(all_windows(ids, self.context_width))[0]

    def read(self, positions: Positions, *, excluded: NDArray[np.uint64] = NO_CONTEXTS) -> Pairs:
        """Return the epoch channel's pairs of one reply, each context once."""
        streams, tokens = self._epoch_channel(positions)
        counts = counted(streams, excluded)
        if counts is not None:
            (kept,) = counts.nonzero()
            streams, tokens = streams.take(kept), tokens.take(kept)
        values = pair_values(streams, tokens)
        return Pairs(values, values)

    def evaluate(self, positions: Positions) -> Pairs:
        """Return the epoch channel's pair at every position."""
        values = pair_values(*self._epoch_channel(positions))
        return Pairs(values, values)

    def is_scored(self, positions: Positions) -> NDArray[np.bool_]:
        """Return which positions belong to the epoch channel, shape (n,)."""
        _, routes = self._prf.evaluate(positions.contexts)
        return ~is_account_channel(routes, self.account_share_q16)

    def statistic(self, pairs: Pairs) -> float:
        """Return the sum of -log(1 - u) in nats."""
        return score_sum(pairs.draws)

    def log_pvalue(self, statistic: float, pairs: Pairs) -> float:
        """Return the log upper tail of Gamma(n, 1)."""
        return gamma_log_sf(statistic, len(pairs))

    def law(self, pairs: Pairs) -> NullLaw:  # noqa: ARG002 - the same for all
        """Return Gamma."""
        return GAMMA

    def decoy(self, rng: np.random.Generator) -> CopulaReader:
        """Return the same scheme under a random context key."""
        prf = ContextPRF(rng.bytes(16))
        return CopulaReader(self.context_width, self.account_share_q16, prf)

    def _epoch_channel(self, positions: Positions) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        """Return streams and tokens of the positions that this test may score."""
        streams, routes = self._prf.evaluate(positions.contexts)
        if not self.account_share_q16:
            return streams, positions.tokens
        is_epoch = ~is_account_channel(routes, self.account_share_q16)
        return streams[is_epoch], positions.tokens[is_epoch]
