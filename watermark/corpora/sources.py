"""Which files a scan reads, in which order, and how their bytes are told from changed ones.

Rule 1: files come in the order of the arguments, those of a folder or a glob sorted by name, each
once. Rule 2: what a file holds follows from its name. Rule 3: a file's fingerprint changes when
its bytes do: size and time of change, or what a store gives as its tag.
"""

from __future__ import annotations

import enum
import glob
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Final

from watermark.corpora import remote
from watermark.errors import CorpusError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Format(enum.Enum):
    """What a file holds."""

    TEXT = "text"
    """Characters: a document, or several where it is long."""
    JSONL = "jsonl"
    """One JSON value a line."""
    PARQUET = "parquet"
    """A table."""


class Compression(enum.Enum):
    """What a file's bytes went through."""

    NONE = ""
    GZIP = ".gz"
    ZSTANDARD = ".zst"


FORMATS: Final = {
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".json": Format.JSONL,
    ".parquet": Format.PARQUET,
    ".txt": Format.TEXT,
    ".text": Format.TEXT,
    ".md": Format.TEXT,
}
"""By suffix; a file of another name is taken from a folder never, and as text where it is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file.

    Attributes:
        name: Path or URL.
        size: Bytes, as it is stored.
        fingerprint: Changes when the bytes do.
        format: What it holds.
        compression: What its bytes went through.
    """

    name: str
    size: int
    fingerprint: str
    format: Format
    compression: Compression


def find_sources(paths: Sequence[str]) -> tuple[Source, ...]:
    """Return every file that the arguments name.

    Args:
        paths: Files, folders (read through to the bottom), globs, or URLs of these.

    Raises:
        CorpusError: A path leads to no file, cannot be read, or needs a package.
    """
    found: dict[str, Source] = {}
    for path in paths:
        before = len(found)
        named = _remote(path) if remote.is_url(path) else _local(path)
        for source in named:
            found.setdefault(source.name, source)
        if len(found) == before and not any(name == path for name in found):
            raise CorpusError(
                f"{path} leads to no file that can be scanned; name a file, or a folder or glob "
                f"with {', '.join(sorted(FORMATS))} (also .gz, .zst)"
            )
    return tuple(found.values())


def open_source(source: Source) -> BinaryIO:
    """Return a file's stored bytes, seekable.

    Raises:
        OSError: It cannot be opened.
        CorpusError: Its store needs a package that is not installed.
    """
    if remote.is_url(source.name):
        return remote.open_url(source.name)
    return Path(source.name).open("rb")


def _describe(name: str, size: int, fingerprint: str) -> Source:
    path = PurePosixPath(remote.path_of(name))
    compression = next(
        (one for one in Compression if one.value and path.suffix.lower() == one.value),
        Compression.NONE,
    )
    inner = path.with_suffix("") if compression is not Compression.NONE else path
    return Source(
        name=name,
        size=size,
        fingerprint=fingerprint,
        format=FORMATS.get(inner.suffix.lower(), Format.TEXT),
        compression=compression,
    )


def _is_known(name: str) -> bool:
    """Return whether a file of a folder is one of those that a scan reads."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(remote.path_of(name)).suffixes[-2:]]
    if suffixes and suffixes[-1] in {Compression.GZIP.value, Compression.ZSTANDARD.value}:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in FORMATS


def _local(path: str) -> Iterator[Source]:
    named = Path(path)
    try:
        if named.is_file():
            yield _stat(named)
        elif named.is_dir():
            yield from _folder(named)
        else:
            for match in map(Path, sorted(glob.glob(path, recursive=True))):  # noqa: PTH207
                yield from _folder(match) if match.is_dir() else [_stat(match)]
    except OSError as err:
        reason = (err.strerror or str(err)).lower()
        raise CorpusError(f"{path}: {reason}; correct the path or its permissions") from err


def _folder(folder: Path) -> Iterable[Source]:
    """Return the files of a folder and of those below, hidden ones left out."""
    files = (
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and _is_known(file.name)
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    return map(_stat, files)


def _stat(path: Path) -> Source:
    stat = path.stat()
    return _describe(str(path), stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}")


def _remote(url: str) -> Iterator[Source]:
    for name, size, fingerprint in remote.find_urls(url):
        if name == url or _is_known(name) or "*" in url:
            yield _describe(name, size, fingerprint)
