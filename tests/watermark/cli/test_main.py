"""The edge: exit codes, usage, and the command as a process."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tests.watermark.cli.shell import WITNESS, marked_text
from watermark import errors
from watermark.cli import render
from watermark.cli.main import cli
from watermark.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.watermark.cli.shell import Shell

ROOT = Path(__file__).parents[3]
VECTORS = ROOT / "tests" / "vectors" / "seeding.json"


def classes(root: type[errors.WatermarkError]) -> Iterator[type[errors.WatermarkError]]:
    yield root
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from classes(kind)


def process(*args: str | Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "watermark", *map(str, args)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done: subprocess.CompletedProcess[bytes] = subprocess.run(  # type: ignore[call-overload]
        command, capture_output=True, check=False, timeout=60, env=environment, **options
    )
    return done


def test_every_error_class_has_an_outcome_of_its_own() -> None:
    assert set(render.OUTCOMES) == set(classes(errors.WatermarkError))
    for outcome in render.OUTCOMES.values():
        assert outcome.exit_code == 1
        assert outcome.hint[:1] == outcome.hint[:1].lower()
        assert not outcome.hint.endswith(".")


def test_a_class_that_joins_later_has_the_outcome_of_its_parent() -> None:
    class LaterError(errors.VectorsError):
        pass

    assert render.outcome_of(LaterError()) == render.OUTCOMES[errors.VectorsError]


@pytest.mark.parametrize(
    "command", [[], ["keys"], ["keys", "new"], ["detect"], ["seeding"], ["seeding", "check"]]
)
def test_help_goes_to_standard_output_with_examples(command: list[str]) -> None:
    result = CliRunner().invoke(cli, [*command, "--help"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("Usage: ")
    assert "Examples:" in result.stdout or command in (["keys"], ["seeding"])


def test_version() -> None:
    result = CliRunner().invoke(cli, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"watermark {__version__}\n")


@pytest.mark.parametrize("command", [[], ["keys"], ["seeding"]])
def test_a_bare_group_shows_its_help_as_a_mistake(command: list[str]) -> None:
    result = CliRunner().invoke(cli, command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: " in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nonsense"], "watermark: no such command 'nonsense'\n"),
        (["--nonsense"], "watermark: no such option '--nonsense'\n"),
        (["detect"], "watermark: missing argument 'FILE...'\n"),
        (["detect", "a"], "watermark: missing option '--keys'\n"),
        (["keys", "new", "--id", "k"], "watermark: missing option '--dir'\n"),
    ],
)
def test_usage_errors_have_the_same_form(shell: Shell, args: list[str], message: str) -> None:
    result = shell(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "--help` shows the options and examples\n" in result.stderr


def test_an_interrupt_exits_with_130(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(render, "write_data", interrupt)
    assert shell("seeding", "check", VECTORS).exit_code == 130


def test_the_module_runs_as_a_process(shell: Shell) -> None:
    done = process("keys", "new", "--id", "k", "--dir", shell.folder)
    assert done.returncode == 0
    shell.keys.write_bytes(b"schema = 1\n" + done.stdout)
    shell.check_leaks(done.stdout.decode() + done.stderr.decode())
    done = process("detect", "-", "--keys", shell.keys, input=WITNESS.encode() * 2 + b"\xff")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"watermark: -: not UTF-8 at byte 22; convert")
    done = process("detect", "-", "--keys", shell.keys, "--exit-code", input=b"a b c d e")
    assert (done.returncode, done.stderr) == (3, b"")


def test_a_process_without_standard_input_says_so() -> None:
    command = f"{sys.executable} -m watermark seeding check - <&-"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, check=False, timeout=60, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"watermark: -: standard input is closed; correct the path\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_in_words(shell: Shell) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "watermark", "keys", "new", "--id", "k", "--dir", shell.folder],
            stdout=full, stderr=subprocess.PIPE, check=False, timeout=60, cwd=ROOT,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == b"watermark: cannot write the result: no space left on device\n"
    assert list(shell.folder.iterdir()) == []


def test_a_broken_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "watermark", "seeding", "check", VECTORS],
            stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60, cwd=ROOT,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_ctrl_c_ends_a_process_that_waits_for_input(shell: Shell) -> None:
    shell.key("k")
    fifo = shell.folder / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(
        [sys.executable, "-m", "watermark", "detect", fifo, "-", "--keys", shell.keys],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
    ) as waiting:  # fmt: skip
        os.close(os.open(fifo, os.O_WRONLY))  # opens only when the process reads
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out, err.strip()) == (130, b"", b"")


@pytest.mark.parametrize(("no_color", "is_plain"), [("", False), ("1", True)])
def test_a_terminal_gets_bold_headings_and_never_color(
    shell: Shell, no_color: str, *, is_plain: bool
) -> None:
    file = shell.file("a.txt", marked_text(shell.key("k")))
    leader, follower = pty.openpty()
    try:
        environment = {"PATH": "/usr/bin", "TERM": "xterm-256color", "NO_COLOR": no_color}
        done = subprocess.run(
            [sys.executable, "-m", "watermark", "detect", file, "--keys", shell.keys],
            stdout=follower, stderr=subprocess.PIPE, check=False, timeout=60, cwd=ROOT,
            env=environment,
        )  # fmt: skip
        page = os.read(leader, 1 << 16).decode()
    finally:
        os.close(leader)
        os.close(follower)
    assert done.returncode == 0
    assert ("\x1b[" in page) is not is_plain
    assert "\x1b[3" not in page  # bold at most
    assert "log10 p family-wise" in page
