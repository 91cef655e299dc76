"""Real processes: several workers on one socket, what they report, and reloads by command."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import numpy as np
import pytest

from benchmarks.rotation.stage import Stage, utc

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKERS = 3


def command(stage: Stage, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "proxy", *arguments]
    line += ["--config", str(stage.folder / "proxy.toml")]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def until(condition: object, *, seconds: float = 5.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("workers") / "stage"
    stage = Stage(folder, np.random.default_rng(4), workers=WORKERS)
    stage.write_keys(stage.make_key("first"))
    with stage.serving():
        yield stage
    assert not list((folder / "state" / "workers").iterdir())  # who leaves takes its report


def test_an_edit_reaches_all_workers_within_a_second(stage: Stage) -> None:
    skews, delays = [], []
    for number in range(3):
        before = {report.generation for _, report in stage.reports().values()}
        end = utc() + timedelta(days=9 + number)
        stage.write_keys(stage.make_key("first", not_after=end))
        edited = utc()
        until(
            lambda before=before: (
                len(found := {r.generation for _, r in stage.reports().values()}) == 1
                and found != before
            )
        )
        times = [datetime.fromisoformat(r.loaded_at) for _, r in stage.reports().values()]
        assert len(times) == WORKERS
        skews.append(max(times) - min(times))
        delays.append(max(times) - edited)
    assert max(skews) <= timedelta(seconds=1)
    assert max(delays) <= timedelta(seconds=2)


def test_the_command_reloads_and_says_what_all_have(stage: Stage) -> None:
    stage.write_keys(stage.make_key("first"))
    done = command(stage, "reload")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {int(line.split()[0]) for line in lines} == set(stage.reports())
    assert len({line.split()[1] for line in lines}) == 1


def test_the_command_fails_with_the_workers_error(stage: Stage) -> None:
    text = stage.write_keys(stage.make_key("first"))
    assert command(stage, "reload").returncode == 0
    stage.replace(text.replace("rho =", "rhoo =").encode())
    done = command(stage, "reload")
    assert done.returncode == 1
    assert f"{stage.keys_file}:3: " in done.stderr
    assert "rhoo" in done.stderr
    assert stage.log.read_text().count("not reloaded") >= 1
    stage.replace(text.encode())
    assert command(stage, "reload").returncode == 0


def test_a_worker_that_dies_is_replaced_and_nobody_else_is_hurt(stage: Stage) -> None:
    before = set(stage.reports())
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(set(stage.reports()) - {victim}) == WORKERS)
    assert len(set(stage.reports()) & before) == WORKERS - 1
    assert len({report.generation for _, report in stage.reports().values()}) == 1
    assert httpx2.get(f"{stage.url}/watermark/health").status_code == 200


def test_no_worker_leaves_its_memory_behind(stage: Stage) -> None:
    for pid in stage.reports():
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        (line,) = [one for one in limits if one.startswith("Max core file size")]
        assert line.split()[4:6] == ["0", "0"]
    code = (
        "from watermark.keys.hardening import forbid_dumps; import ctypes\n"
        "is_dumpable = lambda: ctypes.CDLL(None).prctl(3)\n"  # PR_GET_DUMPABLE
        "before = is_dumpable(); forbid_dumps(); print(before, is_dumpable())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert out.stdout.split() == [b"1", b"0"]


def test_a_bad_file_at_start_refuses(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage", np.random.default_rng(4), workers=2)
    stage.write_keys(stage.make_key("first"))
    stage.config("http://127.0.0.1:9")
    (stage.keys_file.parent / "first.key").chmod(0o644)
    done = command(stage, "serve")
    assert done.returncode == 1
    assert f"{stage.keys_file}:3: " in done.stderr
    done = command(stage, "reload")
    assert done.returncode == 1
    assert "no worker reports" in done.stderr


def test_requests_meanwhile(stage: Stage) -> None:
    async def main() -> None:
        async with stage.load(3, tokens=8) as replies:
            for number in range(4):
                end = utc() + timedelta(days=20 + number)
                stage.write_keys(stage.make_key("first", not_after=end))
                assert not await stage.reload(wants_error=False)
        assert replies
        assert {reply.status for reply in replies} == {200}
        assert {reply.key_id for reply in replies} == {"first"}

    asyncio.run(main())
