"""Tables that together are larger than memory, brought into parts that are not.

Rows with one key come in the same part, so that what is joined or counted by the key is joined or
counted part by part. Keys are evenly spread (random names, keyed fingerprints), so the parts are of
about one size; they ascend by key. In between the rows lie in files that only their owner reads.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

MOST_PARTS: Final = 256  # files that are open at a time
_AT_ONCE: Final = 1 << 16  # rows that are parted together


def in_parts(
    tables: Iterable[Any],
    schema: Any,  # noqa: ANN401 - pyarrow has no types
    keys_of: Callable[[Any], NDArray[np.uint64]],
    *,
    n_parts: int,
    folder: Path,
) -> Iterator[Any]:
    """Yield the rows of some tables, part by part.

    Args:
        tables: Tables of one schema, none larger than memory.
        schema: That schema, without dictionaries.
        keys_of: Returns a table's keys, evenly spread over all 64 bits, shape (n,).
        n_parts: Parts that are wanted, 1 or more; at most `MOST_PARTS` are made.
        folder: Where the files may lie.

    Yields:
        As many tables as there are parts; some may have no row.
    """
    n_parts = min(n_parts, MOST_PARTS)
    if n_parts == 1:
        yield pa.concat_tables([schema.empty_table(), *tables])
        return
    with tempfile.TemporaryDirectory(dir=folder, prefix=".ledger-") as name:
        paths = [Path(name) / str(part) for part in range(n_parts)]
        with ExitStack() as stack:
            files = [stack.enter_context(pa.ipc.new_file(str(path), schema)) for path in paths]
            for table in _gathered(tables):
                for part, rows in _split(table, keys_of(table), n_parts):
                    files[part].write_table(rows)
        for path in paths:
            with pa.OSFile(str(path)) as file:
                found = pa.ipc.open_file(file).read_all()
            path.unlink()
            yield found


def _gathered(tables: Iterable[Any]) -> Iterator[Any]:
    """Yield the same rows in larger tables: a small batch costs its file more than its rows do."""
    held: list[Any] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= _AT_ONCE:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _split(table: Any, keys: NDArray[np.uint64], n_parts: int) -> Iterator[tuple[int, Any]]:  # noqa: ANN401 - likewise
    """Yield each part's rows, where it has any, in their order."""
    parts = ((keys >> np.uint64(32)) * np.uint64(n_parts)) >> np.uint64(32)
    order = np.argsort(parts, kind="stable")
    bounds = np.searchsorted(parts[order], np.arange(n_parts + 1))
    ordered = table.take(pa.array(order))
    for part in np.flatnonzero(np.diff(bounds)).tolist():
        start, end = bounds[part : part + 2].tolist()
        yield part, ordered.slice(start, end - start)
