"""Anthropic's messages: what a request comes to, and how its answer is written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from watermark.errors import WireError
from watermark.wire.answers import answer_dialect
from watermark.wire.features import Feature
from watermark.wire.openai_answers import AnswerFrame, Piece
from watermark.wire.openai_requests import DialectName, GenerationRequest, parse_request
from watermark.wire.sse import EventDecoder
from watermark.wire.usage import Usage

HI: list[Any] = [{"role": "user", "content": "Hi"}]
BASE: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": HI}
FRAME = AnswerFrame(answer_id="1", created=5, model="m", prompts=[[9, 8]], n_choices=1)
USAGE = Usage(prompt_tokens=2, completion_tokens=3)


def read(**fields: Any) -> GenerationRequest:
    return parse_request(DialectName.MESSAGES, json.dumps(BASE | fields).encode())


def piece(text: str, **fields: Any) -> Piece:
    return Piece(choice=0, token=1, text=text, text_offset=0, **fields)


def test_a_request_in_the_terms_of_chat() -> None:
    request = read(
        system=[{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}],
        stop_sequences=["a", "b"],
        temperature=0.5,
        top_k=4,
        stream=True,
        metadata={"user_id": "u"},
        cache_control={"type": "ephemeral"},
    )
    assert request.dialect is DialectName.CHAT
    assert request.client_dialect is DialectName.MESSAGES
    assert request.body["messages"] == [{"role": "system", "content": "Be brief."}, *HI]
    assert (request.stop, request.temperature, request.top_k) == (("a", "b"), 0.5, 4)
    assert (request.max_tokens, request.n, request.seed) == (9, 1, None)
    assert request.is_streamed
    assert request.unknown == ()
    assert request.features == frozenset()
    assert request.client_body["system"][0]["text"] == "Be "


def test_what_the_client_leaves_unsaid_is_the_upstreams() -> None:
    request = read().with_defaults(temperature=0.7, top_p=0.8, top_k=20)
    assert (request.temperature, request.top_p, request.top_k) == (0.7, 0.8, 20)
    request = read(temperature=1.0).with_defaults(temperature=0.7, top_p=0.8, top_k=20)
    assert request.temperature == 1.0


def test_blocks_of_text_are_text_and_others_are_not() -> None:
    blocks = [{"type": "text", "text": "a", "cache_control": None}, {"type": "text", "text": "b"}]
    assert read(messages=[{"role": "user", "content": blocks}]).messages[0].text == "ab"
    assert read(messages=[{"role": "user", "content": blocks[:1]}]).body["messages"] == [
        {"role": "user", "content": "a"}
    ]
    for kind in ("image", "document", "tool_result", "thinking"):
        other = [{"role": "user", "content": [{"type": kind, "source": {}}]}]
        assert read(messages=other).messages[0].text is None
    assert read(system=[{"type": "image"}]).messages[0].text is None


def test_a_closing_message_of_the_assistants_is_continued() -> None:
    begun = read(messages=[*HI, {"role": "assistant", "content": "So"}])
    assert begun.body["continue_final_message"] is True
    assert begun.body["add_generation_prompt"] is False
    assert "continue_final_message" not in read().body


@pytest.mark.parametrize(
    ("fields", "feature"),
    [
        ({"tools": [{"name": "f"}]}, Feature.TOOLS),
        ({"output_config": {"format": {"type": "json_schema"}}}, Feature.STRUCTURED_OUTPUT),
        ({"output_format": {"type": "json_schema"}}, Feature.STRUCTURED_OUTPUT),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, Feature.REASONING),
        ({"thinking": {"type": "adaptive"}}, Feature.REASONING),
    ],
)
def test_features(fields: dict[str, Any], feature: Feature) -> None:
    assert read(**fields).features == {feature}


def test_fields_that_are_not_known() -> None:
    assert read(container="c", mcp_servers=[1]).unknown == ("container", "mcp_servers")
    assert read(output_config={"effort": "high"}).unknown == ("output_config",)
    neutral = {"tools": [], "thinking": {"type": "disabled"}, "speed": "standard"}
    assert read(container=None, **neutral).unknown == ()
    assert read(**neutral).features == frozenset()


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": "Hi"},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"max_tokens": None},
        {"max_tokens": 0},
        {"stop_sequences": "a"},
        {"stop_sequences": [""]},
        {"system": 5},
        {"temperature": "warm"},
    ],
)
def test_what_no_upstream_should_accept(fields: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        read(**fields)


ENDINGS = [
    ({"finish_reason": "stop"}, ("end_turn", None)),
    ({"finish_reason": "length"}, ("max_tokens", None)),
    ({"finish_reason": "stop", "stop_string": "zq"}, ("stop_sequence", "zq")),
]


@pytest.mark.parametrize(("last", "ending"), ENDINGS)
def test_an_answer_whole_and_streamed(last: dict[str, Any], ending: tuple[str, str | None]) -> None:
    pieces = [piece("a"), piece(""), piece("é", **last)]
    whole = answer_dialect(DialectName.MESSAGES, FRAME).whole([pieces], USAGE)
    assert whole == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "aé"}],
        "stop_reason": ending[0],
        "stop_sequence": ending[1],
        "usage": {"input_tokens": 2, "output_tokens": 3},
    }
    dialect = answer_dialect(DialectName.MESSAGES, FRAME)
    said = [
        *dialect.opening(Usage(prompt_tokens=2, completion_tokens=0)),
        *(event for one in pieces for event in dialect.chunk(0, [one])),
        *dialect.closing(USAGE),
    ]
    data = b"".join(map(dialect.encode, said)) + dialect.END
    events = EventDecoder().feed(data)
    assert [event.kind for event in events] == [json.loads(event.data)["type"] for event in events]
    assert [event.kind for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    start, *_, delta, _stop = (json.loads(event.data) for event in events)
    assert start["message"] == whole | {
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 2, "output_tokens": 0},
    }
    assert delta["delta"] == {"stop_reason": ending[0], "stop_sequence": ending[1]}
    assert delta["usage"] == whole["usage"]


def test_an_empty_text_is_no_content() -> None:
    silent = [piece("", finish_reason="stop")]
    assert answer_dialect(DialectName.MESSAGES, FRAME).whole([silent], USAGE)["content"] == []
    dialect = answer_dialect(DialectName.MESSAGES, FRAME)
    events = [*dialect.opening(USAGE), *dialect.chunk(0, silent), *dialect.closing(USAGE)]
    assert [one["type"] for one in events] == ["message_start", "message_delta", "message_stop"]
    assert events[1]["delta"]["stop_reason"] == "end_turn"


def test_tokens_from_a_cache_are_counted_apart() -> None:
    usage = Usage(prompt_tokens=10, completion_tokens=1, cached_tokens=8)
    counted = answer_dialect(DialectName.MESSAGES, FRAME).whole([[piece("a")]], usage)["usage"]
    assert counted == {"input_tokens": 2, "output_tokens": 1, "cache_read_input_tokens": 8}
