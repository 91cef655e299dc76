"""`words/v1`: what it does not see, and what no further text can change."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from watermark.errors import TextEncodingError
from watermark.text import WORDS_V1, WordsUnit, check_text, complete_words, words
from watermark.text.words import word_id

# Letters of many habits: composing, folding to two, kana and their marks, jamo, ligatures,
# format characters, separators, and marks of several combining classes.
AWKWARD = (
    "aAeß.,=<* \n\t\u00a0\u00ad\u200b\u200d\u2060\u0300\u0301\u0323\u0327\u0338\u0345\u3099\u309a"
    "\u00b4\u00a8\u037a\u1fc1\uff9e\uff9f\u304b\u30cf\uff76\u4e2d\u1100\u1161\u11a8\uac00\ufb01"
    "\u0130\u0149\u01f0\u1e9e\u03b1\u03b9\u1f80\u1fb3\u0e33\u0e01\u3300\u2460\u2126\u212b\u1100"
    "\u09c7\u09be\u0f71\u0f72\u2028\ufdfa\ue000\u0378\U0001f600\U0001f3fd\U00020000"
)
TEXTS = st.one_of(
    st.text(alphabet=AWKWARD, max_size=12),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", ["hello", ",", "world", "!"]),
        ("it's 3.5 €", ["it", "'", "s", "3", ".", "5", "€"]),
        ("ＦＵＬＬ ﬁne ½", ["full", "fine", "1", "⁄", "2"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("中文字 かな", ["中", "文", "字", "か", "な"]),
        ("co\u00adoperate zero\u200bwidth", ["cooperate", "zerowidth"]),
        ("e\u0301te\u0301 \u00e9t\u00e9", ["été", "été"]),
        ("", []),
        (" \n\t\u2028", []),
        ("a_b", ["a", "_", "b"]),
        ("한국어", ["한국어"]),
        ("ภาษา", ["ภ", "า", "ษ", "า"]),
    ],
)
def test_units(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(TEXTS, st.sampled_from([" ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "  \n "]))
def test_white_space_may_flow_otherwise(text: str, space: str) -> None:
    assert words(space.join(text.split())) == words(" ".join(text.split()))
    assert words(space + text + space) == words(text)


def test_markdown_reflow_changes_no_word() -> None:
    plain = "The old dog\nslept by the fire. It snored."
    for other in (
        "The old dog slept\n\nby the fire.   It\nsnored.",
        "\u200bThe old\u00addog".replace("\u00ad", " ") + " slept by the fire. It snored.\n",
    ):
        assert words(other) == words(plain)
    letters = [unit for unit in words("**The** _old_ `dog`\n# slept") if unit.isalnum()]
    assert letters == ["the", "old", "dog", "slept"]


@given(st.text(alphabet=st.characters(categories=["Lu", "Ll", "Nd", "Zs", "Po"]), max_size=20))
def test_normal_forms_are_one(text: str) -> None:
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert words(unicodedata.normalize(form, text)) == words(text)


@given(st.text(alphabet=st.characters(max_codepoint=0x24F, exclude_categories=["Cs"]), max_size=20))
def test_case_is_folded(text: str) -> None:
    assert words(text.casefold()) == words(text)


@given(st.text(alphabet="abc xyz,.", max_size=20), st.data())
def test_format_characters_are_not_there(text: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text)))
    for character in "\u00ad\u200b\u200d\u2060\ufeff":
        assert words(text[:place] + character + text[place:]) == words(text)


@settings(max_examples=1000, deadline=None)
@given(TEXTS, TEXTS)
@example("か\u0301", "\u3099")  # a mark that sorts before the one already there, and composes
@example("=\u0301", "\u0338")
@example("か\u0345", "\u3099")  # folds to a letter, yet was a mark
@example("=\uff9e", "\u0338")  # a letter that is a mark in NFKC
@example("か", "\uff9e")
@example("ab", "c")
@example("ab ", "\u0301")
@example("\u1100", "\u1161")
@example("x.", "\u0338")
def test_complete_words_never_change(prefix: str, more: str) -> None:
    done = complete_words(prefix)
    assert words(prefix + more)[: len(done)] == done
    assert complete_words(prefix + more)[: len(done)] == done


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=AWKWARD, max_size=30))
def test_every_cut_of_a_text_agrees(text: str) -> None:
    whole = words(text)
    for cut in range(len(text) + 1):
        done = complete_words(text[:cut])
        assert whole[: len(done)] == done


def test_complete_words_do_not_wait_for_long() -> None:
    assert complete_words("one two") == ["one"]
    assert complete_words("one two ") == ["one", "two"]
    assert complete_words("one two.") == ["one", "two"]
    assert complete_words("one two.\n") == ["one", "two", "."]
    assert complete_words("中文") == ["中"]
    assert complete_words("") == []
    assert complete_words("\u0301") == []
    assert complete_words("one\u00ad") == []


def test_ids_are_the_first_bytes_of_the_digest() -> None:
    assert word_id("the") == int.from_bytes(bytes.fromhex("b9776d7d"), "little")
    ids = WordsUnit().encode("The the THE dog")
    assert ids.dtype == np.uint32
    assert ids[0] == ids[1] == ids[2] != ids[3]
    assert len(WordsUnit().encode("")) == 0


@given(TEXTS)
def test_any_text_has_ids_in_range(text: str) -> None:
    ids = WordsUnit().encode(text)
    assert len(ids) == len(words(text))
    assert (ids < 2**32 - 1).all()


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_half_a_surrogate_pair_is_refused(text: str) -> None:
    with pytest.raises(TextEncodingError) as caught:
        WordsUnit().encode(text)
    assert text not in str(caught.value)
    with pytest.raises(TextEncodingError):
        check_text(text)


def test_the_unit_names_itself() -> None:
    unit = WordsUnit()
    assert unit.unit_id == WORDS_V1
    assert unicodedata.unidata_version in repr(unit)


def test_every_combining_character_is_a_mark() -> None:
    """What `complete_words` rests on: only marks are reordered."""
    for code in range(0x110000):
        if unicodedata.combining(chr(code)):
            assert unicodedata.category(chr(code))[0] == "M"


@settings(max_examples=1000, deadline=None)
@given(st.one_of(TEXTS, st.text(alphabet=AWKWARD + "中かa b", max_size=30)))
@example("\u1100\u1161\u11a8 a\u0301")
@example("\u09c7\u09be")
def test_every_unit_stands_where_its_characters_are(text: str) -> None:
    ids, offsets = WordsUnit().encode_with_offsets(text)
    assert ids.tolist() == WordsUnit().encode(text).tolist()
    assert offsets.shape == (len(ids), 2)
    assert (np.diff(offsets, axis=0) >= 0).all()
    for unit, (start, end) in zip(words(text), offsets.tolist(), strict=True):
        assert 0 <= start < end <= len(text)
        assert unit in "".join(words(text[start:end]))


def test_offsets_of_plain_words() -> None:
    text = "It's  ＡＢ co\u00adop e\u0301té 中文."
    _, offsets = WordsUnit().encode_with_offsets(text)
    assert [text[start:end] for start, end in offsets.tolist()] == [
        "It", "'", "s", "ＡＢ", "co\u00adop", "e\u0301té", "中", "文", ".",
    ]  # fmt: skip
    assert WordsUnit().encode_with_offsets("")[1].shape == (0, 2)
    with pytest.raises(TextEncodingError):
        WordsUnit().encode_with_offsets("\ud800")
