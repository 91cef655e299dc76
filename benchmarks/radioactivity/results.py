"""Measured cells, a file a figure, in the repository: what is in them is not measured again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.radioactivity.recipes import digest

if TYPE_CHECKING:
    from benchmarks.radioactivity.audits import Measured
    from benchmarks.radioactivity.figures import Cell

RESULTS: Final = Path(__file__).parent / "results"

Row = dict[str, Any]


class Results:
    """The results of one scale."""

    def __init__(self, folder: Path, scale: str) -> None:
        """Read and write in a folder."""
        self.folder = folder
        self.scale = scale

    def path(self, figure: int) -> Path:
        """Return the file of a figure."""
        return self.folder / f"figure-{figure}-{self.scale}.json"

    def read(self, figure: int) -> list[Row]:
        """Return the cells of a figure that were measured."""
        return read_rows(self.path(figure))

    def has(self, cell: Cell) -> bool:
        """Return whether a cell was measured."""
        name = identity(cell)
        return any(one["id"] == name for one in self.read(cell.figure))

    def add(self, cell: Cell, found: Measured) -> None:
        """Add a cell; the file is replaced as a whole."""
        row = {"id": identity(cell), "seed": cell.seed, **cell.labels, **found.as_dict()}
        write_rows(self.path(cell.figure), [row])


def write_rows(path: Path, rows: list[Row], *, key: str = "id") -> None:
    """Add rows to a file, which is replaced as a whole; those of the same key go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # several runs may share the work
        new = {row[key] for row in rows}
        kept = [row for row in read_rows(path) if row[key] not in new]
        made = path.with_suffix(f".{os.getpid()}.partial")
        lines = ",\n".join(json.dumps(one) for one in [*kept, *rows])
        made.write_text(f"[\n{lines}\n]\n")
        made.replace(path)
    finally:
        os.close(folder)


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file; none where there is no file."""
    return json.loads(path.read_text()) if path.exists() else []


def identity(cell: Cell) -> str:
    """Return the name of a cell: of what is audited, and how."""
    what = json.dumps([digest(cell.recipe), cell.labels], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()[:16]
