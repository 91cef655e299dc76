"""A tokenizer is pinned by its bytes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.watermark.text.tiny_tokenizers import byte_level, space_marked
from watermark.errors import TextEncodingError, TokenizerFileError, UnitMismatchError
from watermark.text import TokenizerUnit, tokenizer_unit_id

if TYPE_CHECKING:
    from pathlib import Path

DATA = byte_level().to_str().encode()


@pytest.fixture
def unit() -> TokenizerUnit:
    return TokenizerUnit(DATA, name="tiny")


def test_the_unit_is_the_digest_of_the_file(unit: TokenizerUnit) -> None:
    expected = "tokenizer:sha256:" + hashlib.sha256(DATA).hexdigest()
    assert unit.unit_id == tokenizer_unit_id(DATA) == expected
    assert repr(unit) == f"<TokenizerUnit {expected}>"
    assert TokenizerUnit(DATA + b"\n", name="other").unit_id != expected


def test_a_file_is_held_against_the_key(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(DATA)
    assert TokenizerUnit.read(path).unit_id == tokenizer_unit_id(DATA)
    assert TokenizerUnit.read(path, expected=tokenizer_unit_id(DATA)).vocab_size == 330
    path.write_bytes(DATA + b" ")
    with pytest.raises(UnitMismatchError, match="byte for byte"):
        TokenizerUnit.read(path, expected=tokenizer_unit_id(DATA))


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"not json", b'{"model": 3}'])
def test_a_bad_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)
    with pytest.raises(TokenizerFileError):
        TokenizerUnit.read(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerFileError, match="cannot read"):
        TokenizerUnit.read(tmp_path / "none.json")
    with pytest.raises(TokenizerFileError, match="cannot read"):
        TokenizerUnit.read(tmp_path)


def test_the_digest_is_checked_before_the_file_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"not json")
    with pytest.raises(UnitMismatchError):
        TokenizerUnit.read(path, expected=tokenizer_unit_id(DATA))


def test_a_special_token_spelled_out_is_text(unit: TokenizerUnit) -> None:
    end = unit.tokenizer.token_to_id("<|end|>")
    assert end is not None
    ids = unit.encode("the <|end|> dog")
    assert end not in ids.tolist()
    assert unit.decode(ids.tolist()) == "the <|end|> dog"
    assert unit.decode([*ids.tolist(), end]) == "the <|end|> dog"


def test_encoding_adds_pads_and_cuts_nothing(unit: TokenizerUnit) -> None:
    tokenizer = byte_level()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=50)
    long = TokenizerUnit(tokenizer.to_str().encode(), name="cut")
    text = "the quick brown fox jumps over the lazy dog"
    assert long.encode(text).tolist() == unit.encode(text).tolist()
    assert unit.encode(text).dtype == np.uint32
    assert len(unit.encode("")) == 0


def test_text_comes_back(unit: TokenizerUnit) -> None:
    marked = TokenizerUnit(space_marked().to_str().encode(), name="marked")
    for each in (unit, marked):
        for text in ("", "The dog — €5.", "日本語 🎈", "a\n\n  b"):
            assert each.decode(each.encode(text).tolist()) == text


def test_half_a_surrogate_pair_is_refused(unit: TokenizerUnit) -> None:
    with pytest.raises(TextEncodingError):
        unit.encode("a\ud800")
