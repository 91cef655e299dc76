"""What a process that holds keys gives up at its start: leaving its memory behind.

Source: core(5), prctl(2).
"""

from __future__ import annotations

import ctypes
import resource
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4


def forbid_dumps() -> None:
    """Write no core file, and let no process of the same user read this one's memory.

    The limit alone does not hold where cores go to a pipe (systemd-coredump); not being dumpable
    does, and it closes `/proc/PID/mem` and `environ` to everyone but root. Forked processes
    inherit both.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def end_with_parent(signal_number: int) -> None:
    """Have the kernel send this process a signal when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
