"""`watermark scan`: a corpus to a table and a file of hits; what cannot be scanned is said."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from tests.watermark.cli.shell import WITNESS, marked_text
from watermark.corpora import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from tests.watermark.cli.shell import Shell


STRICT = ("--fdr", "1e-6")  # keys are drawn: at 1% one clean text in a hundred would be a discovery


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", os.environ.get("TOKENIZERS_PARALLELISM", "false"))


def corpus(shell: Shell, plain_text: str, *more: str) -> Path:
    marked = marked_text(shell.key("2026-11"))
    lines = [json.dumps({"text": text}) for text in (plain_text, marked)]
    return shell.file("data.jsonl", "".join(f"{line}\n" for line in (*lines, *more)))


def test_a_corpus_is_scanned(shell: Shell, plain_text: str) -> None:
    data, out = corpus(shell, plain_text), shell.folder / "hits.parquet"
    result = shell("scan", data, "--keys", shell.keys, "--out", out, *STRICT)
    assert (result.exit_code, result.stderr) == (0, "")
    heading, row, empty, first, second = result.stdout.splitlines()
    assert heading.split()[:2] == ["corpus", "key"]
    assert row.split()[:3] == ["1", "file", "2026-11"]
    assert empty == ""
    assert "the corpus was produced without this key" in first
    assert second.startswith("1 of 2 tests of single documents are discoveries")
    assert "says nothing about who wrote the text" in second
    (hit,) = pq.read_table(out).to_pylist()
    assert (hit["file"], hit["record_index"], hit["key_id"]) == (str(data), 1, "2026-11")
    again = shell("scan", data, "--keys", shell.keys, "--out", out)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "never overwritten; choose another --out" in again.stderr


def test_programs_get_one_object_a_key(shell: Shell, plain_text: str) -> None:
    data, out = corpus(shell, plain_text), shell.folder / "hits.parquet"
    shell.key("old", state="detect")
    result = shell("scan", data, "--keys", shell.keys, "--out", out, "--json", "--fdr", "0.05")
    first, second = map(json.loads, result.stdout.splitlines())
    assert (first["key_id"], second["key_id"]) == ("2026-11", "old")
    assert first["log10_pvalue_family"] < -10 < second["log10_pvalue_family"]
    assert (first["n_documents"], first["n_broken"], first["fdr"]) == (2, 0, 0.05)


def test_keys_of_engines_are_left_out_and_named(shell: Shell, plain_text: str) -> None:
    data = corpus(shell, plain_text)
    key = shell.file("engine.txt", "42\n")
    unit = "tokenizer:sha256:" + "0f" * 32
    made = shell(
        "keys", "import", key, "--scheme", "vllm-gumbel", "--id", "engine", "--dir", shell.folder,
        "--unit", unit,
    )  # fmt: skip
    shell.keys.write_text(f"{shell.keys.read_text()}\n{made.stdout}")
    run = ("scan", data, "--keys", shell.keys, "--out")
    result = shell(*run, shell.folder / "1.parquet", "--json")
    assert result.exit_code == 0, result.stderr
    assert "left out, as a scan does not read their schemes: engine" in result.stderr
    assert "use `watermark detect`" in result.stderr
    (line,) = map(json.loads, result.stdout.splitlines())
    assert (line["key_id"], line["left_out"]) == ("2026-11", ["engine"])
    asked = shell(*run, shell.folder / "2.parquet", "--key-id", "engine")
    assert (asked.exit_code, asked.stdout) == (1, "")
    assert "is of scheme vllm-gumbel" in asked.stderr


def test_broken_records_are_said_and_change_the_exit_status(shell: Shell, plain_text: str) -> None:
    data = corpus(shell, plain_text, f'{{"text": "{WITNESS}', f'{{"body": "{WITNESS}"}}')
    offset = data.read_bytes().index(b'{"text": "xylo')
    out = shell.folder / "hits.parquet"
    result = shell("scan", data, "--keys", shell.keys, "--out", out, *STRICT)
    assert result.exit_code == 4
    assert f"watermark: {data}:{offset}: not JSON" in result.stderr
    assert "no field text, content" in result.stderr
    assert "2 of 4 records were broken" in result.stderr
    assert "1 of 2 tests" in result.stdout
    side = shell.folder / "hits.parquet.broken.jsonl"
    assert f"{side} names all of them" in result.stderr
    assert WITNESS not in side.read_text()
    first, second = map(json.loads, side.read_text().splitlines())
    assert first == {"file": str(data), "offset": offset, "reason": "not JSON", "n_records": 1}
    assert second["offset"] > offset
    again = shell("scan", data, "--keys", shell.keys, "--out", shell.folder / "2", "--json")
    assert json.loads(again.stdout)["broken_file"] == str(shell.folder / "2.broken.jsonl")


@pytest.mark.parametrize(
    ("options", "status", "remedy"),
    [
        (["--fdr", "0"], 2, "not between 0 and 1"),
        (["--fdr", "nan"], 2, "not between 0 and 1"),
        (["--processes", "0"], 2, "not in the range"),
        (["--key-id", "none"], 1, "holds no key 'none'"),
        (["--tokenizer", "none.json"], 1, "pass --tokenizer FILE"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    shell: Shell, plain_text: str, options: list[str], status: int, remedy: str
) -> None:
    data = corpus(shell, plain_text)
    out = shell.folder / "hits.parquet"
    result = shell("scan", data, "--keys", shell.keys, "--out", out, *options)
    assert (result.exit_code, result.stdout) == (status, "")
    assert remedy in result.stderr
    assert not out.exists()


def test_a_path_that_leads_nowhere_is_named(shell: Shell) -> None:
    shell.key("k")
    result = shell("scan", "none/*.jsonl", "--keys", shell.keys, "--out", shell.folder / "h")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "none/*.jsonl leads to no file that can be scanned" in result.stderr


def test_a_terminal_sees_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: object) -> None:
    from watermark.cli import scan  # noqa: PLC0415 - the module, not the command

    del capsys
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with scan._progress() as show:
        assert show is not None
        show(Progress(stage="scan", done=1, total=2, n_broken=0))
        show(Progress(stage="scan", done=2, total=2, n_broken=3))
        show(Progress(stage="pool", done=2, total=2, n_broken=0))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with scan._progress() as show:
        assert show is None
