"""Whether key records contradict each other: what is wrong, in which, and what helps.

Rule 1: of one scope and unit one record marks at any instant between the first epoch and the
last; windows that overlap are refused, and so is a gap. Rule 2: one id has one secret and one
scope. Rule 3: a message names the keys and the remedy; whoever reads the file adds the line.

Source: `watermark/spec/key-file.md`, section "Agreement".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from watermark.keys.record import (
    BEGINNING,
    DEFAULT_SCOPE,
    END,
    KeyFields,
    format_time,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

_WHEN_UNDATED: Final = "set state 'detect' in the older one"


def find_conflict(
    fields: Sequence[KeyFields],
    secrets: Sequence[Hashable],
    scopes: Sequence[str] = (),
) -> tuple[int, str] | None:
    """Return the first record that contradicts one before it, and why; None where all agree.

    Args:
        fields: The records, in the order of the file.
        secrets: What identifies each one's secret: its reference, or the key itself.
        scopes: The names of the scopes beside `default`.

    Returns:
        The position of the later record, from 0, and a message with the remedy.
    """
    known = {DEFAULT_SCOPE, *scopes}
    pairs: set[tuple[str, str]] = set()
    identities: dict[str, tuple[Hashable, str]] = {}
    for index, (record, secret) in enumerate(zip(fields, secrets, strict=True)):
        key_id, unit = record.key_id, record.unit
        if (key_id, unit) in pairs:
            return index, f"key {key_id!a} has two records for unit {unit!a}; remove one"
        pairs.add((key_id, unit))
        other_secret, other_scope = identities.setdefault(key_id, (secret, record.scope))
        if other_secret != secret:
            return index, (
                f"key {key_id!a} is given two secrets; one id has one secret, "
                "so name the same file in each of its records, or choose another id"
            )
        if other_scope != record.scope:
            return index, (
                f"key {key_id!a} is in scopes {other_scope!a} and {record.scope!a}; an epoch "
                "belongs to one scope, so make another key for the other"
            )
        if record.scope not in known:
            return index, (
                f"scope {record.scope!a} is not defined; add a [[scope]] table with this name, "
                "or correct it"
            )
    return find_window_conflict(fields)


def has_window(record: KeyFields) -> bool:
    """Return whether a record takes part in the agreement of windows."""
    return record.claims or (record.is_dated and record.stop > record.start)


def find_window_conflict(fields: Sequence[KeyFields]) -> tuple[int, str] | None:
    """Return the first overlap or gap among the windows of each scope and unit.

    Args:
        fields: The records, in the order of the file.

    Returns:
        As `find_conflict`.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for index, record in enumerate(fields):
        if has_window(record):
            groups.setdefault((record.scope, record.unit), []).append(index)
    for places in groups.values():
        if len(places) == 1:
            continue
        found = _find_in_group(fields, places)
        if found is not None:
            return found
    return None


def _find_in_group(fields: Sequence[KeyFields], places: list[int]) -> tuple[int, str] | None:
    """Return the first overlap or gap among the windows of one scope and unit."""
    ordered = sorted(places, key=lambda place: (fields[place].start, place))
    reach, last = BEGINNING, -1  # how far the windows reach, and whose reach it is
    marker = -1  # the last that may still mark
    for place in ordered:
        record = fields[place]
        is_marker = record.claims
        if marker >= 0 and is_marker and record.start < fields[marker].stop:
            return max(place, marker), _overlap(fields[marker], record)
        if last >= 0 and record.start > reach:
            return place, _gap(fields[last], record)
        if is_marker:
            marker = place
        if record.stop > reach or last < 0:
            reach, last = record.stop, place
    return None


def _overlap(older: KeyFields, newer: KeyFields) -> str:
    """Return what is wrong with two windows that share an instant, and what helps."""
    where = f"both mark unit {newer.unit!a}{in_scope(newer.scope)}"
    if not newer.is_dated:
        return f"keys {older.key_id!a} and {newer.key_id!a} {where}; {_WHEN_UNDATED}"
    stop = min(older.stop, newer.stop)
    since = f" from {format_time(newer.start)}" if newer.start != BEGINNING else ""
    until = f" to {format_time(stop)}" if stop != END else ""
    remedy = f"set not_after = {format_time(newer.start)} in {older.key_id!a}"
    if newer.start == older.start:
        remedy = "give one of them another not_before"
    return f"keys {older.key_id!a} and {newer.key_id!a} {where}{since}{until}; {remedy}"


def _gap(older: KeyFields, newer: KeyFields) -> str:
    """Return what is wrong where nothing marks between two windows, and what helps."""
    return (
        f"no key marks unit {newer.unit!a}{in_scope(newer.scope)} from "
        f"{format_time(older.stop)}, when {older.key_id!a} ends, to {format_time(newer.start)}; "
        f"set not_before = {format_time(older.stop)} in {newer.key_id!a}, or a later not_after "
        f"in {older.key_id!a}"
    )


def in_scope(scope: str) -> str:
    """Return words for a scope, none for the one that everybody has."""
    return "" if scope == DEFAULT_SCOPE else f" in scope {scope!a}"
