"""Requests of Anthropic's messages dialect, in the terms of OpenAI's chat completions.

Engines that serve both dialects render both through one chat template, and so do we: the system
prompt becomes the first message, blocks of text become text. A closing message of the assistant's
is continued, as the dialect has it. What is no text stays a part of a foreign type.

Source: Anthropic API reference, "Create a message"; vLLM 0.33, its Anthropic entry point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

_SAME: Final = ("model", "stream", "temperature", "top_p", "top_k", "max_tokens")
# No bearing on the reply's text: who asks, where it is computed, and what to keep of it.
_IGNORED: Final = frozenset(
    {"metadata", "service_tier", "cache_control", "inference_geo", "diagnostics", "user_profile_id"}
)
_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "tools": (None, []),
    "tool_choice": (None, {"type": "none"}),
    "thinking": (None, {"type": "disabled"}),
    "output_config": (None, {}),
    "speed": (None, "standard"),
    "stop_sequences": (None,),
}


class _Block(msgspec.Struct, frozen=True):
    type: str
    text: str | None = None


class _Turn(msgspec.Struct, frozen=True):
    role: str
    content: str | list[_Block]


class _Messages(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    max_tokens: int
    messages: list[_Turn]
    system: str | list[_Block] | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None


_FIELDS: Final = frozenset(_Messages.__struct_fields__) | _IGNORED


def chat_of_messages(body: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the chat request that a messages request comes to, and the fields not known.

    Raises:
        msgspec.ValidationError: A field has another type than the dialect gives it.
    """
    asked = msgspec.convert(body, _Messages, strict=False)
    chat: dict[str, Any] = {name: body[name] for name in _SAME if body.get(name) is not None}
    turns = [{"role": turn.role, "content": content_of(turn.content)} for turn in asked.messages]
    if asked.system:
        turns.insert(0, {"role": "system", "content": _joined(asked.system)})
    chat["messages"] = turns
    if asked.stop_sequences:
        chat["stop"] = asked.stop_sequences
    if asked.messages and asked.messages[-1].role == "assistant":
        chat |= {"add_generation_prompt": False, "continue_final_message": True}
    return chat, unknown_fields(body, _FIELDS, _NEUTRAL)


def content_of(content: str | list[Any]) -> str | list[dict[str, Any]]:
    """Return a message's content as chat completions write it; a single text is plain."""
    if isinstance(content, str):
        return content
    parts = [{"type": block.type, "text": block.text} for block in content]
    if len(parts) == 1 and parts[0]["type"] == "text" and parts[0]["text"] is not None:
        return str(parts[0]["text"])
    return parts


def unknown_fields(
    body: Mapping[str, Any], known: frozenset[str], neutral: Mapping[str, tuple[Any, ...]]
) -> tuple[str, ...]:
    """Return the fields that are not known, and hold more than their neutral value; sorted."""
    return tuple(
        sorted(
            name
            for name, value in body.items()
            if name not in known and value not in neutral.get(name, (None,))
        )
    )


def _joined(system: str | list[_Block]) -> str | list[dict[str, Any]]:
    """Return the system prompt; its blocks of text follow each other without a break."""
    if isinstance(system, str) or any(block.type != "text" for block in system):
        return content_of(system)
    return "".join(block.text or "" for block in system)
