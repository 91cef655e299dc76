"""How a request's body is packed: what has to be undone before anybody can read it.

Rule 1: what an upstream might unpack is unpacked here, or refused; the policy of the operator is
about what a body says, not about how it is packed. Rule 2: what was unpacked goes on plain, so that
the upstream reads what was read here. Rule 3: JSON is UTF-8 (RFC 8259, 8.1); by a label that says
otherwise another reader might see other names.

Source: RFC 9110, 8.4 (Content-Encoding), RFC 7578 (multipart/form-data).
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote_to_bytes

from proxy.errors import BodyTooLargeError, UnreadableBodyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Pairs = Iterable[tuple[bytes, bytes]]

_GZIP: Final = 16 + zlib.MAX_WBITS
_ANY: Final = 32 + zlib.MAX_WBITS  # gzip or zlib, by its first bytes
_CODINGS: Final = {b"gzip": _GZIP, b"x-gzip": _GZIP, b"deflate": _ANY}
# Alike where a name of ours could stand; what is no UTF-8 in such a body is refused there.
_CHARSETS: Final = frozenset(
    {b"utf-8", b"utf8", b"us-ascii", b"ascii", b"iso-8859-1", b"latin1", b"windows-1252"}
)
_CHARSET: Final = re.compile(rb""";\s*charset\s*=\s*["']?([^"';\s]*)""", re.IGNORECASE)
_DISPOSITION: Final = re.compile(
    rb"content-disposition[ \t]*:((?:[^\r\n]|\r?\n[ \t])*)", re.IGNORECASE
)
_NAME: Final = re.compile(rb"""\bname\*?\s*=\s*("(?:[^"\\]|\\.)*"?|[^;\s]+)""", re.IGNORECASE)
_LONGEST_HEADER: Final = 16 * 1024  # of a part
FORM: Final = b"application/x-www-form-urlencoded"
PARTS: Final = b"multipart/"


def codings_of(headers: Pairs) -> list[bytes]:
    """Return how a body was coded, the last coding first; none where it is plain."""
    found = [
        one.strip().lower()
        for name, value in headers
        if name.lower() == b"content-encoding"
        for one in value.split(b",")
    ]
    return [one for one in reversed(found) if one not in (b"", b"identity")]


def unpacked(body: bytes, codings: Iterable[bytes], max_bytes: int) -> bytes:
    """Return a body without its codings.

    Raises:
        UnreadableBodyError: A coding is not known here, or the body is not coded so.
        BodyTooLargeError: It is larger than allowed.
    """
    for coding in codings:
        wbits = _CODINGS.get(coding)
        if wbits is None:
            raise UnreadableBodyError(
                f"the request body has content-encoding {coding.decode('latin-1')!a}; send it "
                "plain, or as gzip"
            )
        try:
            body = _inflated(body, wbits, max_bytes)
        except zlib.error:
            raise UnreadableBodyError(
                f"the request body is not what content-encoding {coding.decode('latin-1')!a} says; "
                "send it plain"
            ) from None
    return body


def _inflated(body: bytes, wbits: int, max_bytes: int) -> bytes:
    """Return a body of one or more members.

    Raises:
        zlib.error: It is none, or cut off.
        BodyTooLargeError: It is larger than allowed.
    """
    plain, rest = bytearray(), body
    while rest:
        member = zlib.decompressobj(wbits)
        plain += member.decompress(rest, max_bytes + 1 - len(plain))
        if len(plain) > max_bytes:
            raise BodyTooLargeError(
                f"the request body exceeds {max_bytes} bytes unpacked; send less, or raise "
                "server.max_body_bytes"
            )
        if not member.eof:
            raise zlib.error("cut off")
        rest = member.unused_data
    return bytes(plain)


def kinds_of(headers: Pairs) -> list[bytes]:
    """Return what a body is called, in lower case; several where it is called several things."""
    return [value.strip().lower() for name, value in headers if name.lower() == b"content-type"]


def check_charset(headers: Pairs) -> None:
    """Refuse JSON that is said to be in a charset in which other names might be read.

    Raises:
        UnreadableBodyError: It is.
    """
    for kind in kinds_of(headers):
        for charset in _CHARSET.findall(kind):
            if charset not in _CHARSETS:
                raise UnreadableBodyError(
                    f"the request body is said to be in charset {charset.decode('latin-1')!a}; "
                    "send JSON in UTF-8"
                )


def form_names(body: bytes) -> list[str]:
    """Return the names of the fields of a URL-encoded form."""
    pairs = parse_qsl(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    return [name for name, _ in pairs]


class PartNames:
    """Reads the names of a multipart form's fields while its bytes pass."""

    def __init__(self) -> None:
        """Begin before the first byte."""
        self._tail = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """Read some bytes; yield the names in them, some of them again."""
        window = self._tail + data
        self._tail = window[-_LONGEST_HEADER:]
        for header in _DISPOSITION.findall(window):
            for name in _NAME.findall(header):
                yield _plain(name)


def _plain(name: bytes) -> str:
    """Return a name without quotes, escapes and the charset of an extended one."""
    bare = name.strip(b'"').replace(b"\\", b"")
    return unquote_to_bytes(bare.rpartition(b"'")[2]).decode("latin-1").strip()
