"""RFC 3161 time stamps of the log's checkpoints: a third party says that they existed by then.

Rule 1: a checkpoint is stamped, and with it every entry before it. Rule 2: a request is stored
before it is sent; where the authority does not answer, it waits there. Rule 3: an answer counts
only when it verifies against the certificate that the operator named.

Source: RFC 3161; `watermark/spec/commitment.md`, section "Time stamps".
"""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509

from watermark.errors import LogError, TimestampError
from watermark.keys.folder import FolderStorage
from watermark.keys.sources.extras import need
from watermark.log import LogReader, open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from watermark.keys.document import TimestampOptions
    from watermark.log import NoteVerifier, VerifiedCheckpoint

FOLDER: Final = "stamps"
MAX_ANSWER_BYTES: Final = 1 << 20
_USE: Final = "a time stamp"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedStamp:
    """Shown: an authority one trusts has seen a checkpoint.

    Attributes:
        size: Entries that the checkpoint is over.
        time: When the authority saw it.
    """

    size: int
    time: datetime


class Stamps:
    """The stamps of one log.

    Args:
        folder: Of the log.
        verifier: The key of the log.
        roots: PEM certificates of the authorities that count.
    """

    def __init__(self, folder: Path, verifier: NoteVerifier, roots: bytes) -> None:
        self._folder = folder / FOLDER
        self._storage = FolderStorage(self._folder)
        self._storage_of_log = FolderStorage(folder)
        self._verifier = verifier
        self._roots = roots
        self._known: dict[bytes, VerifiedStamp] = {}

    def queue(self, checkpoint: VerifiedCheckpoint) -> None:
        """Store the request for a stamp of a checkpoint, unless there is one.

        Raises:
            SecretSourceError: rfc3161-client is not installed.
        """
        client = need("rfc3161_client", "timestamp", _USE)
        name = str(checkpoint.size)
        if self._storage.read(f"{name}.tsq") is not None:
            return
        request = client.TimestampRequestBuilder().data(checkpoint.note)
        request = request.cert_request(cert_request=True).build()
        self._storage.write(f"{name}.note", checkpoint.note)
        self._storage.write(f"{name}.tsq", request.as_bytes())

    def waiting(self) -> list[int]:
        """Return the sizes of the checkpoints whose stamps are asked for and not there."""
        asked = {path.stem for path in self._folder.glob("*.tsq")}
        return sorted(int(name) for name in asked if self._storage.read(f"{name}.tsr") is None)

    def send(self, size: int, post: Callable[[bytes], bytes]) -> VerifiedStamp:
        """Ask for a stamp that waits, and keep the answer where it holds.

        Args:
            size: Of the checkpoint.
            post: Hands the request to the authority and returns its answer.

        Raises:
            TimestampError: The authority does not answer, or its answer does not hold.
        """
        request = self._storage.read(f"{size}.tsq")
        note = self._storage.read(f"{size}.note")
        if request is None or note is None:
            raise TimestampError(f"no stamp of the log at {size} entries was asked for")
        answer = post(request)
        stamp = self._verify(size, note, answer)
        self._storage.write(f"{size}.tsr", answer)
        return stamp

    def verified(self, reader: LogReader) -> list[VerifiedStamp]:
        """Return the stamps that hold, of checkpoints that the log extends, by size.

        Args:
            reader: The log.
        """
        found = []
        for path in self._folder.glob("*.tsr"):
            name = path.stem
            note, answer = self._storage.read(f"{name}.note"), self._storage.read(path.name)
            if note is None or answer is None or not name.isdecimal():
                continue
            stamp = self._known.get(note + answer)
            try:
                if stamp is None:
                    stamp = self._verify(int(name), note, answer)
                checkpoint = open_checkpoint(note, self._verifier.name, [self._verifier])
                reader.prove_consistency(checkpoint.checkpoint)
            except (TimestampError, LogError):
                continue
            self._known[note + answer] = stamp
            found.append(stamp)
        return sorted(found, key=lambda stamp: stamp.size)

    def _verify(self, size: int, note: bytes, answer: bytes) -> VerifiedStamp:
        """Return what an answer shows."""
        try:
            checkpoint = open_checkpoint(note, self._verifier.name, [self._verifier])
        except LogError as err:
            raise TimestampError(f"stamp {size} is of another log; remove it") from err
        if checkpoint.size != size:
            raise TimestampError(f"stamp {size} is of another checkpoint; remove it")
        return verify_stamp(self._roots, checkpoint, answer)

    def best(self, reader: LogReader, index: int) -> tuple[LogReader, bytes] | None:
        """Return the log at its first stamped checkpoint over an entry, and the stamp."""
        for stamp in self.verified(reader):
            note = self._storage.read(f"{stamp.size}.note")
            answer = self._storage.read(f"{stamp.size}.tsr")
            if stamp.size > index and note is not None and answer is not None:
                checkpoint = open_checkpoint(note, self._verifier.name, [self._verifier])
                return LogReader(self._storage_of_log, checkpoint), answer
        return None


def verify_stamp(roots: bytes, checkpoint: VerifiedCheckpoint, answer: bytes) -> VerifiedStamp:
    """Return what a stamp shows about a checkpoint.

    Args:
        roots: PEM certificates of the authorities that count.
        checkpoint: The checkpoint.
        answer: The authority's answer.

    Raises:
        TimestampError: It does not hold.
        SecretSourceError: rfc3161-client is not installed.
    """
    client = need("rfc3161_client", "timestamp", _USE)
    try:
        response: Any = client.decode_timestamp_response(answer)
        builder = client.VerifierBuilder()
        for certificate in x509.load_pem_x509_certificates(roots):
            builder = builder.add_root_certificate(certificate)
        builder.build().verify_message(response, checkpoint.note)
        time: datetime = response.tst_info.gen_time
    except (ValueError, client.VerificationError) as err:
        raise TimestampError(
            f"the stamp of the log at {checkpoint.size} entries does not hold: "
            f"{str(err)[:1].lower()}{str(err)[1:]}; ask again, or correct the roots"
        ) from err
    return VerifiedStamp(size=checkpoint.size, time=time)


def poster(options: TimestampOptions) -> Callable[[bytes], bytes]:
    """Return what hands a request to the authority of `[timestamp]`.

    Raises:
        TimestampError: No address is given.
    """
    if not options.url.startswith(("https://", "http://")):
        raise TimestampError("[timestamp] has no url; give the authority's, or send by hand")

    def post(request: bytes) -> bytes:
        asked = urllib.request.Request(  # noqa: S310 - http or https, as checked above
            options.url, data=request, headers={"Content-Type": "application/timestamp-query"}
        )
        try:
            with urllib.request.urlopen(asked, timeout=options.timeout_s) as answer:  # noqa: S310
                data: bytes = answer.read(MAX_ANSWER_BYTES)
        except (OSError, ValueError, urllib.error.URLError) as err:
            raise TimestampError(
                f"time-stamp authority {options.url} does not answer ({type(err).__name__}); "
                "the request waits and is sent again by `watermark keys commit`"
            ) from err
        return data

    return post
