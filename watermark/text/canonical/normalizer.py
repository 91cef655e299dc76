"""The canonical form: characters, mark-up and look-alikes until nothing changes any more.

Rule 1: total: every text has a form, save one with half a surrogate pair, which no file can hold.
Rule 2: a fixed point: `canonical(canonical(text)) == canonical(text)`, by construction. One pass
may uncover what the next must take out (an escape in an escape), so passes are repeated until
one changes nothing; a text still changing after `MOST_PASSES` was made to do so, and is left
without any sign that could mean something.
Rule 3: linear: a bounded number of linear passes.

Source: `watermark/spec/canonical.md`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Final

import markdown_it

from watermark.text.canonical.characters import clean_characters
from watermark.text.canonical.folding import fold_lookalikes
from watermark.text.canonical.markup import PARAGRAPH, Part, shown_prose, split_code
from watermark.text.canonical.tables import tables_digest
from watermark.text.unit import check_text

CANONICAL_VERSION: Final = "canonical/v1"
MOST_PASSES: Final = 8
_BACKTICKS: Final = re.compile("`{3,}")


def canonical(text: str) -> str:
    """Return a text without what hides its units from a detector.

    Args:
        text: Any text, of any length.

    Returns:
        A fixed point of this function; plain ASCII prose in paragraphs comes back as it was.

    Raises:
        TextEncodingError: The text holds half a surrogate pair.
    """
    check_text(text)
    for _ in range(MOST_PASSES):
        before, text = text, _pass(text)
        if text == before:
            return text
    return _plain(text)


@cache
def canonical_digest() -> str:
    """Return the SHA-256 of the version, the tables and the libraries behind the form, in hex."""
    return tables_digest((CANONICAL_VERSION, unicodedata.unidata_version, markdown_it.__version__))


def _pass(text: str) -> str:
    parts = [_shown(part) for part in split_code(clean_characters(text))]
    kept = [part for part in parts if part.text or part.is_code]
    folded = fold_lookalikes(part.text for part in kept)
    written = (_written(part, text) for part, text in zip(kept, folded, strict=True))
    return PARAGRAPH.join(written)


def _shown(part: Part) -> Part:
    return part if part.is_code else Part(shown_prose(part.text))


def _written(part: Part, text: str) -> str:
    """Return a part with fences around it where it is code, longer than any that it holds."""
    if not part.is_code:
        return text
    longest = max(map(len, _BACKTICKS.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{part.info}\n{text}\n{fence}"


def _plain(text: str) -> str:
    """Return the words of a text that no pass leaves alone, on one line."""
    for _ in range(MOST_PASSES):
        before = text
        (text,) = fold_lookalikes([clean_characters(text)])
        text = " ".join("".join(one if one.isalpha() else " " for one in text).split())
        if text == before:
            break
    return text
