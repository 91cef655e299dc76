"""Answers of Anthropic's messages dialect: one message whose content is at most one text.

Source: Anthropic API reference, "Messages" and "Streaming messages".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from watermark.wire.sse import typed_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.wire.openai_answers import AnswerFrame, Piece, Usage

_STOP_REASONS: Final = {"stop": "end_turn", "length": "max_tokens"}


@dataclass(slots=True)
class _Said:
    """What a stream has said so far."""

    is_begun: bool = False
    last: Piece | None = None


@dataclass(frozen=True, slots=True)
class MessagesDialect:
    """POST /v1/messages."""

    frame: AnswerFrame
    _said: _Said = field(default_factory=_Said)
    END: ClassVar[bytes] = b""  # `message_stop` is an event like others

    def whole(self, choices: Sequence[Sequence[Piece]], usage: Usage) -> dict[str, Any]:
        """Return a `message`."""
        (pieces,) = choices
        text = "".join(piece.text for piece in pieces)
        content = [{"type": "text", "text": text}] if text else []
        return self._message(content, usage) | _ending(pieces[-1] if pieces else None)

    def opening(self, usage: Usage) -> list[dict[str, Any]]:
        """Return `message_start`; a block of text begins with its first text."""
        return [{"type": "message_start", "message": self._message([], usage)}]

    def chunk(self, choice: int, pieces: Sequence[Piece]) -> list[dict[str, Any]]:  # noqa: ARG002 - one choice
        """Return the events with some more text; none where there is none."""
        if pieces:
            self._said.last = pieces[-1]
        text = "".join(piece.text for piece in pieces)
        if not text:
            return []
        delta = {"type": "text_delta", "text": text}
        events: list[dict[str, Any]] = [{"type": "content_block_delta", "index": 0, "delta": delta}]
        if not self._said.is_begun:
            self._said.is_begun = True
            block = {"type": "text", "text": ""}
            events.insert(0, {"type": "content_block_start", "index": 0, "content_block": block})
        return events

    def closing(self, usage: Usage) -> list[dict[str, Any]]:
        """Return the events that say why the text ended, and that the message has."""
        is_begun = self._said.is_begun
        stops = [{"type": "content_block_stop", "index": 0}] if is_begun else []
        ending = {"delta": _ending(self._said.last), "usage": _usage(usage)}
        return [*stops, {"type": "message_delta"} | ending, {"type": "message_stop"}]

    def encode(self, event: dict[str, Any]) -> bytes:
        """Return one event under its type's name."""
        return typed_event(event)

    def _message(self, content: list[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        return {
            "id": f"msg_{self.frame.answer_id}",
            "type": "message",
            "role": "assistant",
            "model": self.frame.model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(usage),
        }


def _ending(last: Piece | None) -> dict[str, Any]:
    """Return why a message ended; a stop sequence is named."""
    if last is None or last.finish_reason is None:
        return {"stop_reason": None, "stop_sequence": None}
    if last.stop_string is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": last.stop_string}
    return {"stop_reason": _STOP_REASONS[last.finish_reason], "stop_sequence": None}


def _usage(usage: Usage) -> dict[str, int]:
    """Return the `usage` object; tokens read from a cache are counted apart."""
    cached = usage.cached_tokens or 0
    counts = {
        "input_tokens": usage.prompt_tokens - cached,
        "output_tokens": usage.completion_tokens,
    }
    if usage.cached_tokens is not None:
        counts["cache_read_input_tokens"] = cached
    return counts
