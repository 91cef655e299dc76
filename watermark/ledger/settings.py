"""`LEDGER.toml`: what a ledger keeps, where, and under which secrets.

Rule 1: secrets are files beside it, never values in it. Rule 2: relative paths are relative to
the file. Rule 3: the file holds nothing that must be hidden.

Source: `watermark/spec/ledger.md`, LEDGER.toml.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from watermark.errors import (
    KeyFileError,
    KeysConfigError,
    LedgerConfigError,
    LogFormatError,
)
from watermark.keys import SECRET_BYTES, SecretKey, read_key_file, write_key_file
from watermark.keys.document import DocumentReader
from watermark.keys.folder import write_synced
from watermark.keys.keyfile import read_private_file, sync_folder, write_private_file
from watermark.keys.keylog import KeyLog
from watermark.keys.keysfile import read_text
from watermark.ledger.files import check_node
from watermark.ledger.limits import WriterLimits
from watermark.ledger.rows import Keeps
from watermark.log import NoteSigner, NoteVerifier

if TYPE_CHECKING:
    from pathlib import Path

    from watermark.keys.document import Options

SECRET_ID: Final = "ledger"  # noqa: S105 - the name of the key, not the key
DEFAULT_FILE: Final = "LEDGER.toml"
_FILE_PREFIX: Final = "file:"
_MAX_SIGNER_BYTES: Final = 1024
_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file, as it stands."""

    schema: Literal[1]
    secret: str
    signer: str = ""
    verifier: str
    keeps: Literal["contexts", "tokens", "none"] = "contexts"
    node: str = ""
    rows: str = "rows"
    store: str = ""
    keys: str = ""
    retention_days: _Count = 0
    segment_seconds: Annotated[float, msgspec.Meta(gt=0)] = 3600.0
    reserve_mib: _Count = 64
    rows_mib: Annotated[int, msgspec.Meta(gt=0)] = 16 << 10
    waiting_mib: _Count = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """What `LEDGER.toml` says.

    Attributes:
        path: The file.
        node: The machine's name; empty for the machine's own.
        keeps: What is kept of each reply.
        rows: Folder of the files being written, and of what waits for the store.
        store: Where sealed segments go, for fsspec; empty for nowhere: rows stay as they are.
        keys: The `KEYS.toml` whose log takes the roots; None for none.
        retention_days: How long sealed segments are kept; 0 for ever.
        limits: Of the writer.
        verifier: The public key of the segments' headers.
        secret_reference: Where the secret is.
        signer_reference: Where the headers' signing key is; empty where it is elsewhere.
    """

    path: Path
    node: str
    keeps: Keeps
    rows: Path
    store: str
    keys: Path | None
    retention_days: int
    limits: WriterLimits
    verifier: NoteVerifier
    secret_reference: str
    signer_reference: str

    def node_or(self, machine: str) -> str:
        """Return the node's name, the machine's own where none is given.

        Raises:
            LedgerConfigError: It cannot stand in a file's name.
        """
        return check_node(self.node or machine.partition(".")[0])

    def secret(self) -> SecretKey:
        """Read the secret.

        Raises:
            KeyFileError: It is missing, damaged or open to others.
            LedgerConfigError: The reference is not a file's.
        """
        return read_key_file(self._file_of(self.secret_reference, "secret"), expected_id=SECRET_ID)

    def signer(self) -> NoteSigner:
        """Read the signing key of the headers.

        Raises:
            KeyFileError: It is missing or open to others.
            LedgerConfigError: There is none here, or it is not the one that `verifier` names.
        """
        path = self._file_of(self.signer_reference, "signer")
        data = read_private_file(path, limit=_MAX_SIGNER_BYTES, what="ledger signing key")
        try:
            signer = NoteSigner.parse(data.decode("utf-8", "replace").strip())
        except LogFormatError:
            raise KeyFileError(f"{path} holds no signing key of a ledger; restore it") from None
        if signer.verifier != self.verifier:
            raise LedgerConfigError(f"{path} is not the key that `verifier` names; restore it")
        return signer

    def key_log(self) -> KeyLog | None:
        """Return the log that takes the roots; None where there is none, or none to add to here.

        Raises:
            LedgerConfigError: `keys` names a file that cannot be read.
        """
        if self.keys is None:
            return None
        try:
            options: Options = DocumentReader().read(self.keys, read_text(self.keys)).options
        except KeysConfigError as err:
            raise LedgerConfigError(f"{self.path}: keys: {err}") from err
        if options.log is None or not options.log.signer:
            return None
        return KeyLog(self.keys.parent, options)

    def _file_of(self, reference: str, what: str) -> Path:
        if not reference.startswith(_FILE_PREFIX):
            raise LedgerConfigError(f'{self.path}: write {what} = "file:PATH", a file kept apart')
        return self.path.parent / reference.removeprefix(_FILE_PREFIX)


def load_settings(path: Path) -> LedgerSettings:
    """Read a `LEDGER.toml`.

    Raises:
        LedgerConfigError: It is missing or malformed.
    """
    try:
        fields = msgspec.toml.decode(path.read_text(encoding="utf-8"), type=_Fields)
        verifier = NoteVerifier.parse(fields.verifier)
    except FileNotFoundError as err:
        raise LedgerConfigError(
            f"{path} is missing; `watermark ledger new --dir DIR --name NAME` makes one"
        ) from err
    except (OSError, UnicodeDecodeError, msgspec.DecodeError, LogFormatError) as err:
        raise LedgerConfigError(f"{path}: {err}; correct the file") from err
    folder = path.parent
    return LedgerSettings(
        path=path,
        node=check_node(fields.node) if fields.node else "",
        keeps=Keeps(fields.keeps),
        rows=folder / fields.rows,
        store=_located(fields.store, folder),
        keys=folder / fields.keys if fields.keys else None,
        retention_days=fields.retention_days,
        limits=WriterLimits(
            file_s=fields.segment_seconds,
            reserve_bytes=fields.reserve_mib << 20,
            folder_bytes=fields.rows_mib << 20,
            waiting_bytes=fields.waiting_mib << 20,
        ),
        verifier=verifier,
        secret_reference=fields.secret,
        signer_reference=fields.signer,
    )


def create_ledger(
    path: Path,
    *,
    name: str,
    secret: bytes,
    seed: bytes,
    keeps: Keeps = Keeps.CONTEXTS,
    store: str = "segments",
    keys: str = "",
) -> LedgerSettings:
    """Make a ledger: its file, its secret and its signing key.

    Args:
        path: The `LEDGER.toml` to make; its folder is made too.
        name: The signing key's name, best a URL without its scheme.
        secret: 32 bytes from a cryptographic source.
        seed: 32 further bytes, of the signing key.
        keeps: What is kept of each reply.
        store: Where sealed segments go.
        keys: The `KEYS.toml` whose log takes the roots; empty for none.

    Returns:
        What the file says.

    Raises:
        LedgerConfigError: There is one already, or it cannot be written.
        KeyFileError: A secret cannot be written.
    """
    if len(secret) != SECRET_BYTES:
        raise LedgerConfigError(f"a ledger's secret has {SECRET_BYTES} bytes, not {len(secret)}")
    if path.exists():
        raise LedgerConfigError(f"{path} is there already; nothing was changed")
    try:
        signer = NoteSigner(name, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_key_file(path.parent / "ledger-secret.key", SecretKey(SECRET_ID, secret))
        write_private_file(path.parent / "ledger-signer.key", f"{signer.reveal()}\n".encode())
        text = _format(signer.verifier, keeps, store, keys)
        write_synced(path, text.encode())
        sync_folder(path)
    except (OSError, LogFormatError) as err:
        raise LedgerConfigError(f"cannot make {path}: {err}") from err
    return load_settings(path)


def _format(verifier: NoteVerifier, keeps: Keeps, store: str, keys: str) -> str:
    lines = [
        "schema = 1",
        f'keeps = "{keeps.value}"           # contexts, tokens (encrypted) or none',
        'secret = "file:ledger-secret.key"',
        'signer = "file:ledger-signer.key"',
        f'verifier = "{verifier}"',
        f"store = {msgspec.json.encode(store).decode()}           # a folder, or s3://bucket/path",
    ]
    lines += [f"keys = {msgspec.json.encode(keys).decode()}"] if keys else []
    return "\n".join(lines) + "\n"


def _located(store: str, folder: Path) -> str:
    """Return a store's address; a path without a scheme is relative to the folder."""
    if not store or "://" in store or "::" in store:
        return store
    return str(folder.resolve() / store)
