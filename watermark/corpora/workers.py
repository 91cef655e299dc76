"""Who cuts the shards: this process, or several. No key leaves this process.

Every way yields the same blocks, in an order of its own; nothing that a scan computes depends on
the order.
"""

from __future__ import annotations

import multiprocessing
import os
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from typing import TYPE_CHECKING, Final

from watermark.corpora.blocks import cut_shard, pack_block, unpack_block
from watermark.errors import CorpusError, WatermarkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from watermark.corpora.blocks import Block, Cutter
    from watermark.corpora.shards import Shard

_END_S: Final = 5.0
_DONE: Final = b""
_FAILED: Final = b"!"


@dataclass(frozen=True, slots=True)
class Task:
    """A shard to be cut.

    Attributes:
        shard: The shard.
        first: Blocks before this number are done.
    """

    shard: Shard
    first: int


def cut_here(cutter: Cutter, tasks: Sequence[Task]) -> Iterator[Block]:
    """Yield the blocks of all tasks, cut in this process.

    Raises:
        CorpusError: A package that a file needs is missing.
    """
    units = cutter.units()
    for task in tasks:
        yield from cut_shard(task.shard, cutter, units, first=task.first)


def cut_in_processes(cutter: Cutter, tasks: Sequence[Task], processes: int) -> Iterator[Block]:
    """Yield the blocks of all tasks, cut in processes of their own.

    Raises:
        CorpusError: A package that a file needs is missing, or a process ended by itself.
    """
    waiting = iter(tasks)
    workers: dict[Connection, BaseProcess] = {}
    try:
        for _ in range(min(processes, len(tasks))):
            ours, process = _start(cutter)
            workers[ours] = process
            _give(ours, waiting)
        idle: set[Connection] = set()
        while len(idle) < len(workers):
            for ready in connection.wait([one for one in workers if one not in idle]):
                assert isinstance(ready, connection.Connection)  # noqa: S101 - for the type
                data = _receive(ready, workers[ready])
                if data is not None:
                    yield unpack_block(data)
                elif not _give(ready, waiting):
                    idle.add(ready)
    finally:
        _end(workers)


def _start(cutter: Cutter) -> tuple[Connection, BaseProcess]:
    """Start a process; it knows files, fields and tokenizers, and no key."""
    context = multiprocessing.get_context("spawn")  # a fork copies keys and locks
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, cutter), daemon=True)
    process.start()
    theirs.close()
    return ours, process


def _give(worker: Connection, waiting: Iterator[Task]) -> bool:
    """Give a process its next task; return whether there was one."""
    task = next(waiting, None)
    if task is not None:
        worker.send(task)
    return task is not None


def _receive(worker: Connection, process: BaseProcess) -> bytes | None:
    """Return a block's bytes; None where the task is done."""
    try:
        data = worker.recv_bytes()
    except (EOFError, OSError):
        process.join(_END_S)
        raise CorpusError(
            f"a process of the scan ended by itself (status {process.exitcode}), perhaps for want "
            "of memory; use fewer --processes, and run the command again: it goes on where it "
            "stopped"
        ) from None
    if data.startswith(_FAILED):
        raise CorpusError(data[len(_FAILED) :].decode())
    return None if data == _DONE else data


def _end(workers: dict[Connection, BaseProcess]) -> None:
    for worker, process in workers.items():
        worker.close()
        process.join(0 if process.exitcode is not None else _END_S / 10)
        if process.is_alive():
            process.terminate()
            process.join(_END_S)


def _work(driver: Connection, cutter: Cutter) -> None:
    """Cut what comes until the driver is gone; the whole of a process."""
    # One process is one core: the tokenizer's own threads would fight over it.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # noqa: TID251 - a process of our own
    units = cutter.units()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        while True:
            task: Task = driver.recv()
            try:
                for block in cut_shard(task.shard, cutter, units, first=task.first):
                    driver.send_bytes(pack_block(block))
                driver.send_bytes(_DONE)
            except WatermarkError as err:
                driver.send_bytes(_FAILED + str(err).encode())
