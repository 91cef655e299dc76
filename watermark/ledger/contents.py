"""What is kept of a reply: fingerprints of its contexts, its tokens encrypted, or nothing.

Rule 1: only what was handed over is kept. Rule 2: a context counts once a conversation, so that
those of earlier turns and of other choices are left out. Rule 3: a fingerprint is the keyed stream
of `seeding.md`; with it go the scores of every token after that context, so that a ledger is as
secret as the key.

Source: `watermark/spec/ledger.md`, Contents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from watermark.errors import LedgerFileError
from watermark.ledger.rows import Keeps
from watermark.seeding import as_token_ids, context_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from numpy.typing import NDArray

    from watermark.ledger.rows import Beginning
    from watermark.ledger.vault import Vault
    from watermark.seeding import KeyedUniforms

_WORD: Final = np.dtype("<u4")
_STREAM: Final = np.dtype("<u8")


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
        keyed: The key that marked it.
    """

    begun: Beginning
    choices: Sequence[Delivered]
    keyed: KeyedUniforms


def contents_of(keeps: Keeps, answers: Sequence[Answer], vault: Vault | None) -> list[bytes | None]:
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
    return [
        vault.seal(
            one.begun.account, one.begun.reply, pack_tokens([part.tokens for part in one.choices])
        )
        for one in answers
    ]


def fingerprints(
    answers: Sequence[tuple[KeyedUniforms, Sequence[Delivered]]],
) -> list[NDArray[np.uint64]]:
    """Return the streams of the contexts that each answer adds to its conversation.

    The keyed function is evaluated once for all answers of a key: its fixed cost would else be
    most of what an answer costs.

    Args:
        answers: The key that marked each, and its choices.

    Returns:
        One array an answer: distinct and ascending, shape (n,).
    """
    found: list[NDArray[np.uint64]] = [np.zeros(0, _STREAM)] * len(answers)
    by_key: dict[int, list[int]] = {}
    for place, (keyed, _) in enumerate(answers):
        by_key.setdefault(id(keyed), []).append(place)
    for places in by_key.values():
        keyed = answers[places[0]][0]
        width = keyed.record.context_width
        windows = [[_new_contexts(one, width) for one in answers[place][1]] for place in places]
        flat = [part for parts in windows for part in parts]
        streams = keyed.streams(np.concatenate(flat)) if flat else found[0][:0]
        end = 0
        for place, parts in zip(places, windows, strict=True):
            start, end = end, end + sum(map(len, parts))
            found[place] = _distinct(streams[start:end])
    return found


def _distinct(streams: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the values in ascending order, each once."""
    if len(streams) <= 1:
        return streams
    ordered = np.sort(streams)
    is_new = np.empty(len(ordered), np.bool_)  # np.unique has many times the fixed cost
    is_new[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:])
    return ordered[is_new]


def _new_contexts(one: Delivered, width: int) -> NDArray[np.uint32]:
    contexts = context_windows(as_token_ids(one.units()), width)
    if one.earlier == frozenset():
        return contexts
    is_new = [tuple(context) not in one.earlier for context in contexts.tolist()]
    return contexts[np.array(is_new, np.bool_)]


def pack_tokens(choices: Sequence[Sequence[int]]) -> bytes:
    """Return the bytes of some choices' tokens: each its number, then its ids, as uint32 LE."""
    parts = [as_token_ids(tokens) for tokens in choices]
    return b"".join(np.array([len(part)], _WORD).tobytes() + part.tobytes() for part in parts)


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
