"""What a writer may use up, what state it is in, and what it has counted."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watermark.ledger.rows import Kind


class State(enum.Enum):
    """Whether a reply may begin, and whether one under way may go on."""

    OPEN = "open"
    SHORT = "short of space"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterLimits:
    """When to commit, and what may be used up.

    Attributes:
        linger_s: Longest that a row waits for others.
        rows: Rows that are not waited beyond.
        file_s: Time span of one file.
        reserve_bytes: Space on the disk that is left for ends.
        folder_bytes: Most that the folder may hold.
        waiting_bytes: Most ends that wait in memory while no file can be written.
        retry_s: Time between two tries to begin another file.
    """

    linger_s: float = 0.005
    rows: int = 100
    file_s: float = 3600.0
    reserve_bytes: int = 64 << 20
    folder_bytes: int = 16 << 30
    waiting_bytes: int = 8 << 20
    retry_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterStats:
    """Counts since the writer began.

    Attributes:
        rows: Durable rows by kind.
        commits: Commits made.
        commit_seconds: Time spent in them.
        refused: Replies that could not begin.
        lost: Ends that could not be kept.
        gaps: Times in which it could not write, the present one included.
        waiting: Rows not yet durable.
        folder_bytes: What the folder holds, as last looked at.
    """

    rows: dict[Kind, int]
    commits: int = 0
    commit_seconds: float = 0.0
    refused: int = 0
    lost: int = 0
    gaps: int = 0
    waiting: int = 0
    folder_bytes: int = 0
