"""What was delivered: durable rows, sealed into segments that nobody can change unseen.

`LedgerWriter` is what a serving process holds; the other names read what it has written. The
forms are specified in `watermark/spec/ledger.md`.
"""

from watermark.ledger.files import FileName, FileRows, files_in, is_live, read_file
from watermark.ledger.rows import (
    Beginning,
    Ending,
    Gap,
    Keeps,
    Kind,
    Outcome,
    Row,
    gap_of,
)
from watermark.ledger.writer import LedgerWriter, State, WriterLimits, WriterStats

__all__ = [
    "Beginning",
    "Ending",
    "FileName",
    "FileRows",
    "Gap",
    "Keeps",
    "Kind",
    "LedgerWriter",
    "Outcome",
    "Row",
    "State",
    "WriterLimits",
    "WriterStats",
    "files_in",
    "gap_of",
    "is_live",
    "read_file",
]
