"""The `openai` and `anthropic` packages, unchanged, speaking responses and messages.

A real server process, in front of a model that speaks chat completions and completions alone.
"""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import openai
import pytest

from tests.support.processes import EMBEDDED_CONFIG, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.embedded.builtin import BuiltinModel

ASKED = "Explain how a module is found and loaded."
MESSAGES: Any = [{"role": "user", "content": ASKED}]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, builtin: BuiltinModel) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("dialects")
    shutil.copytree(builtin.tokenizer_path.parent, folder / "cache")
    with served(folder, EMBEDDED_CONFIG) as address:
        yield address


@pytest.fixture(scope="module")
def gpt(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="sk-test", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def claude(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="sk-test", max_retries=0) as client:
        yield client


def test_a_message(claude: anthropic.Anthropic) -> None:
    raw = claude.messages.with_raw_response.create(
        model="builtin", max_tokens=24, system="You explain Python.", messages=MESSAGES
    )
    assert raw.headers["x-watermark"].startswith("marked; path=splice")
    message = raw.parse()
    (block,) = message.content
    assert block.type == "text"
    assert block.text
    assert (message.role, message.model) == ("assistant", "builtin")
    assert message.stop_reason in {"end_turn", "max_tokens"}
    assert message.usage.input_tokens > 10
    assert 1 <= message.usage.output_tokens <= 24


def test_a_streamed_message(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model="builtin", max_tokens=24, messages=MESSAGES) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    (block,) = message.content
    assert block.type == "text"
    assert block.text == text
    assert message.stop_reason in {"end_turn", "max_tokens"}
    assert 1 <= message.usage.output_tokens <= 24
    events = claude.messages.create(
        model="builtin", max_tokens=5, messages=MESSAGES, stream=True, extra_body={"top_k": 50}
    )
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_a_stop_sequence_is_named(claude: anthropic.Anthropic) -> None:
    asked: Any = {"model": "builtin", "max_tokens": 200, "messages": MESSAGES}
    message = claude.messages.create(**asked, stop_sequences=["zq", "e"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "e")
    assert all("e" not in block.text for block in message.content if block.type == "text")
    with claude.messages.stream(**asked, stop_sequences=["e"]) as stream:
        message = stream.get_final_message()
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "e")


def test_a_message_that_was_begun_is_continued(claude: anthropic.Anthropic, url: str) -> None:
    """The prompt that is read is the conversation with the reply left open, no turn more."""
    begun: Any = [*MESSAGES, {"role": "assistant", "content": "A module is"}]
    message = claude.messages.create(model="builtin", max_tokens=8, messages=begun)
    closed = claude.messages.create(
        model="builtin", max_tokens=8, messages=[*begun, {"role": "user", "content": "Go on."}]
    )
    assert message.usage.input_tokens < closed.usage.input_tokens
    assert httpx2.get(f"{url}/watermark/health").text == "ok\n"


def test_a_response(gpt: openai.OpenAI) -> None:
    raw = gpt.responses.with_raw_response.create(
        model="builtin",
        input=ASKED,
        instructions="You explain Python.",
        max_output_tokens=24,
        metadata={"a": "b"},
    )
    assert raw.headers["x-watermark"].startswith("marked; path=splice")
    response = raw.parse()
    assert response.output_text
    assert response.status in {"completed", "incomplete"}
    assert response.instructions == "You explain Python."
    assert response.metadata == {"a": "b"}
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    if response.usage.output_tokens == 24:
        assert response.incomplete_details is not None
        assert response.incomplete_details.reason == "max_output_tokens"


def test_a_streamed_response(gpt: openai.OpenAI) -> None:
    events = list(gpt.responses.create(model="builtin", input=MESSAGES, stream=True, top_p=0.9))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert last.type in {"response.completed", "response.incomplete"}
    assert last.response.output_text == text
    with gpt.responses.stream(model="builtin", input=ASKED, max_output_tokens=12) as stream:
        *_, final = stream  # the package's own accumulator reads along
        assert final.type in {"response.completed", "response.incomplete"}


def test_a_response_with_logprobs(gpt: openai.OpenAI) -> None:
    response = gpt.responses.create(
        model="builtin",
        input=ASKED,
        max_output_tokens=6,
        include=["message.output_text.logprobs"],
        top_logprobs=3,
    )
    (item,) = response.output
    assert item.type == "message"
    (part,) = item.content
    assert part.type == "output_text"
    assert part.logprobs is not None
    assert response.usage is not None
    assert len(part.logprobs) == response.usage.output_tokens
    assert all(len(entry.top_logprobs) == 3 for entry in part.logprobs)


def test_a_conversation_goes_on_with_what_was_said(gpt: openai.OpenAI) -> None:
    first = gpt.responses.create(model="builtin", input=ASKED, max_output_tokens=8)
    turns: Any = [*MESSAGES, *first.output, {"role": "user", "content": "And then?"}]
    raw = gpt.responses.with_raw_response.create(model="builtin", input=turns, max_output_tokens=8)
    assert raw.headers["x-watermark"].startswith("marked")
    more, begun = raw.parse().usage, first.usage
    assert more is not None
    assert begun is not None
    assert more.input_tokens > begun.input_tokens


def test_asynchronous_clients(url: str) -> None:
    async def main() -> None:
        async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as claude:
            whole = await claude.messages.create(model="builtin", max_tokens=8, messages=MESSAGES)
            assert whole.content
            async with claude.messages.stream(
                model="builtin", max_tokens=8, messages=MESSAGES
            ) as stream:
                text = "".join([part async for part in stream.text_stream])
                assert (await stream.get_final_text()) == text
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as gpt:
            response = await gpt.responses.create(model="builtin", input=ASKED, max_output_tokens=8)
            assert response.output_text
            events = await gpt.responses.create(
                model="builtin", input=ASKED, max_output_tokens=8, stream=True
            )
            kinds = [event.type async for event in events]
            assert kinds[-1] in {"response.completed", "response.incomplete"}

    asyncio.run(main())


TOOL: Any = {"name": "f", "input_schema": {"type": "object", "properties": {}}}
FUNCTION: Any = {"type": "function", "name": "f", "parameters": {"type": "object"}}


@pytest.mark.parametrize(
    ("path", "fields", "reason"),
    [
        ("messages", {"tools": [TOOL]}, "tools"),
        ("messages", {"temperature": 0}, "temperature-zero"),
        ("messages", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, "reasoning"),
        ("messages", {"output_config": {"format": {"type": "json_schema"}}}, "structured-output"),
        ("messages", {"container": "c"}, "unsupported-parameter"),
        ("responses", {"tools": [FUNCTION]}, "tools"),
        ("responses", {"text": {"format": {"type": "json_object"}}}, "structured-output"),
        ("responses", {"reasoning": {"effort": "high"}}, "reasoning"),
        ("responses", {"previous_response_id": "resp_1"}, "stored"),
        ("responses", {"store": True}, "stored"),
        ("responses", {"temperature": 0.0}, "temperature-zero"),
        ("responses", {"truncation": "auto"}, "unsupported-parameter"),
    ],
)
def test_what_is_not_marked_is_the_upstreams_to_answer(
    url: str, path: str, fields: dict[str, Any], reason: str
) -> None:
    """This upstream has no such endpoint, and says so itself."""
    plain = {"messages": MESSAGES, "max_tokens": 8} if path == "messages" else {"input": ASKED}
    body = {"model": "builtin", **plain, **fields}
    answer = httpx2.post(f"{url}/v1/{path}", json=body)
    assert answer.status_code == 404
    assert answer.headers["x-watermark"] == f"unmarked; reason={reason}"
    counters = httpx2.get(f"{url}/watermark/metrics").text
    assert f'reason="{reason}"' in counters
