"""Which contexts were delivered, and how much each counts.

A student learns a context from every text that holds it, so that contexts delivered in many
conversations tell more. Counting them needs care, because what was delivered was chosen with a key.

Rule 1: weights are by context, never by the token that was delivered after it. Rule 2: a context
counts once a conversation. Whether a conversation reaches a context at all does not depend on the
key *at* that context, which is asked only once it is there; how often it comes back does, because
a liked token may lead straight back.

By traffic under other keys the weights are independent of all tested keys, and p-values exact: of
several keys that are tested together, none's traffic counts for any. (Were each weighed by the
others' traffic, likes of one key would choose the weights of another and the other way round; a
world made for it rejects .022 of clean suspects at .01.) A conversation that a rotation fell into,
with replies under a tested key too, is traffic under that key.

By traffic of tested keys each score keeps mean 1 given its weight (rule 2), while weights of other
contexts may lean on it; clean suspects measure .9% at a nominal 1%, and the report says which of
the two was used. Occurrences instead of conversations give 10%, and tokens 97%.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from watermark.errors import AuditDesignError
from watermark.radioactivity.pairs import LEVELS
from watermark.schemes import text_identities
from watermark.seeding import ContextPRF, context_windows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray


class Weighting(enum.StrEnum):
    """Whose traffic weighs a context."""

    FLAT = "flat"
    """Nobody's: every context counts the same. Nothing need be known of what was delivered."""
    OTHER_KEYS = "other-keys"
    """That under keys which are not tested: p-values stay exact."""
    ALL_KEYS = "all-keys"
    """All of it, that of tested keys too: stronger; exact in the mean, and measured."""
    UNDELIVERED = "undelivered"
    """Nobody's, and only contexts that no traffic holds count: a control."""

    def takes(self, key_id: str, tested: Collection[str]) -> bool:
        """Return whether traffic has a say.

        Args:
            key_id: The key it was marked under; empty where that is not known.
            tested: All keys that are tested together.
        """
        return self is not Weighting.OTHER_KEYS or key_id not in {"", *tested}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Traffic:
    """The contexts that were delivered under one key, and in how many conversations.

    Attributes:
        key_id: The key that marked; empty where that is not known.
        fingerprints: Ascending, shape (n,): keyed streams, or key-free identities.
        conversations: How many hold each, shape (n,).
        context_key: The subkey that the fingerprints were made with; None for key-free ones.
        is_engines: Whether that is a ledger's, because an engine's key marked.
    """

    key_id: str
    fingerprints: NDArray[np.uint64]
    conversations: NDArray[np.int64]
    context_key: bytes | None = field(default=None, repr=False)
    is_engines: bool = False

    def __post_init__(self) -> None:
        if not (self.fingerprints[1:] > self.fingerprints[:-1]).all():
            raise AuditDesignError(
                f"the contexts delivered under key {self.key_id!a} are not in ascending order, "
                "each once; write them with `watermark ledger contexts`"
            )

    @classmethod
    def of_conversations(
        cls,
        conversations: Iterable[Sequence[NDArray[np.uint32]]],
        context_width: int,
        *,
        key_id: str = "",
    ) -> Traffic:
        """Count the contexts of delivered conversations (rule 2), without any key.

        Args:
            conversations: The units of each one's assistant turns.
            context_width: Units in a context.
            key_id: The key that marked them; empty where that is not known.
        """
        counts = Counter[int]()
        for turns in conversations:
            windows = [context_windows(ids, context_width) for ids in turns]
            if windows:
                counts.update(np.unique(text_identities(np.concatenate(windows))).tolist())
        found = np.array(sorted(counts), np.uint64)
        numbers = np.array([counts[one] for one in found.tolist()], np.int64)
        return cls(key_id=key_id, fingerprints=found, conversations=numbers)

    def counts(self, contexts: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return how many conversations hold each context, shape (n,)."""
        if not len(self.fingerprints) or not len(contexts):
            return np.zeros(len(contexts), np.int64)
        if self.context_key is None:
            asked = text_identities(contexts)
        else:
            asked = ContextPRF(self.context_key).evaluate(contexts)[0]
        places = np.searchsorted(self.fingerprints, asked).clip(max=len(self.fingerprints) - 1)
        found = self.fingerprints[places] == asked
        return np.where(found, self.conversations[places], 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextWeights:
    """How much the contexts of an audit count.

    Attributes:
        weighting: Whose traffic weighs.
        full_at: Conversations from which on a context counts fully, >= 1. At 1 the weights are a
            filter: delivered or not.
        floor: Weight of a context that was not delivered, in [0, 1].
        traffic: What was delivered.
    """

    weighting: Weighting = Weighting.FLAT
    full_at: int = 16
    floor: float = 0.0
    traffic: tuple[Traffic, ...] = ()

    def __post_init__(self) -> None:
        if self.full_at < 1 or not 0.0 <= self.floor <= 1.0:
            raise AuditDesignError(
                f"full_at {self.full_at} and floor {self.floor} make no weights; choose at least 1 "
                "conversation, and a floor in 0..1"
            )

    def of(self, tested: Collection[str], contexts: NDArray[np.uint32]) -> NDArray[np.float64]:
        """Return the weights of contexts, the same for all keys of a test, in steps of 1/32.

        Args:
            tested: Ids of all keys that are tested together.
            contexts: Shape (n, context_width).

        Returns:
            In [0, 1], shape (n,).
        """
        if self.weighting is Weighting.FLAT:
            return np.ones(len(contexts))
        counts = np.zeros(len(contexts), np.int64)
        for one in self.traffic:
            if self.weighting.takes(one.key_id, tested):
                counts += one.counts(contexts)
        if self.weighting is Weighting.UNDELIVERED:
            return np.where(counts == 0, 1.0, 0.0)
        shares = np.minimum(1.0, np.log1p(counts) / np.log1p(self.full_at))
        weights = self.floor + (1.0 - self.floor) * shares
        return np.asarray(np.ceil(weights * LEVELS) / LEVELS)
