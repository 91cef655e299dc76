"""What suspects said, kept line by line: nothing is lost by a kill, and no byte can be changed.

A journal is a file of lines. Each is an object with `before`, the SHA-256 of the line before it;
the first one's is the digest of the plan. So the last line's digest stands for plan and answers.

Rule 1: a line is on the disk before the next prompt is sent in its place. Rule 2: a last line that
is not whole does not count: a run is at writing it, or a kill cut it off. Who reads leaves it where
it is; the next session that writes takes it back. Everything else that does not hold is refused.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

from watermark.errors import AuditRunError

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T", bound=msgspec.Struct)
_FIELD: Final = "before"


class Journal(Generic[T]):
    """One file of what was said under one plan.

    Args:
        path: The file.
        plan_digest: The plan.
        kind: What a line holds.
    """

    def __init__(self, path: Path, plan_digest: str, kind: type[T]) -> None:
        self.path = path
        self._kind = kind
        self.last = plan_digest
        self.entries: list[T] = []
        self._read()

    def _read(self) -> None:
        """Read what is there.

        Raises:
            AuditRunError: A line does not hold, or belongs to another plan.
        """
        try:
            data = self.path.read_bytes() if self.path.exists() else b""
        except OSError as err:
            raise AuditRunError(f"cannot read {self.path}: {err.strerror}; correct it") from err
        whole, _, self._rest = data.rpartition(b"\n")
        for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
            self.entries.append(self._entry(line, number))
            self.last = hashlib.sha256(line).hexdigest()

    def _entry(self, line: bytes, number: int) -> T:
        where = f"{self.path}:{number}"
        try:
            fields = msgspec.json.decode(line, type=dict[str, object])
            before = fields.pop(_FIELD, None)
            entry = msgspec.convert(fields, self._kind)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
            raise AuditRunError(f"{where} was changed; restore the file") from None
        if before != self.last or self._line(entry) != line:
            what = "belongs to another plan" if number == 1 else "does not follow the line before"
            raise AuditRunError(f"{where} {what}, or was changed; restore the file")
        return entry

    def append(self, entry: T) -> None:
        """Add a line and wait for the disk (rule 1).

        Raises:
            AuditRunError: It cannot be written.
        """
        self.mend()
        self._write(self._line(entry), entry)

    def mend(self) -> None:
        """Take back a last line that is not whole, or end one that lacks nothing but its end.

        Only for who writes, and keeps others from it.

        Raises:
            AuditRunError: It cannot be written.
        """
        if self.is_whole:
            return
        rest = self._rest
        try:
            entry = self._entry(rest, len(self.entries) + 1)
        except AuditRunError:
            self._write(b"", None)
        else:
            self._write(rest, entry)

    def _write(self, line: bytes, entry: T | None) -> None:
        """Put a line, or nothing, in the place of what is not whole."""
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                end = file.seek(0, os.SEEK_END) - len(self._rest)
                file.truncate(end)  # rule 2
                file.seek(end)
                if entry is not None:
                    file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as err:
            raise AuditRunError(
                f"cannot write {self.path}: {err.strerror}; make room, and run the command again"
            ) from err
        self._rest = b""
        if entry is not None:
            self.entries.append(entry)
            self.last = hashlib.sha256(line).hexdigest()

    @property
    def is_whole(self) -> bool:
        """Whether the last line is whole (rule 2)."""
        return not self._rest

    def check_whole(self) -> None:
        """Refuse a journal whose last line is cut off.

        Raises:
            AuditRunError: It is.
        """
        if not self.is_whole:
            raise AuditRunError(
                f"{self.path} ends in the middle of a line: a run writes it, or was killed; wait "
                "for its end, or go on with `watermark audit run`, and report again"
            )

    def _line(self, entry: T) -> bytes:
        fields = msgspec.to_builtins(entry)
        return msgspec.json.encode({_FIELD: self.last, **fields}, order="deterministic")
