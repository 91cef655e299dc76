"""Answers in the API's two dialects, whole or chunk by chunk.

Extensions, as vLLM has them: with `return_token_ids` the prompt's ids (in a stream: in the first
chunk) and each choice's (in a stream: those of the chunk). An end token is among the ids and in
the count of completion tokens, and not in the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.embedded.generation import Generation, Piece
    from proxy.embedded.logprobs import LogprobsWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFrame:
    """What is the same in every part of one answer.

    Attributes:
        answer_id: Without the dialect's prefix.
        created: Seconds since the epoch.
        model: The model's name.
        prompts: Token ids; choices are numbered prompt by prompt.
        generations: The choices.
        logprobs: Writes reports; None where none were asked for.
        with_token_ids: Return ids beside the text.
        with_usage: End a stream with a chunk of usage.
    """

    answer_id: str
    created: int
    model: str
    prompts: Sequence[Sequence[int]]
    generations: Sequence[Generation]
    logprobs: LogprobsWriter | None
    with_token_ids: bool
    with_usage: bool

    def prompt_of(self, choice: int) -> Sequence[int]:
        """Return the prompt that a choice answers."""
        return self.prompts[choice * len(self.prompts) // len(self.generations)]

    def usage(self) -> dict[str, Any]:
        """Return the token counts so far; a prompt counts once for all its choices."""
        per_prompt = len(self.generations) // len(self.prompts)
        prompt = sum(map(len, self.prompts))
        completion = sum(len(generation.pieces) for generation in self.generations)
        cached = sum(generation.row.cached_tokens for generation in self.generations[::per_prompt])
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


class Dialect(Protocol):
    """How one endpoint writes an answer."""

    def whole(self) -> dict[str, Any]:
        """Return the body of an answer that is not streamed."""
        ...

    def opening(self) -> list[dict[str, Any]]:
        """Return the chunks that come before any text."""
        ...

    def chunk(self, choice: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Return the chunk with some more pieces of one choice."""
        ...

    def closing(self) -> list[dict[str, Any]]:
        """Return the chunks that come after all text."""
        ...


class ChatDialect:
    """POST /v1/chat/completions."""

    def __init__(self, frame: AnswerFrame) -> None:
        self._frame = frame

    def whole(self) -> dict[str, Any]:
        """Return a `chat.completion`."""
        frame = self._frame
        body = self._envelope("chat.completion") | {
            "choices": [
                self._choice(place, "message", {"role": "assistant"}, generation.pieces)
                for place, generation in enumerate(frame.generations)
            ],
            "usage": frame.usage(),
        }
        if frame.with_token_ids:
            body["prompt_token_ids"] = frame.prompts[0]
        return body

    def opening(self) -> list[dict[str, Any]]:
        """Return one chunk with the role for every choice."""
        chunks = [
            self._chunk([self._choice(place, "delta", {"role": "assistant"}, [])])
            for place in range(len(self._frame.generations))
        ]
        if self._frame.with_token_ids:
            chunks[0]["prompt_token_ids"] = self._frame.prompts[0]
        return chunks

    def chunk(self, choice: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Return a `chat.completion.chunk` with some more pieces of one choice."""
        return self._chunk([self._choice(choice, "delta", {}, pieces)])

    def closing(self) -> list[dict[str, Any]]:
        """Return the chunk of usage, if asked for."""
        if not self._frame.with_usage:
            return []
        return [self._chunk([]) | {"usage": self._frame.usage()}]

    def _envelope(self, kind: str) -> dict[str, Any]:
        frame = self._frame
        return {
            "id": f"chatcmpl-{frame.answer_id}",
            "object": kind,
            "created": frame.created,
            "model": frame.model,
        }

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        body = self._envelope("chat.completion.chunk") | {"choices": choices}
        if self._frame.with_usage:
            body["usage"] = None
        return body

    def _choice(
        self, place: int, key: str, message: dict[str, Any], pieces: Sequence[Piece]
    ) -> dict[str, Any]:
        writer = self._frame.logprobs
        content = "".join(piece.text for piece in pieces)
        choice: dict[str, Any] = {
            "index": place,
            key: message | {"content": content},
            "logprobs": writer.chat(pieces) if writer and pieces else None,
            "finish_reason": _finish_reason(pieces),
        }
        if self._frame.with_token_ids:
            choice["token_ids"] = [piece.token for piece in pieces]
        return choice


class CompletionDialect:
    """POST /v1/completions."""

    def __init__(self, frame: AnswerFrame) -> None:
        self._frame = frame
        self._begun: set[int] = set()

    def whole(self) -> dict[str, Any]:
        """Return a `text_completion`."""
        choices = [
            self._choice(place, generation.pieces, with_prompt=True)
            for place, generation in enumerate(self._frame.generations)
        ]
        return self._envelope(choices) | {"usage": self._frame.usage()}

    def opening(self) -> list[dict[str, Any]]:
        """Return nothing: the first chunk of a choice has text."""
        return []

    def chunk(self, choice: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Return a `text_completion` chunk with some more pieces of one choice."""
        first = choice not in self._begun
        self._begun.add(choice)
        body = self._envelope([self._choice(choice, pieces, with_prompt=first)])
        if self._frame.with_usage:
            body["usage"] = None
        return body

    def closing(self) -> list[dict[str, Any]]:
        """Return the chunk of usage, if asked for."""
        if not self._frame.with_usage:
            return []
        return [self._envelope([]) | {"usage": self._frame.usage()}]

    def _envelope(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        frame = self._frame
        return {
            "id": f"cmpl-{frame.answer_id}",
            "object": "text_completion",
            "created": frame.created,
            "model": frame.model,
            "choices": choices,
        }

    def _choice(self, place: int, pieces: Sequence[Piece], *, with_prompt: bool) -> dict[str, Any]:
        frame = self._frame
        choice: dict[str, Any] = {
            "index": place,
            "text": "".join(piece.text for piece in pieces),
            "logprobs": frame.logprobs.completion(pieces) if frame.logprobs else None,
            "finish_reason": _finish_reason(pieces),
        }
        if frame.with_token_ids:
            choice["token_ids"] = [piece.token for piece in pieces]
            if with_prompt:
                choice["prompt_token_ids"] = frame.prompt_of(place)
        return choice


def _finish_reason(pieces: Sequence[Piece]) -> str | None:
    reason = pieces[-1].finish_reason if pieces else None
    return reason.value if reason else None
