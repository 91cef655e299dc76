"""Keys, marked and plain documents, and corpora of them."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.watermark.cli.shell import LEXICON, marked_text
from watermark.corpora import blocks, shards
from watermark.keys import KeyRecord, SecretKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from watermark.corpora import ScanResult


def key(number: int = 0, **options: object) -> KeyRecord:
    secret = SecretKey(f"k{number}", hashlib.sha256(bytes([number])).digest())
    values = {"unit": "words/v1", "context_width": 2, **options}
    return KeyRecord(key_id=f"k{number}", secret=secret, **values)  # type: ignore[arg-type]


def plain(seed: int, n: int = 120) -> str:
    return " ".join(np.random.default_rng(seed).choice(LEXICON, n).tolist())


def broken_lines(result: ScanResult) -> list[dict[str, object]]:
    """Return what the file of broken records says."""
    assert result.broken_file == result.out.with_name(result.out.name + ".broken.jsonl")
    return [json.loads(line) for line in result.broken_file.read_text().splitlines()]


@pytest.fixture(scope="session")
def marked() -> str:
    return marked_text(key(), 150)


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, records: list[object]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    return write


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many shards, and many blocks of those that cannot be entered."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 4000)
    monkeypatch.setattr(blocks, "BLOCK_CHARACTERS", 3000)


@pytest.fixture
def corpus(tmp_path: Path, jsonl: Callable[..., Path], marked: str) -> Path:
    """Three formats, repeats, marked documents, broken records."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    records: list[object] = [{"text": plain(i), "id": i} for i in range(60)]
    records[17] = {"text": marked}
    records[40] = {"body": "none"}
    jsonl("corpus/a.jsonl", records)
    more = "".join(json.dumps({"text": plain(i % 30 + 40)}) + "\n" for i in range(60))
    more += json.dumps({"text": marked + " " + plain(99)}) + "\n{bad\n"
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(more.encode(), mtime=0))
    (folder / "c.txt").write_text(plain(7, 3000).replace("bam", "bam\n"))
    return folder
