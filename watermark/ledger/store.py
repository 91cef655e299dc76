"""Where segments lie: a folder, or any store that fsspec knows, such as S3.

Rule 1: a file is written once, under a name that its content or its number gives; writing it again
changes nothing. Rule 2: what was written is read back and compared before it counts as kept.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from watermark.errors import LedgerConfigError, SegmentError
from watermark.keys.folder import write_synced
from watermark.keys.keyfile import sync_folder
from watermark.ledger.headers import SignedHeader, check_next, open_header

try:
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem
except ImportError as err:
    raise LedgerConfigError(
        "a ledger's store needs fsspec; `pip install 'output-watermark[ledger]'` brings it"
    ) from err

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watermark.log import NoteVerifier

_CHUNK: Final = 1 << 20
_HEADER: Final = re.compile(r"(\d{8})\.header")


def header_name(number: int) -> str:
    """Return the name of a node's header."""
    return f"{number:08d}.header"


def segment_name(digest: str) -> str:
    """Return the name of a segment, by the SHA-256 of its bytes."""
    return f"{digest}.parquet"


class SegmentStore:
    """The segments of all nodes.

    Args:
        url: A folder, or an address for fsspec.

    Raises:
        LedgerConfigError: There is no such kind of store, or it needs a package.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._fs, self._root = url_to_fs(url)
        except (ValueError, ImportError, OSError) as err:
            raise LedgerConfigError(f"store {url!a} cannot be used: {err}") from err
        self._is_local = isinstance(self._fs, LocalFileSystem)

    def nodes(self) -> list[str]:
        """Return the nodes that have sealed something, sorted.

        Raises:
            SegmentError: The store does not answer.
        """
        with _answering(self.url):
            if not self._fs.exists(self._root):
                return []
            found = self._fs.ls(self._root, detail=True)
            names = [
                str(one["name"]).rstrip("/").rpartition("/")[2]
                for one in found
                if one["type"] == "directory"
            ]
        return sorted(names)

    def path(self, node: str, name: str) -> str:
        """Return the path of a node's file, as fsspec and pyarrow take it."""
        return f"{self._root}/{node}/{name}"

    def open(self, node: str, name: str) -> Any:  # noqa: ANN401 - fsspec has no types
        """Open a node's file to read.

        Raises:
            SegmentError: It is not there, or the store does not answer.
        """
        with _answering(self.url):
            return self._fs.open(self.path(node, name), "rb")

    def read(self, node: str, name: str) -> bytes | None:
        """Return a small file's bytes, None where there is none.

        Raises:
            SegmentError: The store does not answer.
        """
        with _answering(self.url):
            self._fs.invalidate_cache()
            try:
                return bytes(self._fs.cat_file(self.path(node, name)))
            except FileNotFoundError:
                return None

    def digest(self, node: str, name: str) -> str | None:
        """Return the SHA-256 of a file as the store has it, None where there is none.

        Raises:
            SegmentError: The store does not answer.
        """
        digest = hashlib.sha256()
        with _answering(self.url):
            self._fs.invalidate_cache()
            try:
                with self._fs.open(self.path(node, name), "rb") as file:
                    while chunk := file.read(_CHUNK):
                        digest.update(chunk)
            except FileNotFoundError:
                return None
        return digest.hexdigest()

    def keep(self, node: str, name: str, source: Path, digest: str) -> None:
        """Put a file there, unless it is; then read it back.

        Raises:
            SegmentError: The store does not answer, or holds other bytes under that name.
        """
        known = self.digest(node, name)
        if known is None:
            with _answering(self.url):
                self._write(node, name, source)
            known = self.digest(node, name)
        if known != digest:
            raise SegmentError(
                f"store {self.url} holds other bytes as {node}/{name}; another ledger of that "
                "node writes there, or the file was changed"
            )

    def remove(self, node: str, name: str) -> None:
        """Remove a file; no matter if it is gone.

        Raises:
            SegmentError: The store does not answer.
        """
        with _answering(self.url):
            try:
                self._fs.rm_file(self.path(node, name))
            except FileNotFoundError:
                return

    def headers(self, node: str, verifier: NoteVerifier) -> Iterator[SignedHeader]:
        """Yield a node's headers from the first on, each held against the one before.

        Raises:
            SegmentError: One is malformed, not signed by that key, or does not follow.
        """
        before: SignedHeader | None = None
        number = 1
        while (note := self.read(node, header_name(number))) is not None:
            header = open_header(note, verifier)
            check_next(before, header)
            yield header
            before, number = header, number + 1
        with _answering(self.url):
            names = [
                str(name).rpartition("/")[2]
                for name in self._fs.ls(f"{self._root}/{node}", detail=False)
            ]
        numbers = [int(found[1]) for name in names if (found := _HEADER.fullmatch(name))]
        if max(numbers, default=0) >= number:
            raise SegmentError(f"header {number} of node {node} is missing; restore it")

    def _write(self, node: str, name: str, source: Path) -> None:
        target = self.path(node, name)
        self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        if not self._is_local:
            self._fs.put_file(str(source), target)
            return
        draft = Path(target).with_name(f".{name}.draft")
        write_synced(draft, source.read_bytes(), 0o600)  # as secret as the key
        draft.replace(target)
        sync_folder(Path(target))


class _answering:  # noqa: N801 - used as a context, like contextlib's
    """Turn whatever a store raises into one error."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, err: BaseException | None, trace: object) -> None:
        """Say which store does not answer."""
        is_ours = isinstance(err, SegmentError | LedgerConfigError)
        if isinstance(err, Exception) and not is_ours:
            reason = str(err).partition("\n")[0] or type(err).__name__
            raise SegmentError(
                f"store {self._url} does not answer: {reason}; it is tried again"
            ) from err
