"""What a suspect would say along a delivered text: its own tokens, in the units of a key.

Rule 1: which positions are asked depends on texts only (`radioactivity.view`). Rule 2: what stands
in the text at a position is never told to whoever answers for it: a suspect sees what is before.
Rule 3: a token of the suspect counts as a unit where it is one, cut by itself; where tokens
and units do not meet, the position is left out. A wrong match costs power, never validity: which
unit is scored was decided without the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec
import numpy as np

from watermark.errors import AuditDesignError, SuspectError
from watermark.radioactivity import Choices, Passage, Path
from watermark.radioactivity.pairs import MOST_MASS
from watermark.text import TokenizerUnit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from watermark.text import Unit

LEAST: Final = 1 / 64
"""Of a suspect's distribution, what is less likely rounds to nothing (`radioactivity.pairs`)."""
CANDIDATES: Final = 64
_UNREADABLE: Final = "\N{REPLACEMENT CHARACTER}"


class ReadText(msgspec.Struct, frozen=True, kw_only=True):
    """A delivered reply that a suspect reads.

    Attributes:
        id: Names it in the plan's file.
        text: The reply.
        before: The turns before it.
        path: How it was marked.
        chunk_ends: Of `select`: after how many characters each chunk ended.
    """

    id: str
    text: str
    path: str
    before: tuple[str, ...] = ()
    chunk_ends: tuple[int, ...] = ()


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a suspect would say at some positions of a passage.

    Attributes:
        passage: Its id.
        places: Positions, in units of the key.
        tokens: At each, units that it may say.
        probabilities: At each, how likely it says them.
        model: The suspect's name, where it tells it.
        prompt_tokens: Tokens that were billed for what was sent.
        completion_tokens: Tokens that were billed for what came back.
        is_estimated: Whether the server did not say what it billed, so that tokens are a guess.
        is_refused: Whether the server does not take the text, and takes others.
    """

    passage: str
    places: tuple[int, ...]
    tokens: tuple[tuple[int, ...], ...]
    probabilities: tuple[tuple[float, ...], ...]
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    is_estimated: bool = False
    is_refused: bool = False

    def choices(self, n_units: int) -> list[Choices | None]:
        """Return one entry a position of the passage, None where nothing is known.

        Raises:
            AuditDesignError: The entry is not of that passage, or holds no distributions.
        """
        found: list[Choices | None] = [None] * n_units
        for place, tokens, p in zip(self.places, self.tokens, self.probabilities, strict=True):
            if not 0 <= place < n_units:
                raise AuditDesignError(
                    f"passage {self.passage!a} has {n_units} units and no position {place}; it is "
                    "another text's"
                )
            found[place] = Choices(
                tokens=np.array(tokens, np.uint32), probabilities=np.array(p, np.float64)
            )
        return found


Candidates = list[tuple[str, float]]
"""What may come next: strings with their probabilities."""


Told = list[Candidates | None] | SuspectError | None
"""What reading a text came to: an entry a place; why there is none; None where it is not taken."""


class Reader(Protocol):
    """A suspect whose next token can be looked at."""

    def next_tokens(self, text: str, places: Sequence[int]) -> list[Candidates | None]:
        """Return what may come after the first characters of a text.

        Args:
            text: The text.
            places: How many characters, ascending.

        Returns:
            One entry a place; None where the suspect's tokens do not end there.

        Raises:
            SuspectError: The suspect cannot be asked.
        """
        ...


@dataclass(frozen=True, slots=True)
class CutPassage:
    """A delivered reply in units of a key.

    Attributes:
        passage: For the statistics.
        starts: Where each unit starts, in characters of the reply.
    """

    passage: Passage
    starts: tuple[int, ...]


def cut(read: ReadText, unit: Unit) -> CutPassage:
    """Return a delivered reply in units of a key.

    Raises:
        AuditDesignError: Its path is unknown.
    """
    ids, offsets = unit.encode_with_offsets(read.text)
    if read.path not in {one.value for one in Path}:
        raise AuditDesignError(
            f"passage {read.id!a} has path {read.path!a}; write {', '.join(Path)}"
        )
    ends = offsets[:, 1].tolist()
    chunk_ends = tuple(1 + ends.index(end) for end in read.chunk_ends if end in ends)
    passage = Passage(
        ids=ids,
        path=Path(read.path),
        chunk_ends=chunk_ends,
        before=tuple(unit.encode(text) for text in read.before),
    )
    return CutPassage(passage, tuple(offsets[:, 0].tolist()))


class UnitMap:
    """From a suspect's tokens, as strings, to units of a key (rule 3)."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._known: dict[str, int | None] = _spellings(unit)

    def choices(self, candidates: Iterable[tuple[str, float]]) -> dict[int, float]:
        """Return units and how likely each is; what is no unit is left to chance."""
        found: dict[int, float] = {}
        for text, probability in candidates:
            unit_id = self._of(text)
            if unit_id is not None and probability > 0:
                found[unit_id] = found.get(unit_id, 0.0) + probability
        return {one: min(1.0, p) for one, p in found.items() if p >= LEAST}

    def _of(self, text: str) -> int | None:
        if text not in self._known:
            ids = [] if not text or _UNREADABLE in text else self._unit.encode(text).tolist()
            self._known[text] = int(ids[0]) if len(ids) == 1 else None
        return self._known[text]


def _spellings(unit: Unit) -> dict[str, int | None]:
    """Return every token of a tokenizer as it stands inside a text, with the space before it.

    Cut by itself a token may become others: some tokenizers put a space before every text.
    """
    if not isinstance(unit, TokenizerUnit):
        return {}
    found: dict[str, int | None] = {}
    decode = unit.tokenizer.decode
    for token in range(unit.vocab_size):
        inside = decode([token, token])[len(decode([token])) :]
        if inside and _UNREADABLE not in inside:
            found.setdefault(inside, token)
    return found


class ToRead(NamedTuple):
    """A passage that a suspect is to read.

    Attributes:
        read: The passage.
        cut_text: The same in units.
        places: Positions that count, ascending.
    """

    read: ReadText
    cut_text: CutPassage
    places: Sequence[int]

    def asked(self) -> tuple[str, list[int]]:
        """Return the text with all turns before it, and the places in characters."""
        head = "".join(f"{turn}\n" for turn in self.read.before)
        starts = [len(head) + self.cut_text.starts[place] for place in self.places]
        return head + self.read.text, starts


def read_passage(
    reader: Reader, read: ReadText, cut_text: CutPassage, places: Sequence[int], units: UnitMap
) -> Reading:
    """Ask a suspect about some positions of a passage.

    Args:
        reader: The suspect.
        read: The passage.
        cut_text: The same in units.
        places: Positions that count, ascending.
        units: Of the key.

    Raises:
        SuspectError: The suspect cannot be asked.
    """
    return next(read_passages(reader, [ToRead(read, cut_text, places)], units))


def read_passages(reader: Reader, passages: Sequence[ToRead], units: UnitMap) -> Iterator[Reading]:
    """Ask a suspect about some passages, together where it takes several texts at once.

    Args:
        reader: The suspect; `next_tokens_of`, where it has that, takes several texts.
        passages: With their positions.
        units: Of the key.

    Yields:
        One entry a passage, up to the first that could not be read. Tokens that were billed for
        passages that were read together stand with the first.

    Raises:
        SuspectError: The suspect cannot be asked about the next passage.
    """
    together = getattr(reader, "next_tokens_of", None)
    for group in [passages] if together else [[one] for one in passages]:
        before = _billed(reader)
        texts = [one.asked() for one in group]
        some = [one for one in texts if one[1]]
        answers = iter(together(some) if together else [reader.next_tokens(*one) for one in some])
        after = _billed(reader)
        cost = (after[0] - before[0], after[1] - before[1])
        for one in group:
            told: Told = next(answers) if one.places else []
            if isinstance(told, SuspectError):
                raise told
            yield _reading(one, told, units, reader, cost)
            cost = (0, 0)


def pieces(indices: Collection[int], n: int, room: int) -> Iterator[tuple[int, list[int]]]:
    """Give the overlapping pieces in which tokens are read that have no room together.

    Args:
        indices: Tokens after which candidates are wanted.
        n: Tokens.
        room: Tokens of a piece, >= 1.

    Yields:
        Where a piece begins, and the indices that it is the first to hold; pieces of some alone.
    """
    left = sorted(indices)
    for first in range(0, max(1, n), max(1, room // 2)):
        new = [one for one in left if one < first + room]
        left = left[len(new) :]
        if new:
            yield first, new


def _billed(reader: Reader) -> tuple[int, int]:
    found: tuple[int, int] = getattr(reader, "billed", (0, 0))
    return found


def _reading(
    to_read: ToRead,
    told: list[Candidates | None] | None,
    units: UnitMap,
    reader: Reader,
    billed: tuple[int, int],
) -> Reading:
    asked = [None] * len(to_read.places) if told is None else told
    kept = [
        (place, units.choices(one))
        for place, one in zip(to_read.places, asked, strict=True)
        if one is not None
    ]
    known = [(place, said) for place, said in kept if said and sum(said.values()) <= MOST_MASS]
    was_asked = bool(to_read.places)
    return Reading(
        passage=to_read.read.id,
        places=tuple(place for place, _ in known),
        tokens=tuple(tuple(said) for _, said in known),
        probabilities=tuple(tuple(round(p, 6) for p in said.values()) for _, said in known),
        model=getattr(reader, "model", "") if was_asked else "",
        prompt_tokens=billed[0],
        completion_tokens=billed[1],
        is_estimated=was_asked and getattr(reader, "is_estimated", False),
        is_refused=told is None,
    )
