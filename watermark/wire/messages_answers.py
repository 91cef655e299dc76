"""Answers of Anthropic's messages dialect: one message of one text, its reasoning before it.

Of a whole reply of an upstream's, each call of a tool is a block after the text, and a refusal
stands in the place of a text.

Source: Anthropic API reference, "Messages" and "Streaming messages".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from watermark.wire.openai_answers import texts_of
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
        blocks = [_thinking(self.frame.trace + reasoning), _text(text or self.frame.refusal)]
        content = [block for block in blocks if block[block["type"]]]
        content += self._calls()
        return self._message(content, usage) | _ending(pieces[-1] if pieces else None)

    def opening(self, usage: Usage) -> list[dict[str, Any]]:
        """Return `message_start`; a block begins with its first text."""
        start = {"type": "message_start", "message": self._message([], usage)}
        return [start, *self._reasoning(self.frame.trace)]

    def chunk(self, choice: int, pieces: Sequence[Piece]) -> list[dict[str, Any]]:  # noqa: ARG002 - one choice
        """Return the events with some more reasoning or text; none where there is none."""
        if pieces:
            self._said.last = pieces[-1]
        reasoning, text = texts_of(pieces)
        return [*self._reasoning(reasoning), *self._written(text)]

    def closing(self, usage: Usage) -> list[dict[str, Any]]:
        """Return the events that say why the text ended, and that the message has."""
        events = [] if "text" in self._said.kinds else self._written(self.frame.refusal)
        for call in self._calls():
            written = msgspec.json.encode(call["input"]).decode()
            events += self._begin(call | {"input": {}})
            events.append(self._delta({"type": "input_json_delta", "partial_json": written}))
        ending = {"delta": _ending(self._said.last), "usage": _usage(usage)}
        events += self._stop()
        return [*events, {"type": "message_delta"} | ending, {"type": "message_stop"}]

    def encode(self, event: dict[str, Any]) -> bytes:
        """Return one event under its type's name."""
        return typed_event(event)

    def _reasoning(self, text: str) -> list[dict[str, Any]]:
        """Return the events with more reasoning; none where there is none."""
        return self._more(_thinking(text), "thinking_delta") if text else []

    def _written(self, text: str) -> list[dict[str, Any]]:
        """Return the events with more text; none where there is none."""
        return self._more(_text(text), "text_delta") if text else []

    def _more(self, block: dict[str, Any], delta: str) -> list[dict[str, Any]]:
        """Return the events with more of a block, which begins where another one is open."""
        kind = block["type"]
        begun = [] if self._said.kinds[-1:] == [kind] else self._begin(block | {kind: ""})
        return [*begun, self._delta({"type": delta, kind: block[kind]})]

    def _begin(self, block: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the events with which a block begins, where another one may be open."""
        stops = self._stop()
        self._said.kinds.append(block["type"])
        begins = {"index": len(self._said.kinds) - 1, "content_block": block}
        return [*stops, {"type": "content_block_start"} | begins]

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        index = len(self._said.kinds) - 1
        return {"type": "content_block_delta", "index": index, "delta": delta}

    def _stop(self) -> list[dict[str, Any]]:
        """Return the event that ends the open block; none where none is open."""
        n_begun = len(self._said.kinds)
        return [{"type": "content_block_stop", "index": n_begun - 1}] if n_begun else []

    def _calls(self) -> list[dict[str, Any]]:
        """Return the blocks after the text."""
        return [
            {"type": "tool_use", "id": call.id, "name": call.function.name, "input": call.input}
            for call in self.frame.calls
        ]

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


def _text(text: str) -> dict[str, Any]:
    """Return a block of text."""
    return {"type": "text", "text": text}


def _thinking(text: str) -> dict[str, Any]:
    """Return a block of reasoning; nobody has signed it."""
    return {"type": "thinking", "thinking": text, "signature": ""}


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
