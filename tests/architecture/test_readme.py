"""Every block of the README runs, and what it refers to exists."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from proxy.config import field_names
from proxy.embedded.models import load_model

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    body: str

    @property
    def commands(self) -> list[str]:
        return [line[2:] for line in self.lines if line.startswith("$ ")]

    @property
    def output(self) -> list[str]:
        return [line for line in self.lines if not line.startswith("$ ")]

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.body.splitlines() if line.strip()]


BLOCKS = [Block(m[1], m[2]) for m in BLOCK.finditer(README)]


def is_install(command: str) -> bool:
    return "pip install" in command


def is_measurement(command: str) -> bool:
    return "python -m benchmarks." in command


def environment() -> dict[str, str]:
    folder = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder in which the README's guides can be followed from top to bottom."""
    cache = Path(os.environ.get("OUTPUT_WATERMARK_CACHE", tmp_path / "watermark-state/cache"))
    model = load_model("builtin", cache_dir=cache)
    shutil.copy(model.tokenizer_path, tmp_path / "tokenizer.json")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copytree(ROOT / "seeds", tmp_path / "seeds")
    shutil.copytree(ROOT / "tests/vectors", tmp_path / "tests/vectors")
    controls = (ROOT / "seeds/control-texts.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "suspicious.txt").write_text(msgspec.json.decode(controls[0])["text"])
    return tmp_path


@pytest.fixture
def servers() -> Iterator[list[subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []
    yield running
    for one in running:
        one.terminate()
        one.communicate(timeout=20)


def serve(command: str, folder: Path) -> subprocess.Popen[str]:
    server = subprocess.Popen(
        shlex.split(command), cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    for line in server.stderr:
        if "listening" in line:
            return server
    pytest.fail(f"{command} did not start")


def test_the_guides_can_be_followed(workplace: Path, servers: list[subprocess.Popen[str]]) -> None:
    for block in BLOCKS:
        if block.language == "console":
            said = ""
            for command in block.commands:
                if is_install(command) or is_measurement(command):
                    continue
                if command.startswith("watermark-proxy serve"):
                    servers.append(serve(command, workplace))
                    continue
                done = run(["bash", "-euo", "pipefail", "-c", command], workplace)
                assert done.returncode == 0, (command, done.stderr)
                said += done.stdout
            for line in block.output:
                assert line in said
        elif block.language == "python":
            done = run([sys.executable, "-c", block.body], workplace)
            assert done.returncode == 0, (block.body, done.stderr)
        else:
            assert block.language == "text"


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow  # a process each, with all that a measurement imports
@pytest.mark.parametrize(
    "command",
    sorted({c for block in BLOCKS for c in block.commands if is_measurement(c)}),
)
def test_every_measurement_is_a_command(command: str) -> None:
    words = [word for word in shlex.split(command) if "=" not in word]
    done = run([sys.executable, *words[1:3], "--help"], ROOT)
    assert done.returncode == 0, done.stderr
    for option in (word for word in words[3:] if word.startswith("--")):
        assert option in done.stdout


@pytest.mark.slow
def test_the_demo_command_on_a_fresh_clone(tmp_path: Path) -> None:
    (command,) = [
        c for block in BLOCKS for c in block.commands if c.endswith("watermark-proxy demo")
    ]
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=clone, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "together" in done.stdout


def test_the_two_command_lines_are_marked_for_scripts() -> None:
    for name in ("demo-command", "test-command"):
        assert f"<!-- {name} -->\n```console\n$ python3 -m venv .venv" in README


def test_every_link_leads_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_every_configuration_field_is_documented() -> None:
    for name in field_names():
        assert f"| `{name}` |" in README
