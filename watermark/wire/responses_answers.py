"""Answers of OpenAI's responses dialect: one message of one text, an item of reasoning before it.

A response repeats what was asked for; nothing is kept of it (`store` is false).

Source: OpenAI API reference, "The response object" and "Streaming events".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from watermark.wire.openai_answers import texts_of
from watermark.wire.sse import typed_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.wire.openai_answers import AnswerFrame, Piece, Usage

_MESSAGE: Final = "message"
_REASONING: Final = "reasoning"
_DELTAS: Final = {_MESSAGE: "response.output_text", _REASONING: "response.reasoning_text"}
_PREFIXES: Final = {_MESSAGE: "msg", _REASONING: "rs"}

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
    kinds: list[str] = field(default_factory=list)  # of the items begun


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
            "output": [self._item(kind, pieces) for kind in self._kinds(pieces)],
            "usage": _usage(usage),
        }
        return self._response() | ended

    def opening(self, usage: Usage) -> list[dict[str, Any]]:  # noqa: ARG002 - told at the end
        """Return the events with which a response begins, and its message if it comes at once."""
        events = [
            self._event("response.created", response=self._response()),
            self._event("response.in_progress", response=self._response()),
        ]
        return events if self.frame.reasoning_field else [*events, *self._begin(_MESSAGE)]

    def chunk(self, choice: int, pieces: Sequence[Piece]) -> list[dict[str, Any]]:  # noqa: ARG002 - one choice
        """Return the events with some more reasoning or text; none where there is none to tell."""
        self._said.pieces.extend(pieces)
        reasoning, text = texts_of(pieces)
        events: list[dict[str, Any]] = []
        if reasoning:
            events += self._more(_REASONING, delta=reasoning)
        logprobs = self._logprobs(pieces)
        if text or logprobs:
            events += self._more(_MESSAGE, delta=text, logprobs=logprobs)
        return events

    def closing(self, usage: Usage) -> list[dict[str, Any]]:
        """Return the events with which the last item and the response end."""
        pieces = self._said.pieces
        begun = [] if self._said.kinds else self._begin(_MESSAGE)
        kind = f"response.{_status(pieces)}"
        response = self.whole([pieces], usage)
        return [*begun, *self._end(), self._event(kind, response=response)]

    def _kinds(self, pieces: Sequence[Piece]) -> list[str]:
        """Return the items of an answer, in order; one that is cut short has reasoning alone."""
        reasoning, text = texts_of(pieces)
        if not reasoning:
            return [_MESSAGE]
        return [_REASONING, _MESSAGE] if text or self._logprobs(pieces) else [_REASONING]

    def _more(self, kind: str, **fields: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any JSON
        """Return the events with more of an item, which begins where another one is open."""
        begun = [] if self._said.kinds[-1:] == [kind] else [*self._end(), *self._begin(kind)]
        return [*begun, self._event(f"{_DELTAS[kind]}.delta", **self._place, **fields)]

    def _begin(self, kind: str) -> list[dict[str, Any]]:
        self._said.kinds.append(kind)
        index = self._place["output_index"]
        part = self._part(kind, [])
        return [
            self._event(
                "response.output_item.added", output_index=index, item=self._item(kind, None)
            ),
            self._event("response.content_part.added", **self._place, part=part),
        ]

    def _end(self) -> list[dict[str, Any]]:
        """Return the events that end the open item; none where none is open."""
        if not self._said.kinds:
            return []
        kind, pieces = self._said.kinds[-1], self._said.pieces
        part, index = self._part(kind, pieces), self._place["output_index"]
        said = {name: part[name] for name in ("text", "logprobs") if name in part}
        return [
            self._event(f"{_DELTAS[kind]}.done", **self._place, **said),
            self._event("response.content_part.done", **self._place, part=part),
            self._event(
                "response.output_item.done", output_index=index, item=self._item(kind, pieces)
            ),
        ]

    def encode(self, event: dict[str, Any]) -> bytes:
        """Return one event under its type's name."""
        return typed_event(event)

    @property
    def _place(self) -> dict[str, Any]:
        """Where the open item is."""
        kinds = self._said.kinds
        item = f"{_PREFIXES[kinds[-1]]}_{self.frame.answer_id}"
        return {"item_id": item, "output_index": len(kinds) - 1, "content_index": 0}

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

    def _item(self, kind: str, pieces: Sequence[Piece] | None) -> dict[str, Any]:
        """Return an item; None where its text has not begun."""
        item: dict[str, Any] = {
            "id": f"{_PREFIXES[kind]}_{self.frame.answer_id}",
            "type": kind,
            "status": "in_progress" if pieces is None else _status(pieces),
            "content": [] if pieces is None else [self._part(kind, pieces)],
        }
        return item | ({"role": "assistant"} if kind == _MESSAGE else {"summary": []})

    def _part(self, kind: str, pieces: Sequence[Piece]) -> dict[str, Any]:
        reasoning, text = texts_of(pieces)
        if kind == _REASONING:
            return {"type": "reasoning_text", "text": reasoning}
        logprobs = self._logprobs(pieces)
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}

    def _logprobs(self, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        writer = self.frame.writer
        said = [piece for piece in pieces if not piece.is_reasoning]
        return [] if writer is None else list(writer.chat(said)["content"])


def _status(pieces: Sequence[Piece]) -> str:
    is_cut = bool(pieces) and pieces[-1].finish_reason == "length"
    return "incomplete" if is_cut else "completed"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens or 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
