"""One data key an account: who destroys it has erased what the ledger kept of the account.

Rule 1: a data key is random, on the disk before anything is encrypted under it, and encrypted
under the ledger's secret. Rule 2: to erase is to overwrite the key; no segment is touched. Rule 3:
an account that comes back after it was erased gets another key.

Source: `watermark/spec/ledger.md`, Contents; NIST SP 800-38D (AES-GCM, random 96-bit nonces: at
most 2^32 messages a key).
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

import apsw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from watermark.errors import LedgerFileError
from watermark.keys import LABEL_LEDGER_WRAP, SUBKEY_BYTES, SecretKey
from watermark.ledger.files import cause_of, check_sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

VAULT_FILE: Final = "accounts.vault"
DATA_KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
NOBODY: Final = bytes(16)  # the account of replies to nobody known
_WAIT_MS: Final = 10_000
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS keys (account BLOB PRIMARY KEY, wrapped BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS erased (account BLOB NOT NULL, at_us INTEGER NOT NULL) STRICT;
"""


class Vault:
    """The data keys of a node's accounts, shared by its workers.

    Args:
        path: The file, which is made.
        secret: The ledger's secret.
        entropy: Returns so many random bytes.

    Raises:
        LedgerFileError: It cannot be opened.
    """

    def __init__(self, path: Path, secret: SecretKey, entropy: Callable[[int], bytes]) -> None:
        check_sqlite(apsw.sqlite_lib_version())
        self._path = path
        self._entropy = entropy
        self._wrap = AESGCM(secret.subkey(LABEL_LEDGER_WRAP, SUBKEY_BYTES[LABEL_LEDGER_WRAP]))
        self._known: dict[bytes, AESGCM] = {}
        self._version = -1
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._db = apsw.Connection(str(path))
            self._db.set_busy_timeout(_WAIT_MS)
            self._db.execute("PRAGMA secure_delete=ON; PRAGMA synchronous=EXTRA")
            self._db.execute(_TABLES)
        except (apsw.Error, OSError) as err:
            raise self._error(err) from err

    def seal(self, account: bytes | None, reply: bytes, plain: bytes) -> bytes:
        """Encrypt under an account's key, which is made where there is none.

        Args:
            account: Its pseudonym; None for nobody known.
            reply: What the bytes belong to; they decrypt with it only.
            plain: The bytes.

        Raises:
            LedgerFileError: The key cannot be read or made.
        """
        return self.seal_each([(account, reply, plain)])[0]

    def seal_each(self, parts: Sequence[tuple[bytes | None, bytes, bytes]]) -> list[bytes]:
        """Encrypt several at once, as `seal` does; whether a key was erased is asked one time.

        Args:
            parts: Each account, reply and plain bytes.

        Raises:
            LedgerFileError: A key cannot be read or made.
        """
        keys = self._keys({account or NOBODY for account, _, _ in parts})
        sealed = []
        for account, reply, plain in parts:
            nonce = self._entropy(NONCE_BYTES)
            sealed.append(nonce + keys[account or NOBODY].encrypt(nonce, plain, reply))
        return sealed

    def open(self, account: bytes | None, reply: bytes, sealed: bytes) -> bytes | None:
        """Decrypt; None where the account was erased, or has a new key since.

        Raises:
            LedgerFileError: The vault cannot be read.
        """
        self._refresh()
        key = self._known.get(account or NOBODY) or self._stored(account or NOBODY)
        if key is None:
            return None
        with contextlib.suppress(InvalidTag):
            return key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], reply)
        return None

    def erase(self, account: bytes, at_us: int) -> bool:
        """Destroy an account's key.

        Returns:
            Whether there was one.

        Raises:
            LedgerFileError: It could not be destroyed.
        """
        try:
            with self._db:
                there = self._db.execute(
                    "DELETE FROM keys WHERE account = ? RETURNING 1", (account,)
                ).get
                self._db.execute("INSERT INTO erased VALUES (?, ?)", (account, at_us))
            self._db.execute("VACUUM")
        except apsw.Error as err:
            raise self._error(err) from err
        self._known.pop(account, None)
        return bool(there)

    def erased(self) -> dict[bytes, int]:
        """Return when each account was last erased, in microseconds since 1970."""
        return dict(self._db.execute("SELECT account, max(at_us) FROM erased GROUP BY account"))

    def close(self) -> None:
        """Let the file go."""
        self._db.close()

    def _keys(self, accounts: set[bytes]) -> dict[bytes, AESGCM]:
        """Return each account's key; those that are not there are made in one transaction."""
        self._refresh()
        keys = {account: self._known.get(account) or self._stored(account) for account in accounts}
        self._make([account for account, key in keys.items() if key is None])
        return {account: key or self._made(account) for account, key in keys.items()}

    def _refresh(self) -> None:
        """Forget every key once another process has changed the file: it may have erased one."""
        version = self._db.execute("PRAGMA data_version").get
        if version != self._version:
            self._known.clear()
            self._version = version

    def _stored(self, account: bytes) -> AESGCM | None:
        try:
            found = self._db.execute("SELECT wrapped FROM keys WHERE account = ?", (account,)).get
            if found is None:
                return None
            key = self._wrap.decrypt(found[:NONCE_BYTES], found[NONCE_BYTES:], account)
        except apsw.Error as err:
            raise self._error(err) from err
        except InvalidTag as err:
            raise LedgerFileError(
                f"{self._path} belongs to another secret; restore the one that it was made with"
            ) from err
        self._known[account] = AESGCM(key)
        return self._known[account]

    def _make(self, accounts: Sequence[bytes]) -> None:
        if not accounts:
            return
        try:
            with self._db:
                self._db.executemany(
                    "INSERT OR IGNORE INTO keys VALUES (?, ?)",
                    [(account, self._wrapped_key(account)) for account in accounts],
                )
        except apsw.Error as err:
            raise self._error(err) from err

    def _wrapped_key(self, account: bytes) -> bytes:
        nonce = self._entropy(NONCE_BYTES)
        return nonce + self._wrap.encrypt(nonce, self._entropy(DATA_KEY_BYTES), account)

    def _made(self, account: bytes) -> AESGCM:
        """Return the key that is in the file now: another worker may have been first."""
        key = self._stored(account)
        if key is None:
            raise LedgerFileError(f"the key of an account went while it was made in {self._path}")
        return key

    def _error(self, err: Exception) -> LedgerFileError:
        return LedgerFileError(f"cannot use {self._path}: {cause_of(err)}; check the disk")
