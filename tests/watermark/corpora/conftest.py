"""Keys, marked and plain documents, and corpora of them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.watermark.cli.shell import LEXICON, marked_text
from watermark.keys import KeyRecord, SecretKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def key(number: int = 0, **options: object) -> KeyRecord:
    secret = SecretKey(f"k{number}", hashlib.sha256(bytes([number])).digest())
    values = {"unit": "words/v1", "context_width": 2, **options}
    return KeyRecord(key_id=f"k{number}", secret=secret, **values)  # type: ignore[arg-type]


def plain(seed: int, n: int = 120) -> str:
    return " ".join(np.random.default_rng(seed).choice(LEXICON, n).tolist())


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
