"""Requests of OpenAI's responses dialect, in the terms of its chat completions.

Instructions become the first message; the input becomes messages. What is no message (calls of
tools and their results, reasoning, references) stays a part of a foreign type.

Source: OpenAI API reference, "Create a model response"; vLLM 0.33, its responses entry point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from watermark.wire.messages_requests import content_of, unknown_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

LOGPROBS: Final = "message.output_text.logprobs"
_SAME: Final = (
    *("model", "stream", "temperature", "top_p", "max_output_tokens"),
    *("top_k", "presence_penalty", "frequency_penalty", "logit_bias", "stop", "seed"),  # engines'
)
_IGNORED: Final = frozenset(
    {
        *("user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"),
        *("prompt_cache_retention", "prompt_cache_options", "max_tool_calls"),
    }
)
_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),  # without tools either is nothing
    "parallel_tool_calls": (None, True, False),
    "truncation": (None, "disabled"),
    "store": (None, False),
    "background": (None, False),
}
_TEXT: Final = frozenset({"input_text", "output_text", "text"})
_NEUTRAL_VERBOSITY: Final = (None, "medium")


class _Block(msgspec.Struct, frozen=True):
    type: str
    text: str | None = None


class _Item(msgspec.Struct, frozen=True):
    type: str = "message"
    role: str | None = None
    content: str | list[_Block] | None = None


class _Format(msgspec.Struct, frozen=True):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class _Reasoning(msgspec.Struct, frozen=True):
    effort: str | None = None


class _StreamOptions(msgspec.Struct, frozen=True):
    include_obfuscation: bool | None = None


class _Responses(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    input: str | list[_Item]
    instructions: str | None = None
    max_output_tokens: int | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    text: _Format | None = None
    reasoning: _Reasoning | None = None
    stream_options: _StreamOptions | None = None


_FIELDS: Final = frozenset(_Responses.__struct_fields__) | _IGNORED | frozenset(_SAME)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a message in the chat dialect's words."""

    type: str
    text: str | None


def chat_of_responses(body: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the chat request that a responses request comes to, and the fields not known.

    Raises:
        msgspec.ValidationError: A field has another type than the dialect gives it.
    """
    asked = msgspec.convert(body, _Responses, strict=False)
    chat: dict[str, Any] = {name: body[name] for name in _SAME if body.get(name) is not None}
    if "max_output_tokens" in chat:
        chat["max_tokens"] = chat.pop("max_output_tokens")
    chat["messages"] = _messages(asked)
    if LOGPROBS in (asked.include or []):
        chat |= {"logprobs": True, "top_logprobs": asked.top_logprobs or 0}
    unknown = unknown_fields(body, _FIELDS, _NEUTRAL)
    return chat, tuple(sorted({*unknown, *_unknown_members(asked)}))


def _messages(asked: _Responses) -> list[dict[str, Any]]:
    if isinstance(asked.input, str):
        messages = [{"role": "user", "content": asked.input}]
    else:
        messages = [_message(item) for item in asked.input]
    if asked.instructions:
        messages.insert(0, {"role": "system", "content": asked.instructions})
    return messages


def _message(item: _Item) -> dict[str, Any]:
    if item.type != "message" or item.role is None or item.content is None:
        return {"role": item.role or "assistant", "content": [{"type": item.type, "text": None}]}
    if isinstance(item.content, str):
        return {"role": item.role, "content": item.content}
    parts = [_Part("text" if one.type in _TEXT else one.type, one.text) for one in item.content]
    return {"role": item.role, "content": content_of(parts)}


def _unknown_members(asked: _Responses) -> list[str]:
    """Return what is asked within fields that are known, and cannot be given."""
    unknown = []
    if any(one != LOGPROBS for one in asked.include or []):
        unknown.append("include")
    if asked.top_logprobs and LOGPROBS not in (asked.include or []):
        unknown.append("top_logprobs")
    if asked.text is not None and asked.text.verbosity not in _NEUTRAL_VERBOSITY:
        unknown.append("text.verbosity")
    return unknown
