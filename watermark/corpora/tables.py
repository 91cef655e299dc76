"""Parquet in and out.

Only this file knows the package pyarrow (extra `corpora`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from watermark.corpora.extras import need
from watermark.corpora.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from watermark.corpora.sources import Source

_BATCH_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that holds what no text can be taken from.

    Attributes:
        reason: Why; never its content.
    """

    reason: str


def need_pyarrow() -> None:
    """Refuse a scan that could not write its result.

    Raises:
        CorpusError: pyarrow is not installed.
    """
    need("pyarrow", "corpora", "Parquet files")


def row_group_sizes(source: Source) -> list[int]:
    """Return how many rows each row group of a file has; none where it cannot be told.

    Raises:
        CorpusError: pyarrow is not installed.
    """
    arrow = need("pyarrow", "corpora", "Parquet files")
    parquet = need("pyarrow.parquet", "corpora", "Parquet files")
    try:
        with open_source(source) as stored, parquet.ParquetFile(stored) as table:
            return [int(table.metadata.row_group(i).num_rows) for i in range(table.num_row_groups)]
    except (OSError, arrow.ArrowException):  # said when it is read
        return []


def read_rows(
    source: Source, group: int, columns: Sequence[str]
) -> Iterator[dict[str, Any] | BrokenRow]:
    """Yield the columns of every row of a row group.

    Raises:
        CorpusError: pyarrow is not installed.
    """
    parquet = need("pyarrow.parquet", "corpora", "Parquet files")
    with open_source(source) as stored, parquet.ParquetFile(stored, pre_buffer=False) as table:
        if group >= table.num_row_groups:
            return
        names = [name for name in columns if name in table.schema_arrow.names]
        for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names):
            yield from _rows_of(batch)


def _rows_of(batch: Any) -> Iterator[dict[str, Any] | BrokenRow]:  # noqa: ANN401 - no types
    """Yield the rows of a batch; one with a string that is not UTF-8 is lost alone."""
    try:
        rows: list[dict[str, Any] | BrokenRow] = batch.to_pylist()
    except ValueError:
        if batch.num_rows == 1:
            rows = [BrokenRow("not UTF-8, or of a value that Python cannot hold")]
        else:
            rows = [one for i in range(batch.num_rows) for one in _rows_of(batch.slice(i, 1))]
    yield from rows


def write_rows(
    path: Path,
    schema: Sequence[tuple[str, str]],
    batches: Iterable[Mapping[str, Any]],
    notes: Mapping[str, str],
) -> None:
    """Write a table, batch by batch.

    Args:
        path: The file; replaced.
        schema: Name and type of every column.
        batches: Values by column, a row group each.
        notes: What the file says of itself.
    """
    arrow = need("pyarrow", "corpora", "Parquet files")
    parquet = need("pyarrow.parquet", "corpora", "Parquet files")
    fields = [
        arrow.field(name, arrow.type_for_alias(kind), nullable=False) for name, kind in schema
    ]
    described = arrow.schema(fields, metadata=dict(notes))
    with parquet.ParquetWriter(path, described, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(arrow.table(dict(batch), schema=described))
