"""Answers as the two dialects write them, whole and in chunks."""

from __future__ import annotations

from typing import Any

import numpy as np

from watermark.text import TokenTable
from watermark.wire.answers import answer_dialect
from watermark.wire.openai_answers import (
    AnswerFrame,
    LogprobsWriter,
    Piece,
    TokenReport,
    error_body,
)
from watermark.wire.openai_requests import DialectName
from watermark.wire.usage import Usage

TABLE = TokenTable(
    content=(b"", b"a", b"\xc3", b"\xa9", b" b"),
    labels=("<end>", "a", "\ufffd", "\ufffd", " b"),
    special=frozenset({0}),
    strips_first_space=False,
)


def report(logprob: float, ids: list[int], values: list[float]) -> TokenReport:
    return TokenReport(logprob, np.array(ids), np.array(values))


NOTHING = Usage(prompt_tokens=2, completion_tokens=0)
OPENAI = (DialectName.CHAT, DialectName.TEXT)
PIECES = [
    Piece(choice=0, token=1, text="a", text_offset=0, report=report(-1.0, [1, 4], [-1.0, -2.0])),
    Piece(choice=0, token=2, text="", text_offset=1, report=report(-3.0, [3, 1], [-0.5, -1.5])),
    Piece(
        choice=0,
        token=0,
        text="\ufffd",
        text_offset=1,
        report=report(-0.25, [0], [-0.25]),
        finish_reason="stop",
    ),
]


def frame(**fields: Any) -> AnswerFrame:
    base: dict[str, Any] = {
        "answer_id": "1",
        "created": 5,
        "model": "m",
        "prompts": [[9, 8]],
        "n_choices": 1,
    }
    return AnswerFrame(**(base | fields))


def test_whole_answers() -> None:
    usage = Usage(prompt_tokens=2, completion_tokens=3)
    chat = answer_dialect(DialectName.CHAT, frame()).whole([PIECES], usage)
    assert chat == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "a\ufffd"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
    }
    line = answer_dialect(DialectName.TEXT, frame(with_token_ids=True)).whole([PIECES], usage)
    (choice,) = line["choices"]
    assert (choice["text"], choice["token_ids"], choice["prompt_token_ids"]) == (
        "a\ufffd",
        [1, 2, 0],
        [9, 8],
    )


def test_streams_hold_the_same_text() -> None:
    for name in OPENAI:
        dialect = answer_dialect(name, frame(with_usage=True, with_token_ids=True))
        chunks = [
            *dialect.opening(NOTHING),
            *dialect.chunk(0, PIECES[:2]),
            *dialect.chunk(0, PIECES[2:]),
            *dialect.closing(Usage(prompt_tokens=2, completion_tokens=3, cached_tokens=1)),
        ]
        *said, last = chunks
        choices = [chunk["choices"][0] for chunk in said]
        texts = [one.get("text", one.get("delta", {}).get("content")) for one in choices]
        assert "".join(texts) == "a\ufffd"
        assert [token for one in choices for token in one["token_ids"]] == [1, 2, 0]
        assert [one["finish_reason"] for one in choices][-1] == "stop"
        assert all(one["finish_reason"] is None for one in choices[:-1])
        assert all(chunk["usage"] is None for chunk in said)
        assert last["choices"] == []
        assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}
        assert sum("prompt_token_ids" in str(chunk) for chunk in chunks) == 1


def test_without_being_asked_no_usage() -> None:
    for name in OPENAI:
        dialect = answer_dialect(name, frame())
        assert dialect.closing(Usage(prompt_tokens=1, completion_tokens=1)) == []
        assert "usage" not in dialect.chunk(0, PIECES)[0]


def test_reports_of_completions() -> None:
    written = LogprobsWriter(TABLE, as_ids=False).completion(PIECES)
    assert written["tokens"] == ["a", "\ufffd", "<end>"]
    assert written["token_logprobs"] == [-1.0, -3.0, -0.25]
    assert written["text_offset"] == [0, 1, 1]
    # Two tokens share the label: the chosen one's value stands there.
    assert written["top_logprobs"][1] == {"\ufffd": -3.0, "a": -1.5}
    ids = LogprobsWriter(TABLE, as_ids=True).completion(PIECES)
    assert ids["top_logprobs"][1] == {"token_id:3": -0.5, "token_id:1": -1.5, "token_id:2": -3.0}


def test_reports_of_chat() -> None:
    first, second, last = LogprobsWriter(TABLE, as_ids=False).chat(PIECES)["content"]
    assert (first["token"], first["logprob"], first["bytes"]) == ("a", -1.0, [97])
    assert [entry["token"] for entry in first["top_logprobs"]] == ["a", " b"]
    assert second["bytes"] == [0xC3]
    assert last["bytes"] is None


def test_choices_know_their_prompts() -> None:
    batch = frame(prompts=[[1], [2]], n_choices=4)
    assert [batch.prompt_of(choice) for choice in range(4)] == [[1], [1], [2], [2]]


def test_errors() -> None:
    assert error_body("no", kind="k", param="p") == {
        "error": {"message": "no", "type": "k", "param": "p", "code": None}
    }
