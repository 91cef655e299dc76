"""Characters one by one: compatibility forms, what is not seen, line ends, stray marks.

Rule 1: NFKC. Rule 2: characters without a picture of their own go: category Cf (zero-width, bidi
controls, soft hyphens, tags), the other default-ignorable ones (variation selectors, fillers, the
grapheme joiner), and controls that are no white space. Rule 3: every line end is a line feed,
every other white space a space or a tab. Rule 4: a combining mark of no script of its own that
composes with no Latin letter, digit, sign or space before it goes (struck out,
underlined, stacked).

Source: `watermark/spec/canonical.md`, Characters.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from watermark.text.canonical.tables import COMMON, INHERITED, LATIN, scripts

# Default_Ignorable_Code_Point, less category Cf and what is not assigned (DerivedCoreProperties).
_IGNORABLE: Final = (
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0xE0100, 0xE01EF),
)
_LINE_ENDS: Final = frozenset("\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029")
_BASE, _MARK, _OTHER = "b", "m", "o"
_STRAY: Final = re.compile(f"(?<={_BASE}){_MARK}+")


class _Kept(dict[int, int | None]):
    """Code point -> what stays of it (rules 2 and 3), filled as characters are met."""

    def __missing__(self, code: int) -> int | None:
        kept = self[code] = _keep(code)
        return kept


def _keep(code: int) -> int | None:
    character = chr(code)
    if character in _LINE_ENDS:
        return ord("\n")
    if character.isspace():
        return code if character == "\t" else ord(" ")
    if unicodedata.category(character) in ("Cf", "Cc"):
        return None
    is_ignorable = any(low <= code <= high for low, high in _IGNORABLE)
    return None if is_ignorable else code


class _Kinds(dict[int, str]):
    """Code point -> whether it is a mark of no script, a base for one, or neither."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        script = scripts().of(character)
        is_mark = unicodedata.category(character)[0] == "M"
        if is_mark:
            kind = _MARK if script == INHERITED else _OTHER
        else:
            kind = _BASE if script in (LATIN, COMMON) else _OTHER
        self[code] = kind
        return kind


_KEPT: Final = _Kept()
_KINDS: Final = _Kinds()


def clean_characters(text: str) -> str:
    """Return `text` after rules 1 to 4; a fixed point of itself, in linear time."""
    text = text.replace("\r\n", "\n")
    if text.isascii():
        return text.translate(_KEPT)
    # The first pass may uncover what is not seen, taking that out may bring marks to their base.
    text = unicodedata.normalize("NFKC", text).translate(_KEPT)
    text = unicodedata.normalize("NFKC", text)
    kinds = text.translate(_KINDS)
    if _MARK not in kinds:
        return text
    ends = [(found.start(), found.end()) for found in _STRAY.finditer(kinds)]
    starts = [0, *(end for _, end in ends)]
    stops = [*(start for start, _ in ends), len(text)]
    return "".join(text[start:stop] for start, stop in zip(starts, stops, strict=True))
