"""A language model that continues text, with a tokenizer that merges at seams.

The letters a, b and c, the pair "ab" as a token of its own, and, optionally, a character of two
tokens. What the model drew as "a" and "b" it reads as "ab" when it continues the text.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from proxy.sampling.questions import (
    UNREAD_TOKEN,
    Continuation,
    Draft,
    Drafted,
    Finish,
    TextPiece,
    TokenLogprobs,
)
from proxy.sampling.spelling import Spelling
from watermark.text import TokenTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDE = "\u00e9"  # two bytes, a token each
CONTENT = (b"a", b"b", b"c", b"ab", *(bytes([one]) for one in WIDE.encode()), b"")
A, B, C, AB, FIRST, SECOND, END = range(7)
TABLE = TokenTable(
    content=CONTENT,
    labels=(*(one.decode("utf-8", "replace") for one in CONTENT[:END]), "<end>"),
    special=frozenset({END}),
    strips_first_space=False,
)
SPELLING = Spelling(TABLE)
START = END  # the row of an empty reply

Path = tuple[int, ...]


def encode(text: str) -> NDArray[np.uint32]:
    """Cut a text, longest token first."""
    ids: list[int] = []
    place = 0
    while place < len(text):
        token = AB if text.startswith("ab", place) else "abc".find(text[place])
        ids += [FIRST, SECOND] if text[place] == WIDE else [token]
        place += 2 if token == AB else 1
    return np.array(ids, np.uint32)


class ToyUnit:
    """The tokenizer as a key's unit."""

    unit_id = "toy"

    def encode(self, text: str) -> NDArray[np.uint32]:
        return encode(text)

    def encode_with_offsets(self, text: str) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        raise NotImplementedError(f"nothing asks where the units of {len(text)} characters stand")


@dataclass(slots=True)
class ToyTextModel:
    """Next-token probabilities by the last token; row 6 for an empty reply.

    Attributes:
        rows: Shape (7, 7).
        rng: The upstream's own randomness.
        questions: All that were asked.
    """

    rows: NDArray[np.float64]
    rng: np.random.Generator
    questions: list[Draft] = field(default_factory=list)

    def row(self, path: Path) -> NDArray[np.float64]:
        """Return the law after the tokens that the upstream holds."""
        row: NDArray[np.float64] = self.rows[path[-1] if path else START]
        return row

    def answer(self, question: Draft) -> Drafted:
        self.questions.append(question)
        return Drafted(tuple(self._continue(question) for _ in range(question.n)))

    def _continue(self, question: Draft) -> Continuation:
        path: Path = tuple(encode(question.text).tolist())
        start, lists, finish = len(path), [], Finish.LENGTH
        for _ in range(question.max_tokens):
            p = self.row(path)
            token = int(self.rng.choice(len(p), p=p))
            if token == END:
                finish = Finish.STOP
                break
            lists.append(self._list(p, question.logprobs))
            path = (*path, token)
        return _continuation(path[start:], finish, lists if question.logprobs else [])

    def _list(self, p: NDArray[np.float64], size: int) -> TokenLogprobs:
        """Return the likeliest, down to the first part of a character."""
        top = [int(token) for token in np.argsort(-p, kind="stable")[:size] if p[token] > 0]
        parts = [rank for rank, token in enumerate(top) if token in (FIRST, SECOND)]
        top = top[: parts[0]] if parts else top
        return TokenLogprobs(np.array(top, np.uint32), np.log(p[top]))

    def law(self, max_tokens: int, chunk: int, *, is_whole: bool = False) -> dict[str, float]:
        """Return the probability of every reply of the model that continues its own text.

        Args:
            max_tokens: Tokens drawn, the end apart.
            chunk: Tokens between seams.
            is_whole: Whether a chunk goes on to the end of its last character while tokens are
                left; else that is cut off.
        """
        found: defaultdict[str, float] = defaultdict(float)
        stack = [("", 0, 1.0)]
        while stack:
            text, n, mass = stack.pop()
            if n >= max_tokens:
                found[text] += mass
                continue
            held = tuple(encode(text).tolist())
            room = max_tokens - n
            most = room if is_whole else 0
            for path, p in self._chunks(held, min(chunk, room), most):
                if path[-1:] == (END,):
                    found[f"{text}{text_of(path)}$"] += mass * p
                else:
                    added = text_of(path).rstrip("\ufffd")
                    stack.append((text + added, n + len(path), mass * p))
        return dict(found)

    def _chunks(self, held: Path, length: int, most: int) -> list[tuple[Path, float]]:
        """Return every way to draw a chunk, a closing end included, with its probability.

        Args:
            held: What the upstream reads before it.
            length: Tokens of a chunk.
            most: Tokens of one that goes on to the end of its last character.
        """
        done: list[tuple[Path, float]] = []
        stack: list[tuple[Path, float]] = [((), 1.0)]
        while stack:
            path, mass = stack.pop()
            is_open = path[-1:] == (FIRST,) and len(path) < most
            if path[-1:] == (END,) or (len(path) >= length and not is_open):
                done.append((path, mass))
                continue
            row = self.row((*held, *path)).tolist()
            stack += [((*path, token), mass * p) for token, p in enumerate(row) if p > 0]
        return done


def text_of(tokens: Path) -> str:
    return b"".join(CONTENT[token] for token in tokens).decode("utf-8", "replace")


def _continuation(tokens: Path, finish: Finish, lists: list[TokenLogprobs]) -> Continuation:
    generated = len(tokens) + (finish is Finish.STOP)
    if not lists:
        whole = text_of(tokens)
        text = whole.rstrip("\ufffd") if finish is Finish.LENGTH else whole
        return Continuation(
            tokens=(), finish=finish, pieces=(TextPiece(text, len(tokens)),), generated=generated
        )
    read: list[int] = []
    pieces: list[TextPiece] = []
    for place, token in enumerate(tokens):
        if token == FIRST:
            is_whole = tokens[place + 1 : place + 2] == (SECOND,)
            read.append(UNREAD_TOKEN)
            pieces.append(TextPiece(WIDE, 2) if is_whole else TextPiece("", 1))
            break
        read.append(token)
        pieces.append(TextPiece(text_of((token,))))
    return Continuation(
        tokens=tuple(read),
        finish=finish,
        logprobs=tuple(lists[: len(read)]),
        pieces=tuple(pieces),
        generated=generated,
    )
