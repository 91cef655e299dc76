"""Files as commands take them: a path, or `-` for standard input."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import BinaryIO, Final, TextIO

from watermark.errors import InputError

STANDARD_INPUT: Final = "-"


def read_file(file: str) -> bytes:
    """Return the bytes of a file, or of standard input for `-`.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        if file == STANDARD_INPUT:
            return _standard_input().read()
        return Path(file).read_bytes()
    except (OSError, ValueError) as err:
        reason = (isinstance(err, OSError) and err.strerror) or str(err)
        raise InputError(f"{file}: {reason.lower()}; correct the path") from err


def _standard_input() -> BinaryIO:
    """Return standard input, which is None in a process that was started without one."""
    stream: TextIO | None = getattr(sys, "stdin", None)
    if stream is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return stream.buffer
