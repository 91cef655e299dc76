"""Workers' reports: whole or not there, and never another process's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from watermark.keys.reports import (
    WorkerReport,
    read_reports,
    remove_stale_reports,
    withdraw_report,
    workers_folder,
    write_report,
)

if TYPE_CHECKING:
    from pathlib import Path


def report(pid: int) -> WorkerReport:
    return WorkerReport(pid=pid, generation="ab" * 8, loaded_at="2026-11-01T00:00:00Z", error="")


def test_the_form(tmp_path: Path) -> None:
    folder = workers_folder(tmp_path)
    write_report(folder, report(os.getpid()))
    (path,) = folder.iterdir()
    assert path == tmp_path / "workers" / f"{os.getpid()}.json"
    assert json.loads(path.read_text()) == {
        "pid": os.getpid(),
        "generation": "ab" * 8,
        "loaded_at": "2026-11-01T00:00:00Z",
        "error": "",
    }
    assert read_reports(folder)[os.getpid()][1] == report(os.getpid())
    withdraw_report(folder, os.getpid())
    assert read_reports(folder) == {}


def test_the_dead_and_their_successors_are_not_read(tmp_path: Path) -> None:
    folder = workers_folder(tmp_path)
    write_report(folder, report(os.getpid()))
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        write_report(folder, report(child.pid))
    assert set(read_reports(folder)) == {os.getpid()}
    # A report that is older than the process of its number is another's.
    write_report(folder, report(1))
    os.utime(folder / "1.json", (1000, 1000))
    (folder / "2.json").write_text("{")
    (folder / "notes.txt").write_text("")
    assert set(read_reports(folder)) == {os.getpid()}
    remove_stale_reports(folder)
    assert {path.name for path in folder.iterdir()} == {f"{os.getpid()}.json", "notes.txt"}


def test_no_folder_no_reports(tmp_path: Path) -> None:
    assert read_reports(tmp_path / "none") == {}
    remove_stale_reports(tmp_path / "none")
