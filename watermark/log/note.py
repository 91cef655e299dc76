r"""Notes: text signed with Ed25519 under named keys.

Rule 1: text is worth nothing before :func:`open_note` returned it. Rule 2: a signature by a key
that is not asked for is passed over; one by a key that is asked for must hold, or the whole note
is refused. Rule 3: a log's signing key is no watermark key; it has a type and a file of its own.

    >>> from watermark.log import NoteSigner, open_note, sign_note
    >>> signer = NoteSigner("log.example/keys", bytes(32))
    >>> open_note(sign_note("hello\n", [signer]), [signer.verifier]).text
    'hello\n'

Source: c2sp.org/signed-note; RFC 8032 (Ed25519); the two key strings: golang.org/x/mod/sumdb/note.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Never

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from watermark.errors import LogFormatError, LogVerificationError
from watermark.log.encoding import check_line, decode_base64, decode_text, encode_base64

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_NOTE_BYTES: Final = 1024 * 1024  # Go's sumdb/note reads 1,000,000
MAX_SIGNATURES: Final = 100  # as Go's; the specification asks for 16 at least
PUBLIC_KEY_BYTES: Final = 32
SEED_BYTES: Final = 32

_ED25519: Final = b"\x01"  # signature type of signed-note
_KEY_ID_BYTES: Final = 4
_DASH: Final = "— "
_PRIVATE: Final = "PRIVATE+KEY+"
_HEX_ID: Final = re.compile(r"[0-9a-f]{8}", re.ASCII)


def check_key_name(name: str) -> str:
    """Return `name` if it can name a key.

    Args:
        name: Best a URL without its scheme, such as `example.com/log`.

    Returns:
        `name`.

    Raises:
        LogFormatError: It is empty or holds a space, a plus or a control character.
    """
    check_line(name, "a key name")
    if "+" in name or any(character.isspace() for character in name):
        raise LogFormatError("a key name holds a space or a plus; choose another")
    return name


@dataclass(frozen=True, slots=True)
class NoteVerifier:
    """A public key and the name it signs under.

    Attributes:
        name: The key's name.
        public_key: Its 32 bytes, as RFC 8032 encodes them.

    Raises:
        LogFormatError: The name or the length is not a key's.
    """

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.public_key) != PUBLIC_KEY_BYTES:
            raise LogFormatError(f"an Ed25519 public key has {PUBLIC_KEY_BYTES} bytes")

    @property
    def key_id(self) -> bytes:
        """Four bytes that point out this key, and protect nothing."""
        named = self.name.encode() + b"\n" + _ED25519 + self.public_key
        return sha256(named).digest()[:_KEY_ID_BYTES]

    @classmethod
    def parse(cls, text: str) -> NoteVerifier:
        """Return the key of the string that verifiers are given, `name+id+base64`.

        Raises:
            LogFormatError: It is not such a string, or its parts do not belong together.
        """
        name, stated_id, material = _split_key(text)
        key = cls(name, material)
        if key.key_id.hex() != stated_id:
            raise LogFormatError("the id in a verifier key is not that of its name and key")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(_ED25519 + self.public_key)}"

    def verify(self, text: bytes, signature: bytes) -> None:
        """Return if `signature` is this key's over `text`.

        Raises:
            LogVerificationError: It is not.
        """
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text)
        except (InvalidSignature, ValueError) as err:
            raise LogVerificationError(
                f"the signature of key {self.name}+{self.key_id.hex()} does not hold"
            ) from err


class NoteSigner:
    """A signing key with its name; shows the name and the public part only.

    It can be neither copied nor pickled, so that no second copy is made by accident.

    Args:
        name: The key's name.
        seed: 32 bytes from a cryptographic source; the caller draws them.

    Raises:
        LogFormatError: The name is malformed, or the seed is not 32 bytes.
    """

    __slots__ = ("_key", "_verifier")

    def __init__(self, name: str, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise LogFormatError(f"a signing key has {SEED_BYTES} bytes, not {len(seed)}")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._verifier = NoteVerifier(name, self._key.public_key().public_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> NoteSigner:
        """Return the key of the string that :meth:`reveal` gives.

        Raises:
            LogFormatError: It is not such a string, or its parts do not belong together.
        """
        if not text.startswith(_PRIVATE):
            raise LogFormatError("a signing key begins with PRIVATE+KEY+")
        name, stated_id, seed = _split_key(text[len(_PRIVATE) :])
        signer = cls(name, seed)
        if signer.verifier.key_id.hex() != stated_id:
            raise LogFormatError("the id in a signing key is not that of its name and key")
        return signer

    @property
    def name(self) -> str:
        """The key's name; not secret."""
        return self._verifier.name

    @property
    def verifier(self) -> NoteVerifier:
        """The public half."""
        return self._verifier

    def sign(self, text: bytes) -> bytes:
        """Return the 64 bytes of the signature over `text`."""
        return self._key.sign(text)

    def reveal(self) -> str:
        """Return `PRIVATE+KEY+name+id+base64`; only for writing the key's file."""
        material = encode_base64(_ED25519 + self._key.private_bytes_raw())
        return f"{_PRIVATE}{self.name}+{self._verifier.key_id.hex()}+{material}"

    def __repr__(self) -> str:
        return f"<NoteSigner {self.name}+{self._verifier.key_id.hex()}>"

    def __copy__(self) -> Never:
        raise TypeError("a NoteSigner is never copied; pass the object itself")

    def __deepcopy__(self, memo: object) -> Never:
        raise TypeError("a NoteSigner is never copied; pass the object itself")

    def __reduce_ex__(self, protocol: object) -> Never:
        raise TypeError("a NoteSigner is never pickled; load it where it is needed")

    def __getstate__(self) -> Never:
        raise TypeError("a NoteSigner is never pickled; load it where it is needed")


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line, not verified.

    Attributes:
        name: Name of the key.
        key_id: Its four bytes.
        signature: The bytes after them, at least one.
    """

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> str:
        """Return the line, with its line feed."""
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A note whose form was checked and nothing else: its text is not to be believed.

    Attributes:
        text: What was signed, with its last line feed.
        signatures: One or more, in order.
    """

    text: str
    signatures: tuple[NoteSignature, ...]


@dataclass(frozen=True, slots=True)
class VerifiedNote:
    """A note that keys one asked for have signed.

    Attributes:
        text: What was signed, with its last line feed.
        verified: The keys whose signatures held, each once, in order.
    """

    text: str
    verified: tuple[NoteVerifier, ...]


def sign_note(text: str, signers: Sequence[NoteSigner]) -> bytes:
    """Return `text` as a note with a signature by each signer.

    Args:
        text: What is signed; ends in a line feed.
        signers: One to `MAX_SIGNATURES` keys.

    Returns:
        The note.

    Raises:
        LogFormatError: The text or the number of signers cannot make a note.
    """
    try:
        signed = text.encode("utf-8")
    except UnicodeEncodeError as err:
        raise LogFormatError("the text of a note cannot be written as UTF-8") from err
    lines = [
        NoteSignature(signer.name, signer.verifier.key_id, signer.sign(signed)).line()
        for signer in signers
    ]
    note = signed + b"\n" + "".join(lines).encode()
    if parse_note(note).text != text:
        raise LogFormatError("the text of a note ends in a line feed")
    return note


def parse_note(data: bytes) -> Note:
    """Return the parts of a note without verifying anything.

    Raises:
        LogFormatError: The bytes are not a note.
    """
    whole = decode_text(data, "a note", MAX_NOTE_BYTES)
    text, blank, signatures = whole.rpartition("\n\n")
    if not blank or not signatures.endswith("\n"):
        raise LogFormatError("a note is text, an empty line, and lines of signatures")
    lines = signatures[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise LogFormatError(f"a note has at most {MAX_SIGNATURES} signatures")
    return Note(text + "\n", tuple(_parse_signature(line) for line in lines))


def open_note(data: bytes, verifiers: Sequence[NoteVerifier], *, quorum: int = 1) -> VerifiedNote:
    """Return the text of a note that keys one trusts have signed.

    Args:
        data: The note.
        verifiers: The keys that count.
        quorum: How many of them must have signed, at least 1.

    Returns:
        The text and who signed it.

    Raises:
        LogFormatError: The bytes are not a note.
        LogVerificationError: A signature by one of the keys does not hold, fewer than `quorum` of
            the keys signed, or two different keys have one name and id.
    """
    note = parse_note(data)
    known = {(key.name, key.key_id): key for key in verifiers}
    if len(known) != len(set(verifiers)):
        raise LogVerificationError("two verifier keys have one name and id; remove one")
    signed = note.text.encode()
    verified: dict[NoteVerifier, None] = {}
    for line in note.signatures:
        key = known.get((line.name, line.key_id))
        if key is not None:
            key.verify(signed, line.signature)
            verified[key] = None
    if len(verified) < max(quorum, 1):
        raise LogVerificationError(
            f"{len(verified)} of the keys asked for signed the note; {max(quorum, 1)} must have"
        )
    return VerifiedNote(note.text, tuple(verified))


def _parse_signature(line: str) -> NoteSignature:
    """Return the parts of one signature line."""
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space:
        raise LogFormatError("a signature line is an em dash, the key's name and base64")
    check_key_name(name)
    raw = decode_base64(encoded, "a signature")
    if len(raw) <= _KEY_ID_BYTES:
        raise LogFormatError("a signature has no bytes after the key's id")
    return NoteSignature(name, raw[:_KEY_ID_BYTES], raw[_KEY_ID_BYTES:])


def _split_key(text: str) -> tuple[str, str, bytes]:
    """Return name, id in hex and 32 bytes of a key string, whose type must be Ed25519."""
    name, first, rest = text.partition("+")
    stated_id, second, encoded = rest.partition("+")
    if not first or not second or _HEX_ID.fullmatch(stated_id) is None:
        raise LogFormatError("a key string is a name, eight hex digits and base64, joined by '+'")
    material = decode_base64(encoded, "the last part of a key string")
    if material[:1] != _ED25519 or len(material) != 1 + PUBLIC_KEY_BYTES:
        raise LogFormatError("a key string does not hold an Ed25519 key of 32 bytes")
    return check_key_name(name), stated_id, material[1:]
