"""What was delivered: durable rows, sealed into segments that nobody can change unseen.

`Ledger` is what a serving process holds; the other names read what it has written. The
forms are specified in `watermark/spec/ledger.md`.
"""

from watermark.ledger.contents import (
    Delivered,
    fingerprints,
    pack_tokens,
    unpack_fingerprints,
    unpack_tokens,
)
from watermark.ledger.engine_contexts import (
    EngineContexts,
    Fingerprinter,
    engine_context_key,
    fingerprinter,
    width_of,
)
from watermark.ledger.files import FileName, FileRows, files_in, is_live, read_file
from watermark.ledger.ledger import Entry, Ledger, Pseudonyms
from watermark.ledger.limits import State, WriterLimits, WriterStats
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
from watermark.ledger.settings import (
    DEFAULT_FILE,
    LedgerSettings,
    create_ledger,
    load_settings,
)
from watermark.ledger.vault import Vault
from watermark.ledger.writer import LedgerWriter

__all__ = [
    "DEFAULT_FILE",
    "Beginning",
    "Delivered",
    "Ending",
    "EngineContexts",
    "Entry",
    "FileName",
    "FileRows",
    "Fingerprinter",
    "Gap",
    "Keeps",
    "Kind",
    "Ledger",
    "LedgerSettings",
    "LedgerWriter",
    "Outcome",
    "Pseudonyms",
    "Row",
    "State",
    "Vault",
    "WriterLimits",
    "WriterStats",
    "create_ledger",
    "engine_context_key",
    "files_in",
    "fingerprinter",
    "fingerprints",
    "gap_of",
    "is_live",
    "load_settings",
    "pack_tokens",
    "read_file",
    "unpack_fingerprints",
    "unpack_tokens",
    "width_of",
]
