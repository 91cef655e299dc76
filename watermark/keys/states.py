"""What a key may be used for, and how far it has come.

Source: `watermark/spec/key-file.md`; NIST SP 800-57 for the states.
"""

from __future__ import annotations

import enum
from typing import Final


class KeyState(enum.Enum):
    """What a key may be used for; later states join here and in the specification."""

    PENDING = "pending"
    """Committed to, not used yet: its time has not come."""
    MARKING = "marking"
    """Marks new text and detects; one key of a scope and unit at any instant."""
    DETECT = "detect"
    """Detects text that was marked earlier; never marks again."""
    ARCHIVED = "archived"
    """Kept elsewhere: its secret is not read."""
    DESTROYED = "destroyed"
    """Its secret is gone; the commitment stays."""
    SUSPENDED = "suspended"
    """Does not mark for the time being; its scope goes unmarked meanwhile."""
    COMPROMISED = "compromised"
    """Others may know the secret since some time; detects text that is older, never marks."""
    DISCLOSED = "disclosed"
    """Its context subkey is public since some time; detects text that is older, never marks."""


DECLARED_STATES: Final = tuple(state for state in KeyState if state is not KeyState.PENDING)
"""What a record may say of itself; `marking` there means: marks between its dates."""
DETECTING_STATES: Final = frozenset(
    {
        KeyState.MARKING,
        KeyState.DETECT,
        KeyState.SUSPENDED,
        KeyState.COMPROMISED,
        KeyState.DISCLOSED,
    }
)
RETIRED: Final = frozenset({KeyState.ARCHIVED, KeyState.DESTROYED})
"""States in which the secret is not read."""
RANKS: Final = {
    KeyState.PENDING: 0,
    KeyState.MARKING: 1,
    KeyState.SUSPENDED: 1,  # may be taken up again
    KeyState.DETECT: 2,
    KeyState.COMPROMISED: 2,
    KeyState.DISCLOSED: 2,
    KeyState.ARCHIVED: 3,
    KeyState.DESTROYED: 4,
}
"""How far a key has come; a record never goes back."""
