"""An account that gets no reasoning traces sees none, in whatever form the upstream sends them."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from tests.support.accounts import account, book, guarded
from tests.support.asgi import scenario
from tests.support.streams import ASKED, CHAT_PATH, MESSAGES_PATH, PASSED, RESPONSES_PATH, STREAMS
from watermark.wire.sse import DONE, json_event, typed_event

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_upstream import Turn

TRACE = "zebrafish"
ACCOUNTS = account("shut", "sk-1", reasoning=False) + account("open", "sk-2")

CHAT: dict[str, Any] = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "said", "reasoning_content": TRACE},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
}
MESSAGE: dict[str, Any] = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [
        {"type": "thinking", "thinking": TRACE, "signature": "s"},
        {"type": "text", "text": "said"},
    ],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1, "output_tokens": 2},
}
RESPONSE: dict[str, Any] = {
    "id": "r",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "status": "completed",
    "output": [
        {"id": "rs", "type": "reasoning", "summary": [{"type": "summary_text", "text": TRACE}]},
        {
            "id": "ms",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "said", "annotations": []}],
        },
    ],
}
WHOLE = {CHAT_PATH: CHAT, MESSAGES_PATH: MESSAGE, RESPONSES_PATH: RESPONSE}


def _chunk(delta: dict[str, Any]) -> bytes:
    return json_event(CHAT | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def _messages() -> list[bytes]:
    start = {"type": "message_start", "message": MESSAGE | {"content": []}}
    events: list[dict[str, Any]] = [start]
    for index, block in enumerate(MESSAGE["content"]):
        kind = block["type"]
        name = {"thinking": "thinking", "text": "text"}[kind]
        events += [
            {"type": "content_block_start", "index": index, "content_block": block | {name: ""}},
            {
                "type": "content_block_delta",
                "index": index,
                "delta": {"type": f"{name}_delta", name: block[name]},
            },
            {"type": "content_block_stop", "index": index},
        ]
    return [typed_event(one) for one in [*events, {"type": "message_stop"}]]


def _responses() -> list[bytes]:
    part = {"output_index": 0, "item_id": "rs", "summary_index": 0}
    bodies: list[dict[str, Any]] = [
        {"type": "response.created", "response": RESPONSE | {"output": []}},
        {"type": "response.reasoning_summary_text.delta", "delta": TRACE} | part,
        {"type": "response.reasoning_summary_text.done", "text": TRACE} | part,
        {"type": "response.output_item.done", "output_index": 0, "item": RESPONSE["output"][0]},
        {"type": "response.completed", "response": RESPONSE},
    ]
    return [typed_event(one | {"sequence_number": n}) for n, one in enumerate(bodies)]


EVENTS = {
    CHAT_PATH: [_chunk({"reasoning": TRACE}), _chunk({"content": "said"}), DONE],
    MESSAGES_PATH: _messages(),
    RESPONSES_PATH: _responses(),
}


async def upstream(turn: Turn) -> None:
    """Answer with a trace, packed where the asker would take it so."""
    path = turn.request.target.decode()
    if turn.request.json().get("stream"):
        await turn.raw(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
            b"content-type: text/event-stream\r\n\r\n"
        )
        for event in EVENTS[path]:
            await turn.chunk(event[:9])
            await turn.chunk(event[9:])
        await turn.raw(b"0\r\n\r\n")
        return
    body = json.dumps(WHOLE[path]).encode()
    if turn.request.values(b"accept-encoding") != [b"identity"]:
        await turn.answer(gzip.compress(body), headers=(("content-encoding", "gzip"),))
    else:
        await turn.answer(body)


@pytest.mark.parametrize("path", WHOLE)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_only_who_may_have_a_trace_gets_one(
    tokenizer: Path, tmp_path: Path, path: str, *, is_streamed: bool
) -> None:
    as_sent = b"".join(EVENTS[path]) if is_streamed else json.dumps(WHOLE[path]).encode()

    async def run() -> None:
        async with guarded(book(ACCOUNTS), upstream, tokenizer, tmp_path) as proxy:
            for key, sees_it in (("sk-1", False), ("sk-2", True)):
                headers = {"authorization": f"Bearer {key}"}
                body = PASSED[path] | {"stream": is_streamed}
                answer = await proxy.client.post(path, json=body, headers=headers)
                assert answer.status_code == 200
                assert "said" in answer.text
                assert (TRACE in answer.text) is sees_it
                assert (answer.content == as_sent) is sees_it

    scenario(run)


def test_the_clients_read_what_is_left(tokenizer: Path, tmp_path: Path) -> None:
    more: Any = {"extra_body": {"unheard_of": 1}}  # so that the requests are passed on
    messages: Any = {"max_tokens": 24, "messages": [{"role": "user", "content": "Hi"}]}

    async def with_openai(url: str) -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-1") as client:
            said = await client.chat.completions.create(**ASKED[CHAT_PATH], **more)
            assert said.choices[0].message.content == "said"
            response = await client.responses.create(model="m", input="Hi", **more)
            assert (response.output_text, response.output[0].summary) == ("said", [])
            async with client.responses.stream(model="m", input="Hi", **more) as stream:
                kinds = [event.type async for event in stream]
            assert kinds[-1] == "response.completed"

    async def with_anthropic(url: str) -> None:
        async with (
            anthropic.AsyncAnthropic(base_url=url, api_key="sk-1") as client,
            client.messages.stream(model="m", **messages, **more) as stream,
        ):
            thought, text = (await stream.get_final_message()).content
            assert (thought.thinking, text.text) == ("", "said")  # type: ignore[union-attr]

    async def run() -> None:
        async with guarded(book(ACCOUNTS), upstream, tokenizer, tmp_path) as proxy:
            await with_openai(str(proxy.client.base_url))
            await with_anthropic(str(proxy.client.base_url))

    scenario(run)


@pytest.mark.parametrize("path", WHOLE)
def test_what_cannot_be_read_is_not_handed_on(tokenizer: Path, tmp_path: Path, path: str) -> None:
    async def garbled(turn: Turn) -> None:
        await turn.answer(b'{"x": "' + TRACE.encode())

    async def run() -> None:
        async with guarded(book(ACCOUNTS), garbled, tokenizer, tmp_path) as proxy:
            for key, status in (("sk-1", 502), ("sk-2", 200)):
                headers = {"authorization": f"Bearer {key}"}
                answer = await proxy.client.post(path, json=PASSED[path], headers=headers)
                assert answer.status_code == status
                assert (TRACE in answer.text) is (status == 200)
            assert await proxy.metric("watermark_failures_total") == 1

    scenario(run)


def test_other_accounts_streams_keep_their_bytes(tokenizer: Path, tmp_path: Path) -> None:
    """The filter is nobody else's: awkward streams pass as before."""

    sent = {path: b"".join(events) for path, events in STREAMS.values()}

    async def send(turn: Turn) -> None:
        data = sent[turn.request.target.decode()]
        await turn.answer(data, headers=(("content-type", "text/event-stream"),))

    async def run() -> None:
        async with guarded(book(ACCOUNTS), send, tokenizer, tmp_path) as proxy:
            for path, data in sent.items():
                headers = {"authorization": "Bearer sk-2"}
                answer = await proxy.client.post(path, json=PASSED[path], headers=headers)
                assert answer.content == data

    scenario(run)
