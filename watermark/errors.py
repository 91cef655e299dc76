"""Every error of the library, in one tree.

Each class says who is to blame; each message names the value and the remedy, and never holds
key material or the text under test::

    WatermarkError
    ├── InputError
    │   ├── AccountsFileError
    │   ├── TextEncodingError
    │   ├── TextTooShortError
    │   ├── TokenIdError
    │   └── VectorsError
    ├── KeysError
    │   ├── KeyFileError
    │   │   ├── KeyFilePermissionError
    │   │   └── SecretSourceError
    │   ├── KeysConfigError
    │   │   └── ConcurrentEditError
    │   ├── KeyHistoryError
    │   └── CommitmentError
    │       └── TimestampError
    ├── CorpusError
    │   └── ScanJournalError
    ├── UnitError
    │   ├── TokenizerFileError
    │   └── UnitMismatchError
    ├── SchemeParameterError
    ├── AuditError
    │   ├── AuditDesignError
    │   ├── AuditPlanError
    │   ├── AuditRunError
    │   └── SuspectError
    ├── ModelServerError
    ├── WireError
    ├── LedgerError
    │   ├── LedgerConfigError
    │   ├── LedgerUnavailableError
    │   ├── LedgerFileError
    │   └── SegmentError
    └── LogError
        ├── LogFormatError
        ├── LogVerificationError
        ├── LogRangeError
        └── LogStorageError
            └── LogForkError
"""

from __future__ import annotations


class WatermarkError(Exception):
    """Root of every error that this library raises on purpose."""


class InputError(WatermarkError):
    """The text or the numbers handed in cannot be tested."""


class AccountsFileError(InputError):
    """The list of accounts is missing, malformed, or contradicts itself."""


class TextEncodingError(InputError):
    """The bytes handed in are not UTF-8."""


class TextTooShortError(InputError):
    """The text holds no position that could be scored."""


class TokenIdError(InputError):
    """A token id is outside the range that seeding allows."""


class VectorsError(InputError):
    """A vectors file is not of the form that the seeding specification gives."""


class KeysError(WatermarkError):
    """A key cannot be used as it stands on disk."""


class KeyFileError(KeysError):
    """A secret's file is missing, damaged, or belongs to another key."""


class KeyFilePermissionError(KeyFileError):
    """A secret's file can be read by others than its owner."""


class SecretSourceError(KeyFileError):
    """A place that keeps secrets does not answer, or needs a package that is not installed."""


class KeysConfigError(KeysError):
    """The file that names the keys is malformed or contradicts itself."""


class ConcurrentEditError(KeysConfigError):
    """The file that names the keys was changed by another while it was edited."""


class KeyHistoryError(KeysError):
    """The record of what keys were used for is damaged, or contradicts the file."""


class CommitmentError(KeysError):
    """A commitment to a key is missing, malformed, or does not hold."""


class TimestampError(CommitmentError):
    """A time stamp is missing, its authority does not answer, or it does not hold."""


class CorpusError(WatermarkError):
    """A corpus cannot be scanned as it was asked for."""


class ScanJournalError(CorpusError):
    """What a scan has kept of its work is of another scan, in use, or damaged."""


class UnitError(WatermarkError):
    """Text cannot be cut into the units that a key asks for."""


class TokenizerFileError(UnitError):
    """A tokenizer file is missing or cannot be loaded."""


class UnitMismatchError(UnitError):
    """A tokenizer is not the one that the key was made for."""


class SchemeParameterError(WatermarkError):
    """A scheme was given parameters or arrays that it is not defined for."""


class AuditError(WatermarkError):
    """An audit of a model cannot be made as it was asked for."""


class AuditDesignError(AuditError):
    """A design cannot give a valid or a useful answer."""


class AuditPlanError(AuditError):
    """A plan is malformed, was changed, is not logged, or cannot succeed."""


class AuditRunError(AuditError):
    """What was stored of an audit is missing, of another plan, or was changed."""


class SuspectError(AuditError):
    """A suspect model cannot be reached, or does not say what it was asked."""


class ModelServerError(WatermarkError):
    """A model server cannot be reached, or does not say what it was asked."""


class WireError(WatermarkError):
    """Bytes from a peer do not follow the protocol they claim."""


class LedgerError(WatermarkError):
    """The ledger of what was delivered cannot be used."""


class LedgerConfigError(LedgerError):
    """The file that describes a ledger is malformed, or names what is not there."""


class LedgerUnavailableError(LedgerError):
    """The ledger cannot be written now, so nothing may be marked."""


class LedgerFileError(LedgerError):
    """A file of the ledger cannot be opened, written or read."""


class SegmentError(LedgerError):
    """A sealed segment is missing, malformed, or not what its header says."""


class LogError(WatermarkError):
    """The append-only log, or a proof about it, cannot be used."""


class LogFormatError(LogError):
    """Bytes are not the note, checkpoint, tile, bundle, path, key or proof they are read as."""


class LogVerificationError(LogError):
    """A signature, an inclusion proof or a consistency proof does not hold."""


class LogRangeError(LogError):
    """An index, a size or an entry is outside what a log holds or can hold."""


class LogStorageError(LogError):
    """What a log has stored is missing, or is not what its checkpoint says."""


class LogForkError(LogStorageError):
    """To go on would show a history that does not extend the one signed before."""
