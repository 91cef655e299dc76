"""`file:PATH`: a key file that only its owner can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watermark.keys.keyfile import read_key_file, remove_file, write_key_file

if TYPE_CHECKING:
    from pathlib import Path

    from watermark.keys.secret import SecretKey


class FileSource:
    """Key files.

    Args:
        folder: Where relative paths start.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self, place: str) -> tuple[Path, ...]:
        """Return the key file."""
        return (self._folder / place,)

    def open(self, place: str, key_id: str) -> SecretKey:
        """Return the key in a file.

        Raises:
            KeyFileError: The file is missing, damaged, too open, or another key's.
        """
        return read_key_file(self._folder / place, expected_id=key_id)

    def store(self, place: str, key: SecretKey) -> None:
        """Write a key file.

        Raises:
            KeyFileError: Something is there, or it cannot be written.
        """
        write_key_file(self._folder / place, key)

    def remove(self, place: str) -> None:
        """Delete a key file.

        Raises:
            KeyFileError: It cannot be deleted.
        """
        remove_file(self._folder / place)
