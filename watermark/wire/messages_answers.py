"""Answers of Anthropic's messages dialect: one message of one text, its reasoning before it.

Source: Anthropic API reference, "Messages" and "Streaming messages".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from watermark.wire.openai_answers import texts_of
from watermark.wire.sse import typed_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.wire.openai_answers import AnswerFrame, Piece, Usage

_STOP_REASONS: Final = {"stop": "end_turn", "length": "max_tokens"}


@dataclass(slots=True)
class _Said:
    """What a stream has said so far."""

    kinds: list[str] = field(default_factory=list)  # of the blocks begun
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
        reasoning, text = texts_of(pieces)
        content: list[dict[str, Any]] = [_thinking(reasoning)] if reasoning else []
        content += [{"type": "text", "text": text}] if text else []
        return self._message(content, usage) | _ending(pieces[-1] if pieces else None)

    def opening(self, usage: Usage) -> list[dict[str, Any]]:
        """Return `message_start`; a block of text begins with its first text."""
        return [{"type": "message_start", "message": self._message([], usage)}]

    def chunk(self, choice: int, pieces: Sequence[Piece]) -> list[dict[str, Any]]:  # noqa: ARG002 - one choice
        """Return the events with some more text; none where there is none."""
        if pieces:
            self._said.last = pieces[-1]
        reasoning, text = texts_of(pieces)
        events = []
        if reasoning:
            events += self._more("thinking", {"type": "thinking_delta", "thinking": reasoning})
        if text:
            events += self._more("text", {"type": "text_delta", "text": text})
        return events

    def closing(self, usage: Usage) -> list[dict[str, Any]]:
        """Return the events that say why the text ended, and that the message has."""
        ending = {"delta": _ending(self._said.last), "usage": _usage(usage)}
        return [*self._stop(), {"type": "message_delta"} | ending, {"type": "message_stop"}]

    def _more(self, kind: str, delta: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the events with more of a block, which begins where another one is open."""
        kinds, events = self._said.kinds, list[dict[str, Any]]()
        if kinds[-1:] != [kind]:
            events += self._stop()
            kinds.append(kind)
            block = {"type": "text", "text": ""} if kind == "text" else _thinking("")
            begins = {"index": len(kinds) - 1, "content_block": block}
            events.append({"type": "content_block_start"} | begins)
        more = {"type": "content_block_delta", "index": len(kinds) - 1, "delta": delta}
        return [*events, more]

    def _stop(self) -> list[dict[str, Any]]:
        """Return the event that ends the open block; none where none is open."""
        n_begun = len(self._said.kinds)
        return [{"type": "content_block_stop", "index": n_begun - 1}] if n_begun else []

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


def _thinking(text: str) -> dict[str, Any]:
    """Return a block of reasoning; nobody has signed it."""
    return {"type": "thinking", "thinking": text, "signature": ""}


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
