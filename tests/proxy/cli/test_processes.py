"""The commands as processes: what they print, and that they end together."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.processes import EMBEDDED_CONFIG
from watermark.keys import KEYS_HEADER, SecretKey, format_record, write_key_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxy.embedded.builtin import BuiltinModel

    Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def state(tmp_path: Path, builtin: BuiltinModel) -> Path:
    """A state folder whose cache holds the model already."""
    shutil.copytree(builtin.tokenizer_path.parent, tmp_path / "cache", dirs_exist_ok=True)
    (tmp_path / "proxy.toml").write_text(EMBEDDED_CONFIG)
    return tmp_path


def test_demo_as_json(run: Run, state: Path) -> None:
    done = run("demo", "--json", "--tokens", "40", "--state", str(state))
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result["log10_pvalue"] < -6
    assert result["log10_pvalue_wrong_key"] > -4
    assert {reply["path"] for reply in result["replies"]} == {"splice", "select"}
    for reply in result["replies"]:
        assert {
            "text",
            "path",
            "n_tokens",
            "n_scored",
            "log10_pvalue",
            "log10_pvalue_wrong_key",
            "upstream_requests",
        } <= set(reply)
        assert reply["n_scored"] <= reply["n_tokens"]
        assert 1 <= reply["upstream_requests"] <= 45
        assert reply["text"]


@pytest.mark.slow
def test_another_pythons_tokenizer_makes_another_key(run: Run, state: Path) -> None:
    unit = f"tokenizer:sha256:{'0' * 64}"
    write_key_file(state / "old.key", SecretKey("old", bytes(32)))
    record = format_record(key_id="old", unit=unit, secret="old.key")  # noqa: S106 - a path
    (state / "KEYS.toml").write_text(KEYS_HEADER + record)
    done = run("demo", "--tokens", "10", "--state", str(state))
    assert done.returncode == 0, done.stderr
    assert "no key marks" in done.stderr
    assert "made key quickstart-" in done.stderr
    assert (state / "KEYS.toml").read_text().count("[[key]]") == 2
    assert "right key" in done.stdout


@contextlib.contextmanager
def started(state: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a process group of its own, which is ended with the test."""
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", *arguments],
        cwd=state,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def line_with(process: subprocess.Popen[str], word: str) -> str:
    assert process.stderr
    for line in process.stderr:
        if word in line:
            return line
    raise AssertionError(f"it ended without saying {word!r}")


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(one) for one in text.split()]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for_end(pids: list[int]) -> None:
    deadline = time.monotonic() + 15
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, "a child outlived its parent"
        time.sleep(0.02)


def ask(url: str) -> Any:
    body = json.dumps({"model": "builtin", "prompt": "The", "max_tokens": 8}).encode()
    request = urllib.request.Request(  # noqa: S310 - our own server
        f"{url}/v1/completions", body, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
        assert answer.headers["x-watermark"].startswith("marked; path=splice")
        return json.load(answer)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    "how",
    [
        "interrupted",
        *(pytest.param(how, marks=pytest.mark.slow) for how in ("terminated", "killed")),
    ],
)
def test_serve_and_its_upstream_end_together(state: Path, how: str) -> None:
    with started(state, "serve", "--config", "proxy.toml") as process:
        url = line_with(process, "listening on").split("listening on ")[1].split(",")[0]
        assert ask(url)["choices"][0]["text"]
        below = children(process.pid)
        assert len(below) == 1
        match how:
            case "interrupted":  # Ctrl-C reaches the whole group
                os.killpg(process.pid, signal.SIGINT)
            case "terminated":
                process.terminate()
            case _:
                process.kill()
        wait_for_end([process.pid, *below])
        # Interrupted while the drain ends by itself, the server has nothing left to interrupt: 0.
        expected = {
            "interrupted": {0, 130},
            "terminated": {-signal.SIGTERM},
            "killed": {-signal.SIGKILL},
        }
        assert process.wait(5) in expected[how]
        assert process.stderr
        assert "Traceback" not in process.stderr.read()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_an_interrupted_demo_ends_everything(state: Path) -> None:
    with started(state, "demo", "--tokens", "2000", "--state", str(state)) as process:
        assert process.stdout
        for line in process.stdout:
            if "splice" in line:
                break
        below = children(process.pid)
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
        wait_for_end([process.pid, *below])
        assert process.wait(5) == 130
        assert process.stderr
        assert "Traceback" not in process.stderr.read()
