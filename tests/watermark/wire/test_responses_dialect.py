"""OpenAI's responses: what a request comes to, and how its answer is written."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from watermark.errors import WireError
from watermark.text import TokenTable
from watermark.wire.answers import answer_dialect
from watermark.wire.features import Feature
from watermark.wire.openai_answers import AnswerFrame, LogprobsWriter, Piece, TokenReport
from watermark.wire.openai_requests import DialectName, GenerationRequest, parse_request
from watermark.wire.responses_requests import LOGPROBS
from watermark.wire.sse import EventDecoder
from watermark.wire.usage import Usage

BASE: dict[str, Any] = {"model": "m", "input": "Hi"}
USAGE = Usage(prompt_tokens=2, completion_tokens=3)
TABLE = TokenTable(
    content=(b"", b"a"), labels=("<end>", "a"), special=frozenset({0}), strips_first_space=False
)
REPORT = TokenReport(-1.0, np.array([1]), np.array([-1.0]))


def read(**fields: Any) -> GenerationRequest:
    return parse_request(DialectName.RESPONSES, json.dumps(BASE | fields).encode())


def frame(**fields: Any) -> AnswerFrame:
    given: dict[str, Any] = {"answer_id": "1", "created": 5, "model": "m"}
    return AnswerFrame(**given, prompts=[[9]], n_choices=1, **fields)


def piece(text: str, **fields: Any) -> Piece:
    return Piece(choice=0, token=1, text=text, text_offset=0, **fields)


def test_a_request_in_the_terms_of_chat() -> None:
    request = read(
        instructions="Be brief.",
        max_output_tokens=7,
        temperature=0.5,
        stream=True,
        stream_options={"include_obfuscation": False},
        metadata={"a": "b"},
        store=False,
        text={"format": {"type": "text"}, "verbosity": "medium"},
        reasoning={"effort": None, "summary": None},
        tools=[],
        tool_choice="auto",
        truncation="disabled",
    )
    assert request.dialect is DialectName.CHAT
    assert request.client_dialect is DialectName.RESPONSES
    assert request.body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]
    assert (request.max_tokens, request.temperature, request.n) == (7, 0.5, 1)
    assert request.is_streamed
    assert request.unknown == ()
    assert request.features == frozenset()


def test_a_conversation_with_what_was_said_before() -> None:
    said = {"type": "output_text", "text": "Ho", "annotations": [], "logprobs": []}
    turns = [
        {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"type": "message", "role": "user", "content": "Hi"},
        {"type": "message", "id": "m1", "role": "assistant", "status": "completed"}
        | {"content": [said]},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}] * 2},
    ]
    assert [(one.role, one.text) for one in read(input=turns).messages] == [
        ("developer", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Ho"),
        ("user", "aa"),
    ]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
        {"type": "reasoning", "summary": []},
        {"type": "item_reference", "id": "x"},
        {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ],
)
def test_what_is_no_text(item: dict[str, Any]) -> None:
    assert any(message.text is None for message in read(input=[item]).messages)


@pytest.mark.parametrize(
    ("fields", "feature"),
    [
        ({"tools": [{"type": "web_search"}]}, Feature.TOOLS),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, Feature.STRUCTURED_OUTPUT),
        ({"reasoning": {"effort": "low"}}, Feature.REASONING),
        ({"reasoning": {"summary": "auto"}}, Feature.REASONING),
        ({"store": True}, Feature.STORED),
        ({"previous_response_id": "r"}, Feature.STORED),
        ({"conversation": "c"}, Feature.STORED),
        ({"prompt": {"id": "p"}}, Feature.STORED),
        ({"background": True}, Feature.STORED),
    ],
)
def test_features(fields: dict[str, Any], feature: Feature) -> None:
    assert read(**fields).features == {feature}


def test_fields_that_are_not_known() -> None:
    asked = {"truncation": "auto", "include": ["reasoning.encrypted_content"], "moderation": {}}
    assert read(**asked).unknown == ("include", "moderation", "truncation")
    assert read(text={"verbosity": "low"}).unknown == ("text.verbosity",)
    assert read(top_logprobs=3).unknown == ("top_logprobs",)
    assert read(include=[LOGPROBS], top_logprobs=3).logprobs == 3
    assert read(include=[LOGPROBS]).logprobs == 0
    assert read().logprobs is None


@pytest.mark.parametrize(
    "fields",
    [{"input": None}, {"input": 5}, {"input": [5]}, {"max_output_tokens": 0}, {"text": "json"}],
)
def test_what_no_upstream_should_accept(fields: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        read(**fields)


@pytest.mark.parametrize(
    ("finish", "status", "details"),
    [
        ("stop", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
    ],
)
def test_an_answer_whole_and_streamed(finish: str, status: str, details: Any) -> None:
    asked = {"instructions": "Be brief.", "temperature": 0.5, "top_p": None, "input": "Hi"}
    pieces = [piece("a"), piece(""), piece("é", finish_reason=finish)]
    whole = answer_dialect(DialectName.RESPONSES, frame(asked=asked)).whole([pieces], USAGE)
    assert (whole["status"], whole["incomplete_details"]) == (status, details)
    assert (whole["instructions"], whole["temperature"], whole["top_p"]) == ("Be brief.", 0.5, 1.0)
    assert whole["store"] is False
    assert "input" not in whole
    (item,) = whole["output"]
    assert (item["id"], item["status"]) == ("msg_1", status)
    part = {"type": "output_text", "text": "aé", "annotations": [], "logprobs": []}
    assert item["content"] == [part]
    assert whole["usage"]["total_tokens"] == 5

    dialect = answer_dialect(DialectName.RESPONSES, frame(asked=asked))
    said = [
        *dialect.opening(Usage(prompt_tokens=2, completion_tokens=0)),
        *(event for one in pieces for event in dialect.chunk(0, [one])),
        *dialect.closing(USAGE),
    ]
    events = EventDecoder().feed(b"".join(map(dialect.encode, said)) + dialect.END)
    bodies = [json.loads(event.data) for event in events]
    assert [event.kind for event in events] == [body["type"] for body in bodies]
    assert [body["sequence_number"] for body in bodies] == list(range(len(bodies)))
    assert [body["delta"] for body in bodies if body["type"].endswith("text.delta")] == ["a", "é"]
    assert bodies[0]["response"]["output"] == []
    assert bodies[-4]["text"] == "aé"
    assert bodies[-3]["part"] == part
    assert bodies[-2]["item"] == item
    assert bodies[-1]["type"] == f"response.{status}"
    assert bodies[-1]["response"] == whole


def test_reports_are_told_with_their_text() -> None:
    writer = LogprobsWriter(TABLE, as_ids=False)
    dialect = answer_dialect(DialectName.RESPONSES, frame(writer=writer))
    dialect.opening(USAGE)
    (delta,) = dialect.chunk(0, [piece("a", report=REPORT)])
    assert [entry["token"] for entry in delta["logprobs"]] == ["a"]
    # A token without text of its own has a report all the same.
    (delta,) = dialect.chunk(0, [piece("", report=REPORT)])
    assert (delta["delta"], len(delta["logprobs"])) == ("", 1)
    done = dialect.closing(USAGE)[0]
    assert len(done["logprobs"]) == 2
