"""Failures as the clients of each dialect read them, as a body or within a stream.

A stream that fails gets one such event and no end of its own: a client must be able to tell a
reply that broke off from one that is whole.

Source: OpenAI API reference, "Error codes" and the `error` streaming event; Anthropic API
reference, "Errors".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from watermark.wire.openai_answers import error_body
from watermark.wire.openai_requests import DialectName
from watermark.wire.sse import json_event, typed_event

if TYPE_CHECKING:
    from collections.abc import Mapping

# Anthropic's clients tell errors by these names.
_ANTHROPIC_KINDS: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What went wrong.

    Attributes:
        message: What, and what can be done about it.
        kind: Its class, in OpenAI's words.
        status: The HTTP status that goes with it.
        param: The field of the request that is at fault; None for none.
    """

    message: str
    kind: str
    status: int
    param: str | None = None


def dialect_of_path(path: str) -> DialectName:
    """Return the dialect in which the clients of a path expect failures."""
    return DialectName.of_path(path) or DialectName.CHAT


def failure_body(dialect: DialectName, failure: Failure) -> dict[str, Any]:
    """Return the body of an answer that is a failure."""
    if dialect is DialectName.MESSAGES:
        kind = _ANTHROPIC_KINDS.get(failure.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": failure.message}}
    return error_body(failure.message, kind=failure.kind, param=failure.param)


def failure_event(dialect: DialectName, failure: Failure, *, sequence_number: int = 0) -> bytes:
    """Return the event that tells the client of a stream why it ends here.

    Args:
        dialect: The dialect of the stream.
        failure: What went wrong.
        sequence_number: How many events came before, where the dialect counts them.
    """
    body = failure_body(dialect, failure)
    if dialect is DialectName.MESSAGES:
        return typed_event(body)
    if dialect is DialectName.RESPONSES:
        # Named members for whoever reads the event, `error` for whoever looks for one.
        said = {"code": failure.kind, "message": failure.message, "param": failure.param}
        numbered = {"type": "error", "sequence_number": sequence_number}
        return typed_event(numbered | said | body)
    return json_event(body)
