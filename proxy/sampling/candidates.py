"""From an upstream's list of log-probabilities to what may win at a position.

The list is cut to its *certain* part: tokens that the client's top-k and top-p keep whatever the
unseen tail looks like. Within it the probabilities' ratios are exact. The mass outside is known
(then `rest` is a number, in the same units as the weights) or not (None: then the upstream has to
say, by a draw of its own, whether the position falls outside).

Rule 1: which tokens are listed must not depend on what the upstream sampled; the entry that an
upstream adds for a sampled token of low rank is left out.
Rule 2: where a tie or the last digits decide whether a token is kept, it is not certain.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from proxy.errors import UpstreamProtocolError
from proxy.sampling.parameters import MAX_BIAS
from proxy.sampling.questions import TokenLogprobs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from proxy.sampling.parameters import SamplingParameters

_SLACK: Final = 1e-6  # float32 sums of an upstream differ from ours by less
_MAX_EXCESS: Final = 1e-3  # a list may sum to a little more than one, not to more than this


class LogprobsMode(enum.StrEnum):
    """Which distribution an upstream's log-probabilities are of."""

    RAW = "raw"  # before penalties, biases and temperature (vLLM's default)
    TEMPERED = "tempered"  # after them, before top-k and top-p (SGLang, the embedded upstream)
    PROCESSED = "processed"  # after everything (vLLM's processed_logprobs)


@dataclass(frozen=True, slots=True)
class CandidateList:
    """What may win at a position.

    Attributes:
        tokens: Candidate ids, shape (n,).
        weights: Their probabilities up to one common factor, shape (n,).
        rest: Mass outside the list in the same units; None where it is not known.
    """

    tokens: NDArray[np.uint32]
    weights: NDArray[np.float64]
    rest: float | None

    def __contains__(self, token: object) -> bool:
        """Return whether a token id is a candidate."""
        return bool((self.tokens == token).any())


@dataclass(frozen=True, slots=True, kw_only=True)
class ListReader:
    """Reads one upstream's lists for one request.

    Attributes:
        parameters: The client's sampling parameters.
        mode: Which distribution the log-probabilities are of.
        size: How many tokens were asked for a position.
        vocab_size: Number of tokens that the model can emit; a list that long leaves no rest.
        is_partial: Whether lists may be cut off after any rank, or empty: what is listed are the
            likeliest tokens, without any that was added for having been sampled.
        cuts_first: Whether top-k and top-p cut before the temperature divides (llama.cpp), which
            raw lists are then redone by.
    """

    parameters: SamplingParameters
    mode: LogprobsMode
    size: int
    vocab_size: int
    is_partial: bool = False
    cuts_first: bool = False

    def read(self, listed: TokenLogprobs, sampled: int, bias: Mapping[int, float]) -> CandidateList:
        """Return what may win.

        Args:
            listed: The upstream's list at the position.
            sampled: The token that the upstream sampled there.
            bias: The additions to logits that were in force.

        Raises:
            UpstreamProtocolError: The list lacks the sampled token, or is no distribution.
        """
        if self.is_partial and not len(listed):
            return CandidateList(listed.ids, listed.logprobs, None)
        listable = self._listable(bias)
        top = self._top(listed, sampled, listable)
        if self.mode is LogprobsMode.RAW:
            shaped = self._truncate(self._reshape(top, bias))
            return self._cool(shaped) if self.cuts_first else shaped
        weights = np.exp(top.logprobs)
        if self.mode is LogprobsMode.PROCESSED:
            return CandidateList(top.ids, weights, self._processed_rest(weights, listable))
        return self._truncate(CandidateList(top.ids, weights, self._missing(weights, listable)))

    def read_chosen(
        self, listed: TokenLogprobs, chosen: Sequence[int], bias: Mapping[int, float]
    ) -> CandidateList:
        """Return chosen tokens and their weights; what is not among them a draw has to tell.

        Args:
            listed: The upstream's list of the chosen tokens, and the sampled one.
            chosen: What was asked for; none of it banned, nothing truncated.
            bias: The additions to logits that were in force.

        Raises:
            UpstreamProtocolError: The list lacks a chosen token, or is no distribution.
        """
        kept = np.isin(listed.ids, np.array(chosen, np.uint32))
        top = TokenLogprobs(listed.ids[kept], listed.logprobs[kept])
        if len(top) < len(chosen):
            raise UpstreamProtocolError(
                f"the upstream listed {len(top)} of {len(chosen)} chosen tokens; set "
                "chosen_logprobs = 0 for this model"
            )
        self._check_mass(top)
        if self.mode is LogprobsMode.RAW:
            shaped = self._reshape(top, bias)
            return CandidateList(shaped.tokens, shaped.weights, 0.0)
        return CandidateList(top.ids, np.exp(top.logprobs), 0.0)

    def _listable(self, bias: Mapping[int, float]) -> int:
        """Return how many tokens have a probability to list: banned ones have none."""
        if self.mode is LogprobsMode.RAW:  # listed as they were before the ban
            return self.vocab_size
        return self.vocab_size - sum(value <= -MAX_BIAS for value in bias.values())

    def _top(self, listed: TokenLogprobs, sampled: int, listable: int) -> TokenLogprobs:
        if not self.is_partial:
            self._check_promises(listed, sampled, listable)
        self._check_mass(listed)
        is_longer = len(listed) > self.size and not self.is_partial
        return listed.without(sampled) if is_longer else listed

    def _check_mass(self, listed: TokenLogprobs) -> None:
        mass = float(np.exp(listed.logprobs).sum())
        if not mass <= 1 + _MAX_EXCESS or np.isnan(listed.logprobs).any():
            raise UpstreamProtocolError(
                f"the upstream's log-probabilities sum to {mass:.6g}; check logprobs_mode"
            )

    def _check_promises(self, listed: TokenLogprobs, sampled: int, listable: int) -> None:
        if listed.of(sampled) is None:
            raise UpstreamProtocolError(
                "the upstream's log-probabilities lack the token it sampled; check the model's "
                "logprobs capability in the config"
            )
        # Of a list that is too short, the sampled token may be an addition that hides. What is
        # processed may be short: tokens that were cut off are left out.
        expected = 1 if self.mode is LogprobsMode.PROCESSED else min(self.size, listable)
        if len(listed) < expected:
            raise UpstreamProtocolError(
                f"the upstream listed {len(listed)} tokens where {expected} were asked for; lower "
                "the model's number of logprobs in the config"
            )

    def _processed_rest(self, weights: NDArray[np.float64], listable: int) -> float | None:
        """Return the mass outside a list of what is kept.

        With top-k or top-p it cannot be asked for: where the list is banned, the upstream cuts
        anew, among other tokens.
        """
        if len(weights) < self.size or not weights.all():
            return 0.0  # all that is kept is listed
        rest = self._missing(weights, listable)
        return None if rest > 0 and self.parameters.is_truncated else rest

    def _missing(self, probabilities: NDArray[np.float64], listable: int) -> float:
        """Return the mass that a list of absolute probabilities leaves out."""
        if len(probabilities) >= listable:
            return 0.0
        return max(0.0, 1.0 - float(probabilities.sum()))

    def _reshape(self, top: TokenLogprobs, bias: Mapping[int, float]) -> CandidateList:
        """Apply biases and temperature to raw log-probabilities."""
        added = np.array([bias.get(int(token), 0.0) for token in top.ids]) if bias else 0.0
        temperature = 1.0 if self.cuts_first else self.parameters.temperature
        logits = (top.logprobs + added) / temperature
        shift = float(logits.max())
        weights = np.exp(logits - shift)
        if len(top) >= self.vocab_size:
            return CandidateList(top.ids, weights, 0.0)
        listed = set(top.ids.tolist())
        is_plain = temperature == 1.0 and set(bias) <= listed
        missing = self._missing(np.exp(top.logprobs), self.vocab_size)
        rest = missing * math.exp(-shift) if is_plain else None
        if not (bias and self.parameters.is_truncated):
            return CandidateList(top.ids, weights, rest)
        # Biases may have carried unlisted tokens above listed ones: those have no certain rank.
        lift = max([0.0, *(value for token, value in bias.items() if token not in listed)])
        ceiling = (float(top.logprobs.min()) + lift) / temperature - shift
        ranks = weights > math.exp(min(ceiling, 0.0)) * (1 + _SLACK)
        if rest is not None:
            rest += float(weights[~ranks].sum())
        return CandidateList(top.ids[ranks], weights[ranks], rest)

    def _cool(self, cut: CandidateList) -> CandidateList:
        """Divide by the temperature what was cut before."""
        temperature = self.parameters.temperature
        if temperature == 1.0:
            return cut
        rest = 0.0 if cut.rest == 0 else None
        return CandidateList(cut.tokens, cut.weights ** (1.0 / temperature), rest)

    def _truncate(self, whole: CandidateList) -> CandidateList:
        """Cut to what top-k, then top-p on what it leaves, certainly keep."""
        if not self.parameters.is_truncated:
            return whole
        order = np.argsort(-whole.weights, kind="stable")
        ranked = CandidateList(whole.tokens[order], whole.weights[order], whole.rest)
        if self.parameters.top_k > 0:
            ranked = _keep_top_k(ranked, self.parameters.top_k)
        if self.parameters.top_p < 1:
            ranked = _keep_top_p(ranked, self.parameters.top_p)
        return ranked


def _head(ranked: CandidateList, count: int, rest: float | None) -> CandidateList:
    return CandidateList(ranked.tokens[:count], ranked.weights[:count], rest)


def _keep_top_k(ranked: CandidateList, top_k: int) -> CandidateList:
    """Return the tokens certainly among the top k; weights are in descending order."""
    n = len(ranked.weights)
    if top_k > n:  # the cut lies in the tail: all are kept, the kept mass is not known
        return _head(ranked, n, ranked.rest if ranked.rest == 0 else None)
    if top_k == n and ranked.rest == 0:
        return ranked
    # The first token that is cut, or the last listed one, which may tie with it.
    border = ranked.weights[min(top_k, n - 1)] * (1 + _SLACK)
    certain = int((ranked.weights > border).sum())
    return _head(ranked, certain, 0.0 if certain == top_k else None)


def _keep_top_p(ranked: CandidateList, top_p: float) -> CandidateList:
    """Return the tokens certainly in the nucleus; weights are in descending order.

    A token is kept while the mass before it is below top_p; of equal tokens any may come first,
    so a group counts only where its last member is kept; the last listed one may go on unlisted.
    """
    total = float(ranked.weights.sum())
    if total == 0:
        return ranked
    # With an unknown tail every share can only be smaller than this one, so what is kept by this
    # reckoning is kept in truth.
    whole = total + (ranked.rest or 0.0)
    before = np.concatenate([[0.0], np.cumsum(ranked.weights)[:-1]]) / whole
    lowest_equal = -ranked.weights * (1 - _SLACK)
    last_of_group = np.searchsorted(-ranked.weights, lowest_equal, side="right") - 1
    is_kept = before[last_of_group] < top_p - _SLACK
    if ranked.rest != 0:
        is_kept &= last_of_group < len(before) - 1
    certain = int(is_kept.sum())
    possible = int((before < top_p + _SLACK).sum())
    reaches = ranked.rest == 0 or total / whole > top_p + _SLACK
    is_closed = ranked.rest is not None and reaches and certain == possible
    return _head(ranked, certain, 0.0 if is_closed else None)
