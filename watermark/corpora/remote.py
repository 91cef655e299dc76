"""Files behind a URL: `s3://`, `gs://`, `https://` and whatever else fsspec knows.

Only this file knows the package fsspec (extra `corpora`; `s3://` needs the extra `s3`, too). Access
data are those that the store's own client finds: environment, profile, instance role.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast
from urllib.parse import unquote, urlsplit

from watermark.corpora.extras import need
from watermark.errors import CorpusError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK: Final = "://"
_WEB: Final = ("http://", "https://")
_TAGS: Final = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "mtime")
_BLOCK_BYTES: Final = 4 << 20  # fetched at a time


def is_url(path: str) -> bool:
    """Return whether a path is a URL."""
    return _MARK in path


def path_of(name: str) -> str:
    """Return the part of a path or URL that names a file, whose suffix says what it holds.

    A query or fragment is no part of that over HTTP, as in presigned URLs; the names of an object
    store may hold `?` and `#` themselves. Of a chain, `a::b`, the first link counts.
    """
    if not is_url(name):
        return name
    link = name.partition("::")[0]
    return unquote(urlsplit(link).path) if link.startswith(_WEB) else link


def find_urls(url: str) -> Iterator[tuple[str, int, str]]:
    """Yield name, size and fingerprint of every file that a URL names, sorted by name.

    Args:
        url: A file, a folder or a glob.

    Raises:
        CorpusError: The store does not answer, or a package is missing.
    """
    scheme = url.partition(_MARK)[0]
    try:
        fs, path = need("fsspec", "corpora", f"{scheme}:// URLs").core.url_to_fs(url)
        if fs.isfile(path):
            names = [path]
        else:
            names = sorted(fs.glob(path) if "*" in path else fs.find(path))
        for name in names:
            info = fs.info(name)
            if info.get("type", "file") == "file":
                given = url if name == path else str(fs.unstrip_protocol(name))
                yield given, int(info.get("size") or 0), _fingerprint(info)
    except CorpusError:
        raise
    except Exception as err:  # every store has errors of its own
        raise CorpusError(
            f"{url}: {type(err).__name__} from the store; check the URL and your access to it"
        ) from err


def open_url(url: str) -> BinaryIO:
    """Return a file's bytes, seekable, read ahead in blocks.

    Raises:
        OSError: It cannot be opened.
        CorpusError: A package is missing.
    """
    fsspec = need("fsspec", "corpora", f"{url.partition(_MARK)[0]}:// URLs")
    fs, path = fsspec.core.url_to_fs(url)
    # A store's file reads lines of any length only; the buffer bounds them.
    return cast("BinaryIO", io.BufferedReader(fs.open(path, "rb", block_size=_BLOCK_BYTES)))


def _fingerprint(info: dict[str, Any]) -> str:
    """Return size and the first tag that the store gives."""
    tag = next((str(info[name]) for name in _TAGS if info.get(name)), "")
    return f"{info.get('size')}-{tag}"
