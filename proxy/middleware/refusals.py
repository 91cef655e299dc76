"""A refusal as bytes, in the dialect of the path that was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from proxy.errors import AccessError, QuotaError, failure_of
from watermark.wire.failures import dialect_of_path, failure_body, failure_event

if TYPE_CHECKING:
    from starlette.types import Message

    from proxy.errors import ProxyError

_UNAVAILABLE: Final = 503
_RETRY_S: Final = 10


def refusal_body(path: str, error: ProxyError) -> dict[str, Any]:
    """Return a refusal as the clients of a path expect it."""
    return failure_body(dialect_of_path(path), failure_of(error))


def refusal_event(path: str, error: ProxyError) -> bytes:
    """Return the event that tells a stream's client why it ends here."""
    return failure_event(dialect_of_path(path), failure_of(error))


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
