"""Pieces of text: whole characters only, never a part of a stop string, and nothing lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from tests.proxy.embedded.driver import VOCAB, byte_tokenizer
from watermark.errors import TokenizerFileError
from watermark.text import TextAssembler, build_token_table

TABLE = build_token_table(byte_tokenizer(), VOCAB)


def ids(data: bytes) -> list[int]:
    return [TABLE.content.index(bytes([byte])) for byte in data]


def pieces(data: bytes, stop: list[str], prompt: bytes = b"") -> list[str]:
    assembler = TextAssembler(TABLE, ids(prompt), stop)
    result = []
    for token in ids(data):
        result.append(assembler.add(token))
        if assembler.is_stopped:
            break
    return [*result, assembler.finish()]


@given(st.binary(max_size=60))
def test_pieces_join_to_the_text(data: bytes) -> None:
    assert "".join(pieces(data, [])) == data.decode("utf-8", "replace")


@given(st.text(max_size=30))
def test_characters_come_whole(text: str) -> None:
    assert "\ufffd" not in "".join(pieces(text.encode(), [])).replace(
        "\ufffd", "", text.count("\ufffd")
    )
    assert all(piece in text for piece in pieces(text.encode(), []))


@given(
    st.text("abc\u00e9", max_size=30),
    st.lists(st.text("abc\u00e9", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_text_ends_before_the_stop_string_that_is_complete_first(
    text: str, stop: list[str]
) -> None:
    ends = [text.find(string) + len(string) for string in stop if string in text]
    expected = text
    if ends:
        seen = text[: min(ends)]
        expected = seen[: min(seen.find(string) for string in stop if string in seen)]
    assert "".join(pieces(text.encode(), stop)) == expected


def test_what_could_become_a_stop_string_waits() -> None:
    assert pieces(b"xENy", ["END"]) == ["x", "", "", "ENy", ""]
    assert pieces(b"xEN", ["END"]) == ["x", "", "", "EN"]
    assert pieces(b"xEND", ["END"]) == ["x", "", "", "", ""]


def test_a_character_begun_in_the_prompt_is_finished_in_the_reply() -> None:
    sign = "\u20ac".encode()
    assert "".join(pieces(sign[2:] + b"!", [], prompt=b"5 " + sign[:2])) == "\u20ac!"
    assert "".join(pieces(sign[2:] + b"!", [], prompt=b"5 ")) == "\ufffd!"


def space_marked() -> Tokenizer:
    vocab = {"<s>": 0, "\u2581a": 1, "b": 2, "<0xC3>": 3, "<0xA9>": 4, "\u2581": 5}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


@pytest.mark.parametrize(
    ("prompt", "reply", "text"),
    [
        ([0], [1, 2, 1], "ab a"),
        ([0, 2], [1, 2], " ab"),
        ([0, 1], [3, 4, 5, 1], "\u00e9  a"),
        ([], [0, 1], "a"),
    ],
)
def test_space_marks_are_read_in_context(prompt: list[int], reply: list[int], text: str) -> None:
    tokenizer = space_marked()
    assembler = TextAssembler(build_token_table(tokenizer, 6), prompt, [])
    got = "".join([*map(assembler.add, reply), assembler.finish()])
    assert got == text
    assert tokenizer.decode(prompt) + got == tokenizer.decode([*prompt, *reply])


def test_rows_without_a_token_add_nothing() -> None:
    table = build_token_table(byte_tokenizer(), VOCAB + 2)
    assert table.content[VOCAB:] == (b"", b"")
    assert {0, VOCAB, VOCAB + 1} == table.special


def test_an_unknown_decoder_is_refused() -> None:
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    with pytest.raises(TokenizerFileError, match="missing"):
        build_token_table(tokenizer, 1)
    tokenizer.decoder = decoders.WordPiece()
    with pytest.raises(TokenizerFileError, match="WordPiece"):
        build_token_table(tokenizer, 1)
