"""Scopes: which requests a key marks.

Rule 1: what a request falls under follows from its account, its model and its route; the most
specific scope takes it, in that order, and what none takes falls under `default`. Rule 2: two
scopes that would take the same requests with the same right are refused, never ordered.

Source: `watermark/spec/key-file.md`, section "Scopes".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

from watermark.errors import KeysConfigError
from watermark.keys.record import (
    DEFAULT_SCOPE,
    check_scope_name,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ANY: Final = "*"
MAX_PATTERNS: Final = 1 << 20  # combinations of account, model and route, over all scopes

Pattern = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A set of requests.

    Attributes:
        name: Its name.
        models: Model names as clients ask for them, or `*`.
        routes: Paths such as `/v1/chat/completions`, or `*`.
        accounts: Account names, or `*`.

    Raises:
        KeysConfigError: The name is malformed or reserved, or a list is empty or repeats itself.
    """

    name: str
    models: tuple[str, ...] = (ANY,)
    routes: tuple[str, ...] = (ANY,)
    accounts: tuple[str, ...] = (ANY,)

    def __post_init__(self) -> None:
        check_scope_name(self.name)
        if self.name == DEFAULT_SCOPE:
            raise KeysConfigError(
                "scope 'default' is what no other scope takes; leave its table out"
            )
        for field in ("models", "routes", "accounts"):
            values = getattr(self, field)
            if not values or not all(values):
                raise KeysConfigError(f"`{field}` is empty; name some, or leave it out for all")
            if len(set(values)) != len(values):
                raise KeysConfigError(f"`{field}` names one twice; remove it")
            if ANY in values and len(values) > 1:
                raise KeysConfigError(f"`{field}` has '*' and others; leave one of them out")

    @property
    def size(self) -> int:
        """Combinations of account, model and route that it names."""
        return math.prod((len(self.accounts), len(self.models), len(self.routes)))

    def patterns(self) -> list[Pattern]:
        """Return every combination of account, model and route that it names."""
        return list(product(self.accounts, self.models, self.routes))


def index_scopes(
    scopes: Sequence[Scope],
) -> tuple[dict[Pattern, str], tuple[int, str] | None]:
    """Return which scope takes what, and the first contradiction.

    Returns:
        The index, and the position of the scope that contradicts one before it with a message
        that has the remedy; None where all agree.
    """
    index: dict[Pattern, str] = {}
    names: set[str] = set()
    total = 0
    for number, scope in enumerate(scopes):
        total += scope.size
        if scope.name in names:
            return index, (number, f"scope {scope.name!a} is given twice; remove one")
        if total > MAX_PATTERNS:
            message = f"more than {MAX_PATTERNS} combinations; use '*' in one of the lists"
            return index, (number, message)
        names.add(scope.name)
        for pattern in scope.patterns():
            other = index.setdefault(pattern, scope.name)
            if other != scope.name:
                account, model, route = pattern
                message = (
                    f"scopes {other!a} and {scope.name!a} both take account {account!a}, model "
                    f"{model!a}, route {route!a}; make one of them more specific"
                )
                return index, (number, message)
    return index, None


def find_scope(index: dict[Pattern, str], *, model: str, route: str, account: str) -> str:
    """Return the scope that takes a request."""
    for pattern in product((account, ANY), (model, ANY), (route, ANY)):
        found = index.get(pattern)
        if found is not None:
            return found
    return DEFAULT_SCOPE
