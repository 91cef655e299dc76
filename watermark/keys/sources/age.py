"""`age:PATH`: a key file encrypted with age, opened by an identity file.

Rule: what comes out is held to the same form as a key file that lies open.

Source: age-encryption.org/v1; pyrage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from watermark.errors import KeyFileError, KeysConfigError
from watermark.keys.keyfile import (
    expect_key,
    format_key_file,
    parse_key_file,
    read_private_file,
    remove_file,
    write_private_file,
)
from watermark.keys.sources.extras import need

if TYPE_CHECKING:
    from pathlib import Path

    from watermark.keys.document import AgeOptions
    from watermark.keys.secret import SecretKey

MAX_ENCRYPTED_BYTES: Final = 64 * 1024
MAX_IDENTITY_BYTES: Final = 64 * 1024
_FILE_PREFIX: Final = "file:"
_USE: Final = "a secret by `age:`"


class AgeSource:
    """Encrypted key files.

    Args:
        folder: Where relative paths start.
        options: `[age]`; None where the file has none.

    Raises:
        KeysConfigError: It names no identity file.
    """

    def __init__(self, folder: Path, options: AgeOptions | None) -> None:
        identity = "" if options is None else options.identity
        if options is None or not identity.startswith(_FILE_PREFIX) or identity == _FILE_PREFIX:
            raise KeysConfigError(
                'a secret by `age:` needs [age] identity = "file:PATH"; name the identity file'
            )
        self._folder = folder
        self._identity = folder / identity.removeprefix(_FILE_PREFIX)
        self._recipients = options.recipients

    def files(self, place: str) -> tuple[Path, ...]:
        """Return the encrypted key file, and the identity that opens it."""
        return (self._folder / place, self._identity)

    def open(self, place: str, key_id: str) -> SecretKey:
        """Return the key in an encrypted file.

        Raises:
            SecretSourceError: pyrage is not installed.
            KeyFileError: A file is missing, too open, or not for this identity.
        """
        path = self._folder / place
        try:
            with path.open("rb") as file:
                data = file.read(MAX_ENCRYPTED_BYTES + 1)
        except (OSError, ValueError) as err:
            raise KeyFileError(
                f"cannot read encrypted key file {path}; correct the path in KEYS.toml"
            ) from err
        if len(data) > MAX_ENCRYPTED_BYTES:
            raise KeyFileError(f"{path} is too long for an encrypted key file; restore it")
        return expect_key(parse_key_file(self._decrypt(data, path), path=path), key_id, path=path)

    def store(self, place: str, key: SecretKey) -> None:
        """Encrypt a key file to the recipients of `[age]`, or to the identity where it has none.

        Raises:
            SecretSourceError: pyrage is not installed.
            KeysConfigError: A recipient is none.
            KeyFileError: Something is there, it cannot be written, or the identity is missing.
        """
        pyrage = need("pyrage", "age", _USE)
        recipients = [self._recipient(text) for text in self._recipients]
        if not recipients:
            recipients = [identity.to_public() for identity in self._identities()]
        data: bytes = pyrage.encrypt(format_key_file(key), recipients)
        write_private_file(self._folder / place, data)

    def remove(self, place: str) -> None:
        """Delete an encrypted key file.

        Raises:
            KeyFileError: It cannot be deleted.
        """
        remove_file(self._folder / place)

    def _recipient(self, text: str) -> Any:  # noqa: ANN401 - a module without types
        """Return a recipient: an X25519 one, or an SSH key."""
        pyrage = need("pyrage", "age", _USE)
        try:
            if text.startswith("ssh-"):
                return pyrage.ssh.Recipient.from_str(text)
            return pyrage.x25519.Recipient.from_str(text)
        except pyrage.RecipientError:
            raise KeysConfigError(
                f"age recipient {text!a} is none; write age1... or the line of an SSH public key"
            ) from None

    def _identities(self) -> list[Any]:
        """Return the identities in the identity file."""
        pyrage = need("pyrage", "age", _USE)
        lines = read_private_file(
            self._identity, limit=MAX_IDENTITY_BYTES, what="age identity"
        ).splitlines()
        texts = [line for line in lines if line.strip() and not line.startswith(b"#")]
        try:
            identities = [pyrage.x25519.Identity.from_str(text.decode().strip()) for text in texts]
        except (pyrage.IdentityError, UnicodeDecodeError):
            identities = []
        if not identities:
            raise KeyFileError(
                f"{self._identity} holds no X25519 identity of age; make one with `age-keygen`"
            )
        return identities

    def _decrypt(self, data: bytes, path: Path) -> bytes:
        """Return what the file holds."""
        pyrage = need("pyrage", "age", _USE)
        try:
            plain: bytes = pyrage.decrypt(data, self._identities())
        except pyrage.DecryptError as err:
            raise KeyFileError(
                f"{path} cannot be decrypted with {self._identity}; give the identity that it was "
                "encrypted to, or restore it"
            ) from err
        return plain
