"""Do keys change under a running proxy without a request unmarked, or marked by a wrong key.

    python -m benchmarks.rotation [mutations] [rotations] [emergency] [scopes] [--seed 4]
        [--mutations 1000] [--rotations 200] [--emergencies 10] [--workers 4]
        [--scopes 10000] [--reloads 100]

Everything is real: `watermark-proxy serve` in processes of its own, files on disk, HTTP between
them. The model behind it says random letters, so that 40 tokens show their key.

*mutations*: each is applied under load, the workers are asked to reload, what they say is held
against what the mutation must do, and the good file comes back. *rotations*: each is an edit that
gives the key that marks an end and a successor, under load; a reply's mark is looked for under
every key. *emergency*: `watermark keys rotate --now --compromised` while the time-stamp authority
takes connections and never answers. *scopes*: one key in a scope of its own is added a reload; how
long a reload takes, and how long the requests of one client take beside one and otherwise: they
wait for no other request, so that what they wait for is the reload.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.rotation.experiments import (
    measure_emergency,
    measure_mutations,
    measure_rotations,
    measure_scopes,
)
from benchmarks.rotation.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = ("mutations", "rotations", "emergency", "scopes")
FLEET = ("rotations", "emergency")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts that are asked for, all by default, and print their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rotation")
    parser.add_argument("parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--rotations", type=int, default=200)
    parser.add_argument("--emergencies", type=int, default=10)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between rotations")
    parser.add_argument("--scopes", type=int, default=10_000)
    parser.add_argument("--reloads", type=int, default=100)
    options = parser.parse_args(arguments)
    for part in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            rng = np.random.default_rng([options.seed, PARTS.index(part)])
            workers = options.workers if part in FLEET else 1
            stage = Stage(Path(folder) / "stage", rng, workers=workers)
            clients = options.clients
            if part == "mutations":
                work = measure_mutations(stage, count=options.mutations, clients=clients)
            elif part == "rotations":
                work = measure_rotations(
                    stage, count=options.rotations, clients=clients, interval=options.interval
                )
            elif part == "emergency":
                work = measure_emergency(stage, count=options.emergencies, clients=clients)
            else:
                work = measure_scopes(stage, scopes=options.scopes, reloads=options.reloads)
            print(table(part, asyncio.run(work)), flush=True)


def table(part: str, figures: dict[str, float | str]) -> str:
    """Return figures as a Markdown table."""
    rows = [f"| {name} | {value} |" for name, value in figures.items()]
    return "\n".join(["", f"| {part} | |", "|---|---:|", *rows])


if __name__ == "__main__":
    main()
