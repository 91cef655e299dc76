"""What every adapter does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    from watermark.keys.secret import SecretKey


class SecretSource(Protocol):
    """One place where secrets lie; asked for each once, and again when a file has changed."""

    def files(self, place: str) -> tuple[Path, ...]:
        """Return the files on which the key at a place depends.

        Args:
            place: The reference after its scheme; it may be malformed.
        """
        ...

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


@runtime_checkable
class SecretStore(SecretSource, Protocol):
    """A place where secrets lie that can be made and taken away from here."""

    def store(self, place: str, key: SecretKey) -> None:
        """Make a secret; what is there already stays as it is.

        Args:
            place: The reference after its scheme.
            key: The key.

        Raises:
            KeysConfigError: The place is malformed, or what it takes to write there is missing.
            KeyFileError: Something is there, or it cannot be written.
        """
        ...

    def remove(self, place: str) -> None:
        """Delete a secret for good; one that is not there is deleted.

        Raises:
            KeyFileError: It cannot be deleted.
        """
        ...
