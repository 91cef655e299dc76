"""How fast is the log, and does it refuse every changed bit.

    python -m benchmarks.log [--leaves 1000000] [--tampers 10000] [--seed 4]

One thread, entries of 64 bytes, storage in memory. Tampers are single bits of a seeded sample: of
an inclusion proof with its leaf and root, of a consistency proof with its roots, of a whole
`.tlog-proof` file, of the checkpoint, of an entry, and of tiles and bundles as they are read.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from watermark.errors import LogError
from watermark.log import (
    CHECKPOINT_PATH,
    HASH_BYTES,
    TILE_WIDTH,
    Bundle,
    CompactRange,
    Log,
    LogReader,
    MemoryStorage,
    MerkleTree,
    NoteSigner,
    NoteVerifier,
    Tile,
    TlogProof,
    VerifiedCheckpoint,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    leaf_hashes,
    open_checkpoint,
    verify_consistency,
    verify_inclusion,
    verify_tlog_proof,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

NAME = "log.example/keys"
ENTRY_BYTES = 64
PROOFS = 2_000

Row = tuple[str, str, str]


def timed(run: Callable[[], object]) -> float:
    """Return the seconds that `run` takes."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def entry(index: int) -> bytes:
    """Return the entry at an index."""
    return index.to_bytes(ENTRY_BYTES, "big")


def flip(data: bytes, bit: int) -> bytes:
    """Return `data` with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def hashes(data: bytes) -> list[bytes]:
    """Return `data` cut into hashes."""
    return [data[start : start + HASH_BYTES] for start in range(0, len(data), HASH_BYTES)]


def growth(entries: list[bytes], signer: NoteSigner) -> tuple[list[Row], MemoryStorage, MerkleTree]:
    """Measure growing, and return the log and the tree that grew."""
    count = len(entries)
    leaves = leaf_hashes(entries)
    edge, single, tree, storage = CompactRange(), CompactRange(), MerkleTree(), MemoryStorage()
    log = Log.create(storage, signer)

    def by_one() -> None:
        for leaf in leaves:
            single.append(leaf)

    def written() -> None:
        log.extend(entries)
        log.publish()

    rows = [
        (what, f"{count / seconds:,.0f} /s", f"{seconds:.2f} s")
        for what, seconds in (
            ("leaf hashes", timed(lambda: leaf_hashes(entries))),
            ("right edge, many at once", timed(lambda: edge.extend(leaves))),
            ("right edge, one by one", timed(by_one)),
            ("tree with all nodes", timed(lambda: tree.extend(leaves))),
            ("log: hash, tiles, bundles, signed checkpoint", timed(written)),
        )
    ]
    assert edge.root() == single.root() == tree.root() == log.checkpoint.root
    reopening = timed(lambda: Log.open(storage, signer))
    rows.append(("open the log again", "", f"{reopening * 1e3:.1f} ms"))
    single_entry = timed(lambda: (log.append(b"one more"), log.publish()))
    rows.append(("append one entry and publish", "", f"{single_entry * 1e3:.1f} ms"))
    tree.append(leaf_hash(b"one more"))
    return rows, storage, tree


def reading(
    reader: LogReader, tree: MerkleTree, signer: NoteSigner, rng: np.random.Generator
) -> list[Row]:
    """Measure proofs and their verification."""
    size, root, keys = reader.checkpoint.size, reader.checkpoint.root, [signer.verifier]
    picks = [int(index) for index in rng.integers(1, size - 1, PROOFS)]
    included = [inclusion_proof(tree, index, size) for index in picks]
    extended = [consistency_proof(tree, index, size) for index in picks]
    old_roots = [tree.root(index) for index in picks]
    files = [reader.prove_inclusion(index).format() for index in picks[:200]]

    def verify_files() -> None:
        for index, file in zip(picks, files, strict=False):
            verify_file(file, index, keys)

    def verify_included() -> None:
        for index, proof in zip(picks, included, strict=True):
            verify_inclusion(tree.node(0, index), index, size, proof, root)

    def verify_extended() -> None:
        for index, old, proof in zip(picks, old_roots, extended, strict=True):
            verify_consistency(index, old, size, root, proof)

    measured = (
        ("inclusion proof, tree in memory", PROOFS,
         lambda: [inclusion_proof(tree, index, size) for index in picks]),
        ("inclusion proof from tiles, checked", 200,
         lambda: [reader.prove_inclusion(index) for index in picks[:200]]),
        ("verify inclusion", PROOFS, verify_included),
        ("consistency proof, tree in memory", PROOFS,
         lambda: [consistency_proof(tree, index, size) for index in picks]),
        ("verify consistency", PROOFS, verify_extended),
        ("parse and verify a .tlog-proof file with its signature", 200, verify_files),
    )  # fmt: skip
    rows: list[Row] = [
        (what, "", f"{timed(run) / count * 1e6:,.0f} µs") for what, count, run in measured
    ]
    longest = max(len(proof) for proof in included)
    rows.append(("longest inclusion proof", f"{longest} hashes", f"{len(files[0]):,} B file"))
    rows.append(("audit: every entry and every tile", "", f"{timed(reader.audit):.1f} s"))
    return rows


def verify_file(file: bytes, index: int, keys: list[NoteVerifier]) -> object:
    """Return what a proof file shows about the entry at an index."""
    return verify_tlog_proof(TlogProof.parse(file), entry(index), NAME, keys)


def tampers(
    storage: MemoryStorage,
    reader: LogReader,
    tree: MerkleTree,
    signer: NoteSigner,
    rng: np.random.Generator,
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield, without end, what was changed in one bit and what must refuse it."""
    checkpoint, keys = reader.checkpoint, [signer.verifier]
    size, root = checkpoint.size, checkpoint.root
    while True:
        index = int(rng.integers(1, size - 1))
        leaf, old = tree.node(0, index), tree.root(index)

        def changed(data: bytes) -> bytes:
            return flip(data, int(rng.integers(8 * len(data))))

        part = hashes(changed(b"".join((leaf, root, *inclusion_proof(tree, index, size)))))
        run: Callable[[], object] = partial(
            verify_inclusion, part[0], index, size, part[2:], part[1]
        )
        yield "inclusion proof, leaf, root", run
        part = hashes(changed(b"".join((old, root, *consistency_proof(tree, index, size)))))
        run = partial(verify_consistency, index, part[0], size, part[1], part[2:])
        yield "consistency proof, roots", run
        file = changed(reader.prove_inclusion(index).format())
        yield ".tlog-proof file", partial(verify_file, file, index, keys)
        yield "checkpoint", partial(open_checkpoint, changed(checkpoint.note), NAME, keys)
        proof = inclusion_proof(tree, index, size)
        run = partial(verify_inclusion, leaf_hash(changed(entry(index))), index, size, proof, root)
        yield "entry", run
        yield from stored(storage, checkpoint, index, changed)


def stored(
    storage: MemoryStorage,
    checkpoint: VerifiedCheckpoint,
    index: int,
    changed: Callable[[bytes], bytes],
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield reads of one entry through a changed hash, length or byte that it depends on."""
    first = index // TILE_WIDTH * TILE_WIDTH
    # A bundle: every entry in it is read, one of which was changed. A tile: the changed hash is
    # beside or below a step in the proof of its first leaf, or else of its last.
    last = first + TILE_WIDTH - 1
    for kind, path, read in (
        ("tile", Tile(level=0, index=index // TILE_WIDTH).path, (first, last)),
        ("bundle", Bundle(index=index // TILE_WIDTH).path, range(first, last + 1)),
    ):
        if path in storage.files:  # at the right edge there is none
            damaged = Overlay(storage, path, changed(storage.files[path]))
            yield kind, partial(read_all, LogReader(damaged, checkpoint), read)


def read_all(reader: LogReader, indices: Iterable[int]) -> object:
    """Return the entries at some indices."""
    return [reader.read(index) for index in indices]


class Overlay(MemoryStorage):
    """Storage with one file changed."""

    def __init__(self, below: MemoryStorage, path: str, data: bytes) -> None:
        """Lay `data` over what is stored at `path`."""
        super().__init__()
        self.files = below.files
        self.changed = (path, data)

    def read(self, path: str) -> bytes | None:
        """Return what is stored, or what was laid over it."""
        return self.changed[1] if path == self.changed[0] else super().read(path)


def is_refused(run: Callable[[], object]) -> bool:
    """Return whether a call raises a LogError."""
    try:
        run()
    except LogError:
        return True
    return False


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, default=1_000_000)
    parser.add_argument("--tampers", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=4)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    signer = NoteSigner(NAME, bytes(range(32)))
    rows, storage, tree = growth([entry(index) for index in range(options.leaves)], signer)
    reader = LogReader.open(storage, NAME, [signer.verifier])
    rows += reading(reader, tree, signer, rng)
    counts: dict[str, list[int]] = {}
    attempts = tampers(storage, reader, tree, signer, rng)
    for _, (kind, run) in zip(range(options.tampers), attempts, strict=False):
        counts.setdefault(kind, []).append(is_refused(run))
    for kind, refused in counts.items():
        rows.append((f"bits changed: {kind}", f"{len(refused):,}", f"{sum(refused):,} refused"))
    total, held = sum(map(len, counts.values())), sum(map(sum, counts.values()))
    rows.append(("bits changed: all", f"{total:,}", f"{held:,} refused"))
    print(f"{options.leaves:,} leaves, {len(storage.files[CHECKPOINT_PATH])} B checkpoint\n")
    print("| what | rate | time |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    if held != total:
        raise SystemExit(f"{total - held} changed bits were not refused")


if __name__ == "__main__":
    main()
