"""Strict text encodings shared by notes, checkpoints and proofs.

Rule 1: there is one encoding for each value, and a reader takes no other; what is signed, logged
and compared must not have two spellings. Rule 2: what is said about bad bytes never quotes them.

Source: RFC 4648, section 4 (base64); c2sp.org/signed-note (characters).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from watermark.errors import LogFormatError

_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f]")


def encode_base64(data: bytes) -> str:
    """Return `data` in standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str, what: str) -> bytes:
    """Return the bytes that `text` is the one standard base64 of.

    Args:
        text: Base64 with padding.
        what: What it stands for, for the message.

    Returns:
        The bytes.

    Raises:
        LogFormatError: It is not base64, or not the form that encoding gives.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as err:
        raise LogFormatError(f"{what} is not base64") from err
    if encode_base64(data) != text:  # unused bits of the last digit must be zero
        raise LogFormatError(f"{what} is not base64 in its one canonical form")
    return data


def decode_number(text: str, what: str, limit: int) -> int:
    """Return the number that `text` writes in ASCII decimals without leading zeros.

    Args:
        text: The digits.
        what: What the number stands for, for the message.
        limit: The largest number allowed, at most 19 digits.

    Returns:
        The number, 0 to `limit`.

    Raises:
        LogFormatError: It is not such a number.
    """
    if _NUMBER.fullmatch(text) is None or int(text) > limit:
        raise LogFormatError(f"{what} is not a decimal number of 0 to {limit}")
    return int(text)


def decode_text(data: bytes, what: str, limit_bytes: int) -> str:
    """Return `data` as text without control characters other than line feeds.

    Args:
        data: UTF-8.
        what: What it stands for, for the message.
        limit_bytes: Bytes allowed.

    Returns:
        The text.

    Raises:
        LogFormatError: It is too long, not UTF-8, or holds a control character.
    """
    if len(data) > limit_bytes:
        raise LogFormatError(f"{what} has {len(data)} bytes; at most {limit_bytes} are read")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as err:
        raise LogFormatError(f"{what} is not UTF-8 at byte {err.start}") from err
    if _CONTROL.search(text.replace("\n", "")):
        raise LogFormatError(f"{what} holds a control character")
    return text


def check_line(text: str, what: str) -> str:
    """Return `text` if it can be one line of a note.

    Args:
        text: The line, without its line feed.
        what: What it stands for, for the message.

    Returns:
        `text`.

    Raises:
        LogFormatError: It is empty, holds a control character, or cannot be written as UTF-8.
    """
    if not text or _CONTROL.search(text):
        raise LogFormatError(f"{what} is empty or holds a control character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as err:
        raise LogFormatError(f"{what} cannot be written as UTF-8") from err
    return text
