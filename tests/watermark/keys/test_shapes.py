"""What is read by shape is what `tomllib` reads, or it is refused as `tomllib` refuses it."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watermark.keys.shapes import read_toml

TEXTS = (
    '[[key]]\nid = "a"\nrho = 0.9\nn = 16\n',
    '[[key]]\nid = "a"\nsecret = "file:a b/ä.key"\nparameters = { kind = "x", n = 2, b = true }\n',
    '[[scope]]\nname = "eu"\nmodels = ["m-1", "m-2"]\naccounts = []\n',
    "[[key]]\nnot_before = 2026-11-01T00:00:00Z\nnot_after = 2026-12-01T23:59:59Z\n",
    "[[key]]\nat = [2026-11-01T00:00:00Z, 2026-11-01T00:00:00+01:00]\nday = 2026-11-01\n",
    '[[key]] # "a" is its id\nid = "a"\n',
    "[[key]]\nid = 'a \"b\" c'\n",
    '[[key]]\nid = "a\\"b"\nunit = "\\u0041"\n',
    '[[key]]\nid = """a"b"""\nunit = "u"\n',
    '[[key]]\nid = ""\nunit = "u"\n',
    '[[key]]\nid = "a\tb"\n',
    '[[key]]\n"id" = "a"\n',
    '[[key]]\na."b".c = "d"\n',
    '[[key]]\n0 = "a"\n1 = 2\n',
    '[["key"]]\nid = "a # no comment, it\'s text"\n',
)
REFUSED = (
    '[[key]]\nid = "a" "b"\n',
    '[[key]]\nid = "a"\nid = "b"\n',
    '[[key]]\n"id" = "a"\nid = "b"\n',
    '[[key]]\nid = "a\nb"\n',
    '[[key]]\nid = "a\n',
    "[[key]]\nat = 2026-02-30T00:00:00Z\n",
    "[[key]]\nat = 2026-02-03T24:00:00Z\n",
    "[[key]]\nat = 2026-02-03T00:00:00Z5\n",
    "[[key]]\nat = 12026-02-03T00:00:00Z\n",
    "[[key]]\n2026-02-03T00:00:00Z = 1\n",
    '[[key]]\nid = "\\q"\n',
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_says_what_it_says(text: str) -> None:
    for _ in range(2):  # by a shape that is new, and by one that is known
        assert read_toml(text) == tomllib.loads(text)


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_toml_is_refused(text: str) -> None:
    for read in (tomllib.loads, read_toml):
        with pytest.raises(ValueError, match=r"\w"):
            read(text)


def test_tables_of_one_shape_share_nothing() -> None:
    first: dict[str, Any] = read_toml('[[key]]\nids = ["a"]\n')
    first["key"][0]["ids"].append("changed")
    assert read_toml('[[key]]\nids = ["b"]\n') == {"key": [{"ids": ["b"]}]}


_MARKS = ('"', '""', "'", "#", "\\", "\n", "\t", " ", "=", ".", ",", "[", "]", "{", "}", "\x7f")
_WORDS = ("[[key]]\n", 'id = "a"\n', "2026-11-01T00:00:00Z", '"a"', 'u = ["b", 1]\n', "a", "0", "é")
_PIECES = st.sampled_from(_MARKS + _WORDS)


@given(st.lists(_PIECES, max_size=14).map("".join))
def test_any_text_is_read_or_refused_as_tomllib_does(text: str) -> None:
    try:
        said: dict[str, Any] | None = tomllib.loads(text)
    except ValueError:
        said = None
    try:
        found: dict[str, Any] | None = read_toml(text)
    except ValueError:
        found = None
    assert found == said
