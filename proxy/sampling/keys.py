"""The keys that this process marks with: one ring at a time, replaced whole.

Rule 1: a request asks for its key at the instant its first token is chosen, and keeps it to its
end; a ring that is replaced goes on serving whoever began with it. Rule 2: a ring is held against
the models before it replaces another; what would stop the marking without saying so is refused.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Final

from watermark.errors import KeysConfigError
from watermark.keys import DEFAULT_SCOPE, KeyState
from watermark.keys.record import (
    END,
)
from watermark.seeding import KeyedUniforms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from watermark.keys import KeyRecord, KeyRing

_MOST_KEYED: Final = 4096  # keys of accounts that are derived and kept, some KiB each
_SET_ASIDE: Final = frozenset({KeyState.SUSPENDED, KeyState.COMPROMISED, KeyState.DISCLOSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldKeys:
    """A ring in force, and what is derived from it.

    Attributes:
        ring: The ring.
        loaded_at: Since when it is in force.
    """

    ring: KeyRing
    loaded_at: datetime
    _keyed: OrderedDict[tuple[int, str | None], KeyedUniforms] = field(
        default_factory=OrderedDict, repr=False
    )
    _ends: list[dict[str, datetime]] = field(default_factory=list, repr=False)

    @property
    def generation(self) -> str:
        """The ring's public name: equal where processes hold the same keys."""
        return self.ring.generation

    def marking(
        self,
        unit: str,
        *,
        model: str,
        route: str,
        account: str,
        now: datetime,
        code: str | None = None,
    ) -> KeyedUniforms:
        """Return the key that marks a request at an instant, its subkeys derived once.

        Args:
            unit: The unit in which the model is marked.
            model: The model that the client asks for.
            route: The path of the request.
            account: Who is served, as the scopes name it.
            now: The instant.
            code: The account whose code goes into the account channel; None for no code.

        Raises:
            KeysConfigError: None does.
        """
        record = self.record(unit, model=model, route=route, account=account, now=now)
        if not record.is_copula:
            raise KeysConfigError(
                f"key {record.key_id!a} has scheme {record.scheme!a}, with which the upstream "
                "marks; set the model's native.engine (or bias.enabled), or give the scope "
                "another key"
            )
        place = (id(record), code if record.account_share_q16 else None)
        keyed = self._keyed.get(place)  # the ring keeps the record, and so its id
        if keyed is None:
            keyed = self._keyed[place] = KeyedUniforms(record, account=place[1])
            if len(self._keyed) > _MOST_KEYED:
                self._keyed.popitem(last=False)
        else:
            self._keyed.move_to_end(place)
        return keyed

    def record(
        self, unit: str, *, model: str, route: str, account: str, now: datetime
    ) -> KeyRecord:
        """Return the record of the key that marks a request; arguments as `marking` has them.

        Raises:
            KeysConfigError: None does.
        """
        scope = self.ring.scope_of(model=model, route=route, account=account)
        return self.ring.marking(unit, now=now, scope=scope)

    def ends(self) -> Mapping[str, datetime]:
        """Return when the last key of each scope runs out, where one does; soonest unit first."""
        if not self._ends:
            self._ends.append(_ends_of(self.ring))
        return self._ends[0]


def _ends_of(ring: KeyRing) -> dict[str, datetime]:
    last: dict[tuple[str, str], KeyRecord] = {}
    for record in ring:
        place = (record.scope, record.unit)
        is_marker = record.state is KeyState.MARKING
        if is_marker and (place not in last or record.stop > last[place].stop):
            last[place] = record
    ends: dict[str, datetime] = {}
    for record in last.values():
        if record.stop != END:
            ends[record.scope] = min(ends.get(record.scope, record.stop), record.stop)
    return ends


class KeyHolder:
    """Holds the ring in force; one assignment replaces it.

    Attributes:
        current: The ring in force.
        error: Why the last reload was refused; empty where it was not.
    """

    def __init__(self, ring: KeyRing, *, now: datetime) -> None:
        """Begin with a ring."""
        self.current = HeldKeys(ring=ring, loaded_at=now)
        self.error = ""

    def replace(self, ring: KeyRing, *, now: datetime) -> None:
        """Put a ring in force; requests under way keep the key they began with."""
        self.current = HeldKeys(ring=ring, loaded_at=now)
        self.error = ""

    def refuse(self, error: str) -> None:
        """Stay with the ring in force and remember why."""
        self.error = error


def marks_alike(one: KeyRecord, other: KeyRecord) -> bool:
    """Return whether two records make the same mark; their dates may differ."""
    same = one.mark_parameters == other.mark_parameters and one.secret == other.secret
    return one is other or same


@dataclass(frozen=True, slots=True)
class KeyedModel:
    """A model and the unit of the keys that mark it."""

    name: str
    unit: str


class UnservedScopeError(KeysConfigError):
    """A scope of a model would go unmarked."""

    def __init__(self, scope: str, message: str) -> None:
        super().__init__(message)
        self.scope = scope


def check_ring(
    ring: KeyRing, models: Iterable[KeyedModel], *, now: datetime, before: KeyRing | None = None
) -> None:
    """Refuse a ring by which some request for a model could not be marked.

    Args:
        ring: The ring that is to come into force.
        models: What is marked.
        now: The instant.
        before: The ring in force; where it marks, the other has to mark too, or to say by a
            key's state that the marking stops. What is as it was is not held against the file: a
            scope that has run out must not keep another from being rotated.

    Raises:
        UnservedScopeError: A scope of a model has no key now or later, or loses the one it has.
    """
    changed = None if before is None else ring.changed_scopes(before)
    for model in models:
        for scope in ring.scopes_of_model(model.name, among=changed):
            missing = _missing(ring, model.unit, scope, now)
            if not missing or _is_set_aside(ring, model.unit, scope, now):
                continue
            if not _comes(ring, model.unit, scope, now):
                raise UnservedScopeError(scope, f"model {model.name!a} is not served: {missing}")
            if before is not None and not _missing(before, model.unit, _taker(before, scope), now):
                raise UnservedScopeError(
                    scope,
                    f"model {model.name!a} is marked now, and would not be: {missing}; to stop "
                    "the marking on purpose, set state 'suspended'",
                )


def marking_records(ring: KeyRing, model: KeyedModel, *, now: datetime) -> list[KeyRecord]:
    """Return the records that mark a model now, one a scope that some request for it falls under.

    None where the model would not be served with that unit: a scope of it has no such key, now or
    later, and does not say that it is set aside.
    """
    try:
        check_ring(ring, [model], now=now)
    except UnservedScopeError:
        return []
    scopes = ring.scopes_of_model(model.name)
    marked = (scope for scope in scopes if not _missing(ring, model.unit, scope, now))
    return [ring.marking(model.unit, now=now, scope=scope) for scope in marked]


def _missing(ring: KeyRing, unit: str, scope: str, now: datetime) -> str:
    """Return why nothing marks, empty where something does."""
    try:
        ring.marking(unit, now=now, scope=scope)
    except KeysConfigError as err:
        return str(err)
    return ""


def _taker(ring: KeyRing, scope: str) -> str:
    """Return the scope of another ring that takes what a new scope takes: itself, or the rest."""
    return scope if any(one.name == scope for one in ring.scopes) else DEFAULT_SCOPE


def _is_set_aside(ring: KeyRing, unit: str, scope: str, now: datetime) -> bool:
    """Return whether the newest key of a scope says by its state that it does not mark."""
    begun = [
        record
        for record in ring
        if (record.scope, record.unit) == (scope, unit)
        and record.start <= now
        and not record.is_foreign
    ]
    newest = max(begun, key=lambda record: record.start, default=None)
    return newest is not None and newest.state_at(now) in _SET_ASIDE


def _comes(ring: KeyRing, unit: str, scope: str, now: datetime) -> bool:
    """Return whether a key of a scope marks later."""
    return any(
        (record.scope, record.unit) == (scope, unit)
        and record.state is KeyState.MARKING
        and record.stop > now
        for record in ring
    )


def describe_ends(held: HeldKeys, now: datetime, *, within: timedelta, most: int) -> list[str]:
    """Return one line a scope whose last key runs out soon, or has run out.

    Args:
        held: The ring.
        now: The instant.
        within: How far to look ahead.
        most: Most lines; a last one counts the rest.
    """
    soon = sorted((end, scope) for scope, end in held.ends().items() if end - now <= within)
    lines = []
    for end, scope in soon[:most]:
        hours = (end - now) / timedelta(hours=1)
        state = f"runs out in {hours:.1f} h" if hours > 0 else f"ran out {-hours:.1f} h ago"
        at = end.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        lines.append(
            f"the last key of scope {scope!a} {state} ({at}); make a successor with "
            "`watermark keys rotate`"
        )
    if len(soon) > most:
        rest = len(soon) - most
        lines.append(f"and {rest} more scopes run out; see watermark_key_expires_in_seconds")
    return lines
