"""Answers of OpenAI's responses dialect: one message of one text.

A response repeats what was asked for; nothing is kept of it (`store` is false). Of a whole reply
of an upstream's, its reasoning is an item before the message, each call of a tool one after it, and
a refusal a part of the message.

Source: OpenAI API reference, "The response object" and "Streaming events".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from watermark.wire.sse import typed_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.wire.openai_answers import AnswerFrame, Piece
    from watermark.wire.usage import Usage

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


_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}


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
        reason = _INCOMPLETE[pieces[-1].finish_reason or ""] if status == "incomplete" else None
        ended = {
            "status": status,
            "incomplete_details": None if reason is None else {"reason": reason},
            "output": [*self._before(), self._item(pieces), *self._after()],
            "usage": _usage(usage),
        }
        return self._response() | ended

    def opening(self, usage: Usage) -> list[dict[str, Any]]:  # noqa: ARG002 - told at the end
        """Return the events with which a response, its message and its text begin."""
        item = {"output_index": self._number, "item": self._item(None)}
        return [
            self._event("response.created", response=self._response()),
            self._event("response.in_progress", response=self._response()),
            *self._whole_items(self._before(), 0),
            self._event("response.output_item.added", **item),
            self._event("response.content_part.added", **self._place, part=self._text([])),
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
        item = {"output_index": self._number, "item": self._item(pieces)}
        return [
            self._event("response.output_text.done", **self._place, **said),
            self._event("response.content_part.done", **self._place, part=part),
            *self._refusal_events(),
            self._event("response.output_item.done", **item),
            *self._whole_items(self._after(), self._number + 1),
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
        return {"item_id": self._item_id, "output_index": self._number, "content_index": 0}

    @property
    def _number(self) -> int:
        """How many items come before the message."""
        return len(self._before())

    def _before(self) -> list[dict[str, Any]]:
        """Return the items before the message."""
        trace = "" if self.frame.origin is None else self.frame.origin.trace
        if not trace:
            return []
        content = [{"type": "reasoning_text", "text": trace}]
        item_id = f"rs_{self.frame.answer_id}"
        return [{"id": item_id, "type": "reasoning", "summary": [], "content": content}]

    def _after(self) -> list[dict[str, Any]]:
        """Return the items after the message."""
        calls = () if self.frame.origin is None else self.frame.origin.calls
        return [
            {
                "id": f"fc_{self.frame.answer_id}_{number}",
                "type": "function_call",
                "status": "completed",
                "call_id": call.id,
                "name": call.function.name,
                "arguments": call.function.arguments,
            }
            for number, call in enumerate(calls)
        ]

    def _whole_items(self, items: Sequence[dict[str, Any]], first: int) -> list[dict[str, Any]]:
        """Return the events of items that are there at once."""
        return [
            self._event(f"response.output_item.{what}", output_index=place, item=item)
            for place, item in enumerate(items, start=first)
            for what in ("added", "done")
        ]

    def _refusal(self) -> list[dict[str, Any]]:
        """Return the part in which a message says that it refuses."""
        refusal = "" if self.frame.origin is None else self.frame.origin.refusal
        return [{"type": "refusal", "refusal": refusal}] if refusal else []

    def _refusal_events(self) -> list[dict[str, Any]]:
        """Return the events of that part, which comes after the text."""
        events = []
        place = self._place | {"content_index": 1}
        for part in self._refusal():
            said = part["refusal"]
            empty = part | {"refusal": ""}
            events += [
                self._event("response.content_part.added", **place, part=empty),
                self._event("response.refusal.delta", **place, delta=said),
                self._event("response.refusal.done", **place, refusal=said),
                self._event("response.content_part.done", **place, part=part),
            ]
        return events

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
            **({} if self.frame.origin is None else self.frame.origin.others),
        }

    def _item(self, pieces: Sequence[Piece] | None) -> dict[str, Any]:
        """Return the message; None where its text has not begun."""
        return {
            "id": self._item_id,
            "type": "message",
            "role": "assistant",
            "status": "in_progress" if pieces is None else _status(pieces),
            "content": [] if pieces is None else [self._text(pieces), *self._refusal()],
        }

    def _text(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        text = "".join(piece.text for piece in pieces)
        logprobs = self._logprobs(pieces)
        origin = pieces[-1].origin if pieces else None
        notes = [] if origin is None else origin.annotations
        return {"type": "output_text", "text": text, "annotations": notes, "logprobs": logprobs}

    def _logprobs(self, pieces: Sequence[Piece]) -> list[Any]:
        if pieces and pieces[-1].origin is not None:
            return list(pieces[-1].origin.logprobs)
        writer = self.frame.writer
        return [] if writer is None else list(writer.chat(pieces)["content"])


def _status(pieces: Sequence[Piece]) -> str:
    is_cut = bool(pieces) and pieces[-1].finish_reason in _INCOMPLETE
    return "incomplete" if is_cut else "completed"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens or 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
