"""From logits to a token, in double precision.

The order is that of the engines this server stands in for: penalties and bias, temperature, top-k,
top-p. Reported log-probabilities are those after penalties, bias and temperature and before
top-k and top-p ("tempered", as SGLang's), or the model's own ("raw", as vLLM's); at temperature 0
the tempered ones are those of temperature 1.

Each choice has its own generator, made from the request's seed and the choice's index, so that an
answer does not depend on what else is in the batch. One uniform number is drawn a token.
"""

from __future__ import annotations

import enum
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.wire.openai_answers import TokenReport

if TYPE_CHECKING:
    from numpy.typing import NDArray

GREEDY_BELOW: Final = 1e-6
"""Temperatures below this are 0: the division would overflow before it mattered."""

BAN: Final = -100
"""The bias that the API documents as a ban; it must hold also against a certain token."""

_TOP_P_FIRST_LOOK: Final = 128
_LEAST_LOGPROB: Final = -9999.0  # of an impossible token that is asked for by name, as in vLLM

_NO_IDS: Final[NDArray[np.int64]] = np.empty(0, dtype=np.int64)
_NO_VALUES: Final[NDArray[np.float64]] = np.empty(0, dtype=np.float64)


class LogprobsMode(enum.Enum):
    """Which log-probabilities the API reports."""

    TEMPERED = "tempered"
    RAW = "raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How one request wants its tokens drawn; checked where requests are read.

    Attributes:
        temperature: 0 is greedy.
        top_p: Smallest set of most probable tokens with at least this mass, in (0, 1].
        top_k: This many most probable tokens; 0 is all.
        presence_penalty: Taken once from the logit of every token generated before.
        frequency_penalty: Taken for every time that a token was generated before.
        bias_ids: Tokens with a bias, distinct.
        bias_values: Their biases; `BAN` bans.
        seed: For equal answers to equal requests; None draws a fresh one.
        logprobs: How many most probable tokens to report; None reports nothing.
        chosen_ids: Tokens to report in their place, distinct; none for the most probable.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    bias_ids: NDArray[np.int64] = field(default_factory=lambda: _NO_IDS)
    bias_values: NDArray[np.float64] = field(default_factory=lambda: _NO_VALUES)
    seed: int | None = None
    logprobs: int | None = None
    chosen_ids: NDArray[np.int64] = field(default_factory=lambda: _NO_IDS)


class Sampler:
    """Draws the tokens of one choice."""

    def __init__(self, params: SamplingParams, *, choice: int, mode: LogprobsMode) -> None:
        self._params = params
        self._mode = mode
        self._has_penalties = bool(params.presence_penalty or params.frequency_penalty)
        self._counts: dict[int, int] = {}
        entropy = secrets.randbits(128) if params.seed is None else params.seed % (1 << 64)
        self._generator = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence([entropy, choice]))
        )

    def draw(self, logits: NDArray[np.float64]) -> tuple[int, TokenReport | None]:
        """Return the next token and its report.

        Args:
            logits: The model's, shape (vocab,); modified in place.
        """
        params = self._params
        reported: NDArray[np.float64] | None = None
        if params.logprobs is not None and self._mode is LogprobsMode.RAW:
            reported = log_softmax(logits)
        self._penalize(logits)
        greedy = params.temperature < GREEDY_BELOW
        if not greedy and params.temperature != 1.0:
            logits -= logits.max()
            logits /= params.temperature
        if params.logprobs is not None and reported is None:
            reported = log_softmax(logits)
        token = int(logits.argmax()) if greedy else self._choose(logits)
        if self._has_penalties:
            self._counts[token] = self._counts.get(token, 0) + 1
        if reported is None:
            return token, None
        if len(params.chosen_ids):
            values = np.maximum(reported[params.chosen_ids], _LEAST_LOGPROB)
            return token, TokenReport(float(reported[token]), params.chosen_ids, values)
        return token, report(reported, token, params.logprobs or 0)

    def _penalize(self, logits: NDArray[np.float64]) -> None:
        params = self._params
        if self._counts:
            ids = np.fromiter(self._counts, dtype=np.int64)
            times = np.fromiter(self._counts.values(), dtype=np.float64)
            logits[ids] -= params.presence_penalty + params.frequency_penalty * times
        if len(params.bias_ids):
            banned = params.bias_values <= BAN
            logits[params.bias_ids] += np.where(banned, -np.inf, params.bias_values)

    def _choose(self, logits: NDArray[np.float64]) -> int:
        params = self._params
        if params.top_k == 0 and params.top_p >= 1.0:
            return _draw_from(np.exp(logits - logits.max()), self._generator.random())
        ids = top_ids(logits, params.top_k or len(logits))
        weights = np.exp(logits[ids] - logits.max())
        if params.top_p < 1.0:
            ids, weights = keep_top_p(ids, weights, params.top_p)
        return int(ids[_draw_from(weights, self._generator.random())])


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-probabilities, shape (vocab,); minus infinity stays."""
    shifted = logits - logits.max()
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result


def top_ids(values: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return the ids of the `count` greatest values, ascending; of equal ones the lowest ids."""
    if count >= len(values):
        return np.arange(len(values))
    if count == 1:
        return np.array([values.argmax()])
    threshold = np.partition(values, len(values) - count)[len(values) - count]
    above = np.flatnonzero(values > threshold)
    equal = np.flatnonzero(values == threshold)[: count - len(above)]
    return np.sort(np.concatenate([above, equal]))


def keep_top_p(
    ids: NDArray[np.int64], weights: NDArray[np.float64], top_p: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the smallest set of heaviest tokens whose share is at least `top_p`, and its weights.

    The set is never empty. A first look at the heaviest few saves sorting the vocabulary.
    """
    wanted = top_p * weights.sum()
    order = _heaviest(weights, _TOP_P_FIRST_LOOK)
    reached = np.cumsum(weights[order])
    if reached[-1] < wanted:
        order = _heaviest(weights, len(weights))
        reached = np.cumsum(weights[order])
    kept = order[: int(reached.searchsorted(wanted)) + 1]
    return ids[kept], weights[kept]


def _heaviest(weights: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    few = top_ids(weights, count)
    return few[np.argsort(-weights[few], kind="stable")]


def report(logprobs: NDArray[np.float64], token: int, count: int) -> TokenReport:
    """Return the chosen token's log-probability and the `count` best, possible ones only."""
    ids = top_ids(logprobs, count) if count else _NO_IDS
    ids = ids[np.argsort(-logprobs[ids], kind="stable")]
    values = logprobs[ids]
    possible = values > -np.inf
    return TokenReport(logprob=float(logprobs[token]), ids=ids[possible], values=values[possible])


def _draw_from(weights: NDArray[np.float64], uniform: float) -> int:
    """Return the place where the cumulative weight passes `uniform`; never one of weight 0."""
    cumulative = np.cumsum(weights)
    place = int(cumulative.searchsorted(uniform * cumulative[-1], side="right"))
    if place == len(weights):  # The product was rounded up to the total.
        place = int(np.flatnonzero(weights)[-1])
    return place
