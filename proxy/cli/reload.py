"""`watermark-proxy reload`: have every worker read keys and models again, and wait until it has."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Final

import click

from proxy.config import load_config
from proxy.errors import ConfigError
from watermark.keys.reports import WorkerReport, read_reports, workers_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_LOOK_SECONDS: Final = 0.02

_Reports = dict[int, tuple[int, WorkerReport]]


def run_reload(path: Path, *, timeout_s: float) -> None:
    """Signal the workers of a configuration's state folder, and print what they have then.

    Args:
        path: The configuration that they serve.
        timeout_s: How long to wait for them.

    Raises:
        ConfigError: None runs, one refuses the keys, or one does not answer in time.
    """
    config = load_config(path)
    folder = workers_folder(config.state)
    before = read_reports(folder)
    if not before:
        raise ConfigError(f"no worker reports in {folder}; start `watermark-proxy serve`")
    for pid in before:
        os.kill(pid, signal.SIGHUP)
    after = _wait(folder, before, timeout_s)
    _check(before, after, timeout_s)
    for pid, (_, report) in sorted(after.items()):
        click.echo(f"{pid} {report.generation} {report.loaded_at}")
    (generation,) = {report.generation for _, report in after.values()}
    click.echo(f"watermark-proxy: {len(after)} workers have keys {generation}", err=True)


def _wait(folder: Path, before: _Reports, timeout_s: float) -> _Reports:
    """Return the reports once all have answered and agree, or time is up."""
    deadline = time.monotonic() + timeout_s
    while True:
        after = read_reports(folder)
        answered = [after[pid] for pid in before if pid in after and after[pid][0] > before[pid][0]]
        is_done = len(answered) == sum(pid in after for pid in before)
        if is_done and (_agree(after) or any(report.error for _, report in answered)):
            return after
        if time.monotonic() > deadline:
            return after
        time.sleep(_LOOK_SECONDS)


def _agree(reports: _Reports) -> bool:
    return len({report.generation for _, report in reports.values()}) == 1


def _check(before: _Reports, after: _Reports, timeout_s: float) -> None:
    refused = _grouped((report.error, pid) for pid, (_, report) in after.items() if report.error)
    if refused:
        lines = [f"refused by {_listed(pids)}: {error}" for error, pids in refused.items()]
        raise ConfigError("\n".join([*lines, "what was in force stays in force"]))
    late = [pid for pid in before if pid in after and after[pid][0] <= before[pid][0]]
    if late:
        raise ConfigError(f"no answer within {timeout_s:g} s from {_listed(late)}; see its log")
    if not after:
        raise ConfigError("all workers have stopped; start `watermark-proxy serve`")
    if not _agree(after):
        found = _grouped((report.generation, pid) for pid, (_, report) in after.items())
        shown = ", ".join(f"{name} at {_listed(pids)}" for name, pids in found.items())
        raise ConfigError(f"the workers do not agree after {timeout_s:g} s: {shown}; reload again")


def _grouped(pairs: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name, pid in pairs:
        found.setdefault(name, []).append(pid)
    return found


def _listed(pids: list[int]) -> str:
    return f"worker{'s' * (len(pids) > 1)} {', '.join(map(str, sorted(pids)))}"
