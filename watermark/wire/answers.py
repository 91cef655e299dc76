"""The writer of one answer, by the dialect that the client speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from watermark.wire.messages_answers import MessagesDialect
from watermark.wire.openai_answers import ChatDialect, TextDialect
from watermark.wire.openai_requests import DialectName
from watermark.wire.responses_answers import ResponsesDialect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from watermark.wire.openai_answers import AnswerFrame, Dialect

_WRITERS: Final[Mapping[DialectName, Callable[[AnswerFrame], Dialect]]] = {
    DialectName.CHAT: ChatDialect,
    DialectName.TEXT: TextDialect,
    DialectName.RESPONSES: ResponsesDialect,
    DialectName.MESSAGES: MessagesDialect,
}


def answer_dialect(name: DialectName, frame: AnswerFrame) -> Dialect:
    """Return the writer of one answer."""
    return _WRITERS[name](frame)
