"""What each path costs for a reply of reference, and which one an operator's limits leave.

Every request of a path reads the prompt and the reply so far anew, so tokens read count beside
tokens generated. A greedy or sampled draft of d tokens is followed for (1 - a^d) / (1 - a) of them
on average, a the chance that a draft agrees with the race's winner: about the mass of the likeliest
token, which a probe measures. Which paths there are, and how they draft, is read where serving
reads it (`ModelConfig.paths`, `sampled_drafts`, `splice.draft_length`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

from proxy.sampling.questions import Path
from proxy.sampling.splice import draft_length

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from proxy.config import ModelConfig, PathLimitsConfig, PricesConfig

PROMPT_TOKENS: Final = 1000
REPLY_TOKENS: Final = 500
_PER_MILLION: Final = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast an upstream was when it was probed.

    Attributes:
        round_trip_s: Seconds of a request for one token.
        token_s: Seconds of each further token.
        agreement: Mass of the likeliest token, on average; 0.5 where it is not known.
    """

    round_trip_s: float = 0.0
    token_s: float = 0.0
    agreement: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class PathCost:
    """What a path costs for 1,000 tokens of prompt and 500 of reply.

    Attributes:
        path: The path; `NONE` is the reply without a mark.
        unit: The unit it marks in.
        rounds: Requests one after another.
        read: Tokens of prompt and reply that the upstream reads.
        first_read: Those of them that it has not read before.
        generated: Tokens that it generates.
        seconds: How long the reply takes.
        first_byte_s: How long until its first tokens are decided.
    """

    path: Path
    unit: str
    rounds: float
    read: float
    first_read: float
    generated: float
    seconds: float
    first_byte_s: float

    @property
    def multiple(self) -> float:
        """Tokens read and generated, over those of a reply without a mark."""
        return (self.read + self.generated) / (PROMPT_TOKENS + REPLY_TOKENS)

    def money(self, prices: PricesConfig) -> float:
        """Return the price, in the currency of the prices."""
        cached = prices.input if prices.cached_input is None else prices.cached_input
        again = self.read - self.first_read
        parts = self.first_read * prices.input + again * cached + self.generated * prices.output
        return parts / _PER_MILLION


def costs_of(model: ModelConfig, units: Sequence[str], speed: Speed) -> list[PathCost]:
    """Return every path that can be served, strongest first, and none last.

    `reply` is what the model costs where it is asked for whole replies alone (`asked_whole`).

    Args:
        model: The model, its capabilities known.
        units: Units of the keys that the proxy's own paths mark with: `tokenizer`, `words/v1`.
        speed: How fast the upstream is.
    """
    found = []
    if model.native.enabled and model.native.engine != "none":
        found.append(replace(_plain(speed), path=Path.NATIVE, unit="tokenizer"))
    for path, cost in _COSTS.items():
        asked = model.asked_whole if path is Path.REPLY else model
        able_in = (unit for unit in units if path in _in_unit(asked, unit).paths)
        found += [cost(asked, unit, speed) for unit in able_in]
    if model.bias.enabled and model.capabilities.logit_bias:
        found.append(replace(_plain(speed), path=Path.BIAS, unit="tokenizer"))
    return [*found, _plain(speed)]


def _in_unit(model: ModelConfig, unit: str) -> ModelConfig:
    return msgspec.structs.replace(model, unit=unit)


def chosen_path(
    costs: Sequence[PathCost], limits: PathLimitsConfig, *, plain: PathCost
) -> PathCost:
    """Return the strongest path within the limits; the unmarked reply where none is.

    Args:
        costs: Strongest first.
        limits: What the operator allows.
        plain: What the reply costs without a mark.
    """
    return next((one for one in costs if _is_within(one, limits, plain)), plain)


def _is_within(one: PathCost, limits: PathLimitsConfig, plain: PathCost) -> bool:
    bounds = (
        (one.multiple, limits.tokens),
        (one.rounds, limits.rounds),
        (one.seconds - plain.seconds, limits.seconds),
    )
    return all(limit is None or value <= limit for value, limit in bounds)


def _plain(speed: Speed) -> PathCost:
    return PathCost(
        path=Path.NONE,
        unit="",
        rounds=1,
        read=PROMPT_TOKENS,
        first_read=PROMPT_TOKENS,
        generated=REPLY_TOKENS,
        seconds=speed.round_trip_s + REPLY_TOKENS * speed.token_s,
        first_byte_s=speed.round_trip_s,
    )


def _splice(model: ModelConfig, unit: str, speed: Speed) -> PathCost:
    d, a, able = model.splice.draft_tokens, min(speed.agreement, 0.999), model.capabilities
    n = model.sampled_drafts(n_bans=min(model.splice.logprobs, able.logprobs))
    length = draft_length(d, is_text=able.is_text)
    rounds = _Rounds(length=length, n=max(1, n), gain=(1 - a**d) / (1 - a))
    return _chunked(Path.SPLICE, unit, rounds, model, speed)


def _select(model: ModelConfig, unit: str, speed: Speed) -> PathCost:
    k = model.select.chunk_tokens
    n = min(model.select.candidates, model.capabilities.choices)
    return _chunked(Path.SELECT, unit, _Rounds(length=k, n=n, gain=k), model, speed)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rounds:
    """Rounds of n continuations of some length, of which `gain` tokens stay on average."""

    length: int
    n: int
    gain: float


def _chunked(
    path: Path, unit: str, each_round: _Rounds, model: ModelConfig, speed: Speed
) -> PathCost:
    rounds = REPLY_TOKENS / each_round.gain
    side_by_side = math.ceil(each_round.n / model.capabilities.max_n)
    each = speed.round_trip_s + (each_round.length - 1) * speed.token_s
    return PathCost(
        path=path,
        unit=unit,
        rounds=rounds,
        read=rounds * (PROMPT_TOKENS + (REPLY_TOKENS - each_round.gain) / 2) * side_by_side,
        first_read=PROMPT_TOKENS,
        generated=rounds * each_round.length * each_round.n,
        seconds=rounds * each,
        first_byte_s=each,
    )


def _reply(model: ModelConfig, unit: str, speed: Speed) -> PathCost:
    n = min(model.reply.candidates, model.capabilities.choices)
    seconds = speed.round_trip_s + REPLY_TOKENS * speed.token_s
    return PathCost(
        path=Path.REPLY,
        unit=unit,
        rounds=1,
        read=PROMPT_TOKENS * math.ceil(n / model.capabilities.max_n),
        first_read=PROMPT_TOKENS,
        generated=REPLY_TOKENS * n,
        seconds=seconds,
        first_byte_s=seconds,
    )


_COSTS: Final[Mapping[Path, Callable[[ModelConfig, str, Speed], PathCost]]] = MappingProxyType(
    {Path.SPLICE: _splice, Path.SELECT: _select, Path.REPLY: _reply}
)
"""The proxy's own paths, strongest first."""
