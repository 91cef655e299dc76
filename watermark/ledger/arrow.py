"""Segments as Parquet: the one place that knows pyarrow.

Source: `watermark/spec/ledger.md`, Segments.
"""

from __future__ import annotations

import os
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec

from watermark.errors import LedgerConfigError, SegmentError
from watermark.ledger.headers import leaves
from watermark.ledger.rows import COLUMNS, Row
from watermark.log import CompactRange, leaf_hashes

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as err:
    raise LedgerConfigError(
        "segments need pyarrow; `pip install 'output-watermark[ledger]'` brings it"
    ) from err

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_NAMES: Final = ("node", "worker", "sequence")
_WORD: Final = pa.dictionary(pa.int32(), pa.string())
_TYPES: Final[dict[str, Any]] = {
    "node": _WORD,
    "worker": pa.int32(),
    "sequence": pa.int64(),
    "seq": pa.int64(),
    "kind": pa.int8(),
    "at_us": pa.int64(),
    "reply": pa.binary(),
    "account": pa.binary(),
    "conversation": pa.binary(),
    "key_id": _WORD,
    "unit": _WORD,
    "tokenizer": _WORD,
    "model": _WORD,
    "path": _WORD,
    "keeps": _WORD,
    "outcome": _WORD,
    "n_tokens": pa.int64(),
    "n_bytes": pa.int64(),
    "digest": pa.binary(),
    "contents": pa.binary(),
}
SCHEMA: Final = pa.schema([(name, _TYPES[name]) for name in (*_NAMES, *COLUMNS)])
_BATCH_ROWS: Final = 4096


class SegmentWriter:
    """Writes one Parquet file, and the root over its rows.

    Args:
        path: The file.
        node: Whose rows they are.
    """

    def __init__(self, path: Path, node: str) -> None:
        self._node = node
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self._edge = CompactRange()

    def add(self, worker: int, sequence: int, rows: Sequence[Row]) -> None:
        """Add rows of one file, in order."""
        self._edge.extend(leaf_hashes(leaves(self._node, worker, sequence, rows)))
        self._writer.write_table(table_of(self._node, worker, sequence, rows))

    def close(self) -> bytes:
        """Finish the file; return the root over all rows."""
        self._writer.close()
        return self._edge.root()


def table_of(node: str, worker: int, sequence: int, rows: Sequence[Row]) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return rows of one file as a table of the segments' schema."""
    names = ([node] * len(rows), [worker] * len(rows), [sequence] * len(rows))
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * len(COLUMNS)
    arrays = [
        pa.array(values, _TYPES[name])
        for name, values in zip((*_NAMES, *COLUMNS), (*names, *columns), strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def root_of(source: Any) -> tuple[bytes, dict[int, int]]:  # noqa: ANN401 - a path or an open file
    """Return the root over a segment's rows, and how many there are of each kind.

    Raises:
        SegmentError: It is no segment.
    """
    edge = CompactRange()
    kinds: dict[int, int] = {}
    for names, rows in rows_of(source):
        edge.extend(leaf_hashes(leaves(*names, rows)))
        for row in rows:
            kinds[row.kind] = kinds.get(row.kind, 0) + 1
    return edge.root(), kinds


def rows_of(source: Any) -> Iterator[tuple[tuple[str, int, int], list[Row]]]:  # noqa: ANN401 - likewise
    """Yield the rows of a segment by file, in order, some thousands at a time.

    Raises:
        SegmentError: It is no segment.
    """
    try:
        file = pq.ParquetFile(source)
        for batch in file.iter_batches(_BATCH_ROWS):
            columns = [column.to_pylist() for column in batch.columns]
            for names, group in groupby(zip(*columns, strict=True), key=lambda row: row[:3]):
                yield names, [Row._make(row[3:]) for row in group]
    except (pa.ArrowException, TypeError) as err:
        raise SegmentError(f"a segment cannot be read: {err}; restore it") from err


def batches_of(source: Any, columns: Sequence[str] | None = None) -> Iterator[Any]:  # noqa: ANN401 - likewise
    """Yield a segment as tables of some thousands of rows.

    Raises:
        SegmentError: It is no segment.
    """
    try:
        file = pq.ParquetFile(source)
        for batch in file.iter_batches(
            _BATCH_ROWS, columns=None if columns is None else [*columns]
        ):
            yield pa.Table.from_batches([batch])
    except pa.ArrowException as err:
        raise SegmentError(f"a segment cannot be read: {err}; restore it") from err


def write_tables(tables: Iterator[Any], path: Path) -> int:
    """Write tables one after the other as `.parquet` or `.jsonl`, readable by its owner only.

    Args:
        tables: Tables of one schema, at least one; binary becomes hex in `.jsonl`.
        path: The file.

    Returns:
        How many rows it has.

    Raises:
        LedgerConfigError: It cannot be written, or the name is of neither kind.
    """
    if path.suffix not in {".parquet", ".jsonl", ".ndjson"}:
        raise LedgerConfigError(f"{path} is neither .parquet nor .jsonl; choose one of them")
    write = _write_parquet if path.suffix == ".parquet" else _write_lines
    try:
        with _private(path) as file:
            return write(tables, file)
    except OSError as err:
        raise LedgerConfigError(f"cannot write {path}: {err.strerror}; choose another") from err


def _write_parquet(tables: Iterator[Any], file: BinaryIO) -> int:
    first = next(tables)
    with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
        n_rows = 0
        for table in chain([first], tables):
            writer.write_table(table)
            n_rows += len(table)
    return n_rows


def _write_lines(tables: Iterator[Any], file: BinaryIO) -> int:
    n_rows = 0
    for table in tables:
        for batch in table.to_batches(_BATCH_ROWS):
            file.writelines(msgspec.json.encode(_shown(row)) + b"\n" for row in batch.to_pylist())
        n_rows += len(table)
    return n_rows


def _private(path: Path) -> BinaryIO:
    flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {name: one.hex() if isinstance(one, bytes) else one for name, one in row.items()}
