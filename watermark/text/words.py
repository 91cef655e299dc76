"""The unit `words/v1`: words without a tokenizer.

Rule 1: NFKC, full case folding, NFKC again; then characters of category Cf are removed.
Rule 2: characters of categories L, M and N form runs, one unit a run; those of scripts written
without spaces are units alone.
Rule 3: of the rest, Z and C separate; every other character is a unit alone.

Source: `watermark/spec/seeding.md`, Units.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.text.alignment import aligned_normal_form
from watermark.text.unit import WORDS_V1, check_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ALONE: Final = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x2E80, 0x2FDF),
    (0x3005, 0x3007),
    (0x3021, 0x3029),
    (0x3038, 0x303B),
    (0x3041, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3134F),
)
_RUN, _SINGLE, _SEPARATOR = "r", "s", " "
_UNITS: Final = re.compile(f"{_RUN}+|{_SINGLE}")
_RESERVED: Final = 0xFFFFFFFF
_LONGEST_KEPT: Final = 32  # characters of a word whose id is remembered


class _Classes(dict[int, str]):
    """Code point -> class letter, filled as characters are met."""

    def __missing__(self, code: int) -> str:
        category = unicodedata.category(chr(code))
        if category[0] in "ZC":
            letter = _SEPARATOR
        elif category[0] not in "LMN" or any(low <= code <= high for low, high in _ALONE):
            letter = _SINGLE
        else:
            letter = _RUN
        self[code] = letter
        return letter


class _FormatCharacters(dict[int, int | None]):
    """Code point -> itself, or None (removed) for category Cf."""

    def __missing__(self, code: int) -> int | None:
        kept = None if unicodedata.category(chr(code)) == "Cf" else code
        self[code] = kept
        return kept


_CLASSES: Final = _Classes()
_FORMAT: Final = _FormatCharacters()


def _normalize(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", folded).translate(_FORMAT)


def words(text: str) -> list[str]:
    """Return the units of a text, in order, in normalized form."""
    normalized = _normalize(text)
    return [normalized[start:end] for start, end in _unit_places(normalized)]


def _unit_places(normalized: str) -> list[tuple[int, int]]:
    return [found.span() for found in _UNITS.finditer(normalized.translate(_CLASSES))]


def complete_words(text: str) -> list[str]:
    """Return the units that no further text can change.

    The last unit waits until a separator follows it: letters may go on, and a mark may compose
    with the character before it. Marks at the end are passed over, so that what they stand on
    waits too: a further mark may sort before them and compose with it.
    """
    end = len(text)
    while end and _is_mark(text[end - 1]):
        end -= 1
    text = text[:end]
    units = words(text)
    normalized = _normalize(text)
    is_open = bool(normalized) and normalized[-1:].translate(_CLASSES) != _SEPARATOR
    return units[:-1] if is_open else units


def _is_mark(character: str) -> bool:
    return unicodedata.category(unicodedata.normalize("NFKC", character)[0])[0] == "M"


def word_id(unit: str) -> int:
    """Return a unit's id: the first 32 bits of its SHA-256, little-endian, never 2^32 - 1."""
    return _short_word_id(unit) if len(unit) <= _LONGEST_KEPT else _hash(unit)


@lru_cache(maxsize=1 << 15)
def _short_word_id(unit: str) -> int:
    return _hash(unit)


def _hash(unit: str) -> int:
    number = int.from_bytes(hashlib.sha256(unit.encode()).digest()[:4], "little")
    return number - 1 if number == _RESERVED else number


class WordsUnit:
    """`words/v1` as a unit."""

    __slots__ = ()
    unit_id = WORDS_V1
    unicode_version = unicodedata.unidata_version

    def __repr__(self) -> str:
        """Show the unit and the Unicode version that decides its categories."""
        return f"<WordsUnit {self.unit_id} Unicode {self.unicode_version}>"

    def encode(self, text: str) -> NDArray[np.uint32]:
        """Return the ids of the text's words, shape (n,).

        Raises:
            TextEncodingError: The text holds half a surrogate pair.
        """
        check_text(text)
        return np.array([word_id(unit) for unit in words(text)], np.dtype("<u4"))

    def encode_with_offsets(self, text: str) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Return the ids of the text's words, and the characters each stands for, shape (n, 2).

        Raises:
            TextEncodingError: The text holds half a surrogate pair.
        """
        check_text(text)
        normalized, starts, ends = aligned_normal_form(text, _normalize)
        places = np.array(_unit_places(normalized), np.int64).reshape(-1, 2)
        ids = [word_id(normalized[start:end]) for start, end in places.tolist()]
        offsets = np.stack([starts[places[:, 0]], ends[places[:, 1] - 1]], axis=1)
        return np.array(ids, np.dtype("<u4")), offsets
