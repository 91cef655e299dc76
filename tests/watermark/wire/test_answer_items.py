"""Reasoning, text, refusals and calls: their order and numbers, whoever told them apart.

What a stream adds up to is what the same answer says in one piece.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anthropic.types
import pytest
from openai.types.responses import ResponseOutputItem
from pydantic import TypeAdapter

from watermark.wire.answers import answer_dialect
from watermark.wire.openai_answers import AnswerFrame, Piece
from watermark.wire.openai_requests import DialectName
from watermark.wire.origins import origins_of
from watermark.wire.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    Told = tuple[AnswerFrame, list[list[Piece]]]

FRAME = AnswerFrame(answer_id="1", created=5, model="m", prompts=[[9]], n_choices=1)
USAGE = Usage(prompt_tokens=2, completion_tokens=7, reasoning_tokens=4)
CALLS = [
    {"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": f'{{"a": {n}}}'}}
    for n in range(2)
]


@dataclass(frozen=True)
class Case:
    frame: AnswerFrame
    chunks: Sequence[Sequence[Piece]]
    items: Sequence[str]
    blocks: Sequence[str]
    statuses: Sequence[str] = ()


def told(reasoning: str, text: str, finish: str = "stop", *, hides: bool = False) -> Told:
    """Return an answer that the proxy tells apart, letter by letter."""
    letters = [(one, True) for one in reasoning] + [(one, False) for one in text]
    pieces = [
        Piece(choice=0, token=1, text="" if hides and is_reasoning else one, text_offset=0,
              is_reasoning=is_reasoning)
        for one, is_reasoning in letters
    ]  # fmt: skip
    pieces[-1] = replace(pieces[-1], finish_reason=finish)
    # One chunk holds the end of the reasoning and the beginning of the text.
    chunks = [pieces[i : i + 4] for i in range(0, len(pieces), 4)]
    return replace(FRAME, reasoning_field="reasoning_content"), chunks


def given(text: str | None = None, *, finish: str = "stop", **message: Any) -> Told:
    """Return a whole reply of an upstream's."""
    said = {"index": 0, "message": {"content": text} | message, "finish_reason": finish}
    (origin,) = origins_of(json.dumps({"choices": [said]}).encode())
    end = Piece(choice=0, token=1, text=text or "", text_offset=0, finish_reason=finish)
    return replace(FRAME, origin=origin), [[replace(end, origin=origin)]]


THOUGHT = {"reasoning_content": "hm"}
ALL = Case(
    *given("said", tool_calls=CALLS, **THOUGHT),
    items=["reasoning", "message", "function_call", "function_call"],
    blocks=["thinking", "text", "tool_use", "tool_use"],
)
CASES = {
    "told": Case(*told("why so", "thus"), ["reasoning", "message"], ["thinking", "text"]),
    "told-plain": Case(*told("", "thus"), ["message"], ["text"]),
    "told-hidden": Case(*told("why so", "thus", hides=True), ["message"], ["text"]),
    "told-cut-in-reasoning": Case(
        *told("why so", "", "length"), ["reasoning"], ["thinking"], ["incomplete"]
    ),
    "told-cut-in-text": Case(
        *told("why so", "thus", "length"),
        ["reasoning", "message"],
        ["thinking", "text"],
        ["completed", "incomplete"],
    ),
    "given": Case(*given("said"), ["message"], ["text"]),
    "given-nothing": Case(*given(), ["message"], []),
    "given-all": ALL,
    "given-calls": Case(*given(tool_calls=CALLS), ["function_call"] * 2, ["tool_use"] * 2),
    "given-thought-and-calls": Case(
        *given(tool_calls=CALLS, **THOUGHT),
        ["reasoning", "function_call", "function_call"],
        ["thinking", "tool_use", "tool_use"],
    ),
    "given-refusal": Case(
        *given(refusal="no", **THOUGHT), ["reasoning", "message"], ["thinking", "text"]
    ),
    "given-cut": Case(
        *given("said", finish="length", **THOUGHT),
        ["reasoning", "message"],
        ["thinking", "text"],
        ["completed", "incomplete"],
    ),
}


def both(name: DialectName, case: Case) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return an answer in one piece, and the events of the same as a stream."""
    whole = answer_dialect(name, case.frame).whole([[p for c in case.chunks for p in c]], USAGE)
    dialect = answer_dialect(name, case.frame)
    events = [
        *dialect.opening(USAGE),
        *(event for pieces in case.chunks for event in dialect.chunk(0, pieces)),
        *dialect.closing(USAGE),
    ]
    return json.loads(json.dumps(whole)), json.loads(json.dumps(events))


@pytest.mark.parametrize("name", CASES)
def test_the_items_of_a_response(name: str) -> None:
    case = CASES[name]
    whole, events = both(DialectName.RESPONSES, case)
    assert [item["type"] for item in whole["output"]] == case.items
    statuses = case.statuses or ["completed"] * len(case.items)
    assert [item["status"] for item in whole["output"]] == statuses
    TypeAdapter(list[ResponseOutputItem]).validate_python(whole["output"])
    assert events[-1]["response"] == whole
    assert [one["sequence_number"] for one in events] == list(range(len(events)))
    steps = [
        (one["type"].rpartition(".")[2], one["output_index"])
        for one in events
        if one["type"].startswith("response.output_item")
    ]
    assert steps == [(what, n) for n in range(len(case.items)) for what in ("added", "done")]
    done = [one["item"] for one in events if one["type"] == "response.output_item.done"]
    assert done == whole["output"]


@pytest.mark.parametrize("name", CASES)
def test_the_text_of_an_item_is_that_of_its_events(name: str) -> None:
    whole, events = both(DialectName.RESPONSES, CASES[name])
    parts: dict[tuple[int, int], str] = {}
    ids = {n: item["id"] for n, item in enumerate(whole["output"])}
    for one in events:
        if "content_index" in one:
            assert one["item_id"] == ids[one["output_index"]]
        if one["type"].endswith(".delta"):
            place = (one["output_index"], one["content_index"])
            parts[place] = parts.get(place, "") + one["delta"]
    said = {
        (n, k): part.get("text") or part.get("refusal")
        for n, item in enumerate(whole["output"])
        for k, part in enumerate(item.get("content", []))
        if part.get("text") or part.get("refusal")
    }
    assert parts == said


@pytest.mark.parametrize("name", CASES)
def test_the_blocks_of_a_message(name: str) -> None:
    case = CASES[name]
    whole, events = both(DialectName.MESSAGES, case)
    assert [block["type"] for block in whole["content"]] == case.blocks
    anthropic.types.Message.model_validate(whole)
    blocks: list[dict[str, Any]] = []
    written: dict[int, str] = {}
    for one in events[1:-2]:
        place = one["index"]
        if one["type"] == "content_block_start":
            assert place == len(blocks)
            blocks.append(one["content_block"])
        assert place == len(blocks) - 1  # the last one is the open one
        if one["type"] == "content_block_delta":
            (more,) = (value for name, value in one["delta"].items() if name != "type")
            written[place] = written.get(place, "") + more
    for place, block in enumerate(blocks):
        kind = block["type"]
        said = json.loads(written[place]) if kind == "tool_use" else written[place]
        block["input" if kind == "tool_use" else kind] = said
    assert blocks == whole["content"]
    stops = [one["index"] for one in events if one["type"] == "content_block_stop"]
    assert stops == list(range(len(blocks)))
