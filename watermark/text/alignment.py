"""A text's normal form, and which of its characters each came from.

A text is cut before every character that no normal form can join to, or move before, what stands
to its left; the normal form of the whole is then those of the pieces, one after the other, and a
character of a piece's form comes from somewhere in the piece.

Source: Unicode Standard Annex 15, section 9 (stream-safe boundaries, Quick_Check).
"""

from __future__ import annotations

import sys
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_JAMO_TAILS: Final = (range(0x1161, 0x1176), range(0x11A8, 0x11C3))  # compose by rule, not table


def aligned_normal_form(
    text: str, normalize: Callable[[str], str]
) -> tuple[str, NDArray[np.int64], NDArray[np.int64]]:
    """Return a text's normal form and the characters of the text behind each of its characters.

    Args:
        text: Any text.
        normalize: Made of NFC, NFKC, case folding and of leaving out single characters.

    Returns:
        The form, and for each character of it the first and the last-plus-one character of the
        text that it came from, both of the form's length and ascending.
    """
    cuts = [place for place, one in enumerate(text) if place == 0 or _starts(one)]
    ends = [*cuts[1:], len(text)]
    forms = [normalize(text[start:end]) for start, end in zip(cuts, ends, strict=bool(cuts))]
    lengths = np.array([len(form) for form in forms], np.int64)
    starts = np.repeat(np.array(cuts, np.int64), lengths)
    return "".join(forms), starts, np.repeat(np.array(ends[: len(forms)], np.int64), lengths)


class _Starts(dict[str, bool]):
    """Character -> whether a piece may start before it, filled as characters are met."""

    def __missing__(self, character: str) -> bool:
        folded = unicodedata.normalize("NFKC", character).casefold()
        first = (unicodedata.normalize("NFKD", form)[:1] for form in (character, folded))
        is_start = self[character] = not any(map(_joins, first))
        return is_start


_STARTS: Final = _Starts()


def _starts(character: str) -> bool:
    return character.isascii() or _STARTS[character]


def _joins(character: str) -> bool:
    """Return whether a character can compose with, or be ordered before, what precedes it."""
    return (
        unicodedata.combining(character) != 0
        or any(ord(character) in tails for tails in _JAMO_TAILS)
        or character in _second_halves()
    )


@cache
def _second_halves() -> frozenset[str]:
    """Return the characters that stand second in a canonical decomposition."""
    found = set[str]()
    for code in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):  # noqa: PLR2004 - a pair
            found.add(chr(int(parts[1], 16)))
    return frozenset(found)
