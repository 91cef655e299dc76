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
from watermark.keys.sources.source import SecretSource, SecretStore
from watermark.keys.sources.vault import TransitSource, VaultClient, VaultSource
from watermark.keys.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from watermark.keys.document import Options
    from watermark.keys.secret import SecretKey

NAMES_NO_PLACE: Final = (
    "`secret` names no file; write `file:` and the path of a key file, never the secret itself; "
    "if it stood here, replace the key"
)


class Secrets:
    """Opens references, each by its adapter, and once as long as no file of it changes.

    Args:
        folder: Where relative paths start.
        options: `[age]` and `[vault]`.
    """

    def __init__(self, folder: Path, options: Options) -> None:
        self._options = options
        self._makers = _makers(folder, options)
        self._sources: dict[str, SecretSource] = {}
        self._known: dict[str, SecretKey] = {}
        self._watch = Watch()
        self.stale: set[str] = set()

    def __len__(self) -> int:
        return len(self._known)

    def opens_as(self, options: Options) -> bool:
        """Whether other options of the file would open the same."""
        return (options.age, options.vault) == (self._options.age, self._options.vault)

    def open(self, reference: str, key_id: str) -> SecretKey:
        """Return the key that a reference stands for.

        Args:
            reference: The field `secret` of a record.
            key_id: The key that it must be.

        Returns:
            The same object as before where it is the same key.

        Raises:
            KeysConfigError: It is no reference.
            KeyFileError: What it names is missing, damaged, too open, or another key's.
        """
        known = self._known.get(reference)
        if known is not None and known.key_id == key_id and reference not in self.stale:
            return known
        source, place = self._source_of(reference)
        for path in source.files(place):
            self._watch.add(str(path), reference)
        key = source.open(place, key_id)
        if key != known:
            self._known[reference] = known = key
        self.stale.discard(reference)
        return known

    def store(self, reference: str, key: SecretKey) -> None:
        """Make the secret that a reference names; what is there already stays as it is.

        Raises:
            KeysConfigError: It is no reference, or of a kind that is not written from here.
            KeyFileError: Something is there, or it cannot be written.
        """
        store, place = self._store_of(reference)
        store.store(place, key)

    def remove(self, reference: str) -> None:
        """Delete the secret that a reference names.

        Raises:
            KeysConfigError: It is no reference, or of a kind that is not written from here.
            KeyFileError: It cannot be deleted.
        """
        store, place = self._store_of(reference)
        store.remove(place)

    def look(self, most: int | None = None) -> bool:
        """Look at the files; what is not as it was is opened anew when asked for.

        Args:
            most: How many of those whose turn it is, beside those that are said to have changed;
                None for every file that may have.

        Returns:
            Whether one has changed.
        """
        found = self._watch.look_thoroughly() if most is None else self._watch.look(most)
        self.stale |= found
        return bool(found)

    def keep(self, references: Iterable[str]) -> None:
        """Forget all others."""
        kept = set(references)
        self._known = {name: key for name, key in self._known.items() if name in kept}
        self.stale &= kept
        self._watch.keep(kept)

    def _source_of(self, reference: str) -> tuple[SecretSource, str]:
        """Return the adapter of a reference, and the place."""
        scheme, colon, rest = reference.partition(":")
        if not colon or not rest or scheme not in self._makers:
            raise KeysConfigError(NAMES_NO_PLACE)
        source = self._sources.get(scheme)
        if source is None:
            source = self._sources[scheme] = self._makers[scheme]()
        return source, rest

    def _store_of(self, reference: str) -> tuple[SecretStore, str]:
        """Return the adapter of a reference, if it can write."""
        source, place = self._source_of(reference)
        if not isinstance(source, SecretStore):
            scheme = reference.partition(":")[0]
            raise KeysConfigError(
                f"a secret by `{scheme}:` is not written from here; write or delete it where it "
                "is kept"
            )
        return source, place


def _makers(folder: Path, options: Options) -> dict[str, Callable[[], SecretSource]]:
    """Return what makes the adapter of each scheme."""
    return {
        "file": lambda: FileSource(folder),
        "age": lambda: AgeSource(folder, options.age),
        "vault": lambda: VaultSource(VaultClient(folder, options.vault)),
        "vault-transit": lambda: TransitSource(VaultClient(folder, options.vault)),
        "env-file": lambda: EnvFileSource(folder),
        "context-subkey": lambda: DisclosedSource(folder),
    }
