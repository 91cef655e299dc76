"""Answers of OpenAI's responses dialect: one message of one text.

A response repeats what was asked for; nothing is kept of it (`store` is false).

Source: OpenAI API reference, "The response object" and "Streaming events".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from watermark.wire.sse import typed_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.wire.openai_answers import AnswerFrame, Piece, Usage

# What a response says of its request where that said nothing.
_SILENT: Final[dict[str, Any]] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": None,
    "store": False,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


@dataclass(slots=True)
class _Said:
    """What a stream has said so far."""

    n_events: int = 0
    pieces: list[Piece] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ResponsesDialect:
    """POST /v1/responses."""

    frame: AnswerFrame
    _said: _Said = field(default_factory=_Said)
    END: ClassVar[bytes] = b""  # `response.completed` is an event like others

    def whole(self, choices: Sequence[Sequence[Piece]], usage: Usage) -> dict[str, Any]:
        """Return a `response`."""
        (pieces,) = choices
        status = _status(pieces)
        details = {"reason": "max_output_tokens"} if status == "incomplete" else None
        ended = {
            "status": status,
            "incomplete_details": details,
            "output": [self._item(pieces)],
            "usage": _usage(usage),
        }
        return self._response() | ended

    def opening(self, usage: Usage) -> list[dict[str, Any]]:  # noqa: ARG002 - told at the end
        """Return the events with which a response, its message and its text begin."""
        part = {"part": self._text([])}
        return [
            self._event("response.created", response=self._response()),
            self._event("response.in_progress", response=self._response()),
            self._event("response.output_item.added", output_index=0, item=self._item(None)),
            self._event("response.content_part.added", **self._place, **part),
        ]

    def chunk(self, choice: int, pieces: Sequence[Piece]) -> list[dict[str, Any]]:  # noqa: ARG002 - one choice
        """Return the event with some more text; none where there is none to tell."""
        self._said.pieces.extend(pieces)
        text = "".join(piece.text for piece in pieces)
        logprobs = self._logprobs(pieces)
        if not (text or logprobs):
            return []
        kind = "response.output_text.delta"
        return [self._event(kind, **self._place, delta=text, logprobs=logprobs)]

    def closing(self, usage: Usage) -> list[dict[str, Any]]:
        """Return the events with which the text, its message and the response end."""
        pieces = self._said.pieces
        part = self._text(pieces)
        said = {"text": part["text"], "logprobs": part["logprobs"]}
        kind = f"response.{_status(pieces)}"
        return [
            self._event("response.output_text.done", **self._place, **said),
            self._event("response.content_part.done", **self._place, part=part),
            self._event("response.output_item.done", output_index=0, item=self._item(pieces)),
            self._event(kind, response=self.whole([pieces], usage)),
        ]

    def encode(self, event: dict[str, Any]) -> bytes:
        """Return one event under its type's name."""
        return typed_event(event)

    @property
    def _item_id(self) -> str:
        return f"msg_{self.frame.answer_id}"

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item_id, "output_index": 0, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
        number = self._said.n_events
        self._said.n_events += 1
        return {"type": kind, "sequence_number": number} | fields

    def _response(self) -> dict[str, Any]:
        """Return a response that has just begun."""
        asked = {name: self.frame.asked.get(name) for name in _SILENT}
        said = {name: value for name, value in asked.items() if value is not None}
        return {
            "id": f"resp_{self.frame.answer_id}",
            "object": "response",
            "created_at": self.frame.created,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": self.frame.model,
            "output": [],
            "usage": None,
            **_SILENT,
            **said,
        }

    def _item(self, pieces: Sequence[Piece] | None) -> dict[str, Any]:
        """Return the message; None where its text has not begun."""
        return {
            "id": self._item_id,
            "type": "message",
            "role": "assistant",
            "status": "in_progress" if pieces is None else _status(pieces),
            "content": [] if pieces is None else [self._text(pieces)],
        }

    def _text(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        text = "".join(piece.text for piece in pieces)
        logprobs = self._logprobs(pieces)
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}

    def _logprobs(self, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        writer = self.frame.writer
        return [] if writer is None else list(writer.chat(pieces)["content"])


def _status(pieces: Sequence[Piece]) -> str:
    is_cut = bool(pieces) and pieces[-1].finish_reason == "length"
    return "incomplete" if is_cut else "completed"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens or 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
