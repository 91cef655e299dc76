"""`vault:MOUNT/PATH#FIELD` and `vault-transit:MOUNT/KEY#FILE`: HashiCorp Vault, through hvac.

Rule 1: what Vault gives is the text of a key file, held to the same form as one on disk. Rule 2:
the token comes from a private file, never from the environment, and goes to one address only.

Source: Vault's HTTP API, KV version 2 and transit.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from watermark.errors import KeyFileError, KeysConfigError, SecretSourceError
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

    from watermark.keys.document import VaultOptions
    from watermark.keys.secret import SecretKey

MAX_TOKEN_BYTES: Final = 8192
MAX_CIPHERTEXT_BYTES: Final = 64 * 1024
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_FILE_PREFIX: Final = "file:"


class VaultClient:
    """One Vault, ready to be asked.

    Args:
        folder: Where relative paths start.
        options: `[vault]`.

    Raises:
        KeysConfigError: The options are missing or unsafe.
    """

    def __init__(self, folder: Path, options: VaultOptions | None) -> None:
        if options is None:
            raise KeysConfigError(
                'a secret by `vault:` needs [vault] with address and token = "file:PATH"'
            )
        parts = urlsplit(options.address)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise KeysConfigError(
                f"[vault] address {options.address!a} is not https; secrets go over TLS only"
            )
        if not options.token.startswith(_FILE_PREFIX):
            raise KeysConfigError(
                "[vault] token names no file; write `file:` and the path of a private file"
            )
        self.folder = folder
        self._options = options
        self._clients: dict[int, Any] = {}  # by process: a forked one uses no connection of another

    def ask(self, call: str, *args: str, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        """Return what Vault answers.

        Args:
            call: `read`, `create` or `delete` (KV version 2), `encrypt` or `decrypt` (transit).
            args: Positional arguments of hvac.
            arguments: Named ones.

        Raises:
            SecretSourceError: hvac is not installed, or Vault refuses or does not answer.
            KeyFileError: The token file is missing or too open.
        """
        hvac = need("hvac", "vault", "a secret by `vault:`")
        requests = need("requests", "vault", "a secret by `vault:`")
        client = self._clients.get(os.getpid()) or self._connect(hvac)
        kv, transit = client.secrets.kv.v2, client.secrets.transit
        function = {
            "read": kv.read_secret_version,
            "create": kv.create_or_update_secret,
            "delete": kv.delete_metadata_and_all_versions,
            "encrypt": transit.encrypt_data,
            "decrypt": transit.decrypt_data,
        }[call]
        try:
            return function(*args, **arguments)
        except (hvac.exceptions.VaultError, requests.RequestException) as err:
            raise SecretSourceError(
                f"vault at {self._options.address} answers {type(err).__name__}; check the "
                "reference, the token and its policy, and that it is unsealed"
            ) from None

    def _connect(self, hvac: Any) -> Any:  # noqa: ANN401 - a module without types
        """Return the client of the package."""
        options = self._options
        token = read_private_file(
            self.folder / options.token.removeprefix(_FILE_PREFIX),
            limit=MAX_TOKEN_BYTES,
            what="vault token",
        )
        verify = str(self.folder / options.ca) if options.ca else True
        client = hvac.Client(
            url=options.address,
            token=token.decode("ascii", "replace").strip(),
            namespace=options.namespace or None,
            verify=verify,
            timeout=options.timeout_s,
            allow_redirects=False,
        )
        client.session.trust_env = False  # no proxy of the environment sees the token
        self._clients[os.getpid()] = client
        return client


class VaultSource:
    """Key files in a KV store, version 2.

    Args:
        client: The Vault.
    """

    def __init__(self, client: VaultClient) -> None:
        self._client = client

    def files(self, place: str) -> tuple[Path, ...]:  # noqa: ARG002 - as every source
        """Return nothing: an id has one secret for ever, and it is not asked for again."""
        return ()

    def open(self, place: str, key_id: str) -> SecretKey:
        """Return the key in a field of a secret.

        Raises:
            KeysConfigError: The place is malformed.
            SecretSourceError: Vault does not give it.
            KeyFileError: It is no key file, or another key's.
        """
        mount, path, field = split_place(place)
        answer = self._client.ask("read", path, mount_point=mount, raise_on_deleted_version=True)
        value = _at(answer, "data", "data", field)
        if not isinstance(value, str):
            raise SecretSourceError(f"vault has no text in field {field!a} of {mount}/{path}")
        return _key_of(value.encode(), f"vault:{place}", key_id)

    def store(self, place: str, key: SecretKey) -> None:
        """Write a key file into a field of a secret that is not there yet.

        Raises:
            KeysConfigError: The place is malformed.
            SecretSourceError: Vault does not take it, or has a secret there.
        """
        mount, path, field = split_place(place)
        secret = {field: format_key_file(key).decode()}
        self._client.ask("create", path, secret=secret, cas=0, mount_point=mount)

    def remove(self, place: str) -> None:
        """Delete every version of a secret, with all its fields.

        Raises:
            KeysConfigError: The place is malformed.
            SecretSourceError: Vault does not delete it.
        """
        mount, path, _ = split_place(place)
        self._client.ask("delete", path, mount_point=mount)


class TransitSource:
    """Key files that a transit key of Vault has encrypted.

    Args:
        client: The Vault.
    """

    def __init__(self, client: VaultClient) -> None:
        self._client = client

    def files(self, place: str) -> tuple[Path, ...]:
        """Return the file of ciphertext."""
        return (self._client.folder / place.rpartition("#")[2],)

    def open(self, place: str, key_id: str) -> SecretKey:
        """Return the key in a file of ciphertext.

        Raises:
            KeysConfigError: The place is malformed.
            SecretSourceError: Vault does not decrypt it.
            KeyFileError: The file is missing, or holds no key file, or another key's.
        """
        mount, name, file = split_transit_place(place)
        path = self._client.folder / file
        try:
            with path.open("rb") as opened:
                ciphertext = opened.read(MAX_CIPHERTEXT_BYTES).decode("ascii").strip()
        except (OSError, ValueError) as err:
            raise KeyFileError(f"cannot read ciphertext {path}; correct the path") from err
        answer = self._client.ask("decrypt", name, ciphertext, mount_point=mount)
        try:
            plain = base64.b64decode(str(_at(answer, "data", "plaintext")), validate=True)
        except binascii.Error:
            raise SecretSourceError(f"vault gives no plaintext for {path}") from None
        return _key_of(plain, path, key_id)

    def store(self, place: str, key: SecretKey) -> None:
        """Have Vault encrypt a key file, and write what it gives.

        Raises:
            KeysConfigError: The place is malformed.
            SecretSourceError: Vault does not encrypt it.
            KeyFileError: Something is there, or it cannot be written.
        """
        mount, name, file = split_transit_place(place)
        plain = base64.b64encode(format_key_file(key)).decode()
        answer = self._client.ask("encrypt", name, plain, mount_point=mount)
        ciphertext = _at(answer, "data", "ciphertext")
        if not isinstance(ciphertext, str):
            raise SecretSourceError(f"vault gives no ciphertext by transit key {mount}/{name}")
        write_private_file(self._client.folder / file, f"{ciphertext}\n".encode())

    def remove(self, place: str) -> None:
        """Delete a file of ciphertext.

        Raises:
            KeysConfigError: The place is malformed.
            KeyFileError: It cannot be deleted.
        """
        remove_file(self._client.folder / split_transit_place(place)[2])


def split_place(place: str) -> tuple[str, str, str]:
    """Return mount, path and field of a place in a KV store.

    Raises:
        KeysConfigError: It is malformed.
    """
    path, _, field = place.rpartition("#")
    mount, _, path = path.partition("/")
    if not (mount and path and field):
        raise KeysConfigError("a secret by `vault:` is written `vault:MOUNT/PATH#FIELD`")
    return mount, path, field


def split_transit_place(place: str) -> tuple[str, str, str]:
    """Return mount, transit key and file of a place.

    Raises:
        KeysConfigError: It is malformed.
    """
    name, _, file = place.partition("#")
    mount, _, name = name.rpartition("/")
    if not (mount and name and file):
        raise KeysConfigError(
            "a secret by `vault-transit:` is written `vault-transit:MOUNT/KEY#FILE`"
        )
    return mount, name, file


def _at(answer: Any, *names: str) -> object:  # noqa: ANN401 - JSON
    """Return what stands at a place of an answer; None where there is none."""
    for name in names:
        answer = answer.get(name) if isinstance(answer, dict) else None
    found: object = answer
    return found


def _key_of(data: bytes, path: str | Path, key_id: str) -> SecretKey:
    """Return the key that the text of a key file holds."""
    return expect_key(parse_key_file(data, path=path), key_id, path=path)
