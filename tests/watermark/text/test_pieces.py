"""The ids of a text are those of its pieces, where the tokenizer's file says that they must be."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watermark.text.tiny_tokenizers import CORPUS, byte_level, space_marked
from watermark.text import TokenizerUnit, pieces
from watermark.text.pieces import PieceEncoder, piece_starts, pieces_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

SHARED = os.environ.get("OUTPUT_WATERMARK_SHARED")
DATA = space_marked(within_words=True).to_str().encode()
STARTS = piece_starts(DATA)
UNIT = TokenizerUnit(DATA, name="tiny")
PARTS = [*" \u2581ab\n\t\u00a0é\u0301日🎈", "  ", "the", "dog", "<unk>", "</s>", "<0x41>"]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=24).map("".join)


def whole(unit: TokenizerUnit, texts: Sequence[str]) -> list[list[int]]:
    """Return what the tokenizer says of each text at once."""
    return [unit.encode(text).tolist() for text in texts]


def as_lists(ids: Sequence[NDArray[np.uint32]]) -> list[list[int]]:
    return [one.tolist() for one in ids]


@given(st.lists(TEXTS | st.text(alphabet=st.characters(exclude_categories=["Cs"])), max_size=6))
def test_pieces_have_the_ids_of_the_whole(texts: list[str]) -> None:
    assert STARTS is not None
    assert as_lists(UNIT.encode_batch(texts)) == whole(UNIT, texts)


@given(TEXTS)
def test_a_place_takes_one_space_and_nothing_else(text: str) -> None:
    found = pieces_of(text)
    assert " ".join(found) == text
    assert all(found) or not text


def test_a_token_across_a_place_would_give_other_ids() -> None:
    data = space_marked().to_str().encode()
    assert piece_starts(data) is None
    unit = TokenizerUnit(data, name="across")
    assert as_lists(unit.encode_batch(CORPUS)) == whole(unit, CORPUS)
    in_pieces = [
        [id_ for piece in pieces_of(text) for id_ in unit.encode(piece).tolist()] for text in CORPUS
    ]
    assert in_pieces != whole(unit, CORPUS)


CHANGES: list[tuple[tuple[str, ...], Any]] = [
    (("normalizer",), None),
    (("normalizer", "normalizers"), [{"type": "Prepend", "prepend": "\u2581"}]),
    (("normalizer", "type"), "NFC"),
    (("pre_tokenizer",), {"type": "Digits", "individual_digits": True}),
    (("model", "dropout"), 0.1),
    (("model", "ignore_merges"), True),
    (("model", "continuing_subword_prefix"), "##"),
    (("model", "end_of_word_suffix"), "</w>"),
    (("model", "type"), "Unigram"),
    (("model", "vocab"), {"a": 0}),
    (("added_tokens", "1", "special"), False),
]


@pytest.mark.parametrize(("path", "value"), CHANGES)
def test_every_rule_is_read_off_the_file(path: tuple[str, ...], value: object) -> None:
    description = json.loads(DATA)
    at: Any = description
    for name in path[:-1]:
        at = at[int(name)] if isinstance(at, list) else at[name]
    at[path[-1]] = value
    assert piece_starts(json.dumps(description).encode()) is None


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", byte_level().to_str().encode()])
def test_other_files_are_left_alone(data: bytes) -> None:
    assert piece_starts(data) is None


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_HELD_CHARACTERS", 100)
    assert STARTS is not None
    encoder = PieceEncoder(UNIT.tokenizer, STARTS)
    for i in range(50):
        texts = [f"word{i} {i}", "the dog"]
        assert as_lists(encoder.encode(texts)) == whole(UNIT, texts)
        assert encoder.n_held <= 100


@pytest.mark.skipif(not SHARED, reason="OUTPUT_WATERMARK_SHARED names no folder of tokenizers")
def test_a_real_tokenizer_has_the_same_ids_in_pieces() -> None:
    folder = Path(str(SHARED))
    data = (folder / "tokenizers/mistral-v1-32k/tokenizer.json").read_bytes()
    assert piece_starts(data) is not None
    unit = TokenizerUnit(data, name="mistral")
    text = (folder / "text/wikitext2/test.txt").read_text(encoding="utf-8")
    texts = [text[i : i + 700] for i in range(0, 200_000, 700)]
    assert as_lists(unit.encode_batch(texts)) == whole(unit, texts)
