"""From documents to the positions that may be scored; knows no key.

Rule 1: of the positions with a whole context in their reply, the first of each context in a
document is kept. Rule 2: a position whose context occurs in the document's prompts is left out.
Rule 3: contexts and pairs are told apart by public 64-bit hashes of their ids.

Why this is exact: what is kept is a function of the text alone, so under the null, where the key
is independent of the text, the scores of distinct kept pairs are independent Exp(1) whatever the
rule is. Where two hashes meet by chance, or because someone made them meet, a position is left
out that could have been kept: again by the text alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.seeding import first_occurrences, mix64
from watermark.text import TokenizerUnit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from watermark.corpora.fields import Document
    from watermark.text import Unit

BUCKETS: Final = 4096
"""Contexts fall into these by the high bits of their hash: where distinct pairs are looked for."""
_BUCKET_SHIFT: Final = np.uint64(64 - 12)
_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
_HALF: Final = np.uint64(32)
_ENCODED_TOGETHER: Final = 1 << 19  # characters: the tokenizer holds some 100 bytes a token


@dataclass(frozen=True, slots=True)
class Cut:
    """What one context width of one unit makes of some documents.

    Attributes:
        rows: Shape (n, context_width + 1), uint32: the context, oldest first, and the token of
            every kept position, document by document.
        counts: Shape (n_documents,): rows of each.
        n_tokens: Shape (n_documents,): units of each.
        pairs: Shape (k,), uint32: rows that hold each distinct pair once, sorted by bucket.
        pair_ends: Shape (BUCKETS + 1,): 0, then where each bucket's pairs end.
        prompts: Shape (m, context_width): distinct contexts of the prompts, sorted by bucket.
        prompt_ends: Shape (BUCKETS + 1,): 0, then where each bucket's prompt contexts end.
    """

    rows: NDArray[np.uint32]
    counts: NDArray[np.int64]
    n_tokens: NDArray[np.int64]
    pairs: NDArray[np.uint32]
    pair_ends: NDArray[np.uint32]
    prompts: NDArray[np.uint32]
    prompt_ends: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class _Ids:
    """Unit ids of many texts, one after another."""

    flat: NDArray[np.uint32]
    lengths: NDArray[np.int64]
    documents: NDArray[np.int64]


def cut(unit: Unit, widths: Sequence[int], documents: Sequence[Document]) -> list[Cut]:
    """Return what each context width makes of some documents; the text is cut once."""
    replies = _encode(unit, (one.replies for one in documents))
    prompts = _encode(unit, (one.prompts for one in documents))
    return [_cut_width(replies, prompts, width, len(documents)) for width in widths]


def context_hashes(contexts: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Return a public hash of every context, shape (n,); no two meet where the width is 1 or 2."""
    hashes = np.zeros(len(contexts), np.uint64)
    for column in range(0, contexts.shape[1], 2):
        word = contexts[:, column].astype(np.uint64)
        if column + 1 < contexts.shape[1]:
            word |= contexts[:, column + 1].astype(np.uint64) << _HALF
        hashes = mix64(hashes * _STEP + word)
    return hashes


def pair_hashes(hashes: NDArray[np.uint64], tokens: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Return a public hash of every pair, from its context's."""
    return mix64(hashes + (tokens.astype(np.uint64) + np.uint64(1)) * _STEP)


def bucket_of(hashes: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Return the bucket of every context hash, shape (n,)."""
    return (hashes >> _BUCKET_SHIFT).astype(np.uint16)


def _encode(unit: Unit, texts: Iterable[tuple[str, ...]]) -> _Ids:
    """Return the ids of all texts of all documents."""
    flat: list[str] = []
    documents: list[int] = []
    for document, parts in enumerate(texts):
        flat += parts
        documents += [document] * len(parts)
    ids = [one for batch in _batches(flat) for one in _encode_batch(unit, batch)]
    empty = np.zeros(0, np.dtype("<u4"))
    return _Ids(
        np.concatenate([empty, *ids]),
        np.array([len(one) for one in ids], np.int64),
        np.array(documents, np.int64),
    )


def _batches(texts: Sequence[str]) -> Iterable[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + len(text) > _ENCODED_TOGETHER:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


def _encode_batch(unit: Unit, texts: list[str]) -> list[NDArray[np.uint32]]:
    if isinstance(unit, TokenizerUnit):
        return unit.encode_batch(texts)
    return [unit.encode(text) for text in texts]


def _cut_width(replies: _Ids, prompts: _Ids, width: int, n_documents: int) -> Cut:
    where = _places(replies, width)
    documents = np.repeat(replies.documents, np.maximum(replies.lengths - width, 0))
    hashes = context_hashes(_windows(replies.flat, where, width))
    own = _salted(hashes, documents)
    kept = first_occurrences(own)
    prompt_where = _places(prompts, width - 1)  # the last window of a prompt counts too
    views = _windows(prompts.flat, prompt_where + 1, width)
    view_hashes = context_hashes(views)
    if len(views):
        in_view = np.repeat(prompts.documents, np.maximum(prompts.lengths - width + 1, 0))
        kept &= ~np.isin(own, _salted(view_hashes, in_view))
    where, hashes, documents = where[kept], hashes[kept], documents[kept]
    rows = _windows(replies.flat, where + 1, width + 1)
    pairs, pair_ends = _distinct(pair_hashes(hashes, rows[:, width]), hashes)
    seen, prompt_ends = _distinct(view_hashes, view_hashes)
    n_tokens = np.bincount(replies.documents, replies.lengths, n_documents).astype(np.int64)
    return Cut(
        rows=rows,
        counts=np.bincount(documents, minlength=n_documents),
        n_tokens=n_tokens,
        pairs=pairs,
        pair_ends=pair_ends,
        prompts=views[seen],
        prompt_ends=prompt_ends,
    )


def _places(ids: _Ids, width: int) -> NDArray[np.int64]:
    """Return where in the flat ids a position has `width` units before it in its text."""
    starts = np.cumsum(ids.lengths) - ids.lengths
    before = np.arange(len(ids.flat)) - np.repeat(starts, ids.lengths)
    return np.flatnonzero(before >= width)


def _windows(flat: NDArray[np.uint32], stops: NDArray[np.int64], width: int) -> NDArray[np.uint32]:
    """Return the `width` ids before every stop, shape (n, width)."""
    windows = np.empty((len(stops), width), np.dtype("<u4"))
    for column in range(width):
        windows[:, column] = flat[stops - width + column]
    return windows


def _salted(hashes: NDArray[np.uint64], documents: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return hashes that differ between documents."""
    salted = documents.astype(np.uint64)
    salted *= _STEP
    salted += hashes
    return salted


def _distinct(
    values: NDArray[np.uint64], hashes: NDArray[np.uint64]
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return where each distinct value stands first, by bucket of its hash, and bucket ends."""
    first = np.flatnonzero(first_occurrences(values))
    buckets = bucket_of(hashes[first])
    order = np.argsort(buckets, kind="stable")
    ends = np.zeros(BUCKETS + 1, np.uint32)
    np.cumsum(np.bincount(buckets, minlength=BUCKETS), out=ends[1:])
    return first[order].astype(np.uint32), ends
