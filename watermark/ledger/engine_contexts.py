"""What makes the fingerprints of a reply: the key that marked it, or the ledger in its place.

Rule 1: a key of ours makes those of its own replies; they are its streams. Rule 2: nothing is
derived from an engine's key, which may be a small number, so that the ledger's own secret makes
those of what an engine marked; they say nothing of the engine's scores. Rule 3: their contexts are
as wide as those of our own keys are by default, whatever the engine's are: who asks for them tests
a key of ours, and counts by its contexts what was delivered under other keys.

Source: `watermark/spec/ledger.md`, Contents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from watermark.keys import LABEL_LEDGER_CONTEXT, SUBKEY_BYTES
from watermark.keys.record import DEFAULT_CONTEXT_WIDTH
from watermark.seeding import ContextPRF, KeyedUniforms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from watermark.keys import KeyRecord, SecretKey


class Fingerprinter(Protocol):
    """Makes the fingerprints of replies that one key marked."""

    @property
    def record(self) -> KeyRecord:
        """The key that marked."""
        ...

    @property
    def context_width(self) -> int:
        """Number of preceding units in a context."""
        ...

    def streams(self, contexts: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Return the fingerprint of every context, shape (n,); contexts have (n, width)."""
        ...


class EngineContexts:
    """Makes the fingerprints of replies that an engine marked with a key of its own.

    Args:
        record: The engine's key.
        context_key: From `engine_context_key`.
    """

    __slots__ = ("_prf", "record")

    def __init__(self, record: KeyRecord, context_key: bytes) -> None:
        self.record = record
        self._prf = ContextPRF(context_key)

    def __repr__(self) -> str:
        """Show the key id only."""
        return f"<EngineContexts {self.record.key_id!r}>"

    @property
    def context_width(self) -> int:
        """Number of preceding units in a context (rule 3)."""
        return width_of(self.record)

    def streams(self, contexts: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Return the fingerprint of every context, shape (n,); contexts have (n, width)."""
        return self._prf.evaluate(contexts)[0]


def engine_context_key(secret: SecretKey) -> bytes:
    """Return the subkey of a ledger's secret that fingerprints what engines marked, 16 bytes."""
    return secret.subkey(LABEL_LEDGER_CONTEXT, SUBKEY_BYTES[LABEL_LEDGER_CONTEXT])


def width_of(record: KeyRecord) -> int:
    """Return how wide the contexts are whose fingerprints are kept of a key's replies."""
    return DEFAULT_CONTEXT_WIDTH if record.is_foreign else record.context_width


def fingerprinter(record: KeyRecord, context_key: bytes) -> Fingerprinter:
    """Return what makes the fingerprints of a key's replies.

    Args:
        record: The key that marked.
        context_key: From `engine_context_key`.
    """
    if record.is_foreign:
        return EngineContexts(record, context_key)
    return KeyedUniforms(record)
