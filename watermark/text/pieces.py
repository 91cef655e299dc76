"""Ids of a text from those of its words, where a tokenizer allows it.

Tokenizers of SentencePiece's kind (Llama 1 and 2, Mistral, Phi-3) write a mark for a space and do
not cut text into words: every text is merged as one long word. Where no token has a mark behind
another character, no merge crosses a place between the two, and what is merged on one side of it
does not depend on the other: the ids of a text are those of its pieces, one after another. So
every distinct piece needs to be given to the tokenizer only once.

Whether that holds is read off the tokenizer's own file, for every text or not at all; tokenizers
of other kinds are left alone.
"""

from __future__ import annotations

import re
from array import array
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import numpy as np

from watermark.text.token_table import SPACE_MARK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

_ACROSS: Final = re.compile(f"[^{SPACE_MARK}]{SPACE_MARK}")
# The space that is cut out comes back: the normalizer puts a mark before every piece.
_PLACE: Final = re.compile(f"(?<=[^ {SPACE_MARK}]) (?=[ {SPACE_MARK}]*[^ {SPACE_MARK}])")
_MARKS: Final = re.compile(f"[ {SPACE_MARK}]")
_WORDS_TOGETHER: Final = 256
_HELD_CHARACTERS: Final = 1 << 20
"""Of pieces that are remembered from one call to the next: some 30 MB with all that they hold."""


class _Prepend(msgspec.Struct, tag="Prepend"):
    prepend: Literal["\u2581"]


class _String(msgspec.Struct):
    String: Literal[" "]


class _Replace(msgspec.Struct, tag="Replace"):
    pattern: _String
    content: Literal["\u2581"]


class _Normalizer(msgspec.Struct, tag="Sequence"):
    normalizers: tuple[_Prepend, _Replace]


class _Added(msgspec.Struct):
    special: Literal[True]  # spelt out in a text it is ordinary text, and cuts nothing


class _Merges(msgspec.Struct, tag="BPE"):
    """Settings under which a merge is decided by the symbols that meet, and by nothing else."""

    dropout: None = None
    continuing_subword_prefix: None = None
    end_of_word_suffix: None = None
    ignore_merges: Literal[False] = False


class _Rules(msgspec.Struct):
    """A `tokenizer.json` of the kind that falls into pieces; the vocabulary is looked at after."""

    normalizer: _Normalizer
    model: _Merges
    pre_tokenizer: None = None
    added_tokens: list[_Added] = []


class _Vocabulary(msgspec.Struct):
    vocab: dict[str, int]


class _Tokens(msgspec.Struct):
    model: _Vocabulary


def piece_starts(data: bytes) -> NDArray[np.bool_] | None:
    """Return whether the ids of a text are those of its pieces, for every text.

    Args:
        data: The whole `tokenizer.json`.

    Returns:
        Where they are, whether each id's token begins with a space mark, shape (n_ids,); else None.
    """
    try:
        msgspec.json.decode(data, type=_Rules)
        vocab = msgspec.json.decode(data, type=_Tokens).model.vocab
    except msgspec.DecodeError:
        return None
    if SPACE_MARK not in vocab or any(map(_ACROSS.search, vocab)):
        return None
    starts = np.zeros(max(vocab.values()) + 1, np.bool_)
    starts[[id_ for token, id_ in vocab.items() if token.startswith(SPACE_MARK)]] = True
    return starts


class PieceEncoder:
    """Encodes texts piece by piece, and remembers pieces."""

    __slots__ = ("_held", "_known", "_starts", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer, starts: NDArray[np.bool_]) -> None:
        """Begin with nothing remembered.

        Args:
            tokenizer: One whose texts fall into pieces.
            starts: What `piece_starts` says of it.
        """
        self._tokenizer = tokenizer
        self._starts = starts
        self._known: dict[str, bytes] = {}
        self._held = 0  # characters

    @property
    def n_held(self) -> int:
        """Characters of the pieces that are remembered."""
        return self._held

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Return the ids of every text, no special tokens added."""
        pieces = [pieces_of(text) for text in texts]
        self._learn(set().union(*pieces).difference(self._known))
        ids = self._known.__getitem__
        found = [np.frombuffer(b"".join(map(ids, one)), np.dtype("<u4")) for one in pieces]
        if self._held > _HELD_CHARACTERS:
            self._known.clear()
            self._held = 0
        return found

    def _learn(self, pieces: set[str]) -> None:
        """Ask the tokenizer for pieces that are new."""
        self._held += sum(map(len, pieces))
        words = [piece for piece in pieces if piece and not _MARKS.search(piece)]
        others = list(pieces.difference(words))
        self._known.update(zip(others, self._encode(others), strict=True))
        # Words are asked for many at a time: an answer costs more than a word. Each has one mark,
        # the normalizer's, at its start.
        for start in range(0, len(words), _WORDS_TOGETHER):
            some = words[start : start + _WORDS_TOGETHER]
            (ids,) = self._encode([" ".join(some)])
            begins = np.flatnonzero(self._starts[np.frombuffer(ids, np.dtype("<u4"))]) * 4
            ends = [*begins[1:].tolist(), len(ids)]
            bounds = zip(some, begins.tolist(), ends, strict=True)
            self._known.update((word, ids[begin:end]) for word, begin, end in bounds)

    def _encode(self, texts: list[str]) -> Iterator[bytes]:
        """Yield the ids of every text, as the bytes of C integers."""
        for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            yield array("I", encoding.ids).tobytes()


def pieces_of(text: str) -> list[str]:
    """Return the pieces of a text; the space between two of them belongs to neither."""
    # Where words stand alone between single spaces, a plain split gives the same, and faster.
    if "  " in text or SPACE_MARK in text or text[:1] == " " or text[-1:] == " ":
        return _PLACE.split(text)
    return text.split(" ")
