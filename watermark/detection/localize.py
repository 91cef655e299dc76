"""Where in a document the mark is.

Rule 1: a (context, token) pair counts once in a document, where it first stands; so the scores
are independent under the null however much the document repeats itself, and a copied passage
points at its first copy. (A reply's other rule, the first token of each context, is the sampler's
and would hide a marked passage behind the unmarked text around it.)
Rule 2: the family-wise error over all windows is that of the largest window statistic
(`watermark.detection.windows`); edges come after (`watermark.detection.edges`).
Rule 3: while the key is secret, what leaves is one of three levels for each of consecutive windows
of 16 or more scored positions that do not overlap, and a p-value rounded up to a power of ten.
Overlapping windows, exact sums or exact edges would give scores of single positions by their
differences (`watermark/spec/seeding.md`, Security). Spans begin and end with windows. Exact edges
are given for a disclosed key alone, and the key's record says so, not the caller.
"""

from __future__ import annotations

import enum
import hmac
import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from watermark.detection.edges import marked_stretches, significant_windows
from watermark.detection.windows import SHORTEST, MaximumNull, Nulls, maximum, samples_for
from watermark.errors import SchemeParameterError, TextTooShortError, UnitMismatchError
from watermark.keys import LABEL_CONTEXT
from watermark.keys.states import KeyState
from watermark.schemes import CopulaReader, Positions, reader_of, scores_from_levels
from watermark.seeding import as_token_ids, first_occurrences, pair_levels, pair_values
from watermark.stats import gamma_log_sf
from watermark.text import check_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from watermark.keys import KeyRecord
    from watermark.text import Unit

    TokenIds = Sequence[int] | NDArray[Any]

DEFAULT_ALPHA: Final = 1e-3
_SEED_LABEL: Final = b"output-watermark/v1/window-decoys"
_LOG_LEVEL: Final = math.log(1e-2)


class Level(enum.IntEnum):
    """What may be said of a window while the key is secret."""

    NONE = 0
    """Its own p-value is above 0.01."""
    HINT = 1
    """Its own p-value is at most 0.01: one in a hundred windows of unmarked text."""
    MARKED = 2
    """It lies in a marked span."""


_COLORS: Final = {Level.NONE: "#d9dde3", Level.HINT: "#f2b84b", Level.MARKED: "#c2410c"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a document.

    Attributes:
        units: First and last-plus-one unit.
        characters: First and last-plus-one character; None where unit ids were given.
    """

    units: tuple[int, int]
    characters: tuple[int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window(Stretch):
    """One of the consecutive windows that a document is shown in.

    Attributes:
        n_scored: Scored positions in it, 16 or more.
        level: What may be said of it.
    """

    n_scored: int
    level: Level


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Localization:
    """Where one key's mark is in one document.

    Null: no part of the text was produced with this key.

    Attributes:
        key_id: The key.
        n_tokens: Units in the document.
        n_scored: Distinct pairs scored.
        alpha: Level at which spans are found: the chance that any span is named without a mark.
        n_tests: Documents and keys looked at together; alpha was divided by it.
        n_null: Samples of the null behind it.
        null: `decoy keys` or `simulated scores`.
        log10_pvalue_ceiling: Decimal log of the family-wise p-value over all windows of this
            document, rounded up to an integer.
        spans: Marked spans, in order; they begin and end with windows.
        windows: The document, window by window.
        exact_spans: The most likely edges; empty while the key is secret.
    """

    key_id: str
    n_tokens: int
    n_scored: int
    alpha: float
    n_tests: int
    n_null: int
    null: str
    log10_pvalue_ceiling: int
    spans: tuple[Stretch, ...]
    windows: tuple[Window, ...]
    exact_spans: tuple[Stretch, ...]

    def __repr__(self) -> str:
        """Show the spans, not hundreds of windows."""
        spans = ", ".join(f"{first}-{last - 1}" for first, last in (s.units for s in self.spans))
        return (
            f"<Localization key={self.key_id!r} marked=[{spans}] of {self.n_tokens} units, "
            f"p <= 1e{self.log10_pvalue_ceiling}>"
        )

    def _repr_html_(self) -> str:
        """Show the levels as a strip, for notebooks."""
        cells = "".join(
            f'<span title="units {window.units[0]}-{window.units[1] - 1}: '
            f'{window.level.name.lower()}" style="flex:{window.units[1] - window.units[0]};'
            f'height:1.2em;background:{_COLORS[window.level]}"></span>'
            for window in self.windows
        )
        return f'<div>{escape(repr(self))}</div><div style="display:flex">{cells}</div>'


class Localizer:
    """One key, ready to be looked for in documents.

    Example:
        >>> localizer = Localizer(record, unit)                      # doctest: +SKIP
        >>> [span.units for span in localizer.localize(text, rng=rng).spans]    # doctest: +SKIP
        [(4016, 4208)]
    """

    __slots__ = ("_nulls", "_reader", "_unit", "record")

    def __init__(
        self, record: KeyRecord, unit: Unit | None = None, *, nulls: Nulls | None = None
    ) -> None:
        """Derive what the key's scheme needs.

        Args:
            record: A key of the scheme `gumbel-copula`.
            unit: How to cut text; None where only token ids will be given.
            nulls: What was drawn for other keys and may serve this one; None to begin anew.

        Raises:
            UnitMismatchError: The unit is not the one that the key was made for.
            SchemeParameterError: The key is of another scheme.
        """
        if unit is not None and unit.unit_id != record.unit:
            raise UnitMismatchError(
                f"key {record.key_id!r} was made for {record.unit}, the unit given is "
                f"{unit.unit_id}; load the unit that the key names"
            )
        reader = reader_of(record)
        if not isinstance(reader, CopulaReader):
            raise SchemeParameterError(
                f"key {record.key_id!r} is of scheme {record.scheme}, and windows are read of "
                "gumbel-copula only; test the whole document"
            )
        self.record = record
        self._reader = reader
        self._unit = unit
        self._nulls = Nulls() if nulls is None else nulls

    def __repr__(self) -> str:
        """Show which key and unit, nothing of the secret."""
        return f"<Localizer key={self.record.key_id!r} unit={self.record.unit}>"

    def seed_for(self, text: str) -> int:
        """Return a seed for the null of a text, the same at every call.

        It follows from key and text: whoever does not hold the key cannot try variants of a text
        until its decoys happen to be weak, and once the key is disclosed all can recompute it.
        Under the null the key is random, so this HMAC of it is independent of its AES streams.

        Raises:
            TextEncodingError: The text holds half a surrogate pair.
        """
        check_text(text)
        key = self.record.secret.subkey(LABEL_CONTEXT, 16)
        digest = hmac.digest(key, _SEED_LABEL + text.encode(), "sha256")
        return int.from_bytes(digest, "little")

    def localize(
        self,
        text: str | TokenIds,
        *,
        rng: np.random.Generator,
        alpha: float = DEFAULT_ALPHA,
        n_tests: int = 1,
        with_decoys: bool = False,
    ) -> Localization:
        """Find the key's mark in one document.

        Args:
            text: Characters, or unit ids.
            rng: Draws the null; independent of the key.
            alpha: Chance that a span is named in any of the tests although there is no mark.
            n_tests: Documents times keys looked at together, fixed beforehand.
            with_decoys: Draw the null by decoy keys on this document instead of drawing scores:
                the same law by another way, some milliseconds a key.

        Raises:
            TextTooShortError: There are fewer than 16 distinct pairs.
            TextEncodingError: The text holds half a surrogate pair.
            TokenIdError: An id is out of range.
            UnitMismatchError: Characters were given and no unit.
            SchemeParameterError: alpha is not in (0, 1), or n_tests is below 1.
        """
        if n_tests < 1:
            raise SchemeParameterError(f"n_tests counts this one too, found {n_tests}")
        ids, offsets = self._units(text)
        found = _distinct(self._reader, ids)
        if len(found.places) < SHORTEST:
            raise TextTooShortError(
                f"{len(found.places)} distinct pairs in {len(ids)} units, and a window takes "
                f"{SHORTEST}; test the whole document instead"
            )
        count = samples_for(alpha / n_tests)
        share = self.record.account_share_q16
        null = (
            self._nulls.by_decoys(found.positions, count, rng, account_share_q16=share)
            if with_decoys
            else self._nulls.simulated(len(found.places), count, rng)
        )
        document = _Document(len(ids), offsets, found.places, found.scores)
        return _localization(self.record, document, null, alpha, n_tests)

    def _units(self, text: str | TokenIds) -> tuple[NDArray[np.uint32], NDArray[np.int64] | None]:
        if not isinstance(text, str):
            return as_token_ids(text), None
        if self._unit is None:
            raise UnitMismatchError("characters need a unit; make the Localizer with one")
        return self._unit.encode_with_offsets(text)


@dataclass(frozen=True, slots=True, repr=False)
class _Found:
    """The distinct pairs of a document; secret.

    Attributes:
        places: Unit of each pair that the key scores, shape (m,), ascending.
        scores: Shape (m,).
        positions: All distinct pairs, those of the account channel too: what decoys are given.
    """

    places: NDArray[np.int64]
    scores: NDArray[np.float64]
    positions: Positions


@dataclass(frozen=True, slots=True, repr=False)
class _Document:
    """What windows are laid over; secret."""

    n_tokens: int
    offsets: NDArray[np.int64] | None
    places: NDArray[np.int64]
    scores: NDArray[np.float64]

    def stretch(self, start: int, stop: int) -> tuple[tuple[int, int], tuple[int, int] | None]:
        """Return the units and characters of the scores [start, stop).

        What stands before the first score belongs to it, what follows one up to the next, too, so
        that consecutive stretches leave nothing out.
        """
        first = 0 if start == 0 else int(self.places[start])
        last = self.n_tokens if stop == len(self.places) else int(self.places[stop])
        if self.offsets is None:
            return (first, last), None
        return (first, last), (int(self.offsets[first, 0]), int(self.offsets[last - 1, 1]))


def _distinct(reader: CopulaReader, ids: NDArray[np.uint32]) -> _Found:
    """Return every pair of a document once, where it first stands (rule 1)."""
    every = reader.positions(ids)
    # Equal identities are equal pairs, whatever the key.
    identities = pair_values(reader.contexts(ids)[: len(every)], every.tokens)
    firsts = np.flatnonzero(first_occurrences(identities))
    positions = Positions(every.contexts[firsts], every.tokens[firsts])
    scored = firsts[reader.is_scored(positions)]
    scores = scores_from_levels(pair_levels(identities[scored]))
    return _Found(scored + reader.context_width, scores, positions)


def _localization(
    record: KeyRecord, document: _Document, null: MaximumNull, alpha: float, n_tests: int
) -> Localization:
    scores = document.scores
    threshold = null.threshold(alpha / n_tests)
    stretches = marked_stretches(scores, significant_windows(scores, threshold))
    pvalue = null.pvalue(float(maximum(scores)))
    grid = _grid(len(scores))
    marked = _on_grid(stretches, grid)
    is_disclosed = record.state is KeyState.DISCLOSED
    return Localization(
        key_id=record.key_id,
        n_tokens=document.n_tokens,
        n_scored=len(scores),
        alpha=alpha,
        n_tests=n_tests,
        n_null=len(null.maxima),
        null=null.source,
        log10_pvalue_ceiling=math.ceil(math.log10(pvalue) - 1e-9),
        spans=tuple(_spans(document, grid, marked)),
        windows=tuple(_windows(document, grid, marked)),
        exact_spans=tuple(_stretches(document, stretches)) if is_disclosed else (),
    )


def _grid(n_scored: int) -> list[int]:
    """Return the bounds of the windows that are shown: 16 scores each, the last up to 31."""
    return [*range(0, n_scored - SHORTEST + 1, SHORTEST), n_scored]


def _on_grid(stretches: Sequence[tuple[int, int]], grid: Sequence[int]) -> list[bool]:
    """Return which windows are marked: edges go to the nearest bound, at least one window each."""
    marked = [False] * (len(grid) - 1)
    bounds = np.array(grid)
    for start, stop in stretches:
        first = min(int(np.abs(bounds - start).argmin()), len(marked) - 1)
        last = max(int(np.abs(bounds - stop).argmin()), first + 1)
        marked[first:last] = [True] * (last - first)
    return marked


def _spans(document: _Document, grid: Sequence[int], marked: Sequence[bool]) -> list[Stretch]:
    """Return the runs of marked windows."""
    edges = np.flatnonzero(np.diff([0, *marked, 0])).reshape(-1, 2).tolist()
    return _stretches(document, [(grid[first], grid[last]) for first, last in edges])


def _stretches(document: _Document, intervals: Sequence[tuple[int, int]]) -> list[Stretch]:
    found = (document.stretch(start, stop) for start, stop in intervals)
    return [Stretch(units=units, characters=characters) for units, characters in found]


def _windows(document: _Document, grid: Sequence[int], marked: Sequence[bool]) -> list[Window]:
    """Return the document window by window, each at one of three levels (rule 3)."""
    shown = []
    for start, stop, is_marked in zip(grid, grid[1:], marked, strict=False):
        units, characters = document.stretch(start, stop)
        is_hint = gamma_log_sf(float(document.scores[start:stop].sum()), stop - start) <= _LOG_LEVEL
        level = Level.MARKED if is_marked else Level.HINT if is_hint else Level.NONE
        shown.append(Window(units=units, characters=characters, n_scored=stop - start, level=level))
    return shown
