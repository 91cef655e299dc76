"""A request's sampling parameters, as far as marking has to understand them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_BIAS: Final = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParameters:
    """What the client asked of the sampler.

    Attributes:
        temperature: Divisor of the logits, >= 0.
        top_p: Mass of the nucleus, in (0, 1].
        top_k: Number of likeliest tokens kept; 0 keeps all.
        presence_penalty: Taken off the logit of every token that has occurred in the reply.
        frequency_penalty: Taken off once per occurrence.
        logit_bias: Additions to logits by token id.
        max_tokens: Longest reply; None until the context is full.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    max_tokens: int | None = None

    @property
    def has_penalties(self) -> bool:
        """Whether the distribution depends on which tokens the reply holds."""
        return self.presence_penalty != 0 or self.frequency_penalty != 0

    @property
    def is_truncated(self) -> bool:
        """Whether tokens are cut off by rank or mass."""
        return self.top_p < 1 or self.top_k > 0

    def bias(self, tokens: Sequence[int]) -> dict[int, float]:
        """Return what to add to the logits after these reply tokens.

        A continued reply is prompt to the upstream, which would forget its penalties; as biases
        they stay exact, one token at a time.
        """
        bias = dict(self.logit_bias)
        if self.has_penalties:
            for token, count in Counter(tokens).items():
                penalty = self.presence_penalty + count * self.frequency_penalty
                bias[token] = bias.get(token, 0.0) - penalty
        return {token: max(-MAX_BIAS, min(MAX_BIAS, value)) for token, value in bias.items()}
