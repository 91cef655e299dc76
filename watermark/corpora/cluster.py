"""Cut the shards on a Ray cluster.

Only this file knows the package ray (extra `ray`). What goes to the cluster: names of files, field
names, tokenizers. What comes back: units of the texts, in bytes that execute nothing when they are
read. Keys stay here: who may submit to a Ray cluster may run code on it, so nothing secret is
there. The files must be readable from every machine under the same names.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from watermark.corpora.blocks import cut_shard, pack_block, unpack_block
from watermark.corpora.extras import need
from watermark.errors import CorpusError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from watermark.corpora.blocks import Block, Cutter
    from watermark.corpora.workers import Task

LOCAL: Final = "local"
_STORE_BYTES: Final = 200 << 20  # of a cluster that is started here


class _ClusterCutter:
    """One process of the cluster."""

    def __init__(self, cutter: Cutter, tasks: Sequence[Task]) -> None:
        import os  # noqa: PLC0415 - runs on another machine

        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # noqa: TID251 - a process of our own
        self._cutter = cutter
        self._tasks = tasks
        self._units = cutter.units()

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        """Yield the blocks of some tasks, one a batch."""
        for task in (self._tasks[int(i)] for i in batch["item"]):
            for block in cut_shard(task.shard, self._cutter, self._units, first=task.first):
                yield {"block": [pack_block(block)]}


def cut_on_cluster(
    cutter: Cutter, tasks: Sequence[Task], address: str, processes: int
) -> Iterator[Block]:
    """Yield the blocks of all tasks, cut on a Ray cluster.

    Args:
        cutter: How to cut.
        tasks: The shards.
        address: Of the cluster; `local` starts one on this machine.
        processes: On how many of its cores.

    Raises:
        CorpusError: ray is missing, or the cluster does not answer or fails.
    """
    ray = need("ray", "ray", "clusters")
    data = need("ray.data", "ray", "clusters")
    if not tasks:
        return
    try:
        _connect(ray, address, processes)
        data.DataContext.get_current().enable_progress_bars = False
        # Items are there at once: a range would ask for cores that the cutters hold.
        numbers = data.from_items(list(range(len(tasks))), override_num_blocks=len(tasks))
        blocks = numbers.map_batches(
            _ClusterCutter,
            fn_constructor_args=(cutter, list(tasks)),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=min(processes, len(tasks))),
            num_cpus=1,
        )
        for row in blocks.iter_rows():
            yield unpack_block(row["block"])
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as err:
        raise CorpusError(
            f"the Ray cluster at {address} failed ({type(err).__name__}); see its logs, and run "
            "the command again: it goes on where it stopped"
        ) from err
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str, processes: int) -> None:  # noqa: ANN401 - a module without types
    """Join a cluster, or start one; it says nothing but errors."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        ray.init(
            address="local",
            num_cpus=processes,
            object_store_memory=_STORE_BYTES,
            include_dashboard=False,
            **quiet,
        )
    else:
        ray.init(address=address, **quiet)
