"""What becomes of keys, as edits of `KEYS.toml`: rotation, its rollback, and the end of a key.

Rule 1: each function takes a text and returns another; whoever calls it decides whether that one
takes effect. Rule 2: an edit that would leave a gap, an overlap or a regress is refused here or
when the text is loaded, never written.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from watermark.errors import KeysConfigError
from watermark.keys.editing import add_record, remove_records, set_fields
from watermark.keys.record import KeyFields, KeyState, format_time

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

ROTATION_LEAD: Final = timedelta(hours=48)
"""How long before it marks a key is made known, where its predecessor has no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """One key after another.

    Attributes:
        text: The file's new text.
        key_id: The key that comes.
        fields: Its records.
        before: The id of the one that goes.
        at: When.
    """

    text: str
    key_id: str
    fields: tuple[KeyFields, ...]
    before: str
    at: datetime


def prepare_rotation(
    text: str,
    known: Sequence[KeyFields],
    *,
    scope: str,
    now: datetime,
    reference: str,
    taken: Container[str],
    key_id: str = "",
    at: datetime | None = None,
    period: timedelta | None = None,
) -> Rotation:
    """Return the text in which a pending key follows the last one of a scope.

    Args:
        text: The file's text.
        known: Its records.
        scope: Which scope.
        now: The instant.
        reference: The new key's field `secret`.
        taken: Ids that are not to be used again.
        key_id: Its id; made from the date where it is empty.
        at: When it takes over; the end of the last key, or in two days.
        period: How long it marks; as long as the last one where that has two ends.

    Raises:
        KeysConfigError: No key of the scope marks, or the dates do not fit.
    """
    last = _last_of_units(known, scope)
    first = max(last, key=lambda one: one.start)
    if at is None:
        at = first.not_after or _full_minute(now + ROTATION_LEAD)
    if at <= now:
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
    new_id = _id_of(key_id, at, taken)
    for one in last:
        if one.not_after != at:
            text = set_fields(text, one.key_id, {"not_after": at}, unit=one.unit)
    return _append(text, last, at=at, stops=[stop] * len(last), key_id=new_id, reference=reference)


def rotate_now(
    text: str,
    known: Sequence[KeyFields],
    *,
    scope: str,
    now: datetime,
    reference: str,
    taken: Container[str],
    key_id: str = "",
    compromised: str = "",
) -> Rotation:
    """Return the text in which a new key takes over at once.

    Args:
        text: The file's text.
        known: Its records.
        scope: Which scope.
        now: The instant.
        reference: The new key's field `secret`.
        taken: Ids that are not to be used again.
        key_id: Its id; made from the time where it is empty.
        compromised: The key that others may know; only its units get another then.

    Raises:
        KeysConfigError: No key of the scope marks now.
    """
    current = [
        one for one in known if one.scope == scope and one.claims and one.start <= now < one.stop
    ]
    if compromised:
        current = [one for one in current if one.key_id == compromised]
    if not current:
        raise KeysConfigError(f"no key marks scope {scope!a} now; make one: `watermark keys new`")
    new_id = _id_of(key_id, now, taken)
    for one in current:
        values: dict[str, str | datetime | None] = {"not_after": now, "state": None}
        if compromised:
            values = {"state": KeyState.COMPROMISED.value, "compromised_at": now}
        elif one.state is not KeyState.MARKING:
            values["state"] = KeyState.DETECT.value
        text = set_fields(text, one.key_id, values, unit=one.unit)
    stops = [one.not_after for one in current]
    return _append(text, current, at=now, stops=stops, key_id=new_id, reference=reference)


def roll_back(
    text: str,
    known: Sequence[KeyFields],
    *,
    scope: str,
    now: datetime,
    former_stop: datetime | None,
) -> Rotation:
    """Return the text without the pending key of a scope.

    Args:
        text: The file's text.
        known: Its records.
        scope: Which scope.
        now: The instant.
        former_stop: The end that the key before it gets back; None for none.

    Raises:
        KeysConfigError: No rotation is pending.
    """
    last = _last_epoch(known, scope)
    first = last[0]
    if first.start <= now:
        raise KeysConfigError(
            f"no rotation of scope {scope!a} is pending: key {first.key_id!a} marks already"
        )
    before = [one for one in known if one.scope == scope and one.claims and one.stop == first.start]
    text = remove_records(text, first.key_id)
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
    """Return the text in which a key is suspended, taken up again, disclosed or destroyed.

    Args:
        text: The file's text.
        records: The key's records.
        state: What it becomes; `marking` takes it up again.
        now: The instant.

    Raises:
        KeysConfigError: It cannot become that from what it is.
    """
    key_id, old = records[0].key_id, records[0].state_at(now)
    allowed = {
        KeyState.SUSPENDED: {KeyState.PENDING, KeyState.MARKING},
        KeyState.MARKING: {KeyState.SUSPENDED},
        KeyState.DISCLOSED: {KeyState.DETECT, KeyState.COMPROMISED, KeyState.ARCHIVED},
        KeyState.DESTROYED: {
            KeyState.DETECT, KeyState.COMPROMISED, KeyState.ARCHIVED, KeyState.DISCLOSED
        },
    }[state]  # fmt: skip
    if old not in allowed:
        names = ", ".join(sorted(repr(one.value) for one in allowed))
        raise KeysConfigError(
            f"key {key_id!a} is {old.value!r}, and becomes {state.value!r} only from {names}; "
            "`watermark keys rotate` puts another in its place first"
        )
    values: dict[str, str | datetime | None] = {"state": state.value}
    if state is KeyState.MARKING:
        values = {"state": None if records[0].is_dated else state.value}
    elif state is KeyState.DISCLOSED:
        values["disclosed_at"] = now
    elif state is KeyState.DESTROYED:
        values["secret"] = None
    return set_fields(text, key_id, values)


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
    old: Sequence[KeyFields],
    *,
    at: datetime,
    stops: Sequence[datetime | None],
    key_id: str,
    reference: str,
) -> Rotation:
    """Return the text with one record per unit of the new key at its end."""
    fields = []
    for one, stop in zip(old, stops, strict=True):
        new = KeyFields(
            key_id=key_id,
            unit=one.unit,
            context_width=one.context_width,
            scheme=one.scheme,
            rho=one.rho,
            account_share_q16=one.account_share_q16,
            scope=one.scope,
            not_before=at,
            not_after=stop,
        )
        fields.append(new)
        text = add_record(text, new, reference)
    return Rotation(text=text, key_id=key_id, fields=tuple(fields), before=old[0].key_id, at=at)


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
