"""`context-subkey:PATH`: the context subkey of an epoch, as its operator disclosed it.

Rule: the file is public, so anyone may read it; what it opens detects and derives nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from watermark.keys.disclosure import read_disclosure

if TYPE_CHECKING:
    from pathlib import Path

    from watermark.keys.secret import SecretKey


class DisclosedSource:
    """Files of disclosed context subkeys.

    Args:
        folder: Where relative paths start.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self, place: str) -> tuple[Path, ...]:
        """Return the file."""
        return (self._folder / place,)

    def open(self, place: str, key_id: str) -> SecretKey:
        """Return the context subkey in a file.

        Raises:
            KeyFileError: The file is missing, damaged, or another key's.
        """
        return read_disclosure(self._folder / place, expected_id=key_id).key
