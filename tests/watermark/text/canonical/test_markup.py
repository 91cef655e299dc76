"""Words without mark-up take a shorter way to the same form."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from watermark.text.canonical.characters import clean_characters
from watermark.text.canonical.markup import _MEANING, _paragraphs, _parsed_blocks

WORDS = st.lists(
    st.sampled_from(
        [
            *"ab.,;:!?'\"()-+=/1$%@^{}é中",
            " ",
            "  ",
            "\n",
            "\n\n",
            "\n \n",
            "word ",
            "1) ",
            "1.",
            "\t",
        ]
    ),
    max_size=40,
).map("".join)


@settings(max_examples=600, deadline=None)
@given(
    st.one_of(WORDS, st.text(max_size=40).map(lambda one: one.encode("utf-8", "ignore").decode()))
)
def test_the_short_way_is_the_parsers(text: str) -> None:
    text = clean_characters(text)
    if _MEANING.search(text) is None:
        parsed = [one for one in _parsed_blocks(text) if one]
        assert [one for one in _paragraphs(text) if one] == parsed


def test_much_prose_takes_the_short_way() -> None:
    assert _MEANING.search('It\'s 3.5 (really) - so: he said, "Go!" and went.\nHe did?') is None
    for text in ("*a*", "- a", "1. a", " + a", "a\n===", "&amp;", "<b>", "a\n :-: ", "> a", "\\*"):
        assert _MEANING.search(text)
