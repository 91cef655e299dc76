"""The records and scopes of a file, by everything in which two of them can collide.

Kept from one file to the next, so that an edit costs what it changes. Rule: it finds whether a
file agrees with itself, exactly as `agreement.py` does; what is wrong, and where, is said there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from watermark.keys.agreement import find_window_conflict, has_window
from watermark.keys.record import (
    DEFAULT_SCOPE,
)
from watermark.keys.scope import MAX_PATTERNS

if TYPE_CHECKING:
    from watermark.keys.document import KeyEntry
    from watermark.keys.edit import Edit
    from watermark.keys.record import (
        KeyFields,
    )
    from watermark.keys.scope import Pattern, Scope

_Place = tuple[str, str]


class Roster:
    """Never changed once it is made; `revised` makes another.

    Attributes:
        patterns: Which scope takes what.
    """

    __slots__ = ("_ids", "_pairs", "_scopes", "_uses", "_windows", "patterns")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.patterns: dict[Pattern, str] = {}
        self._scopes: set[str] = set()
        self._pairs: set[_Place] = set()
        self._ids: dict[str, tuple[str, str, int]] = {}
        self._uses: dict[str, int] = {}
        self._windows: dict[_Place, tuple[KeyFields, ...]] = {}

    @property
    def sizes(self) -> tuple[int, int]:
        """How many records and scopes there are."""
        return len(self._pairs), len(self._scopes)

    def revised(
        self,
        keys: Edit[KeyEntry],
        scopes: Edit[Scope],
    ) -> Roster | None:
        """Return the roster after an edit; None where the file contradicts itself then.

        Args:
            keys: The records that are gone, and those that have come.
            scopes: The scopes that are gone, and those that have come.
        """
        new = Roster()
        for name in self.__slots__:
            setattr(new, name, getattr(self, name).copy())
        for scope in scopes[0]:
            new._drop_scope(scope)
        for entry in keys[0]:
            new._drop(entry)
        is_sound = all(map(new._takes_scope, scopes[1])) and all(map(new._takes, keys[1]))
        places = {(one.fields.scope, one.fields.unit) for part in keys for one in part}
        names = {scope for scope, _ in places} | {one.name for part in scopes for one in part}
        return new if is_sound and new._agrees(places, names) else None

    def _agrees(self, places: set[_Place], names: set[str]) -> bool:
        """Whether nothing overlaps or gapes at some places, and scopes are defined and used."""
        return (
            len(self._pairs) > 0
            and all(
                name == DEFAULT_SCOPE or (name in self._scopes) == (self._uses.get(name, 0) > 0)
                for name in names
            )
            and all(find_window_conflict(self._windows.get(place, ())) is None for place in places)
        )

    def _takes(self, entry: KeyEntry) -> bool:
        """Add a record; whether it is no second one, and its key has this secret and scope."""
        fields = entry.fields
        pair, place = (fields.key_id, fields.unit), (fields.scope, fields.unit)
        reference, scope, count = self._ids.get(fields.key_id, (entry.reference, fields.scope, 0))
        if pair in self._pairs or (reference, scope) != (entry.reference, fields.scope):
            return False
        self._pairs.add(pair)
        self._ids[fields.key_id] = (reference, scope, count + 1)
        self._uses[scope] = self._uses.get(scope, 0) + 1
        if has_window(fields):
            self._windows[place] = (*self._windows.get(place, ()), fields)
        return True

    def _drop(self, entry: KeyEntry) -> None:
        fields = entry.fields
        place = (fields.scope, fields.unit)
        self._pairs.discard((fields.key_id, fields.unit))
        reference, scope, count = self._ids.pop(fields.key_id)
        if count > 1:
            self._ids[fields.key_id] = (reference, scope, count - 1)
        self._uses[scope] -= 1
        rest = tuple(one for one in self._windows.pop(place, ()) if one is not fields)
        if rest:
            self._windows[place] = rest

    def _takes_scope(self, scope: Scope) -> bool:
        """Add a scope; whether no other has its name, or takes what it takes."""
        if scope.name in self._scopes or len(self.patterns) + scope.size > MAX_PATTERNS:
            return False
        self._scopes.add(scope.name)
        return all(
            self.patterns.setdefault(one, scope.name) == scope.name for one in scope.patterns()
        )

    def _drop_scope(self, scope: Scope) -> None:
        self._scopes.discard(scope.name)
        for pattern in scope.patterns():
            self.patterns.pop(pattern, None)
