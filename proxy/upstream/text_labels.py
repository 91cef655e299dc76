"""Log-probabilities by label: which tokens a text was drawn as, and which others there were.

Two forms: `tokens` and `top_logprobs` as in the completions dialect, where labels that look the
same share one entry, and `content` as in the chat dialect, where each has its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from proxy.errors import UpstreamProtocolError
from proxy.sampling.questions import (
    UNREAD_TOKEN,
    Continuation,
    Finish,
    TextPiece,
    TokenLogprobs,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.config import Capabilities
    from proxy.sampling.questions import Draft
    from proxy.sampling.spelling import Spelling

_LONGEST_CHARACTER: Final = 4  # bytes, so at most as many tokens


class Entry(msgspec.Struct):
    """One token of a list."""

    token: str
    logprob: float
    numbers: list[int] | None = msgspec.field(default=None, name="bytes")
    top_logprobs: list[Entry] = []

    @property
    def data(self) -> bytes | None:
        """The token's bytes, where they are told."""
        return None if self.numbers is None else bytes(self.numbers)


class Logprobs(msgspec.Struct):
    """Either form."""

    content: list[Entry] | None = None
    tokens: list[str] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


@dataclass(frozen=True, slots=True)
class _Position:
    """One token as it was drawn.

    Attributes:
        label: How it looks.
        data: Its bytes, where they are told.
        listed: The likeliest tokens, any order.
        is_merged: Whether equal labels share an entry, and the drawn token has one.
    """

    label: str
    data: bytes | None
    listed: Sequence[Entry]
    is_merged: bool


class LabelReader:
    """Reads one model's labels."""

    def __init__(self, spelling: Spelling, able: Capabilities) -> None:
        """Read with a tokenizer's spelling."""
        self._spelling = spelling
        self._is_cut = able.logprobs_mode == "processed"  # lists hold only what is kept

    def read(
        self, draft: Draft, logprobs: Logprobs | None, text: str, finish: Finish
    ) -> Continuation:
        """Return a continuation in tokens.

        Args:
            draft: What was asked.
            logprobs: The labels and lists of the whole continuation.
            text: Its text, whole characters.
            finish: Why it ended.

        Raises:
            UpstreamProtocolError: The labels do not spell the text.
        """
        is_nothing = finish is Finish.STOP and not text  # some list the end, and some nothing
        positions = [] if is_nothing else _positions(logprobs)
        tokens: list[int] = []
        pieces: list[TextPiece] = []
        place = 0
        for index, position in enumerate(positions):
            token = self._spelling.read(position.label, position.data)
            is_special = token is not None and self._spelling.is_special(token)
            if is_special and finish is Finish.STOP and index == len(positions) - 1:
                break
            if token is None or is_special:
                # A special token within the text is drawn, and leaves nothing behind.
                piece = TextPiece("") if is_special else _unread(positions[index:], text[place:])
                token = UNREAD_TOKEN
            else:
                is_first = not (draft.text or tokens)
                piece = TextPiece(self._piece_of(token, text, place, is_first=is_first))
            tokens.append(token)
            pieces.append(piece)
            place += len(piece.text)
            if token == UNREAD_TOKEN:
                break
        else:
            _check_whole(text, place, positions)
        lists = (self._list(one, draft) for one in positions[: len(tokens)])
        return Continuation(
            tokens=tuple(tokens),
            finish=finish,
            logprobs=tuple(lists),
            pieces=tuple(pieces),
            generated=max(1, min(draft.max_tokens, len(positions))),
        )

    def _piece_of(self, token: int, text: str, place: int, *, is_first: bool) -> str:
        """Return a token's text as the upstream wrote it."""
        piece = self._spelling.text_of(token)
        if text.startswith(piece, place):
            return piece
        bare = piece.removeprefix(" ")  # a decoder may drop the first space of a document
        if is_first and text.startswith(bare, place):
            return bare
        raise _misspelt()

    def _list(self, position: _Position, draft: Draft) -> TokenLogprobs:
        """Return the likeliest tokens down to the first label that names no single one.

        What is left does not depend on which token was drawn: in a list of merged labels one that
        was added for having been drawn has the lowest rank, and it comes after the cut, or makes
        the list longer than asked.
        """
        ranked = sorted(position.listed, key=lambda entry: -entry.logprob)
        read: list[tuple[int, float]] = []
        for entry in ranked:
            token = self._spelling.read(entry.token, entry.data)
            if token is None:
                break
            read.append((token, entry.logprob))
        else:
            if position.is_merged and not self._is_cut:
                _check_length(len(ranked), draft)
        read = read[: draft.logprobs]
        return TokenLogprobs(
            np.array([token for token, _ in read], np.uint32),
            np.array([logprob for _, logprob in read], np.float64),
        )


def _positions(logprobs: Logprobs | None) -> list[_Position]:
    if logprobs is not None and logprobs.content is not None:
        return [_Position(e.token, e.data, e.top_logprobs, False) for e in logprobs.content]  # noqa: FBT003
    if logprobs is None or logprobs.tokens is None or logprobs.top_logprobs is None:
        raise UpstreamProtocolError(
            "the upstream lists no log-probabilities; set the model's logprobs capability to 0"
        )
    if len(logprobs.tokens) != len(logprobs.top_logprobs):
        raise _misspelt()
    return [
        _Position(label, None, [Entry(*pair) for pair in (top or {}).items()], True)  # noqa: FBT003
        for label, top in zip(logprobs.tokens, logprobs.top_logprobs, strict=True)
    ]


def _unread(positions: Sequence[_Position], text: str) -> TextPiece:
    """Return the characters that the first token is part of; none where they are unfinished."""
    length, n_tokens = _characters(positions)
    if not 0 < length <= len(text):
        return TextPiece("", len(positions))
    return TextPiece(text[:length], n_tokens)


def _characters(positions: Sequence[_Position]) -> tuple[int, int]:
    """Return how many characters the first token is part of, and how many tokens those are."""
    data = b""
    for count, one in enumerate(positions[:_LONGEST_CHARACTER], start=1):
        if one.data is None:  # each run of bytes that are no character shows as one
            return len(positions[0].label), count
        data += one.data
        try:
            return len(data.decode()), count
        except UnicodeDecodeError:
            continue
    is_over = len(positions) >= _LONGEST_CHARACTER
    return (len(data.decode("utf-8", "replace")) if is_over else 0), len(positions)


def _check_whole(text: str, place: int, positions: Sequence[_Position]) -> None:
    if place != len(text) and positions:
        raise _misspelt()


def _check_length(n_listed: int, draft: Draft) -> None:
    """Refuse a list that is shorter than asked: the drawn token may hide in it as an addition."""
    n_banned = sum(value <= -100 for value in draft.bias.values())  # noqa: PLR2004 - as OpenAI
    if n_listed + n_banned < draft.logprobs:
        raise UpstreamProtocolError(
            f"the upstream listed {n_listed} tokens where {draft.logprobs} were asked for; lower "
            "the model's number of logprobs in the config"
        )


def _misspelt() -> UpstreamProtocolError:
    return UpstreamProtocolError(
        "the labels of the upstream's log-probabilities do not spell its text; check that "
        "tokenizer is the upstream's own, or set the model's logprobs capability to 0"
    )
