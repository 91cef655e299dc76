"""Which headers travel on; lists of pairs, so repeated ones survive.

Source: RFC 9110, 7.6.1 (hop-by-hop); the rest are those that a proxy must make anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    Pairs = list[tuple[bytes, bytes]]

_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# These are settled anew on the way to the upstream.
_REMADE: Final = frozenset({b"host", b"expect"})
# A marked reply is asked for in our own words, and more than once.
_OF_THE_BODY: Final = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"content-digest",
        b"content-encoding",
        b"content-length",
        b"content-md5",
        b"content-type",
        b"digest",
        b"idempotency-key",
        b"x-request-id",  # vLLM takes it for the engine's own, which must not repeat
    }
)
_DIGESTS: Final = frozenset({b"content-digest", b"content-md5", b"digest"})
_LENGTH: Final = frozenset({b"content-length"})
_EVENTS: Final = b"text/event-stream"
_NO_BODY: Final = frozenset({204, 304})


def passed_on(headers: Iterable[tuple[bytes, bytes]]) -> Pairs:
    """Return the headers of a request that goes on with its body as it is.

    A length beside a transfer coding is void (RFC 9112, 6.3) and must not reach the next parser.
    """
    pairs = [(name.lower(), value) for name, value in headers]
    dropped = _HOP_BY_HOP | _REMADE | _named_by_connection(pairs)
    if any(name == b"transfer-encoding" for name, _ in pairs):
        dropped |= _LENGTH
    return [(name, value) for name, value in pairs if name not in dropped]


def of_changed_body(headers: Iterable[tuple[bytes, bytes]], length: int) -> Pairs:
    """Return the headers of a request whose body was changed: measured anew, no digest of it."""
    kept = [(name, value) for name, value in headers if name not in _LENGTH | _DIGESTS]
    return [*kept, (b"content-length", str(length).encode())]


def asked_with(headers: Iterable[tuple[bytes, bytes]]) -> Pairs:
    """Return a client's headers for a request of our own on its behalf: who asks, not what."""
    return [(name, value) for name, value in passed_on(headers) if name not in _OF_THE_BODY]


def with_bearer(pairs: Pairs) -> Pairs:
    """Return the headers of an Anthropic client as an OpenAI-style upstream wants them.

    The caller's key goes along as a bearer token, unless one does already.
    """
    keys = [value for name, value in pairs if name == b"x-api-key"]
    if not keys or any(name == b"authorization" for name, _ in pairs):
        return pairs
    return [*pairs, (b"authorization", b"Bearer " + keys[0])]


_VERSION: Final = (b"anthropic-version", b"2023-06-01")


def with_anthropic_key(pairs: Pairs) -> Pairs:
    """Return the headers of any client as an Anthropic-style upstream wants them.

    A bearer token is the caller's key unless he sends one by its own name; two would be refused.
    """
    names = {name for name, _ in pairs}
    bearer = [value.split()[-1] for name, value in pairs if name == b"authorization" and value]
    kept = [pair for pair in pairs if pair[0] != b"authorization"]
    if b"x-api-key" not in names and bearer:
        kept.append((b"x-api-key", bearer[0]))
    return kept if _VERSION[0] in names else [*kept, _VERSION]


def _named_by_connection(pairs: Pairs) -> frozenset[bytes]:
    return frozenset(
        option.strip().lower()
        for name, value in pairs
        if name == b"connection"
        for option in value.split(b",")
    )


def passed_back(status: int, headers: Iterable[tuple[bytes, bytes]]) -> Pairs:
    """Return the headers of an answer whose body goes on undecoded, length and coding kept.

    Where the status allows no body, a length is dropped: a server would wait for that many bytes.
    """
    pairs = [(name.lower(), value) for name, value in headers]
    dropped = _HOP_BY_HOP | _named_by_connection(pairs)
    if status in _NO_BODY:
        dropped |= _LENGTH
    return [(name, value) for name, value in pairs if name not in dropped]


def is_event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether an answer is a stream of events."""
    kinds = [value for name, value in headers if name.lower() == b"content-type"]
    return bool(kinds) and kinds[0].strip().lower().startswith(_EVENTS)


def is_open_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether an answer is a stream of events whose length and coding allow one more."""
    pairs = list(headers)
    names = {name.lower() for name, _ in pairs}
    return is_event_stream(pairs) and not (_LENGTH | {b"content-encoding"}) & names


def of_decoded(status: int, headers: Iterable[tuple[bytes, bytes]]) -> Pairs:
    """Return the headers of an answer whose body goes on decoded and measured anew."""
    dropped = _LENGTH | {b"content-encoding"}
    return [(name, value) for name, value in passed_back(status, headers) if name not in dropped]
