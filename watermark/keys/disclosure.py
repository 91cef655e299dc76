"""The text file by which an epoch's context subkey is made public.

Rule 1: it opens one leaf of the epoch's commitment, and holds nothing that opens another.
Rule 2: exactly one sequence of bytes stands for a disclosure. Rule 3: it is public; permissions
do not matter.

Source: `watermark/spec/commitment.md`, section "Disclosure".
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from watermark.errors import KeyFileError, KeysError
from watermark.keys.commitment import Opening, open_leaf, verify_opening
from watermark.keys.secret import LABEL_CONTEXT, ContextKey

if TYPE_CHECKING:
    from pathlib import Path

    from watermark.keys.secret import SecretKey

DISCLOSURE_HEADER: Final = "output-watermark-context-subkey/v1"
MAX_DISCLOSURE_BYTES: Final = 2048

_FORM: Final = re.compile(
    rb"output-watermark-context-subkey/v1\n"
    rb"key-id: ([^\n]{1,255})\n"
    rb"context: ([0-9a-f]{32})\n"
    rb"blinding: ([0-9a-f]{64})\n"
    rb"path: ([0-9a-f]{64}(?: [0-9a-f]{64})*)\n"
    rb"sha256: [0-9a-f]{64}\n"
)
_ASK: Final = "ask its publisher for it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """A disclosed context subkey with what opens its commitment.

    Attributes:
        key: The subkey; detects, and derives nothing else.
        opening: Leaf and path.
    """

    key: ContextKey
    opening: Opening = field(repr=False)

    def verify(self, root: bytes) -> ContextKey:
        """Return the key, shown to be the one that was committed to.

        Raises:
            CommitmentError: It is another.
        """
        verify_opening(self.opening, self.key.key_id, root)
        return self.key


def disclose(secret: SecretKey) -> Disclosure:
    """Return what makes a key's context subkey public."""
    opening = open_leaf(secret, LABEL_CONTEXT)
    return Disclosure(key=ContextKey(secret.key_id, opening.subkey), opening=opening)


def format_disclosure(disclosure: Disclosure) -> bytes:
    """Return the canonical file of a disclosure."""
    opening = disclosure.opening
    path = " ".join(value.hex() for value in opening.path)
    body = (
        f"{DISCLOSURE_HEADER}\nkey-id: {disclosure.key.key_id}\ncontext: {opening.subkey.hex()}\n"
        f"blinding: {opening.blinding.hex()}\npath: {path}\n"
    ).encode()
    return body + f"sha256: {hashlib.sha256(body).hexdigest()}\n".encode()


def parse_disclosure(data: bytes, *, path: str | Path) -> Disclosure:
    """Return the disclosure that `data` stands for.

    Args:
        data: The whole content of a file.
        path: Where it came from, for messages only.

    Raises:
        KeyFileError: It is not byte for byte a canonical file.
    """
    found = _FORM.fullmatch(data)
    if found is None:
        raise KeyFileError(f"{path} is not a file of form {DISCLOSURE_HEADER}; {_ASK}")
    subkey, blinding = bytes.fromhex(found[2].decode()), bytes.fromhex(found[3].decode())
    steps = tuple(bytes.fromhex(step.decode()) for step in found[4].split(b" "))
    try:
        disclosure = Disclosure(
            key=ContextKey(found[1].decode(), subkey),
            opening=Opening(label=LABEL_CONTEXT, subkey=subkey, blinding=blinding, path=steps),
        )
    except (KeysError, UnicodeDecodeError):
        raise KeyFileError(f"{path} carries a malformed key id; {_ASK}") from None
    if format_disclosure(disclosure) != data:
        raise KeyFileError(f"{path} does not match its checksum; {_ASK}")
    return disclosure


def read_disclosure(path: Path, *, expected_id: str) -> Disclosure:
    """Read the disclosure of a key.

    Raises:
        KeyFileError: The file is missing, damaged, or another key's.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DISCLOSURE_BYTES + 1)
    except (OSError, ValueError) as err:
        raise KeyFileError(f"cannot read {path}; correct the path") from err
    disclosure = parse_disclosure(data, path=path)
    if disclosure.key.key_id != expected_id:
        raise KeyFileError(
            f"{path} discloses key {disclosure.key.key_id!a}, not {expected_id!a}; correct `id` "
            "or `secret`"
        )
    return disclosure
