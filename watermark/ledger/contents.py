"""What is kept of a reply: fingerprints of its contexts, its tokens encrypted, or nothing.

Rule 1: only what was handed over is kept. Rule 2: a context counts once a conversation, so that
those of earlier turns and of other choices are left out. Rule 3: a fingerprint is the keyed stream
of `seeding.md`; with it go the scores of every token after that context, so that a ledger is as
secret as the key; of what an engine marked it is made by the ledger's own (`engine_contexts.py`).

Source: `watermark/spec/ledger.md`, Contents.
"""

from __future__ import annotations

import contextlib
from array import array
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from watermark.errors import LedgerFileError
from watermark.ledger.rows import Keeps
from watermark.seeding import as_token_ids, context_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence

    from numpy.typing import NDArray

    from watermark.ledger.engine_contexts import Fingerprinter
    from watermark.ledger.rows import Beginning
    from watermark.ledger.vault import Vault

_WORD: Final = np.dtype("<u4")
_STREAM: Final = np.dtype("<u8")
_LARGEST: Final = np.uint64(2**64 - 1)
_SMALL_TABLE: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Delivered:
    """One choice of an answer, as far as it was handed over.

    Attributes:
        tokens: Ids of the model's own tokens, free text only; of an upstream that continues text
            and does not tell them, the ids of that text in the key's unit.
        units: The same in the key's unit, made when asked for.
        earlier: Contexts that earlier turns of the conversation hold.
    """

    tokens: Sequence[int]
    units: Callable[[], Sequence[int] | NDArray[Any]]
    earlier: Container[tuple[int, ...]] = frozenset()

    def __repr__(self) -> str:
        """Show nothing of the text."""
        return f"<Delivered {len(self.tokens)} tokens>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was handed over of an answer.

    Attributes:
        begun: How it began.
        choices: Its choices; none where nothing left.
        keyed: The key that marked it, or what stands in for it.
    """

    begun: Beginning
    choices: Sequence[Delivered]
    keyed: Fingerprinter


def contents_of(
    keeps: Keeps, answers: Sequence[Answer], vault: Vault | None
) -> Sequence[bytes | None]:
    """Return what is kept of some answers.

    Raises:
        LedgerFileError: The account's data key cannot be had.
        TokenIdError: An id is outside 0..2^32 - 2.
    """
    if keeps is Keeps.NONE:
        return [None] * len(answers)
    if keeps is Keeps.CONTEXTS:
        return [
            streams.tobytes()
            for streams in fingerprints([(one.keyed, one.choices) for one in answers])
        ]
    if vault is None:
        raise LedgerFileError("tokens are kept under data keys, and there is no vault")
    return vault.seal_each(
        [
            (one.begun.account, one.begun.reply, pack_tokens([part.tokens for part in one.choices]))
            for one in answers
        ]
    )


def fingerprints(
    answers: Sequence[tuple[Fingerprinter, Sequence[Delivered]]],
) -> list[NDArray[np.uint64]]:
    """Return the streams of the contexts that each answer adds to its conversation.

    All answers of a key are one pass: its fixed costs would else be most of what an answer costs.

    Args:
        answers: The key that marked each, or what stands in for it, and its choices.

    Returns:
        One array an answer: distinct and ascending, shape (n,).

    Raises:
        TokenIdError: An id is outside 0..2^32 - 2.
    """
    found: list[NDArray[np.uint64]] = [np.zeros(0, _STREAM)] * len(answers)
    by_key: dict[int, list[int]] = {}
    for place, (keyed, _) in enumerate(answers):
        by_key.setdefault(id(keyed), []).append(place)
    for places in by_key.values():
        made = _fingerprints(answers[places[0]][0], [answers[place][1] for place in places])
        for place, streams in zip(places, made, strict=True):
            found[place] = streams
    return found


def _fingerprints(
    keyed: Fingerprinter, answers: Sequence[Sequence[Delivered]]
) -> list[NDArray[np.uint64]]:
    """Return the fingerprints of answers under one key; all their tokens lie in one array."""
    width = keyed.context_width
    choices = [choice for answer in answers for choice in answer]
    ids, ends = _flat([choice.units() for choice in choices])
    windows = context_windows(ids, width)
    is_new = _is_context(ends, width)[: len(windows)]
    for choice, start, end in zip(choices, ends[:-1], ends[1:], strict=True):
        if choice.earlier != frozenset():
            own = windows[start : max(start, end - width)].tolist()
            is_new[start : start + len(own)] = [tuple(c) not in choice.earlier for c in own]
    bounds = ends[np.cumsum([0, *map(len, answers)])]
    streams = keyed.streams(windows)[is_new]  # a mask costs the windows more than the cipher
    return _distinct(streams, _kept_before(bounds, is_new))


def _flat(
    choices: Sequence[Sequence[int] | NDArray[Any]],
) -> tuple[NDArray[np.uint32], NDArray[Any]]:
    """Return all ids, and where each choice's begin; last, where they end."""
    flat = array("I")
    ends = [0]
    for ids in choices:
        _extend(flat, ids)
        ends.append(len(flat))
    found = np.frombuffer(flat, np.uint32) if flat else np.zeros(0, np.uint32)
    return as_token_ids(found), np.array(ends)


def _extend(flat: array[int], ids: Sequence[int] | NDArray[Any]) -> None:
    """Append ids; a list's at a quarter of what numpy takes to convert it."""
    if isinstance(ids, list):
        with contextlib.suppress(OverflowError, TypeError):  # numpy has the message
            flat.fromlist(ids)
            return
    flat.frombytes(as_token_ids(ids).tobytes())


def _is_context(ends: NDArray[Any], width: int) -> NDArray[np.bool_]:
    """Return whether a window that begins at a place lies within its choice, before its end."""
    inside = np.ones(ends[-1], np.bool_)
    last = (ends[1:, None] - np.arange(1, width + 1)).ravel()
    inside[last[last >= 0]] = False  # of a choice shorter than that, it is another's end as well
    return inside


def _kept_before(places: NDArray[Any], is_kept: NDArray[np.bool_]) -> NDArray[Any]:
    """Return where places lie once only what is kept is left."""
    dropped = np.flatnonzero(~is_kept)  # few
    places = places.clip(max=len(is_kept))
    return places - np.searchsorted(dropped, places)


def _distinct(streams: NDArray[np.uint64], bounds: NDArray[Any]) -> list[NDArray[np.uint64]]:
    """Return the values between each two bounds in ascending order, each once; sorts in place."""
    _sort_each(streams, bounds)
    is_first = np.ones(len(streams), np.bool_)  # np.unique has many times the fixed cost
    np.not_equal(streams[1:], streams[:-1], out=is_first[1:])
    is_first[bounds[bounds < len(streams)]] = True
    kept = streams[is_first]
    return [kept[start:end] for start, end in pairwise(_kept_before(bounds, is_first).tolist())]


def _sort_each(streams: NDArray[np.uint64], bounds: NDArray[Any]) -> None:
    """Sort between each two bounds, in place.

    Runs of about one length are the rows of one table, filled up with the largest value: a sort
    of its own for each would let other threads in as often, and wait for its turn again.
    """
    lengths = np.diff(bounds)
    for first, last in _groups(lengths.tolist()):
        found = streams[bounds[first] : bounds[last]]
        own = lengths[first:last]
        is_inside = np.arange(int(own.max())) < own[:, None]
        table = np.full(is_inside.shape, _LARGEST, _STREAM)
        table[is_inside] = found
        table.sort(axis=1)
        found[:] = table[is_inside]


def _groups(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield neighbors whose table is less than half empty, or small."""
    first = longest = total = 0
    for place, length in enumerate(lengths):
        longest, total = max(longest, length), total + length
        if longest * (place + 1 - first) > 2 * total + _SMALL_TABLE:
            yield first, place
            first, longest, total = place, length, length
    if lengths:
        yield first, len(lengths)


def pack_tokens(choices: Sequence[Sequence[int]]) -> bytes:
    """Return the bytes of some choices' tokens: each its number, then its ids, as uint32 LE."""
    words = array("I")
    for tokens in choices:
        words.append(len(tokens))
        _extend(words, tokens)
    packed = np.frombuffer(words, np.uint32) if words else np.zeros(0, np.uint32)
    return as_token_ids(packed).tobytes()


def unpack_tokens(data: bytes) -> list[NDArray[np.uint32]]:
    """Return the tokens of each choice.

    Raises:
        LedgerFileError: The bytes are not of that form.
    """
    words = np.frombuffer(data[: len(data) // 4 * 4], _WORD)
    choices, place = [], 0
    while place < len(words):
        end = place + 1 + int(words[place])
        if end > len(words):
            raise LedgerFileError("the kept tokens of a reply are cut off; restore the segment")
        choices.append(words[place + 1 : end])
        place = end
    return choices


def unpack_fingerprints(data: bytes) -> NDArray[np.uint64]:
    """Return the fingerprints of an answer, shape (n,)."""
    return np.frombuffer(data[: len(data) // 8 * 8], _STREAM)
