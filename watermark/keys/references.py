"""From the reference that a record gives to the secret it stands for.

Rule 1: a reference names a place, and never is the secret; what has no known scheme may be the
secret itself, so it is not quoted. Rule 2: the environment holds no secret: every process of the
same user can read it in `/proc`. Rule 3: one scheme, one adapter.

Source: `watermark/spec/key-file.md`, section "Secrets".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from watermark.errors import KeysConfigError
from watermark.keys.sources.age import AgeSource
from watermark.keys.sources.disclosed import DisclosedSource
from watermark.keys.sources.env_file import EnvFileSource
from watermark.keys.sources.local import FileSource
from watermark.keys.sources.vault import TransitSource, VaultClient, VaultSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from watermark.keys.document import Options
    from watermark.keys.secret import SecretKey
    from watermark.keys.sources.source import SecretSource

NAMES_NO_PLACE: Final = (
    "`secret` names no file; write `file:` and the path of a key file, never the secret itself; "
    "if it stood here, replace the key"
)


class Secrets:
    """Opens references, each by its adapter; what has not changed is not read again.

    Args:
        folder: Where relative paths start.
        options: `[age]` and `[vault]`.
    """

    def __init__(self, folder: Path, options: Options) -> None:
        self.options = options
        self._makers: dict[str, Callable[[], SecretSource]] = {
            "file": lambda: FileSource(folder),
            "age": lambda: AgeSource(folder, "" if options.age is None else options.age.identity),
            "vault": lambda: VaultSource(VaultClient(folder, options.vault)),
            "vault-transit": lambda: TransitSource(VaultClient(folder, options.vault)),
            "env-file": lambda: EnvFileSource(folder),
            "context-subkey": lambda: DisclosedSource(folder),
        }
        self._sources: dict[str, SecretSource] = {}

    def open(self, reference: str, key_id: str) -> SecretKey:
        """Return the key that a reference stands for.

        Args:
            reference: The field `secret` of a record.
            key_id: The key that it must be.

        Raises:
            KeysConfigError: It is no reference.
            KeyFileError: What it names is missing, damaged, too open, or another key's.
        """
        scheme, colon, rest = reference.partition(":")
        if not colon or not rest or scheme not in self._makers:
            raise KeysConfigError(NAMES_NO_PLACE)
        source = self._sources.get(scheme)
        if source is None:
            source = self._sources[scheme] = self._makers[scheme]()
        return source.open(rest, key_id)
