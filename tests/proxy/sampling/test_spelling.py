"""Labels name one token or none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from proxy.sampling.candidates import CandidateList
from proxy.sampling.spelling import Spelling
from watermark.text import TokenizerUnit, TokenTable, build_token_table

SHARED = os.environ.get("OUTPUT_WATERMARK_SHARED")
PROSE = "One day, a girl named Lily found a needle in her room. It was sharp!"
CONTENT = (b"a", b"twin", b"twin", b"\xc3", b"\xc3\xa9", b".", b".", b"\n", b"", b"\xef\xbf\xbd")
A, TWIN, _, HALF, WHOLE, PIECE, POINT, BREAK, END, SIGN = range(10)
SPELLING = Spelling(
    TokenTable(
        content=CONTENT,
        labels=(*(one.decode("utf-8", "replace") for one in CONTENT[:END]), "</s>", "\ufffd"),
        special=frozenset({END}),
        strips_first_space=False,
        byte_pieces=frozenset({HALF, PIECE, BREAK}),
    )
)


@pytest.mark.parametrize(
    ("label", "data", "token"),
    [
        ("a", None, A),
        ("a", b"a", A),
        ("shown otherwise", b"a", A),
        ("twin", None, None),
        ("twin", b"twin", None),
        ("\ufffd", None, None),
        ("\ufffd", b"\xc3", None),
        ("\u00e9", None, WHOLE),
        (".", None, POINT),  # never the byte piece, where another token spells it
        ("\n", None, BREAK),  # which it is where none does
        ("</s>", None, END),
        ("</s>", b"", END),
        ("unknown", None, None),
        ("", None, None),
    ],
)
def test_labels(label: str, data: bytes | None, token: int | None) -> None:
    assert SPELLING.read(label, data) == token


def test_what_a_text_cannot_hold_is_not_raced() -> None:
    tokens = np.array([A, END, POINT], np.uint32)
    raced = SPELLING.raced(CandidateList(tokens, np.array([0.5, 0.3, 0.2]), None))
    assert raced.tokens.tolist() == [A, POINT]
    assert raced.weights.tolist() == [0.5, 0.2]


@pytest.mark.shared
@pytest.mark.skipif(not SHARED, reason="OUTPUT_WATERMARK_SHARED names no folder of tokenizers")
@pytest.mark.parametrize("name", ["mistral-v1-32k", "qwen-152k", "gpt2-50k", "neox-50k"])
def test_prose_is_read_token_by_token(name: str) -> None:
    unit = TokenizerUnit.read(Path(SHARED or "") / "tokenizers" / name / "tokenizer.json")
    table = build_token_table(unit.tokenizer, unit.vocab_size)
    spelling = Spelling(table)
    ids = unit.encode(PROSE).tolist()
    assert all(spelling.read(table.labels[token], None) == token for token in ids)
