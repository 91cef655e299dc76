"""A shard's work, block by block, and the bytes in which blocks travel and are kept.

Rule 1: a block's records follow from its shard alone, so that blocks that are done can be passed
over. Rule 2: a block holds no key and nothing that came from one.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from itertools import groupby
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.corpora.cutting import Cut, cut
from watermark.corpora.packing import pack, unpack
from watermark.corpora.readers import Skipped, read_span
from watermark.text import TokenizerUnit, WordsUnit
from watermark.text.canonical import RAW

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from watermark.corpora.fields import Document, FieldChoice
    from watermark.corpora.readers import Record
    from watermark.corpora.shards import Shard
    from watermark.text import Unit

BLOCK_CHARACTERS: Final = 2 << 20
RECORD_CHARACTERS: Final = 64
"""What a record counts for beside its text: bounds blocks of broken or of tiny records, too."""


@dataclass(frozen=True, slots=True, order=True)
class Layer:
    """One form of the text, unit and context width: what keys of both ask of a text in common.

    Attributes:
        form: `raw` or `canonical`.
        unit: Name of the unit.
        width: Context width.
    """

    form: str
    unit: str
    width: int


@dataclass(frozen=True, slots=True)
class Cutter:
    """Cuts the records of shards; knows no key.

    Attributes:
        choice: Where the texts of a record stand.
        layers: Forms, units and context widths; those of one form and unit side by side.
        tokenizers: The `tokenizer.json` of every unit that has one.
    """

    choice: FieldChoice
    layers: tuple[Layer, ...]
    tokenizers: Mapping[str, bytes]

    def units(self) -> dict[str, Unit]:
        """Load the units."""
        units: dict[str, Unit] = {}
        for name in dict.fromkeys(layer.unit for layer in self.layers):
            data = self.tokenizers.get(name)
            units[name] = WordsUnit() if data is None else TokenizerUnit(data, name=name)
        return units


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Some records of a shard, cut.

    Attributes:
        shard: Index of the shard.
        number: Its place in the shard.
        is_last: Whether it ends the shard.
        stored_bytes: Bytes of the files, as stored, that it read.
        records: Records, broken ones too, of every span of the shard.
        documents: Shape (n_documents, 3), int64: each one's span in the shard, where it starts in
            its file, and its number among the span's records.
        n_skipped: Broken records.
        skipped: These, those that were lost together as one.
        cuts: One a layer.
    """

    shard: int
    number: int
    is_last: bool
    stored_bytes: int
    records: tuple[int, ...]
    documents: NDArray[np.int64]
    n_skipped: int
    skipped: tuple[Skipped, ...]
    cuts: tuple[Cut, ...]


def cut_shard(
    shard: Shard, cutter: Cutter, units: Mapping[str, Unit], *, first: int = 0
) -> Iterator[Block]:
    """Yield the blocks of a shard.

    Args:
        shard: What to read.
        cutter: How.
        units: What `cutter.units()` loaded.
        first: Blocks before this number are read and not cut: they are done.

    Raises:
        CorpusError: A package that a file needs is missing.
    """
    gathered = _Gathered(shard)
    number = 0
    for position, span in enumerate(shard.spans):
        for record in read_span(span, cutter.choice):
            gathered.add(position, record)
            if gathered.characters >= BLOCK_CHARACTERS:
                if number >= first:
                    yield gathered.block(number, cutter, units, is_last=False)
                gathered.clear()
                number += 1
        gathered.end_span(span.stored_bytes)
    if number >= first:
        yield gathered.block(number, cutter, units, is_last=True)


class _Gathered:
    """Records that wait to be cut together."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._before = 0  # bytes of spans and blocks that are over
        self._reached = 0  # bytes of this span
        self.clear()

    def clear(self) -> None:
        """Begin the next block."""
        self.characters = 0
        self._from = self._before + self._reached
        self._records = [0] * len(self._shard.spans)
        self._places: list[tuple[int, int, int]] = []
        self._documents: list[Document] = []
        self._n_skipped = 0
        self._skipped: list[Skipped] = []

    def add(self, position: int, record: Record) -> None:
        """Take a record of the span at a position in the shard."""
        self._reached = max(self._reached, record.stored_bytes)
        self.characters += RECORD_CHARACTERS
        content = record.content
        if isinstance(content, Skipped):
            self._records[position] += content.n_records
            self._n_skipped += content.n_records
            self._skipped.append(content)
            return
        self._records[position] += 1
        self._places.append((position, record.offset, record.index))
        self._documents.append(content)
        self.characters += sum(map(len, content.replies)) + sum(map(len, content.prompts))

    def end_span(self, stored_bytes: int) -> None:
        """Count a span as read to its end."""
        self._before += stored_bytes
        self._reached = 0

    def block(
        self, number: int, cutter: Cutter, units: Mapping[str, Unit], *, is_last: bool
    ) -> Block:
        """Cut what was gathered."""
        return Block(
            shard=self._shard.index,
            number=number,
            is_last=is_last,
            stored_bytes=max(0, self._before + self._reached - self._from),
            records=tuple(self._records),
            documents=np.array(self._places, np.int64).reshape(-1, 3),
            n_skipped=self._n_skipped,
            skipped=tuple(self._skipped),
            cuts=tuple(_cut_layers(cutter.layers, units, self._documents)),
        )


def _cut_layers(
    layers: Sequence[Layer], units: Mapping[str, Unit], documents: Sequence[Document]
) -> Iterator[Cut]:
    """Yield the cut of every layer; text is brought into a form once, and cut by a unit once."""
    for form, alike in groupby(layers, key=lambda layer: layer.form):
        texts = documents if form == RAW else [one.in_canonical_form() for one in documents]
        for name, same in groupby(alike, key=lambda layer: layer.unit):
            yield from cut(units[name], [layer.width for layer in same], texts)


def pack_block(block: Block) -> bytes:
    """Return a block as bytes."""
    header = {
        name: getattr(block, name)
        for name in ("shard", "number", "is_last", "stored_bytes", "records", "n_skipped")
    }
    header["skipped"] = [astuple(one) for one in block.skipped]
    arrays = [block.documents]
    arrays += [getattr(one, field.name) for one in block.cuts for field in fields(Cut)]
    return pack(header, arrays)


def unpack_block(data: bytes) -> Block:
    """Return a block from its bytes."""
    header, (documents, *arrays) = unpack(data)
    step = len(fields(Cut))
    cuts = tuple(Cut(*arrays[i : i + step]) for i in range(0, len(arrays), step))
    header["records"] = tuple(header["records"])
    header["skipped"] = tuple(Skipped(*one) for one in header["skipped"])
    return Block(documents=documents, cuts=cuts, **header)
