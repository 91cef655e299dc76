"""`env-file:PATH#NAME`: one line `NAME=value` of a private file, as service managers keep them.

Rule: the file is read, never the environment, which every process of the user can read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from watermark.errors import KeyFileError, KeysConfigError
from watermark.keys.keyfile import read_private_file
from watermark.keys.secret import SecretKey

if TYPE_CHECKING:
    from pathlib import Path

MAX_ENV_FILE_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_VALUE: Final = re.compile(rb"[0-9a-f]{64}")


class EnvFileSource:
    """Secrets as 64 hex digits, by name.

    Args:
        folder: Where relative paths start.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self, place: str) -> tuple[Path, ...]:
        """Return the env file."""
        return (self._folder / place.rpartition("#")[0],)

    def open(self, place: str, key_id: str) -> SecretKey:
        """Return the key in a line of a file.

        Raises:
            KeysConfigError: The place has no name in it.
            KeyFileError: The file is missing, too open, or has no such line.
        """
        name = place.rpartition("#")[2]
        file = place.rpartition("#")[0]
        if not file or _NAME.fullmatch(name) is None:
            raise KeysConfigError("a secret by `env-file:` is written `env-file:PATH#NAME`")
        path = self._folder / file
        lines = read_private_file(path, limit=MAX_ENV_FILE_BYTES, what="env file").splitlines()
        start = name.encode() + b"="
        values = [line.removeprefix(start) for line in lines if line.startswith(start)]
        if len(values) != 1 or _VALUE.fullmatch(values[0]) is None:
            raise KeyFileError(
                f"{path} has no line {name}= with 64 lower-case hex digits, or several; "
                "write exactly one"
            )
        return SecretKey(key_id, bytes.fromhex(values[0].decode()))
