"""What becomes of keys, as edits of `KEYS.toml`: rotation, its rollback, and the end of a key.

Rule 1: each function takes a text and returns another; whoever calls it decides whether that one
takes effect. Rule 2: an edit that would leave a gap, an overlap or a regress is refused here or
when the text is loaded, never written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from watermark.errors import KeysConfigError
from watermark.keys.editing import add_record, remove_records, set_fields
from watermark.keys.record import (
    KeyFields,
    format_time,
)
from watermark.keys.states import KeyState

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

ROTATION_LEAD: Final = timedelta(hours=48)
"""How long before it marks a key is made known, where its predecessor has no end."""
DESTRUCTION_DELAY: Final = timedelta(days=30)
"""How long a key that is to be destroyed can be restored."""

_ENDED: Final = frozenset(
    {KeyState.DETECT, KeyState.COMPROMISED, KeyState.DISCLOSED, KeyState.ARCHIVED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """One key after another.

    Attributes:
        text: The file's new text.
        key_id: The key that comes.
        fields: Its records.
        before: The id of the one that goes.
        at: When.
        reference: Where the secret of the one that comes lies.
    """

    text: str
    key_id: str
    fields: tuple[KeyFields, ...]
    before: str
    at: datetime
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysText:
    """The file as it stands, with which every change begins.

    Attributes:
        text: Its text.
        known: Its records.
        now: The instant.
    """

    text: str
    known: Sequence[KeyFields]
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """What is known of a key that is to come.

    Attributes:
        scope: Which scope it marks.
        taken: Ids that are not to be used again.
        place: From its id, and the id of the key before it, to its field `secret`.
        key_id: Its id; made from the date where it is empty.
    """

    scope: str
    taken: Container[str]
    place: Callable[[str, str], str]
    key_id: str = ""


def prepare_rotation(
    file: KeysText,
    new: NewKey,
    *,
    at: datetime | None = None,
    period: timedelta | None = None,
) -> Rotation:
    """Return the text in which a pending key follows the last one of a scope.

    Args:
        file: The file.
        new: The key that comes.
        at: When it takes over; the end of the last key, or in two days.
        period: How long it marks; as long as the last one where that has two ends.

    Raises:
        KeysConfigError: No key of the scope marks, or the dates do not fit.
    """
    last = _last_of_units(file.known, new.scope)
    first = max(last, key=lambda one: one.start)
    if at is None:
        at = first.not_after or _full_minute(file.now + ROTATION_LEAD)
    if at <= file.now:
        raise KeysConfigError(
            f"{format_time(at)} is over; give a later --at, or --now to rotate at once"
        )
    if at <= first.start:
        raise KeysConfigError(
            f"key {first.key_id!a} takes over at {format_time(first.start)} and is the last "
            "already; give a later --at, or take it back with `watermark keys rollback`"
        )
    if period is None and first.not_before and first.not_after:
        period = first.not_after - first.not_before
    stop = None if period is None else at + period
    text = file.text
    for one in last:
        if one.not_after != at:
            text = set_fields(text, one.key_id, {"not_after": at}, unit=one.unit)
    return _append(text, new, last, at=at, stops=[stop] * len(last))


def rotate_now(file: KeysText, new: NewKey, *, compromised: str = "") -> Rotation:
    """Return the text in which a new key takes over at once.

    Args:
        file: The file.
        new: The key that comes.
        compromised: The key that others may know; only its units get another then.

    Raises:
        KeysConfigError: No key of the scope marks now.
    """
    now = file.now
    current = [
        one
        for one in file.known
        if one.scope == new.scope and one.claims and one.start <= now < one.stop
    ]
    if compromised:
        current = [one for one in current if one.key_id == compromised]
    if not current:
        raise KeysConfigError(
            f"no key marks scope {new.scope!a} now; make one: `watermark keys new`"
        )
    text = file.text
    for one in current:
        values: dict[str, str | datetime | None] = {"not_after": now, "state": None}
        if compromised:
            values = {"state": KeyState.COMPROMISED.value, "compromised_at": now}
        elif one.state is not KeyState.MARKING:
            values["state"] = KeyState.DETECT.value
        text = set_fields(text, one.key_id, values, unit=one.unit)
    return _append(text, new, current, at=now, stops=[one.not_after for one in current])


def roll_back(file: KeysText, scope: str, *, former_stop: datetime | None) -> Rotation:
    """Return the text without the pending key of a scope.

    Args:
        file: The file.
        scope: Which scope.
        former_stop: The end that the key before it gets back; None for none.

    Raises:
        KeysConfigError: No rotation is pending.
    """
    last = _last_epoch(file.known, scope)
    first = last[0]
    if first.start <= file.now:
        raise KeysConfigError(
            f"no rotation of scope {scope!a} is pending: key {first.key_id!a} marks already"
        )
    before = [
        one for one in file.known if one.scope == scope and one.claims and one.stop == first.start
    ]
    text = remove_records(file.text, first.key_id)
    for one in before:
        text = set_fields(text, one.key_id, {"not_after": former_stop}, unit=one.unit)
    name = before[0].key_id if before else ""
    return Rotation(text=text, key_id=first.key_id, fields=tuple(last), before=name, at=first.start)


def pending_predecessor(known: Sequence[KeyFields], scope: str) -> KeyFields | None:
    """Return the record that the last epoch of a scope follows; None for none."""
    start = _last_epoch(known, scope)[0].start
    found = [one for one in known if one.scope == scope and one.claims and one.stop == start]
    return found[0] if found else None


def end_key(text: str, records: Sequence[KeyFields], state: KeyState, now: datetime) -> str:
    """Return the text in which a key is suspended, taken up again, or disclosed.

    Args:
        text: The file's text.
        records: The key's records.
        state: What it becomes; `marking` takes it up again.
        now: The instant.

    Raises:
        KeysConfigError: It cannot become that from what it is.
    """
    key_id = records[0].key_id
    allowed = {
        KeyState.SUSPENDED: {KeyState.PENDING, KeyState.MARKING},
        KeyState.MARKING: {KeyState.SUSPENDED},
        KeyState.DISCLOSED: {KeyState.DETECT, KeyState.COMPROMISED, KeyState.ARCHIVED},
    }[state]
    _check_becomes(records, state, allowed, now)
    values: dict[str, str | datetime | None] = {"state": state.value}
    if state is KeyState.MARKING:
        values = {"state": None if records[0].is_dated else state.value}
    elif state is KeyState.DISCLOSED:
        values["disclosed_at"] = now
    return set_fields(text, key_id, values)


def schedule_destruction(
    text: str, records: Sequence[KeyFields], *, now: datetime, after: timedelta
) -> tuple[str, datetime]:
    """Return the text in which a key is archived, and destroyed after some time; and when.

    Args:
        text: The file's text.
        records: The key's records.
        now: The instant.
        after: How long it can be restored.

    Raises:
        KeysConfigError: It marks, is pending, or is to be destroyed already.
    """
    key_id, at = records[0].key_id, _full_minute(now + after)
    if records[0].destroy_at is not None:
        raise KeysConfigError(
            f"key {key_id!a} is to be destroyed at {format_time(records[0].destroy_at)} already; "
            f"run this again then, or `watermark keys destroy {key_id} --restore` before"
        )
    _check_becomes(records, KeyState.DESTROYED, _ENDED, now)
    return set_fields(text, key_id, {"destroy_at": at}), at


def take_back_destruction(text: str, records: Sequence[KeyFields], now: datetime) -> str:
    """Return the text in which a key is what it was before it was to be destroyed.

    Raises:
        KeysConfigError: It is not to be destroyed, or its time has come.
    """
    key_id, at = records[0].key_id, records[0].destroy_at
    if at is None:
        raise KeysConfigError(f"key {key_id!a} is not to be destroyed; nothing is to be restored")
    if at <= now:
        raise KeysConfigError(
            f"key {key_id!a} could be restored until {format_time(at)}; it is destroyed, and "
            "never comes back"
        )
    return set_fields(text, key_id, {"destroy_at": None})


def complete_destruction(text: str, records: Sequence[KeyFields]) -> str:
    """Return the text in which a key whose time has come has no secret any more."""
    values: dict[str, str | datetime | None] = {
        "state": KeyState.DESTROYED.value,
        "destroy_at": None,
        "secret": None,
    }
    return set_fields(text, records[0].key_id, values)


def _check_becomes(
    records: Sequence[KeyFields], state: KeyState, allowed: Container[KeyState], now: datetime
) -> None:
    """Refuse a state that a key cannot have after the one that it has."""
    old = records[0].state_at(now)
    if old not in allowed:
        names = ", ".join(repr(one.value) for one in KeyState if one in allowed)
        raise KeysConfigError(
            f"key {records[0].key_id!a} is {old.value!r}, and becomes {state.value!r} only from "
            f"{names}; `watermark keys rotate` puts another in its place first"
        )


def parse_duration(text: str) -> timedelta:
    """Return the time that `90m`, `36h`, `30d` or `52w` stands for.

    Raises:
        KeysConfigError: It is not written like that.
    """
    units = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.isdecimal() or not int(number):
        raise KeysConfigError(f"duration {text!a} is malformed; write it as 90m, 36h, 30d or 52w")
    try:
        return timedelta(**{units[unit]: int(number)})
    except OverflowError as err:
        raise KeysConfigError(f"duration {text!a} is too long; choose a shorter one") from err


def _last_of_units(known: Sequence[KeyFields], scope: str) -> list[KeyFields]:
    """Return the last record of each unit of a scope, in the order of the file."""
    last: dict[str, KeyFields] = {}
    for one in known:
        if one.scope == scope and one.claims:
            other = last.get(one.unit)
            if other is None or one.start > other.start:
                last[one.unit] = one
    return list(last.values()) or _last_epoch(known, scope)


def _last_epoch(known: Sequence[KeyFields], scope: str) -> list[KeyFields]:
    """Return the records of the last key of a scope, one per unit."""
    claiming = [one for one in known if one.scope == scope and one.claims]
    if not claiming:
        raise KeysConfigError(
            f"no key marks scope {scope!a}; make one with `watermark keys new`, or correct --scope"
        )
    last = max(claiming, key=lambda one: one.start)
    return [one for one in claiming if one.start == last.start]


def _append(
    text: str,
    new: NewKey,
    old: Sequence[KeyFields],
    *,
    at: datetime,
    stops: Sequence[datetime | None],
) -> Rotation:
    """Return the text with one record per unit of the new key at its end."""
    key_id, before = _id_of(new.key_id, at, new.taken), old[0].key_id
    reference = new.place(key_id, before)
    fields = []
    for one, stop in zip(old, stops, strict=True):
        record = replace(
            one,
            key_id=key_id,
            state=KeyState.MARKING,
            not_before=at,
            not_after=stop,
            compromised_at=None,
            disclosed_at=None,
            destroy_at=None,
        )
        fields.append(record)
        text = add_record(text, record, reference)
    return Rotation(
        text=text,
        key_id=key_id,
        fields=tuple(fields),
        before=before,
        at=at,
        reference=reference,
    )


def _id_of(key_id: str, at: datetime, taken: Container[str]) -> str:
    """Return an id that no key had: the one given, or the date, with the time where it must."""
    if key_id:
        if key_id in taken:
            raise KeysConfigError(f"key {key_id!a} is known already; choose another --id")
        return key_id
    names = [f"{at:%Y-%m-%d}", f"{at:%Y-%m-%dT%H%M}", f"{at:%Y-%m-%dT%H%M%S.%f}"]
    return next((name for name in names if name not in taken), f"{names[-1]}-2")


def _full_minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
