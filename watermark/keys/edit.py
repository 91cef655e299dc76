"""What is gone and what has come between two states of the same thing."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

_T = TypeVar("_T")
Edit = tuple["Sequence[_T]", "Sequence[_T]"]
"""What is gone, and what has come."""


def differing(before: Sequence[_T], after: Sequence[_T]) -> Edit[_T]:
    """Return the objects that only the first holds, and those that only the second holds.

    They are told apart by identity, which a reader of files keeps where nothing has changed.
    """
    old, new = set(map(id, before)), set(map(id, after))
    if old == new:
        return [], []
    return [one for one in before if id(one) not in new], [
        one for one in after if id(one) not in old
    ]
