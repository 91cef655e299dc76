"""Text given out piece by piece is the text of the whole, and never ends inside a character."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.watermark.text.tiny_tokenizers import CORPUS, byte_level, space_marked
from watermark.text import TextAssembler, TokenizerUnit, build_token_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.text import TokenTable

SHARED = os.environ.get("OUTPUT_WATERMARK_SHARED")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
KINDS = {"byte-level": byte_level, "space-marked": space_marked}
TEXTS = st.one_of(
    st.text(alphabet="ab dogthe.,\n é€中🎈", max_size=25),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(CORPUS),
)


@cache
def unit_of(kind: str) -> TokenizerUnit:
    return TokenizerUnit(KINDS[kind]().to_str().encode(), name=kind)


@cache
def table_of(kind: str) -> TokenTable:
    unit = unit_of(kind)
    return build_token_table(unit.tokenizer, unit.vocab_size)


def assemble(kind: str, prompt: Sequence[int], chunks: Sequence[Sequence[int]]) -> list[str]:
    assembler = TextAssembler(table_of(kind), prompt, ())
    pieces = ["".join(map(assembler.add, chunk)) for chunk in chunks]
    return [*pieces, assembler.finish()]


BOTH = pytest.mark.parametrize("kind", list(KINDS))


def in_context(unit: TokenizerUnit, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """Return what the ids add to the text of the prompt."""
    before = unit.decode(prompt)
    whole = unit.decode([*prompt, *ids])
    assert whole.startswith(before)
    return whole[len(before) :]


def cut(ids: Sequence[int], data: st.DataObject) -> list[list[int]]:
    chunks = []
    place = 0
    while place < len(ids):
        step = data.draw(st.integers(1, 4))
        chunks.append(list(ids[place : place + step]))
        place += step
    return chunks


@BOTH
@settings(max_examples=120, deadline=None)
@given(TEXTS, TEXTS, st.data())
def test_pieces_joined_are_the_text_in_context(
    kind: str, prompt: str, text: str, data: st.DataObject
) -> None:
    unit = unit_of(kind)
    before, ids = unit.encode(prompt).tolist(), unit.encode(text).tolist()
    pieces = assemble(kind, before, cut(ids, data))
    assert "".join(pieces) == in_context(unit, before, ids)
    if REPLACEMENT not in text:
        assert REPLACEMENT not in "".join(pieces)
        assert pieces[-1] == ""


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 329), max_size=25), st.data())
def test_any_bytes_give_one_text_however_cut(ids: list[int], data: st.DataObject) -> None:
    """Byte-level tokens drawn at random are seldom whole characters."""
    unit = unit_of("byte-level")
    assert "".join(assemble("byte-level", [], cut(ids, data))) == unit.decode(ids)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 419), max_size=25), st.data())
def test_any_byte_pieces_give_one_text_however_cut(ids: list[int], data: st.DataObject) -> None:
    whole = assemble("space-marked", [], [ids])
    assert "".join(assemble("space-marked", [], cut(ids, data))) == "".join(whole)


@BOTH
def test_a_character_waits_for_its_last_byte(kind: str) -> None:
    ids = unit_of(kind).encode("a 🎈").tolist()
    start = unit_of(kind).encode("a ").tolist()
    pieces = assemble(kind, [], [[one] for one in ids])
    assert "".join(pieces) == "a 🎈"
    assert pieces[len(ids) - 1] == "🎈"
    assert set(pieces[len(start) : len(ids) - 1]) <= {""}


@BOTH
def test_a_character_that_never_ends_shows_at_the_end(kind: str) -> None:
    ids = unit_of(kind).encode("ab🎈").tolist()[:-1]
    pieces = assemble(kind, [], [[one] for one in ids])
    assert REPLACEMENT not in "".join(pieces[:-1])
    assert set(pieces[-1]) == {REPLACEMENT}


def test_a_character_that_the_prompt_began_is_finished() -> None:
    ids = unit_of("byte-level").encode("a 🎈b").tolist()
    place = len(unit_of("byte-level").encode("a ").tolist()) + 1
    pieces = assemble("byte-level", ids[:place], [[one] for one in ids[place:]])
    assert "".join(pieces) == "🎈b"


def test_the_first_space_is_dropped_at_the_very_start_only() -> None:
    unit = unit_of("space-marked")
    dog = unit.encode("dog the dog").tolist()
    assert "".join(assemble("space-marked", [], [[one] for one in dog])) == "dog the dog"
    assert "".join(assemble("space-marked", dog, [[one] for one in dog])) == " dog the dog"


def test_many_spaces_and_long_texts_lose_nothing() -> None:
    for kind in KINDS:
        text = "  the   dog\n\n\n" + "中文🎈 é " * 40 + "   "
        ids = unit_of(kind).encode(text).tolist()
        pieces = assemble(kind, [], [[one] for one in ids])
        assert "".join(pieces) == unit_of(kind).decode(ids)


@BOTH
def test_nothing_gives_nothing(kind: str) -> None:
    assert assemble(kind, [], []) == [""]
    assert "".join(assemble(kind, [], [[], []])) == ""


def shared_tokenizers() -> list[Path]:
    return sorted(Path(SHARED).glob("tokenizers/*/tokenizer.json")) if SHARED else []


@pytest.mark.shared
@pytest.mark.skipif(not SHARED, reason="OUTPUT_WATERMARK_SHARED names no folder of tokenizers")
@pytest.mark.parametrize("path", shared_tokenizers(), ids=lambda path: path.parent.name)
def test_real_tokenizers(path: Path) -> None:
    unit = TokenizerUnit.read(path)
    table = build_token_table(unit.tokenizer, unit.vocab_size)
    rng = np.random.default_rng(0)
    texts = [*CORPUS, "  ", "🎈🎈 中文\n\n", "a" * 40, " leading and trailing  "]
    for text in texts:
        for prompt_text in ("", "Once upon a time", "中"):
            prompt, ids = unit.encode(prompt_text).tolist(), unit.encode(text).tolist()
            expected = in_context(unit, prompt, ids)
            cuts = np.unique(rng.integers(0, len(ids) + 1, 5))
            for chunks in ([ids], [[i] for i in ids], [x.tolist() for x in np.split(ids, cuts)]):
                assembler = TextAssembler(table, prompt, ())
                pieces = ["".join(map(assembler.add, chunk)) for chunk in chunks]
                assert "".join([*pieces, assembler.finish()]) == expected
