"""The key for first steps: made once, never overwritten, and again for another tokenizer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from proxy.cli.first_key import marking_ring
from watermark.errors import KeysError
from watermark.text import WORDS_V1

if TYPE_CHECKING:
    from pathlib import Path

ONE, OTHER = (f"tokenizer:sha256:{digit * 64}" for digit in "ab")


NOW = datetime(2026, 11, 1, tzinfo=UTC)


def test_a_key_is_made_once(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "state" / "KEYS.toml"
    first = marking_ring(path, ONE, said.append)
    assert said == [f"made key quickstart-aaaaaaaa in {path.parent}"]
    again = marking_ring(path, ONE, said.append)
    assert len(said) == 1
    assert (
        again.marking(ONE, now=NOW).secret.reveal() == first.marking(ONE, now=NOW).secret.reveal()
    )
    assert (path.parent / "quickstart-aaaaaaaa.key").stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "KEYS.toml",
        "quickstart-aaaaaaaa.key",
    ]


def test_another_tokenizer_gets_another_key_and_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "KEYS.toml"
    old = marking_ring(path, ONE, said.append).marking(ONE, now=NOW)
    ring = marking_ring(path, OTHER, said.append)
    assert ring.marking(ONE, now=NOW).secret.reveal() == old.secret.reveal()
    assert ring.marking(OTHER, now=NOW).secret.reveal() != old.secret.reveal()
    assert "another Python" in said[1]
    assert "quickstart-bbbbbbbb" in said[2]


def test_words_have_a_key_of_their_own(tmp_path: Path) -> None:
    ring = marking_ring(tmp_path / "KEYS.toml", WORDS_V1, lambda _message: None)
    assert ring.marking(WORDS_V1, now=NOW).unit == WORDS_V1


def test_a_key_whose_record_was_lost_is_found_again(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "KEYS.toml"
    first = marking_ring(path, ONE, said.append)
    path.unlink()
    again = marking_ring(path, ONE, said.append)
    assert (
        again.marking(ONE, now=NOW).secret.reveal() == first.marking(ONE, now=NOW).secret.reveal()
    )
    assert "without a record" in said[-1]


def test_what_cannot_be_joined_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "KEYS.toml"
    marking_ring(path, ONE, lambda _message: None)
    text = path.read_text().replace('"marking"', '"detect"')
    path.write_text(text)
    with pytest.raises(KeysError):
        marking_ring(path, ONE, lambda _message: None)
    assert path.read_text() == text
    assert len(list(tmp_path.iterdir())) == 2
