"""Streams as upstreams of each dialect send them, awkward parts included."""

from __future__ import annotations

import json
from typing import Any, Final

CHAT_PATH: Final = "/v1/chat/completions"
TEXT_PATH: Final = "/v1/completions"
RESPONSES_PATH: Final = "/v1/responses"
MESSAGES_PATH: Final = "/v1/messages"


def _data(*bodies: Any, space: str = " ", end: str = "\n") -> list[bytes]:
    dumps = [json.dumps(body, ensure_ascii=False) for body in bodies]
    return [f"data:{space}{body}{end}{end}".encode() for body in dumps]


def _typed(*bodies: dict[str, Any], end: str = "\n") -> list[bytes]:
    lines = [(body["type"], json.dumps(body, ensure_ascii=False)) for body in bodies]
    return [f"event: {kind}{end}data: {body}{end}{end}".encode() for kind, body in lines]


def _choice(delta: dict[str, Any], finish: str | None = None, **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish} | fields
    return {"id": "c1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


_CHAT: Final = [
    _choice({"role": "assistant", "content": ""}),
    _choice({"reasoning_content": "hm"}),
    _choice({"content": "é\u2028\u0085 日本 🙂: data: x"}, token_ids=[1, 2], odd={"kept": 1.50}),
    _choice({"content": "b", "tool_calls": []}),
    _choice(
        {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": '{"a": '}}]}
    ),
    _choice({"refusal": None}, "tool_calls"),
    {"id": "c1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
    {"id": "c1", "usage": None},
]
_TEXT: Final = [
    {"id": "t1", "choices": [{"index": 0, "text": "né\u2028", "logprobs": None}]},
    {"id": "t1", "choices": [{"index": 0, "text": "🙂", "finish_reason": "stop"}]},
]
_RESPONSES: Final[list[dict[str, Any]]] = [
    {"type": "response.created", "sequence_number": 0, "response": {"id": "r", "output": []}},
    {"type": "response.output_text.delta", "sequence_number": 1, "delta": "é\u2028 🙂"},
    {"type": "response.function_call_arguments.delta", "sequence_number": 2, "delta": '{"x"'},
    {"type": "response.unheard_of", "sequence_number": 3, "odd": {"kept": 1.50}},
    {"type": "response.completed", "sequence_number": 4, "response": {"id": "r"}},
]
_MESSAGES: Final[list[dict[str, Any]]] = [
    {"type": "message_start", "message": {"id": "m", "content": [], "usage": {"input_tokens": 1}}},
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "é🙂"}},
    {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": '{"'}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]
DONE: Final = b"data: [DONE]\n\n"

# Name, path of the dialect, events as they are sent.
STREAMS: Final[dict[str, tuple[str, list[bytes]]]] = {
    "chat": (CHAT_PATH, [*_data(*_CHAT), DONE]),
    "chat, no space": (CHAT_PATH, [*_data(*_CHAT, space=""), b"data:[DONE]\n\n"]),
    "chat, CRLF": (CHAT_PATH, [*_data(*_CHAT, end="\r\n"), b"data: [DONE]\r\n\r\n"]),
    "chat, CR": (CHAT_PATH, [*_data(*_CHAT[:3], end="\r"), b"data: [DONE]\r\r"]),
    "chat, an error": (
        CHAT_PATH,
        [*_data(_CHAT[0]), b'event: error\ndata: {"error": {"message": "no memory"}}\n\n'],
    ),
    "completions": (TEXT_PATH, [b": hello\n\n", *_data(*_TEXT), DONE]),
    "responses": (RESPONSES_PATH, _typed(*_RESPONSES)),
    "responses, CRLF": (RESPONSES_PATH, _typed(*_RESPONSES, end="\r\n")),
    "messages": (MESSAGES_PATH, _typed(*_MESSAGES)),
    "messages, CRLF": (MESSAGES_PATH, _typed(*_MESSAGES, end="\r\n")),
}

ENDS: Final = (b"[DONE]", b"message_stop", b"response.completed", b"response.incomplete")
"""How streams of the dialects end; none of them may be invented."""

# A request that is marked, by the path of its dialect.
ASKED: Final[dict[str, dict[str, Any]]] = {
    CHAT_PATH: {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 24},
    TEXT_PATH: {"model": "m", "prompt": "Hi", "max_tokens": 24},
    RESPONSES_PATH: {"model": "m", "input": "Hi", "max_output_tokens": 24},
    MESSAGES_PATH: {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 24,
    },
}
# The same with a field that nobody knows: it is passed on as it is.
PASSED: Final = {path: body | {"unheard_of": 1} for path, body in ASKED.items()}
