"""The pairs of a text that count, found without any key.

Rule 1: of the positions with a context, the first of each context in a reply counts.
Rule 2: a context that occurs anywhere in excluded text does not count.
Rule 3: over everything tested together, each (context, token) pair counts once.

All three look at the text only, so the pairs are cut once and held against any number of keys,
and the scores of what is left are as independent as those of what was left out. Leaving out
positions by their contexts keeps a p-value valid whatever the excluded text is, and whoever chose
it, as long as the choice knew nothing of the key; leaving out by token or by score would not.

Repeats are found on 64-bit identities. Equal n-grams always share theirs; different ones do by
chance (2^-64) or by someone's construction, and then one is left out too many, which is a choice
by the text again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.schemes import NO_CONTEXTS, all_windows, counted, text_identities
from watermark.seeding import context_windows, first_occurrences, pair_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

_EMPTY: Final = np.zeros(0, np.uint32)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistinctPairs:
    """What one body of evidence puts before every key of one context width.

    Attributes:
        contexts: Shape (n, context_width).
        tokens: Shape (n,).
        places: Where each stands among the positions that have a whole context, reply after
            reply, shape (n,).
        n_tokens: Units in the text.
        n_contexts: Positions with a whole context before them.
        n_excluded: First positions left out because their context occurs in excluded text.
    """

    contexts: NDArray[np.uint32]
    tokens: NDArray[np.uint32]
    places: NDArray[np.int64]
    n_tokens: int
    n_contexts: int
    n_excluded: int

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.tokens)


def context_identities(
    texts: Iterable[NDArray[np.uint32]], context_width: int
) -> NDArray[np.uint64]:
    """Return the identity of every n-gram that occurs in some texts, its ends included.

    Args:
        texts: Unit ids, a text each.
        context_width: Units in an n-gram.
    """
    parts = [text_identities(all_windows(ids, context_width)) for ids in texts if len(ids)]
    return np.unique(np.concatenate(parts)) if parts else NO_CONTEXTS


def distinct_pairs(
    replies: Sequence[NDArray[np.uint32]],
    context_width: int,
    excluded: NDArray[np.uint64] = NO_CONTEXTS,
) -> DistinctPairs:
    """Return the pairs that count in replies that are tested together.

    Args:
        replies: Unit ids; each starts afresh.
        context_width: Preceding units in a context, 1..4.
        excluded: Contexts that do not count, as `context_identities` gives them.
    """
    parts = [_reply_pairs(ids, context_width, excluded) for ids in replies or (_EMPTY,)]
    starts = np.cumsum([0, *(part.n_contexts for part in parts[:-1])])
    contexts = np.concatenate([part.contexts for part in parts])
    tokens = np.concatenate([part.tokens for part in parts])
    places = np.concatenate([s + part.places for s, part in zip(starts, parts, strict=True)])
    if len(parts) > 1:
        is_first = first_occurrences(pair_values(text_identities(contexts), tokens))
        contexts, tokens, places = contexts[is_first], tokens[is_first], places[is_first]
    return DistinctPairs(
        contexts=contexts,
        tokens=tokens,
        places=places,
        n_tokens=sum(part.n_tokens for part in parts),
        n_contexts=sum(part.n_contexts for part in parts),
        n_excluded=sum(part.n_excluded for part in parts),
    )


def _reply_pairs(
    ids: NDArray[np.uint32], context_width: int, excluded: NDArray[np.uint64]
) -> DistinctPairs:
    """Return the pairs of one reply (rules 1 and 2)."""
    contexts, tokens = context_windows(ids, context_width), ids[context_width:]
    identities = text_identities(contexts)
    counts = counted(identities, excluded)
    n_first = len(contexts)
    places = np.arange(n_first)
    if counts is not None:
        n_first = int(first_occurrences(identities).sum()) if len(excluded) else int(counts.sum())
        places = places[counts]
        contexts, tokens = contexts[places], tokens[places]
    return DistinctPairs(
        contexts=contexts,
        tokens=tokens,
        places=places,
        n_tokens=len(ids),
        n_contexts=max(0, len(ids) - context_width),
        n_excluded=n_first - len(tokens),
    )
