"""What an answer says in free text, part by part: of a whole body, or of one event of a stream.

Calls of tools, reasoning and refusals are not free text and are left out. What has another form
than its dialect gives it says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from watermark.wire.openai_requests import DialectName

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a body or an event says.

    Attributes:
        texts: The choices' text, by index; of an event, the next part of it.
        completion_tokens: As the upstream counts them; None where it does not say.
    """

    texts: Mapping[int, str]
    completion_tokens: int | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def tokens(self) -> int | None:
        """The count by either dialect's name."""
        return self.output_tokens if self.completion_tokens is None else self.completion_tokens


class _Said(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    message: _Said | None = None
    delta: _Said | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None


class _Item(msgspec.Struct):
    type: str = ""
    content: list[_Part] = []


class _Response(msgspec.Struct):
    output: list[_Item] = []
    usage: _Usage | None = None


class _ResponseEvent(msgspec.Struct):
    """A whole response, or an event of one; an event repeats the response when it ends."""

    type: str = ""
    delta: str | msgspec.Raw | None = None
    response: _Response | None = None
    output: list[_Item] = []
    usage: _Usage | None = None


class _MessageEvent(msgspec.Struct):
    """A whole message, or an event of one."""

    type: str = ""
    delta: _Part | None = None
    content: list[_Part] = []
    usage: _Usage | None = None


def read_answer(dialect: DialectName, data: bytes) -> Reading:
    """Return what a body or the data of an event says; nothing where it cannot be read."""
    try:
        return _READERS[dialect](data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Reading(texts={})


def _of_completion(data: bytes) -> Reading:
    answer = msgspec.json.decode(data, type=_Completion)
    texts: dict[int, str] = {}
    for choice in answer.choices:
        part = choice.message or choice.delta or _Said()
        texts[choice.index] = texts.get(choice.index, "") + (choice.text or part.content or "")
    return _reading(texts, answer.usage)


def _of_response(data: bytes) -> Reading:
    event = msgspec.json.decode(data, type=_ResponseEvent)
    if event.type:
        is_text = event.type == "response.output_text.delta" and isinstance(event.delta, str)
        usage = event.response.usage if event.response is not None else None
        return _reading({0: str(event.delta)} if is_text else {}, usage)
    parts = (part for item in event.output if item.type == "message" for part in item.content)
    text = "".join(part.text or "" for part in parts if part.type == "output_text")
    return _reading({0: text}, event.usage)


def _of_message(data: bytes) -> Reading:
    event = msgspec.json.decode(data, type=_MessageEvent)
    if event.type == "message":
        text = "".join(block.text or "" for block in event.content if block.type == "text")
        return _reading({0: text}, event.usage)
    delta = event.delta or _Part()
    is_text = event.type == "content_block_delta" and delta.type == "text_delta"
    return _reading({0: delta.text or ""} if is_text else {}, event.usage)


def _reading(texts: dict[int, str], usage: _Usage | None) -> Reading:
    return Reading(
        texts={index: text for index, text in texts.items() if text},
        completion_tokens=None if usage is None else usage.tokens,
    )


_READERS: Final = {
    DialectName.CHAT: _of_completion,
    DialectName.TEXT: _of_completion,
    DialectName.RESPONSES: _of_response,
    DialectName.MESSAGES: _of_message,
}
