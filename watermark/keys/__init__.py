"""Epoch keys: secrets, the files that hold them, and the ring that a process works with.

Reads and writes files, and nothing else that is outside: the caller draws the secret bytes.
"""

from watermark.keys.keyfile import (
    format_key_file,
    parse_key_file,
    read_key_file,
    write_key_file,
)
from watermark.keys.keyring import KeyRing
from watermark.keys.keysfile import KEYS_HEADER, format_record, load_keys
from watermark.keys.record import KeyFields, KeyRecord, KeyState
from watermark.keys.secret import (
    LABEL_ACCOUNT_CODE,
    LABEL_ACCOUNT_TAG,
    LABEL_CONTEXT,
    LABEL_NATIVE_SGLANG,
    LABEL_PRIVATE_DRAWS,
    SECRET_BYTES,
    SUBKEY_BYTES,
    SecretKey,
    check_key_id,
)

__all__ = [
    "KEYS_HEADER",
    "LABEL_ACCOUNT_CODE",
    "LABEL_ACCOUNT_TAG",
    "LABEL_CONTEXT",
    "LABEL_NATIVE_SGLANG",
    "LABEL_PRIVATE_DRAWS",
    "SECRET_BYTES",
    "SUBKEY_BYTES",
    "KeyFields",
    "KeyRecord",
    "KeyRing",
    "KeyState",
    "SecretKey",
    "check_key_id",
    "format_key_file",
    "format_record",
    "load_keys",
    "parse_key_file",
    "read_key_file",
    "write_key_file",
]
