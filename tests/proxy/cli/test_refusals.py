"""What keeps `watermark-proxy serve` from starting: one line, the remedy, exit status 1."""

from __future__ import annotations

import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from proxy.cli.main import main
from tests.support.servers import END
from watermark.keys import KEYS_HEADER, SecretKey, format_record, write_key_file
from watermark.text import tokenizer_unit_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = f"""
[server]
port = 0
[upstream]
url = "http://127.0.0.1:9"
[keys]
file = "KEYS.toml"
[[model]]
name = "m"
tokenizer = "tokenizer.json"
end_tokens = ["{END}"]
"""


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Path) -> Path:
    """A deployment that would start."""
    shutil.copy(tokenizer, tmp_path / "tokenizer.json")
    (tmp_path / "proxy.toml").write_text(CONFIG)
    write_key_file(tmp_path / "k.key", SecretKey("k", bytes(range(32))))
    unit = tokenizer_unit_id(tokenizer.read_bytes())
    record = format_record(key_id="k", unit=unit, secret="k.key")  # noqa: S106 - a path
    (tmp_path / "KEYS.toml").write_text(KEYS_HEADER + record)
    return tmp_path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def unknown_field(folder: Path) -> None:
    change(folder / "proxy.toml", "port = 0", "prot = 0")


def no_toml(folder: Path) -> None:
    change(folder / "proxy.toml", "[keys]", "[keys")


def no_config(folder: Path) -> None:
    (folder / "proxy.toml").unlink()


def wrong_end(folder: Path) -> None:
    change(folder / "proxy.toml", END, "<|im_end|>")


def no_end(folder: Path) -> None:
    change(folder / "proxy.toml", f'end_tokens = ["{END}"]', "")


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def bad_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def other_tokenizer(folder: Path) -> None:
    with (folder / "tokenizer.json").open("a") as file:
        file.write("\n")


def no_keys(folder: Path) -> None:
    (folder / "KEYS.toml").unlink()


def unknown_key_field(folder: Path) -> None:
    change(folder / "KEYS.toml", "rho", "roh")


def no_secret(folder: Path) -> None:
    (folder / "k.key").unlink()


def open_secret(folder: Path) -> None:
    (folder / "k.key").chmod(0o644)


def damaged_secret(folder: Path) -> None:
    path = folder / "k.key"
    data = path.read_bytes()
    path.write_bytes(data[:-10] + b"\n")


def words_without_key(folder: Path) -> None:
    change(folder / "proxy.toml", 'name = "m"', 'name = "m"\nunit = "words/v1"')


CASES: list[tuple[Callable[[Path], None], list[str]]] = [
    (unknown_field, ["proxy.toml", "prot"]),
    (no_toml, ["proxy.toml", "line"]),
    (no_config, ["proxy.toml", "--config FILE"]),
    (wrong_end, ["<|im_end|>", "end_tokens"]),
    (no_end, ["end_tokens"]),
    (no_tokenizer, ["tokenizer.json"]),
    (bad_tokenizer, ["tokenizer.json"]),
    (other_tokenizer, ["no key marks unit", "watermark keys new"]),
    (no_keys, ["KEYS.toml", "watermark keys new"]),
    (unknown_key_field, ["KEYS.toml", "roh"]),
    (no_secret, ["k.key"]),
    (open_secret, ["k.key", "chmod"]),
    (damaged_secret, ["k.key"]),
    (words_without_key, ["words/v1", "watermark keys new"]),
]


@pytest.fixture
def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """Run the command line in this process: a start takes long."""

    def runner(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr("sys.argv", ["watermark-proxy", *arguments])
        monkeypatch.chdir(tmp_path)
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = int(str(ended.code))
        return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())

    return runner


@pytest.mark.parametrize(("spoil", "named"), CASES, ids=[case[0].__name__ for case in CASES])
def test_one_line_and_status_one(
    folder: Path, run_here: Run, spoil: Callable[[Path], None], named: list[str]
) -> None:
    check_refusal(folder, run_here, spoil, named)


def test_so_it_is_for_a_process(folder: Path, run: Run) -> None:
    check_refusal(folder, run, open_secret, ["k.key", "chmod"])


def check_refusal(folder: Path, run: Run, spoil: Callable[[Path], None], named: list[str]) -> None:
    spoil(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    done = run("serve", "--config", "proxy.toml")
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("watermark-proxy: ")
    assert not line.endswith(".")
    for word in named:
        assert word in line
    assert bytes(range(32)).hex() not in line
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_port_in_use(folder: Path, run_here: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        change(folder / "proxy.toml", "port = 0", f"port = {port}")
        done = run_here("serve", "--config", "proxy.toml")
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["serve", "--help"], ["upstream", "--help"], ["demo", "--help"]]
)
def test_help(run_here: Run, arguments: list[str]) -> None:
    done = run_here(*arguments)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: watermark-proxy ")
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments", [["serve"], ["frobnicate"], ["upstream", "--port", "70000"], ["demo", "--x"]]
)
def test_usage_errors(run_here: Run, arguments: list[str]) -> None:
    done = run_here(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""


@pytest.mark.slow  # the model is trained before its folder is touched
def test_a_folder_that_cannot_be_made(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("upstream", "--port", "0", "--cache-dir", "file/cache")
    assert done.returncode == 1
    assert done.stderr.startswith("watermark-proxy: ")
    assert "Traceback" not in done.stderr
