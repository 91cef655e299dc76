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
# The client library sets these for its own connection.
_REMADE: Final = frozenset({b"host", b"content-length", b"expect"})
# A marked reply is asked for in our own words.
_OF_THE_BODY: Final = frozenset(
    {b"accept", b"accept-encoding", b"content-type", b"content-encoding"}
)


def passed_on(headers: Iterable[tuple[bytes, bytes]]) -> Pairs:
    """Return the headers of a message that goes on with its body as it is."""
    pairs = [(name.lower(), value) for name, value in headers]
    dropped = _HOP_BY_HOP | _REMADE | _named_by_connection(pairs)
    return [(name, value) for name, value in pairs if name not in dropped]


def asked_with(headers: Iterable[tuple[bytes, bytes]]) -> Pairs:
    """Return a client's headers for a request of our own on its behalf: who asks, not what."""
    return [(name, value) for name, value in passed_on(headers) if name not in _OF_THE_BODY]


def _named_by_connection(pairs: Pairs) -> frozenset[bytes]:
    return frozenset(
        option.strip().lower()
        for name, value in pairs
        if name == b"connection"
        for option in value.split(b",")
    )


def passed_back(headers: Iterable[tuple[bytes, bytes]]) -> Pairs:
    """Return the headers of an answer whose body goes on undecoded, length and coding kept."""
    pairs = [(name.lower(), value) for name, value in headers]
    dropped = _HOP_BY_HOP | _named_by_connection(pairs)
    return [(name, value) for name, value in pairs if name not in dropped]
