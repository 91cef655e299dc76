"""What cannot be served is refused in OpenAI's form, naming the field."""

from __future__ import annotations

from typing import Any

import pytest

from tests.proxy.embedded.driver import VOCAB, ScriptedModel, Served, serve

COMPLETIONS: list[tuple[Any, str | None]] = [
    (b"{", None),
    (b"\xff\xfe", None),
    (b"[]", None),
    (b"[" * 100_000, None),
    ({}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": [True]}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": [VOCAB]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [[1], [VOCAB]]}, "prompt"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": 101}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.01}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"top_k": 1.5}, "top_k"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"n": 0}, "n"),
    ({"n": 1025}, "n"),
    ({"n": 600, "prompt": ["a", "b"]}, "n"),
    ({"stop": ""}, "stop"),
    ({"stop": ["a", ""]}, "stop"),
    ({"stop": ["a"] * 33}, "stop"),
    ({"stop": 3}, "stop"),
    ({"seed": "x"}, "seed"),
    ({"presence_penalty": 2.1}, "presence_penalty"),
    ({"frequency_penalty": -2.1}, "frequency_penalty"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {str(VOCAB): 1}}, "logit_bias"),
    ({"logit_bias": {"9" * 5000: 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"logit_bias": {str(token): -100 for token in range(VOCAB)}}, "logit_bias"),
    ({"logprobs": -1}, "logprobs"),
    ({"logprobs": VOCAB + 1}, "logprobs"),
    ({"logprobs": True}, "logprobs"),
    ({"echo": True}, "echo"),
    ({"suffix": "end"}, "suffix"),
    ({"best_of": 2}, "best_of"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
    ({"unheard_of": 1}, "unheard_of"),
]

HELLO = [{"role": "user", "content": "hello"}]
CHATS: list[tuple[Any, str | None]] = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    ({"messages": [{"content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": 3}, "logprobs"),
    ({"logprobs": True, "top_logprobs": VOCAB + 1}, "logprobs"),
    ({"continue_final_message": True}, "continue_final_message"),
    (
        {"continue_final_message": True, "add_generation_prompt": False},
        "continue_final_message",
    ),
    ({"max_completion_tokens": 0}, "max_tokens"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"prompt": "x"}, "prompt"),
]


def refused(path: str, body: Any, param: str | None) -> None:
    async def scenario(served: Served) -> None:
        error = await served.refused(path, body)
        assert error["type"] == "invalid_request_error"
        assert error["param"] == param
        assert error["message"]

    serve(ScriptedModel.saying("ok"), scenario)


@pytest.mark.parametrize(("body", "param"), COMPLETIONS, ids=lambda value: str(value)[:40])
def test_completions_refuse(body: Any, param: str | None) -> None:
    if isinstance(body, dict) and body:
        body = {"prompt": "hello"} | body
    refused("/v1/completions", body, param)


@pytest.mark.parametrize(("body", "param"), CHATS, ids=lambda value: str(value)[:40])
def test_chat_refuses(body: Any, param: str | None) -> None:
    refused("/v1/chat/completions", {"messages": HELLO} | body, param)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": HELLO}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/detokenize", {"tokens": [VOCAB]}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
    ],
)
def test_token_endpoints_refuse(path: str, body: Any, param: str) -> None:
    refused(path, body, param)


def test_values_that_ask_for_nothing_are_accepted() -> None:
    async def scenario(served: Served) -> None:
        nothing = {
            "tools": [],
            "tool_choice": "none",
            "echo": False,
            "suffix": "",
            "best_of": 1,
            "response_format": {"type": "text"},
            "user": "u",
            "metadata": {"a": "b"},
            "store": True,
            "stop": None,
            "logit_bias": {},
            "top_k": -1,
        }
        assert (await served.complete("x", **nothing))["choices"][0]["text"] == "ok"

    serve(ScriptedModel.saying("ok"), scenario)


def test_statuses_other_than_400() -> None:
    async def scenario(served: Served) -> None:
        error = await served.refused("/v1/completions", {"prompt": "a", "model": "gpt"}, 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        await served.refused("/v1/nothing", {}, 404)
        await served.refused("/v1/models", {}, 405)

    serve(ScriptedModel.saying("ok"), scenario)
