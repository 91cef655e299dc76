"""Epoch keys: secrets, the files that hold them, and the ring that a process works with.

Reads and writes files, and nothing else that is outside: the caller draws the secret bytes.
"""

from watermark.keys.foreign import FOREIGN_SCHEMES, STATIC_GREEN_LIST, ForeignKey
from watermark.keys.keyfile import (
    format_key_file,
    parse_key_file,
    read_key_file,
    write_key_file,
)
from watermark.keys.keyring import WARNING_LEAD, Expiry, KeyRing
from watermark.keys.keysfile import KEYS_HEADER, format_record
from watermark.keys.loader import KeysLoader, load_keys
from watermark.keys.record import (
    DEFAULT_SCOPE,
    KeyFields,
    KeyRecord,
)
from watermark.keys.scope import Scope
from watermark.keys.secret import (
    LABEL_ACCOUNT_CODE,
    LABEL_ACCOUNT_TAG,
    LABEL_COMMITMENT_BLINDING,
    LABEL_CONTEXT,
    LABEL_DETECTOR_NOISE,
    LABEL_FINGERPRINT,
    LABEL_LEDGER_ACCOUNT,
    LABEL_LEDGER_CONTEXT,
    LABEL_LEDGER_CONVERSATION,
    LABEL_LEDGER_WRAP,
    LABEL_NATIVE_SGLANG,
    LABEL_PRIVATE_DRAWS,
    LABEL_STATIC_GREEN_LIST,
    SECRET_BYTES,
    SUBKEY_BYTES,
    ContextKey,
    SecretKey,
    check_key_id,
)
from watermark.keys.states import KeyState

__all__ = [
    "DEFAULT_SCOPE",
    "FOREIGN_SCHEMES",
    "KEYS_HEADER",
    "LABEL_ACCOUNT_CODE",
    "LABEL_ACCOUNT_TAG",
    "LABEL_COMMITMENT_BLINDING",
    "LABEL_CONTEXT",
    "LABEL_DETECTOR_NOISE",
    "LABEL_FINGERPRINT",
    "LABEL_LEDGER_ACCOUNT",
    "LABEL_LEDGER_CONTEXT",
    "LABEL_LEDGER_CONVERSATION",
    "LABEL_LEDGER_WRAP",
    "LABEL_NATIVE_SGLANG",
    "LABEL_PRIVATE_DRAWS",
    "LABEL_STATIC_GREEN_LIST",
    "SECRET_BYTES",
    "STATIC_GREEN_LIST",
    "SUBKEY_BYTES",
    "WARNING_LEAD",
    "ContextKey",
    "Expiry",
    "ForeignKey",
    "KeyFields",
    "KeyRecord",
    "KeyRing",
    "KeyState",
    "KeysLoader",
    "Scope",
    "SecretKey",
    "check_key_id",
    "format_key_file",
    "format_record",
    "load_keys",
    "parse_key_file",
    "read_key_file",
    "write_key_file",
]
