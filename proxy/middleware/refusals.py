"""A refusal as bytes, in the dialect of the path that was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from proxy.errors import AccessError, QuotaError
from watermark.wire.openai_answers import error_body
from watermark.wire.sse import json_event

if TYPE_CHECKING:
    from starlette.types import Message

    from proxy.errors import ProxyError

_ANTHROPIC: Final = "/v1/messages"
_UNAVAILABLE: Final = 503
_RETRY_S: Final = 10


def refusal_body(path: str, error: ProxyError) -> dict[str, Any]:
    """Return a refusal as the clients of a path expect it."""
    if path.startswith(_ANTHROPIC):
        return {"type": "error", "error": {"type": error.wire_type, "message": str(error)}}
    param = error.param if isinstance(error, AccessError) else None
    return error_body(str(error), kind=error.wire_type, param=param)


def refusal_event(path: str, error: ProxyError) -> bytes:
    """Return the event that tells a stream's client why it ends here."""
    event = json_event(refusal_body(path, error))
    return b"event: error\n" + event if path.startswith(_ANTHROPIC) else event


def refusal_headers(error: ProxyError) -> list[tuple[bytes, bytes]]:
    """Return the headers beside a refusal's type and length."""
    headers = []
    if isinstance(error, QuotaError):
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    elif error.status == _UNAVAILABLE:
        headers.append((b"retry-after", str(_RETRY_S).encode()))
    if isinstance(error, AccessError) and error.terms:
        headers.append((b"link", f'<{error.terms}>; rel="terms-of-service"'.encode()))
    return headers


def refusal_messages(path: str, error: ProxyError) -> list[Message]:
    """Return a whole answer that refuses a request."""
    body = msgspec.json.encode(refusal_body(path, error))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *refusal_headers(error),
    ]
    return [
        {"type": "http.response.start", "status": error.status, "headers": headers},
        {"type": "http.response.body", "body": body, "more_body": False},
    ]
