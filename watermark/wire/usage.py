"""Token counts of an answer, as its client is to see them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from watermark.wire.origins import Origin

_OF_ALL_CHOICES: Final = ("completion_tokens", "total_tokens", "completion_tokens_details")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts of an answer.

    Attributes:
        prompt_tokens: A prompt counts once for all its choices.
        completion_tokens: Of all choices, end tokens included.
        cached_tokens: Prompt tokens that needed no computation; None where not known.
        reasoning_tokens: Completion tokens before the answer; None where not known.
        given: What an upstream says in place of these, and besides, as it is written.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    given: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the `usage` object."""
        body: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }
        if self.cached_tokens is not None:
            body["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        if self.reasoning_tokens is not None:
            body["completion_tokens_details"] = {"reasoning_tokens": self.reasoning_tokens}
        return {**body, **self.given}


def usage_of(origins: Sequence[Origin], counted: Usage) -> Usage:
    """Return the usage that the client of some replies is to see.

    What was drawn and not delivered is not the client's. Where the upstream counted the one reply
    alone, its words go on; of several choices only what it says of the prompt does.

    Args:
        origins: The delivered replies, at least one.
        counted: What was counted here.
    """
    first = origins[0]
    if len(origins) == 1 and first.is_alone:
        return replace(
            counted,
            prompt_tokens=first.prompt_tokens or counted.prompt_tokens,
            completion_tokens=first.completion_tokens or counted.completion_tokens,
            cached_tokens=first.cached_tokens,
            reasoning_tokens=first.reasoning_tokens,
            given=first.usage,
        )
    given = {name: raw for name, raw in first.usage.items() if name not in _OF_ALL_CHOICES}
    return replace(counted, cached_tokens=first.cached_tokens, given=given)
