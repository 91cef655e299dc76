"""What an answer says in free text, part by part: of a whole body, or of one event of a stream.

Calls of tools, reasoning and refusals are not free text and are left out. What has another form
than its dialect gives it says nothing. Texts with something else between them are parts of their
own: an engine that marks sees what lies between, and a detector would make contexts of their seam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from watermark.wire.openai_requests import DialectName

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Place: TypeAlias = tuple[int, ...]
"""Where a text stands in an answer: the choice; of responses the item and its part; of messages
the block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a body or an event says.

    Attributes:
        texts: The texts by their places; of an event, the next part of each.
        completion_tokens: As the upstream counts them; None where it does not say.
    """

    texts: Mapping[Place, str]
    completion_tokens: int | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def tokens(self) -> int | None:
        """The count by either dialect's name."""
        return self.output_tokens if self.completion_tokens is None else self.completion_tokens


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None


_Content: TypeAlias = str | list[_Part] | None


class _Said(msgspec.Struct):
    content: _Content = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    message: _Said | None = None
    delta: _Said | None = None

    @property
    def said(self) -> str:
        """Its text, in either endpoint's form."""
        return (self.text or "") + text_of((self.message or self.delta or _Said()).content)


class _Completion(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None


class _Item(msgspec.Struct):
    type: str = ""
    content: _Content = None  # null in items that have none


class _Response(msgspec.Struct):
    usage: _Usage | None = None


class _ResponseEvent(msgspec.Struct):
    """A whole response, or an event of one; an event repeats the response when it ends."""

    type: str = ""
    output_index: int = 0
    content_index: int = 0
    delta: str | msgspec.Raw | None = None
    response: _Response | None = None
    output: list[_Item] | None = None
    usage: _Usage | None = None


class _MessageEvent(msgspec.Struct):
    """A whole message, or an event of one."""

    type: str = ""
    index: int = 0
    delta: _Part | None = None
    content_block: _Part | None = None
    content: _Content = None
    usage: _Usage | None = None


def read_answer(dialect: DialectName, data: bytes) -> Reading:
    """Return what a body or the data of an event says; nothing where it cannot be read."""
    try:
        return _READERS[dialect](data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Reading(texts={})


def text_of(content: object, kind: str = "text") -> str:
    """Return the text of a message's content: a string, or a list of parts of which some are text.

    Args:
        content: The string, the parts, or nothing.
        kind: The type of a part that is text.
    """
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    return "".join(one.text or "" for one in content if one.type == kind)


def _of_completion(data: bytes) -> Reading:
    answer = msgspec.json.decode(data, type=_Completion)
    return _reading((((one.index,), one.said) for one in answer.choices or ()), answer.usage)


def _of_response(data: bytes) -> Reading:
    event = msgspec.json.decode(data, type=_ResponseEvent)
    if event.type:
        is_text = event.type == "response.output_text.delta" and isinstance(event.delta, str)
        said = ((event.output_index, event.content_index), str(event.delta) if is_text else "")
        return _reading([said], event.response.usage if event.response is not None else None)
    return _reading(
        (
            ((place, number), part)
            for place, item in enumerate(event.output or ())
            if item.type == "message"
            for number, part in enumerate(_parts(item.content, "output_text"))
        ),
        event.usage,
    )


def _of_message(data: bytes) -> Reading:
    event = msgspec.json.decode(data, type=_MessageEvent)
    if event.type == "message":
        blocks = enumerate(_parts(event.content, "text"))
        return _reading((((place,), text) for place, text in blocks), event.usage)
    said = event.delta if event.type == "content_block_delta" else event.content_block
    is_text = said is not None and said.type in ("text", "text_delta")
    text = said.text if said is not None and is_text else None
    return _reading([((event.index,), text or "")], event.usage)


def _parts(content: _Content, kind: str) -> list[str]:
    """Return the text of each part; of what is no text, nothing."""
    if not isinstance(content, list):
        return [content or ""]
    return [text_of([one], kind) for one in content]


def _reading(texts: Iterable[tuple[Place, str]], usage: _Usage | None) -> Reading:
    found: dict[Place, str] = {}
    for place, text in texts:
        if text:
            found[place] = found.get(place, "") + text
    return Reading(texts=found, completion_tokens=None if usage is None else usage.tokens)


_READERS: Final = {
    DialectName.CHAT: _of_completion,
    DialectName.TEXT: _of_completion,
    DialectName.RESPONSES: _of_response,
    DialectName.MESSAGES: _of_message,
}
