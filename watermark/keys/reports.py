"""What each process that marks says of its keys, in a file of its own: `STATE/workers/PID.json`.

Rule 1: a file is replaced whole. Rule 2: a file older than the process of its number was left by
another process, which did not clean up; its number is not signalled.

Source: `watermark/spec/key-file.md`, section "Reports".
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME: Final = re.compile(r"[1-9][0-9]{0,9}\.json")
_BOOT_LINE: Final = re.compile(r"^btime (\d+)$", re.MULTILINE)
_START_FIELD: Final = 19  # of /proc/PID/stat after the command's name: proc(5), starttime
_SLACK_SECONDS: Final = 2.0  # btime is whole seconds


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's keys.

    Attributes:
        pid: The worker.
        generation: The keys that it marks with.
        loaded_at: Since when, in UTC.
        error: Why its last reload was refused; empty where it was not.
    """

    pid: int
    generation: str
    loaded_at: str
    error: str = ""


def workers_folder(state: str | Path) -> Path:
    """Return where the workers of a state folder report."""
    return Path(state) / "workers"


def write_report(folder: Path, report: WorkerReport) -> None:
    """Replace a worker's report."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{report.pid}.draft"
    draft.write_bytes(msgspec.json.encode(report) + b"\n")
    draft.replace(folder / f"{report.pid}.json")


def withdraw_report(folder: Path, pid: int) -> None:
    """Remove a worker's report."""
    (folder / f"{pid}.json").unlink(missing_ok=True)


def read_reports(folder: Path) -> dict[int, tuple[int, WorkerReport]]:
    """Return the reports of the workers that live, each with the time it was written, in ns."""
    found = {}
    for path, pid in _files(folder):
        with contextlib.suppress(OSError, msgspec.DecodeError):  # it is just leaving
            with path.open("rb") as file:
                written = os.fstat(file.fileno())
                report = msgspec.json.decode(file.read(), type=WorkerReport)
            if report.pid == pid and _wrote(pid, written.st_mtime):
                found[pid] = (written.st_mtime_ns, report)
    return found


def remove_stale_reports(folder: Path) -> None:
    """Remove what workers that are no more have left."""
    living = read_reports(folder)
    for path, pid in _files(folder):
        if pid not in living:
            path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if _NAME.fullmatch(path.name):
                yield path, int(path.stem)


def _wrote(pid: int, written: float) -> bool:
    """Return whether the process of that number can have written a file at a time."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        boot = _BOOT_LINE.search(Path("/proc/stat").read_text(encoding="ascii"))
    except OSError:
        return not Path("/proc/self").exists() and _is_alive(pid)
    fields = stat.rpartition(")")[2].split()
    if boot is None or len(fields) <= _START_FIELD or fields[0] == "Z":
        return False
    started = int(boot[1]) + int(fields[_START_FIELD]) / os.sysconf("SC_CLK_TCK")
    return started <= written + _SLACK_SECONDS


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
