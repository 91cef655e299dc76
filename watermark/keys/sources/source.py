"""What every adapter does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from watermark.keys.secret import SecretKey


class SecretSource(Protocol):
    """One place where secrets lie."""

    def open(self, place: str, key_id: str) -> SecretKey:
        """Return the key at a place.

        Args:
            place: The reference after its scheme.
            key_id: The key that it must be.

        Raises:
            KeysConfigError: The place is malformed, or what it takes to open it is missing.
            KeyFileError: What lies there is missing, damaged, too open, or another key's.
        """
        ...
