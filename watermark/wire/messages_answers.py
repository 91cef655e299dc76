"""Answers of Anthropic's messages dialect: one message, whose content is a text.

Of a whole reply of an upstream's, its reasoning is a block before the text and each call of a tool
one after it.

Source: Anthropic API reference, "Messages" and "Streaming messages".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from watermark.wire.sse import typed_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.wire.openai_answers import AnswerFrame, Piece
    from watermark.wire.usage import Usage

_STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "content_filter": "refusal",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
}


@dataclass(slots=True)
class _Said:
    """What a stream has said so far."""

    is_begun: bool = False
    n_blocks: int = 0
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
        text = "".join(piece.text for piece in pieces) or self._refusal
        content = [{"type": "text", "text": text}] if text else []
        blocks = [*self._before(), *content, *self._after()]
        return self._message(blocks, usage) | _ending(pieces[-1] if pieces else None)

    def opening(self, usage: Usage) -> list[dict[str, Any]]:
        """Return `message_start`; a block of text begins with its first text."""
        start = {"type": "message_start", "message": self._message([], usage)}
        return [start, *self._whole_blocks(self._before())]

    def chunk(self, choice: int, pieces: Sequence[Piece]) -> list[dict[str, Any]]:  # noqa: ARG002 - one choice
        """Return the events with some more text; none where there is none."""
        if pieces:
            self._said.last = pieces[-1]
        text = "".join(piece.text for piece in pieces) or (self._refusal if pieces else "")
        if not text:
            return []
        events: list[dict[str, Any]] = []
        if not self._said.is_begun:
            self._said.is_begun = True
            events.append(self._start({"type": "text", "text": ""}))
        return [*events, self._delta({"type": "text_delta", "text": text})]

    def closing(self, usage: Usage) -> list[dict[str, Any]]:
        """Return the events that say why the text ended, and that the message has."""
        stops = [self._stop()] if self._said.is_begun else []
        stops += self._whole_blocks(self._after())
        ending = {"delta": _ending(self._said.last), "usage": _usage(usage)}
        return [*stops, {"type": "message_delta"} | ending, {"type": "message_stop"}]

    def encode(self, event: dict[str, Any]) -> bytes:
        """Return one event under its type's name."""
        return typed_event(event)

    @property
    def _refusal(self) -> str:
        """What is said in place of a text."""
        return "" if self.frame.origin is None else self.frame.origin.refusal

    def _before(self) -> list[dict[str, Any]]:
        """Return the blocks before the text."""
        trace = "" if self.frame.origin is None else self.frame.origin.trace
        return [{"type": "thinking", "thinking": trace, "signature": ""}] if trace else []

    def _after(self) -> list[dict[str, Any]]:
        """Return the blocks after the text."""
        return [
            {"type": "tool_use", "id": call.id, "name": call.function.name, "input": call.input}
            for call in (() if self.frame.origin is None else self.frame.origin.calls)
        ]

    def _whole_blocks(self, blocks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the events of blocks that are there at once."""
        events: list[dict[str, Any]] = []
        for block in blocks:
            if block["type"] == "thinking":
                empty = block | {"thinking": ""}
                delta = {"type": "thinking_delta", "thinking": block["thinking"]}
            else:
                empty = block | {"input": {}}
                written = msgspec.json.encode(block["input"]).decode()
                delta = {"type": "input_json_delta", "partial_json": written}
            events += [self._start(empty), self._delta(delta), self._stop()]
        return events

    def _start(self, block: dict[str, Any]) -> dict[str, Any]:
        index = self._said.n_blocks
        return {"type": "content_block_start", "index": index, "content_block": block}

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self._said.n_blocks, "delta": delta}

    def _stop(self) -> dict[str, Any]:
        self._said.n_blocks += 1
        return {"type": "content_block_stop", "index": self._said.n_blocks - 1}

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
            **({} if self.frame.origin is None else self.frame.origin.others),
        }


def _ending(last: Piece | None) -> dict[str, Any]:
    """Return why a message ended; a stop sequence is named."""
    if last is None or last.finish_reason is None:
        return {"stop_reason": None, "stop_sequence": None}
    origin = last.origin
    stop = last.stop_string if origin is None else last.stop_string or origin.stop_string
    if stop is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": stop}
    is_refused = origin is not None and bool(origin.refusal)
    reason = "refusal" if is_refused else _STOP_REASONS.get(last.finish_reason, "end_turn")
    return {"stop_reason": reason, "stop_sequence": None}


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
