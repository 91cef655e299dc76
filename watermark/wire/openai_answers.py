"""Answers of the OpenAI dialects, whole or chunk by chunk.

Extensions, as vLLM has them: ids beside the text, and reported tokens spelt `token_id:N`. An end
token is among the ids and in the count of completion tokens, and not in the text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import msgspec

from watermark.wire.sse import DONE, json_event

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from watermark.text import TokenTable
    from watermark.wire.origins import Call, Origin
    from watermark.wire.usage import Usage


@dataclass(frozen=True, slots=True)
class TokenReport:
    """Log-probabilities at one position.

    Attributes:
        logprob: The chosen token's, in nats.
        ids: The likeliest tokens, best first, shape (n,).
        values: Theirs, shape (n,).
    """

    logprob: float
    ids: NDArray[np.integer[Any]]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One token's worth of a choice, or more where tokens are not told.

    Attributes:
        choice: Index of the choice in the answer.
        token: The token chosen, an end token included.
        text: Text that became certain with it, often none.
        text_offset: Characters of the reply decoded before this token.
        report: Log-probabilities at the position, where asked for.
        finish_reason: Set on the last piece, in the OpenAI dialects' words.
        stop_string: Which stop string ended the text, on the last piece.
        n_tokens: How many tokens it counts for.
        is_reasoning: Whether it comes before the answer: reasoning, or a tag around it.
        origin: What the upstream gave, where this is a whole reply.
    """

    choice: int
    token: int
    text: str
    text_offset: int
    report: TokenReport | None = None
    finish_reason: str | None = None
    stop_string: str | None = None
    n_tokens: int = 1
    is_reasoning: bool = False
    origin: Origin | None = None


class LogprobsWriter:
    """Writes reports in the two forms that the API has, with tokens as text or as ids.

    Two tokens can look the same (two halves of characters both read U+FFFD) and then share one
    key in the completions form; spelt as ids every token has a key of its own.
    """

    def __init__(self, table: TokenTable, *, as_ids: bool) -> None:
        """Write for one tokenizer."""
        self._table = table
        self._as_ids = as_ids

    def label(self, token: int) -> str:
        """Return the token as the API shows it."""
        return f"token_id:{token}" if self._as_ids else self._table.labels[token]

    def completion(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Return the `logprobs` object of the completions endpoint."""
        return {
            "tokens": [self.label(piece.token) for piece in pieces],
            "token_logprobs": [piece.report.logprob for piece in pieces if piece.report],
            "top_logprobs": [self._top_dict(piece) for piece in pieces],
            "text_offset": [piece.text_offset for piece in pieces],
        }

    def chat(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Return the `logprobs` object of the chat endpoint."""
        return {"content": [self._content(piece) for piece in pieces], "refusal": None}

    def _top_dict(self, piece: Piece) -> dict[str, float] | None:
        report = piece.report
        if report is None:
            return None
        top: dict[str, float] = {}
        for token, value in zip(report.ids.tolist(), report.values.tolist(), strict=True):
            top.setdefault(self.label(token), value)  # of equal labels the likeliest stays
        top[self.label(piece.token)] = report.logprob
        return top

    def _content(self, piece: Piece) -> dict[str, Any]:
        report = piece.report
        if report is None:
            return self._entry(piece.token, 0.0) | {"top_logprobs": []}
        ids, values = report.ids.tolist(), report.values.tolist()
        top = [self._entry(token, value) for token, value in zip(ids, values, strict=True)]
        return self._entry(piece.token, report.logprob) | {"top_logprobs": top}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        special = token in self._table.special
        return {
            "token": self.label(token),
            "logprob": logprob,
            "bytes": None if special else list(self._table.content[token]),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFrame:
    """What is the same in every part of one answer.

    Attributes:
        answer_id: Without the dialect's prefix.
        created: Seconds since the epoch.
        model: The model's name.
        prompts: Token ids; choices are numbered prompt by prompt.
        n_choices: Number of choices, a multiple of the number of prompts.
        writer: Writes reports; None where none were asked for.
        with_token_ids: Return ids beside the text.
        with_usage: End a stream with a chunk of usage.
        asked: The request in the client's words, where the dialect repeats it.
        reasoning_field: Where a chat's reasoning goes; None where the model gives none.
        origin: What the upstream gave for the first choice, where it gave whole replies.
    """

    answer_id: str
    created: int
    model: str
    prompts: Sequence[Sequence[int]]
    n_choices: int
    writer: LogprobsWriter | None = None
    with_token_ids: bool = False
    with_usage: bool = False
    asked: Mapping[str, Any] = field(default_factory=dict)
    reasoning_field: str | None = None
    origin: Origin | None = None

    @property
    def envelope(self) -> Mapping[str, Any]:
        """What an upstream said of the whole answer, in these dialects' words."""
        return {} if self.origin is None else self.origin.envelope

    @property
    def trace(self) -> str:
        """The reasoning that the upstream gave beside the text of a whole reply."""
        return "" if self.origin is None else self.origin.trace

    @property
    def refusal(self) -> str:
        """What it said in place of a text."""
        return "" if self.origin is None else self.origin.refusal

    @property
    def calls(self) -> Sequence[Call]:
        """Its calls of tools."""
        return () if self.origin is None else self.origin.calls

    def prompt_of(self, choice: int) -> Sequence[int]:
        """Return the prompt that a choice answers."""
        return self.prompts[choice * len(self.prompts) // self.n_choices]


class Dialect(Protocol):
    """How one endpoint writes an answer.

    Attributes:
        END: What closes a stream after its last event.
    """

    END: ClassVar[bytes]

    def whole(self, choices: Sequence[Sequence[Piece]], usage: Usage) -> dict[str, Any]:
        """Return the body of an answer that is not streamed."""
        ...

    def opening(self, usage: Usage) -> list[dict[str, Any]]:
        """Return the events that come before any text."""
        ...

    def chunk(self, choice: int, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        """Return the events with some more pieces of one choice; none where they hold nothing."""
        ...

    def closing(self, usage: Usage) -> list[dict[str, Any]]:
        """Return the events that come after all text."""
        ...

    def encode(self, event: dict[str, Any]) -> bytes:
        """Return one event as it is sent."""
        ...


@dataclass(frozen=True, slots=True)
class ChatDialect:
    """POST /v1/chat/completions."""

    frame: AnswerFrame
    END: ClassVar[bytes] = DONE

    def whole(self, choices: Sequence[Sequence[Piece]], usage: Usage) -> dict[str, Any]:
        """Return a `chat.completion`."""
        body = self._envelope("chat.completion") | {
            "choices": [
                self._choice(place, "message", {"role": "assistant"}, pieces)
                for place, pieces in enumerate(choices)
            ],
            "usage": usage.to_json(),
        }
        if self.frame.with_token_ids and self.frame.origin is None:
            body["prompt_token_ids"] = self.frame.prompts[0]
        return body

    def opening(self, usage: Usage) -> list[dict[str, Any]]:  # noqa: ARG002 - told at the end
        """Return one chunk with the role for every choice."""
        chunks = [
            self._chunk([self._choice(place, "delta", {"role": "assistant"}, [])])
            for place in range(self.frame.n_choices)
        ]
        if self.frame.with_token_ids and self.frame.origin is None:
            chunks[0]["prompt_token_ids"] = self.frame.prompts[0]
        return chunks

    def chunk(self, choice: int, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        """Return a `chat.completion.chunk` with some more pieces of one choice."""
        return [self._chunk([self._choice(choice, "delta", {}, pieces)])]

    def closing(self, usage: Usage) -> list[dict[str, Any]]:
        """Return the chunk of usage, if asked for."""
        if not self.frame.with_usage:
            return []
        return [self._chunk([]) | {"usage": usage.to_json()}]

    def encode(self, event: dict[str, Any]) -> bytes:
        """Return one event."""
        return json_event(event)

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.frame.answer_id}",
            "object": kind,
            "created": self.frame.created,
            "model": self.frame.model,
            **{name: said for name, said in self.frame.envelope.items() if name != "object"},
        }

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        body = self._envelope("chat.completion.chunk") | {"choices": choices}
        if self.frame.with_usage:
            body["usage"] = None
        return body

    def _choice(
        self, place: int, key: str, message: dict[str, Any], pieces: Sequence[Piece]
    ) -> dict[str, Any]:
        writer = self.frame.writer
        is_delta, origin = key == "delta", pieces[-1].origin if pieces else None
        if origin is not None:
            text = "".join(piece.text for piece in pieces)
            return _given(pieces[-1], place) | {key: _said(origin, text, is_delta=is_delta)}
        choice: dict[str, Any] = {
            "index": place,
            key: message | self._spoken(pieces, is_delta=is_delta),
            "logprobs": writer.chat(pieces) if writer and pieces else None,
            "finish_reason": _finish_reason(pieces),
        }
        if self.frame.with_token_ids:
            choice["token_ids"] = [piece.token for piece in pieces]
        return choice

    def _spoken(self, pieces: Sequence[Piece], *, is_delta: bool) -> dict[str, str]:
        """Return a message's reasoning and text; a delta of reasoning has no text."""
        reasoning, content = texts_of(pieces)
        said = {self.frame.reasoning_field or "reasoning": reasoning} if reasoning else {}
        return said if reasoning and is_delta and not content else said | {"content": content}


@dataclass(frozen=True, slots=True)
class TextDialect:
    """POST /v1/completions."""

    frame: AnswerFrame
    _begun: set[int] = field(default_factory=set)
    END: ClassVar[bytes] = DONE

    def whole(self, choices: Sequence[Sequence[Piece]], usage: Usage) -> dict[str, Any]:
        """Return a `text_completion`."""
        written = [
            self._choice(place, pieces, with_prompt=True) for place, pieces in enumerate(choices)
        ]
        return self._envelope(written) | {"usage": usage.to_json()}

    def opening(self, usage: Usage) -> list[dict[str, Any]]:  # noqa: ARG002 - told at the end
        """Return nothing: the first chunk of a choice has text."""
        return []

    def chunk(self, choice: int, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        """Return a `text_completion` chunk with some more pieces of one choice."""
        first = choice not in self._begun
        self._begun.add(choice)
        body = self._envelope([self._choice(choice, pieces, with_prompt=first)])
        if self.frame.with_usage:
            body["usage"] = None
        return [body]

    def closing(self, usage: Usage) -> list[dict[str, Any]]:
        """Return the chunk of usage, if asked for."""
        if not self.frame.with_usage:
            return []
        return [self._envelope([]) | {"usage": usage.to_json()}]

    def encode(self, event: dict[str, Any]) -> bytes:
        """Return one event."""
        return json_event(event)

    def _envelope(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"cmpl-{self.frame.answer_id}",
            "object": "text_completion",
            "created": self.frame.created,
            "model": self.frame.model,
            **self.frame.envelope,
            "choices": choices,
        }

    def _choice(self, place: int, pieces: Sequence[Piece], *, with_prompt: bool) -> dict[str, Any]:
        frame = self.frame
        text = "".join(piece.text for piece in pieces)
        if pieces and pieces[-1].origin is not None:
            return _given(pieces[-1], place) | {"text": text}
        choice: dict[str, Any] = {
            "index": place,
            "text": text,
            "logprobs": frame.writer.completion(pieces) if frame.writer else None,
            "finish_reason": _finish_reason(pieces),
        }
        if frame.with_token_ids:
            choice["token_ids"] = [piece.token for piece in pieces]
            if with_prompt:
                choice["prompt_token_ids"] = frame.prompt_of(place)
        return choice


def _given(last: Piece, place: int) -> dict[str, Any]:
    """Return a choice as an upstream gave it, without its text; its number is ours."""
    fields = {} if last.origin is None else last.origin.fields
    kept = {name: value for name, value in fields.items() if name not in ("message", "text")}
    return kept | {"index": place, "finish_reason": last.finish_reason}


def _said(origin: Origin, text: str, *, is_delta: bool) -> dict[str, Any]:
    """Return a message as an upstream gave it; its text where that is not all of it."""
    said: dict[str, Any] = dict(origin.message)
    if text != origin.text:
        said["content"] = text
    if is_delta:
        said.pop("role", None)  # told when the stream began
        if origin.calls:
            calls = msgspec.json.decode(said["tool_calls"], type=list[dict[str, msgspec.Raw]])
            said["tool_calls"] = [{"index": place} | call for place, call in enumerate(calls)]
    return said


def texts_of(pieces: Sequence[Piece]) -> tuple[str, str]:
    """Return the reasoning in some pieces, and the answer in them."""
    reasoning = "".join(piece.text for piece in pieces if piece.is_reasoning)
    return reasoning, "".join(piece.text for piece in pieces if not piece.is_reasoning)


def _finish_reason(pieces: Sequence[Piece]) -> str | None:
    return pieces[-1].finish_reason if pieces else None


def error_body(
    message: str, *, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """Return an error in OpenAI's form."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
