"""Answers of OpenAI's responses dialect: one message of one text, an item of reasoning before it.

A response repeats what was asked for; nothing is kept of it (`store` is false). Of a whole reply
of an upstream's, its reasoning is an item before the message, each call of a tool one after it, and
a refusal a part of the message.

Source: OpenAI API reference, "The response object" and "Streaming events".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from watermark.wire.openai_answers import texts_of
from watermark.wire.sse import typed_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.wire.openai_answers import AnswerFrame, Piece
    from watermark.wire.usage import Usage

_MESSAGE: Final = "message"
_REASONING: Final = "reasoning"
_CALL: Final = "function_call"
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


_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}


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
        reason = _INCOMPLETE[pieces[-1].finish_reason or ""] if status == "incomplete" else None
        items = [self._item(kind, pieces) for kind in self._kinds(pieces)]
        ended = {
            "status": status,
            "incomplete_details": None if reason is None else {"reason": reason},
            "output": [*items, *self._calls()],
            "usage": _usage(usage),
        }
        return self._response() | ended

    def opening(self, usage: Usage) -> list[dict[str, Any]]:  # noqa: ARG002 - told at the end
        """Return the events with which a response begins, and its first item if that is known."""
        events = [
            self._event("response.created", response=self._response()),
            self._event("response.in_progress", response=self._response()),
        ]
        if self.frame.trace:
            events += self._more(_REASONING, delta=self.frame.trace)
        elif self.frame.origin is None and self.frame.reasoning_field is None:
            events += self._begin(_MESSAGE)
        return events

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
        events: list[dict[str, Any]] = []
        if _MESSAGE in self._kinds(pieces):  # of which nothing may have been told yet
            events += self._turn_to(_MESSAGE)
        events += self._end()
        for call in self._calls():
            self._said.kinds.append(_CALL)
            events += [self._of_item("added", call), self._of_item("done", call)]
        kind = f"response.{_status(pieces)}"
        return [*events, self._event(kind, response=self.whole([pieces], usage))]

    def encode(self, event: dict[str, Any]) -> bytes:
        """Return one event under its type's name."""
        return typed_event(event)

    def _texts(self, pieces: Sequence[Piece]) -> tuple[str, str]:
        """Return the reasoning of an answer, whoever told it apart, and its text."""
        reasoning, text = texts_of(pieces)
        return self.frame.trace + reasoning, text

    def _kinds(self, pieces: Sequence[Piece]) -> list[str]:
        """Return the items of an answer before its calls, in order.

        One that is cut short has reasoning alone, and one that only calls has no message.
        """
        reasoning, text = self._texts(pieces)
        kinds = [_REASONING] if reasoning else []
        is_silent = not (text or self.frame.refusal or self._logprobs(pieces))
        return kinds if is_silent and (kinds or self.frame.calls) else [*kinds, _MESSAGE]

    def _more(self, kind: str, **fields: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any JSON
        """Return the events with more of an item, which begins where another one is open."""
        begun = self._turn_to(kind)
        return [*begun, self._event(f"{_DELTAS[kind]}.delta", **self._place, **fields)]

    def _turn_to(self, kind: str) -> list[dict[str, Any]]:
        """Return the events that end another item and begin one; none where it is open."""
        if self._said.kinds[-1:] == [kind]:
            return []
        return [*self._end(), *self._begin(kind)]

    def _begin(self, kind: str) -> list[dict[str, Any]]:
        self._said.kinds.append(kind)
        part = self._part(kind, None)
        return [
            self._of_item("added", self._item(kind, None)),
            self._event("response.content_part.added", **self._place, part=part),
        ]

    def _end(self) -> list[dict[str, Any]]:
        """Return the events that end the open item; none where none is open."""
        if not self._said.kinds:
            return []
        kind, pieces = self._said.kinds[-1], self._said.pieces
        part = self._part(kind, pieces)
        said = {name: part[name] for name in ("text", "logprobs") if name in part}
        return [
            self._event(f"{_DELTAS[kind]}.done", **self._place, **said),
            self._event("response.content_part.done", **self._place, part=part),
            *(self._refusal_events() if kind == _MESSAGE else ()),
            self._of_item("done", self._item(kind, pieces)),
        ]

    @property
    def _index(self) -> int:
        """Which of the answer's items the last one begun is."""
        return len(self._said.kinds) - 1

    @property
    def _place(self) -> dict[str, Any]:
        """Where the text of the open item is."""
        item = f"{_PREFIXES[self._said.kinds[-1]]}_{self.frame.answer_id}"
        return {"item_id": item, "output_index": self._index, "content_index": 0}

    def _calls(self) -> list[dict[str, Any]]:
        """Return the items after the message."""
        return [
            {
                "id": f"fc_{self.frame.answer_id}_{number}",
                "type": _CALL,
                "status": "completed",
                "call_id": call.id,
                "name": call.function.name,
                "arguments": call.function.arguments,
            }
            for number, call in enumerate(self.frame.calls)
        ]

    def _refusal(self) -> list[dict[str, Any]]:
        """Return the part in which a message says that it refuses."""
        refusal = self.frame.refusal
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

    def _of_item(self, what: str, item: dict[str, Any]) -> dict[str, Any]:
        """Return the event that the last item begun was added, or is done."""
        return self._event(f"response.output_item.{what}", output_index=self._index, item=item)

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

    def _item(self, kind: str, pieces: Sequence[Piece] | None) -> dict[str, Any]:
        """Return an item; None where its text has not begun."""
        own: dict[str, Any] = {"role": "assistant"} if kind == _MESSAGE else {"summary": []}
        content = [] if pieces is None else [self._part(kind, pieces)]
        if pieces is not None and kind == _MESSAGE:
            content += self._refusal()
        item = {
            "id": f"{_PREFIXES[kind]}_{self.frame.answer_id}",
            "type": kind,
            "status": "in_progress" if pieces is None else self._status_of(kind, pieces),
            "content": content,
        }
        return item | own

    def _status_of(self, kind: str, pieces: Sequence[Piece]) -> str:
        """Return how an item ended: what cuts an answer short cuts its last item."""
        is_last = kind == self._kinds(pieces)[-1]
        return _status(pieces) if is_last else "completed"

    def _part(self, kind: str, pieces: Sequence[Piece] | None) -> dict[str, Any]:
        """Return the part with an item's text; None where that has not begun."""
        reasoning, text = ("", "") if pieces is None else self._texts(pieces)
        if kind == _REASONING:
            return {"type": "reasoning_text", "text": reasoning}
        logprobs = self._logprobs(pieces or ())
        origin = pieces[-1].origin if pieces else None
        notes = [] if origin is None else origin.annotations
        return {"type": "output_text", "text": text, "annotations": notes, "logprobs": logprobs}

    def _logprobs(self, pieces: Sequence[Piece]) -> list[Any]:
        if pieces and pieces[-1].origin is not None:
            return list(pieces[-1].origin.logprobs)
        writer = self.frame.writer
        said = [piece for piece in pieces if not piece.is_reasoning]
        return [] if writer is None else list(writer.chat(said)["content"])


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
