"""The keys that a process holds: which one marks what at which instant, and which ones detect.

Rule 1: a ring never changes; a reload makes another, and whoever holds the old one goes on with
it. Rule 2: of one scope and unit, one record marks at any instant between the first epoch and
the last, and the windows say which: there is nothing to choose from at run time. Rule 3: `now`
is an argument.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import InitVar, dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import msgspec

from watermark.errors import KeysConfigError
from watermark.keys.agreement import find_conflict, in_scope
from watermark.keys.edit import differing
from watermark.keys.record import (
    DEFAULT_SCOPE,
    END,
    KeyFields,
    KeyRecord,
)
from watermark.keys.ring_index import RingIndex
from watermark.keys.scope import ANY, Scope, find_scope, index_scopes
from watermark.keys.states import DETECTING_STATES, KeyState

if TYPE_CHECKING:
    from collections.abc import Container, Hashable, Iterator

    from watermark.keys.edit import Edit
    from watermark.keys.scope import Pattern

WARNING_LEAD: Final = timedelta(hours=48)
"""How long before a key runs out without a successor a warning starts."""

_GENERATION_DIGITS: Final = 16
_START: Final = attrgetter("start")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """A key that runs out, and nothing marks after it.

    Attributes:
        scope: Whose requests go unmarked then.
        unit: In which unit.
        key_id: The last key.
        at: When.
    """

    scope: str
    unit: str
    key_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class KeyRing:
    """An immutable set of key records that do not contradict each other.

    Attributes:
        records: The records whose secrets are at hand, in the order of the file.
        scopes: The scopes beside `default`.
        retired: Records that are archived or destroyed.
        uncommitted: Key ids and units that may not mark before their commitment is logged.
        index: How the records are found, where the caller has found no contradiction already.

    Raises:
        KeysConfigError: There is no record, or two of them contradict each other.
    """

    records: tuple[KeyRecord, ...]
    scopes: tuple[Scope, ...] = ()
    retired: tuple[KeyFields, ...] = ()
    uncommitted: frozenset[tuple[str, str]] = frozenset()
    index: InitVar[RingIndex | None] = None
    _index: RingIndex = field(init=False, repr=False, compare=False)

    def __post_init__(self, index: RingIndex | None) -> None:
        if not self.records and not self.retired:
            raise KeysConfigError("no key is given; add a record, `watermark keys new` prints one")
        if index is None:
            patterns, everything = self._check_agreement(), (*self.records, *self.retired)
            index = RingIndex().revised(patterns, ((), everything), ((), self.scopes))
        object.__setattr__(self, "_index", index)

    def _check_agreement(self) -> dict[Pattern, str]:
        """Return which scope takes what, once nothing contradicts anything."""
        patterns, scope_conflict = index_scopes(self.scopes)
        if scope_conflict is not None:
            raise KeysConfigError(scope_conflict[1])
        everything: list[KeyFields] = [*self.records, *self.retired]
        secrets: list[Hashable] = [record.secret for record in self.records]
        secrets += [None] * len(self.retired)
        conflict = find_conflict(everything, secrets, [scope.name for scope in self.scopes])
        if conflict is not None:
            raise KeysConfigError(conflict[1])
        return patterns

    def marking(self, unit: str, *, now: datetime, scope: str = DEFAULT_SCOPE) -> KeyRecord:
        """Return the record that marks new text of `unit` in a scope at an instant.

        Args:
            unit: What a token is, as in `KeyRecord.unit`.
            now: The instant.
            scope: The request's scope, from :meth:`scope_of`.

        Returns:
            The one record whose window holds `now`.

        Raises:
            KeysConfigError: No key marks that unit in that scope then, or its commitment is not
                logged and the file demands that it is.
        """
        record = _at(self._index.epochs.get((scope, unit), ()), now)
        if record is None:
            raise KeysConfigError(
                f"no key marks unit {unit!a}{in_scope(scope)}; add a record with this unit and "
                "state 'marking', `watermark keys new` prints one"
            )
        if record.state is not KeyState.MARKING:
            raise KeysConfigError(
                f"key {record.key_id!a} is {record.state.value} and does not mark unit "
                f"{unit!a}{in_scope(scope)}; make a successor with `watermark keys rotate --now`"
            )
        if (record.key_id, record.unit) in self.uncommitted:
            raise KeysConfigError(
                f"key {record.key_id!a} may not mark before its commitment is logged; "
                "run `watermark keys commit`"
            )
        return record

    def scope_of(self, *, model: str = "", route: str = "", account: str = "") -> str:
        """Return the scope that a request falls under.

        Args:
            model: The model that the client asks for.
            route: The path of the request.
            account: Who is served.

        Returns:
            The name of the most specific scope: by account, then model, then route; `default`
            where no scope takes the request.
        """
        return find_scope(self._index.patterns, model=model, route=route, account=account)

    def scopes_of_model(
        self, model: str, *, among: Container[str] | None = None
    ) -> tuple[str, ...]:
        """Return every scope that some request for a model can fall under, `default` last.

        Args:
            model: The model's name.
            among: Only scopes of these names; None for all.
        """
        found = [
            scope.name
            for scope in self.scopes
            if (among is None or scope.name in among)
            and (model in scope.models or ANY in scope.models)
        ]
        takes_all = self.scope_of(model=model) != DEFAULT_SCOPE
        is_asked = among is None or DEFAULT_SCOPE in among
        return tuple(found if takes_all or not is_asked else [*found, DEFAULT_SCOPE])

    def edit_since(self, before: KeyRing) -> tuple[Edit[KeyFields], Edit[Scope]]:
        """Return what is gone of another ring's records and scopes, and what has come."""
        index = self._index
        if index.base is before._index.name:
            return index.records, index.scopes
        records = differing((*before.records, *before.retired), (*self.records, *self.retired))
        return records, differing(before.scopes, self.scopes)

    def changed_scopes(self, before: KeyRing) -> frozenset[str]:
        """Return the scopes that another ring defines otherwise, or fills with other keys."""
        (gone, come), (old, new) = self.edit_since(before)
        known = {(record.key_id, record.unit): record for record in gone}
        changed = {
            record.scope
            for record in come
            if known.pop((record.key_id, record.unit), None) != record
        }
        changed |= {record.scope for record in known.values()}
        changed |= {scope.name for scope in {*old} ^ {*new}}
        if not {*old} <= {*new}:
            changed.add(DEFAULT_SCOPE)  # it takes what another scope took
        freed = self.uncommitted ^ before.uncommitted
        if freed:
            changed |= {one.scope for one in self.records if (one.key_id, one.unit) in freed}
        return frozenset(changed)

    def check_model(self, model: str, unit: str, *, now: datetime) -> None:
        """Refuse a ring by which some request for a model could never be marked.

        Args:
            model: The model's name.
            unit: What its tokens are.
            now: The instant from which on it is served.

        Raises:
            KeysConfigError: A scope of the model has no key of that unit, now or to come.
        """
        for scope in self.scopes_of_model(model):
            epochs = self._index.epochs.get((scope, unit), ())
            if not epochs or epochs[-1].stop <= now:
                raise KeysConfigError(
                    f"scope {scope!a} takes model {model!a}, and no key of it marks unit {unit!a} "
                    f"now or later; add a record with this unit{in_scope(scope)}, "
                    "`watermark keys new` prints one"
                )

    def state_of(self, record: KeyFields, now: datetime) -> KeyState:
        """Return what a record's key may be used for at an instant."""
        return record.state_at(now)

    def next_change(self, now: datetime) -> datetime | None:
        """Return the next instant after `now` at which a key's state changes by itself."""
        later = (
            at for record in (*self.records, *self.retired) for at in record.changes if at > now
        )
        return min(later, default=None)

    def detecting(self, now: datetime) -> tuple[KeyRecord, ...]:
        """Return the records that text may be held against: those that mark, or have marked."""
        return tuple(record for record in self.records if record.state_at(now) in DETECTING_STATES)

    def running_out(self, now: datetime, *, within: timedelta = WARNING_LEAD) -> tuple[Expiry, ...]:
        """Return the scopes and units in which the last key runs out soon.

        Args:
            now: The instant.
            within: How far to look ahead.

        Returns:
            One for each scope and unit whose key at `now` stops within that time while no other
            takes over, soonest first.
        """
        found = []
        for (scope, unit), epochs in self._index.epochs.items():
            last = epochs[-1]
            if last.start <= now < last.stop and last.stop != END and last.stop - now <= within:
                found.append(Expiry(scope=scope, unit=unit, key_id=last.key_id, at=last.stop))
        return tuple(sorted(found, key=lambda expiry: (expiry.at, expiry.scope, expiry.unit)))

    @property
    def generation(self) -> str:
        """16 hex digits of the digest of all public content: equal where rings agree."""
        content = (f"{self._index.total:x}", sorted(self.uncommitted))
        digest = hashlib.sha256(msgspec.json.encode(content)).hexdigest()
        return digest[:_GENERATION_DIGITS]

    def by_id(self, key_id: str) -> tuple[KeyRecord, ...]:
        """Return the records of the key `key_id`, one per unit; none where it is unknown."""
        return tuple(record for record in self.records if record.key_id == key_id)

    @property
    def units(self) -> tuple[str, ...]:
        """The units of all records, each once, in the order of the file."""
        return tuple(dict.fromkeys(record.unit for record in self.records))

    def __iter__(self) -> Iterator[KeyRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)


def _at(epochs: tuple[KeyRecord, ...], now: datetime) -> KeyRecord | None:
    """Return the record whose window holds an instant."""
    place = bisect_right(epochs, now, key=_START) - 1
    if place < 0 or now >= epochs[place].stop:
        return None
    return epochs[place]
