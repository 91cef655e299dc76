"""Unicode's own data: which characters look alike, and which script each belongs to.

The data files are those of the package `confusable-homoglyphs` (Unicode's `confusables.txt` and
`Scripts.txt`), read once and hashed into results; nothing here is a list made by hand.

Source: Unicode Technical Standard 39, section 4.
"""

from __future__ import annotations

import bisect
import hashlib
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PACKAGE: Final = "confusable_homoglyphs"
_CONFUSABLES: Final = "confusables.json"
_CATEGORIES: Final = "categories.json"
_LEFT_TO_RIGHT: Final = "\u200e"  # stands around right-to-left examples in Unicode's file

COMMON: Final = "COMMON"
INHERITED: Final = "INHERITED"
LATIN: Final = "LATIN"


class _Pair(msgspec.Struct):
    """One character or string that looks like another."""

    c: str


class _Ranges(msgspec.Struct):
    """Scripts by ranges of code points."""

    iso_15924_aliases: list[str]
    code_points_ranges: list[tuple[int, int, int, int]]


@dataclass(frozen=True, slots=True)
class Scripts:
    """Script of every code point, as sorted ranges."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    names: tuple[str, ...]

    def of(self, character: str) -> str:
        """Return the script's long name in capitals, `COMMON` where there is none."""
        code = ord(character)
        place = bisect.bisect_right(self.starts, code) - 1
        return self.names[place] if place >= 0 and code <= self.ends[place] else COMMON


@cache
def _read(name: str) -> bytes:
    return resources.files(_PACKAGE).joinpath(name).read_bytes()


@cache
def scripts() -> Scripts:
    """Return the scripts."""
    data = msgspec.json.decode(_read(_CATEGORIES), type=_Ranges)
    ranges = sorted(data.code_points_ranges)
    return Scripts(
        tuple(start for start, *_ in ranges),
        tuple(end for _, end, *_ in ranges),
        tuple(data.iso_15924_aliases[alias] for _, _, alias, _ in ranges),
    )


@cache
def lookalikes() -> Mapping[str, tuple[str, ...]]:
    """Return, for every character that has any, the characters of its class, itself included.

    A class is what the table connects. Only characters that NFKC leaves alone are in one, as
    nothing else comes here; ascending order.
    """
    pairs = msgspec.json.decode(_read(_CONFUSABLES), type=dict[str, list[_Pair]])
    links: dict[str, set[str]] = defaultdict(set)
    for key, others in pairs.items():
        for other in others:
            one, two = key.strip(_LEFT_TO_RIGHT), other.c.strip(_LEFT_TO_RIGHT)
            links[one].add(two)
            links[two].add(one)
    found: dict[str, tuple[str, ...]] = {}
    for component in _components(links):
        members = tuple(sorted(filter(_is_stable_character, component)))
        found.update((member, members) for member in members)
    return found


def tables_digest(versions: Iterable[str]) -> str:
    """Return the SHA-256 of both tables and of what else decides the form, in hex.

    Args:
        versions: Versions of the rules and of the libraries they rest on.
    """
    digest = hashlib.sha256()
    for part in (_read(_CONFUSABLES), _read(_CATEGORIES), *(name.encode() for name in versions)):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _is_stable_character(string: str) -> bool:
    return len(string) == 1 and unicodedata.normalize("NFKC", string) == string


def _components(links: Mapping[str, set[str]]) -> Iterable[set[str]]:
    """Yield the connected parts of a graph."""
    seen: set[str] = set()
    for start in links:
        if start in seen:
            continue
        component, waiting = {start}, [start]
        while waiting:
            fresh = links[waiting.pop()] - component
            component |= fresh
            waiting.extend(fresh)
        seen |= component
        yield component
