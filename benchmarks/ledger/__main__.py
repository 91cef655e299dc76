"""The ledger's figures.

    python -m benchmarks.ledger [power] [rate] [first-byte] [store] [disk] [kills]
        [--cuts 10000] [--replies 60000] [--requests 1000] [--seconds 600] [--rounds 200]
        [--streams 100]

*power*: cuts of the power on a disk that drops, tears and reorders, with and without syncs. *rate*:
ends a second at synchronous=FULL. *first-byte*: what a reply waits. *store*: the store away.
*disk*: a disk that fills up under a real proxy. *kills*: real processes ended in mid-stream.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from benchmarks.ledger import disk, first_byte, kills, outage, power, rate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PARTS = ("power", "rate", "first-byte", "store", "disk", "kills")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts that are asked for, all by default, and print their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger")
    parser.add_argument("parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--cuts", type=int, default=10_000)
    parser.add_argument("--replies", type=int, default=60_000)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--streams", type=int, default=100)
    options = parser.parse_args(arguments)
    runs: dict[str, Callable[[], None]] = {
        "power": lambda: power.main(options.cuts),
        "rate": lambda: rate.main(options.replies),
        "first-byte": lambda: first_byte.main(options.requests),
        "store": lambda: outage.main(options.seconds),
        "disk": lambda: disk.main(5.0),
        "kills": lambda: kills.main(options.rounds, options.streams),
    }
    for part in options.parts:
        print(f"\n{part}\n")
        runs[part]()


if __name__ == "__main__":
    main()
