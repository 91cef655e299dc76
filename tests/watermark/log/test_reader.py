"""The reader hands out nothing that the checkpoint does not vouch for."""

from __future__ import annotations

import numpy as np
import pytest

from tests.watermark.log.samples import (
    NAME,
    SIGNER,
    flip,
    log_of,
    sample_entries,
    tree_of,
)
from watermark.errors import LogError, LogForkError, LogRangeError, LogStorageError
from watermark.log import (
    CHECKPOINT_PATH,
    Checkpoint,
    Log,
    LogReader,
    MemoryStorage,
    TileNodes,
    inclusion_proof,
    leaf_hash,
    tiles_of,
    verify_consistency,
    verify_tlog_proof,
)

KEYS = [SIGNER.verifier]


def test_every_entry_is_read_and_proved() -> None:
    for batches in ((1,), (7,), (256,), (200, 100)):
        storage, log = log_of(*batches)
        entries = sample_entries(log.size)
        tree = tree_of(entries)
        reader = LogReader.open(storage, NAME, KEYS)
        assert reader.audit() == reader.checkpoint == log.checkpoint
        assert list(reader.entries()) == entries
        for index, entry in enumerate(entries):
            read = reader.read(index)
            assert (read.entry, read.inclusion.index) == (entry, index)
            proof = reader.prove_inclusion(index)
            assert proof.hashes == inclusion_proof(tree, index, log.size)
            assert verify_tlog_proof(proof, entry, NAME, KEYS).inclusion == read.inclusion
        for index in (-1, log.size):
            for ask in (reader.read, reader.prove_inclusion):
                with pytest.raises(LogRangeError):
                    ask(index)


def test_entries_deep_in_a_large_log() -> None:
    storage, log = log_of(65_536 + 300)
    reader = LogReader.open(storage, NAME, KEYS)
    entries = sample_entries(log.size)
    for index in (0, 255, 256, 32_768, 65_535, 65_536, 65_792, 65_835):
        proof = reader.prove_inclusion(index)
        assert verify_tlog_proof(proof, entries[index], NAME, KEYS).inclusion.index == index
    nodes = TileNodes(storage, log.size)
    with pytest.raises(LogRangeError):
        nodes.node(17, 0)
    with pytest.raises(LogRangeError):
        nodes.over_tile(0, 257)


def test_an_empty_log() -> None:
    storage, _ = log_of()
    reader = LogReader.open(storage, NAME, KEYS)
    assert not list(reader.entries())
    assert reader.audit().size == 0
    with pytest.raises(LogRangeError):
        reader.read(0)


def test_every_checkpoint_of_a_log_is_extended_by_the_later_ones() -> None:
    storage = MemoryStorage()
    log = Log.create(storage, SIGNER)
    past = [log.checkpoint]
    for count in (1, 1, 5, 249, 1, 43, 300):
        log.extend(sample_entries(count, log.size))
        past.append(log.publish())
        reader = LogReader.open(storage, NAME, KEYS)
        new = reader.checkpoint
        for old in past:
            proof = reader.prove_consistency(old.checkpoint)
            verify_consistency(old.size, old.root, new.size, new.root, proof)
    reader, early = LogReader(storage, past[-1]), LogReader(storage, past[3])
    assert list(early.entries()) == sample_entries(7)
    with pytest.raises(LogRangeError):
        early.prove_consistency(past[4].checkpoint)
    with pytest.raises(LogForkError):
        reader.prove_consistency(Checkpoint(origin=NAME, size=7, root=bytes(32)))


def test_full_tiles_stand_in_for_partial_ones() -> None:
    storage = MemoryStorage()
    log = Log.create(storage, SIGNER)
    log.extend(sample_entries(100))
    early = log.publish()
    log.extend(sample_entries(200, 100))
    log.publish()
    for path in [path for path in storage.files if path.endswith(".p/100")]:
        del storage.files[path]
    reader = LogReader(storage, early)
    reader.audit()
    assert list(reader.entries()) == sample_entries(100)
    assert LogReader.open(storage, NAME, KEYS).prove_consistency(early.checkpoint)


def test_every_file_is_missed_and_every_damaged_bit_refused() -> None:
    storage, log = log_of(600)
    size = log.size
    used = {CHECKPOINT_PATH, *(tile.path for tile in tiles_of(size))}
    used |= {path for path in storage.files if path.startswith("tile/entries/")}
    assert used == storage.files.keys()
    rng = np.random.default_rng(4)
    for path, data in list(storage.files.items()):
        bits = rng.integers(0, 8 * len(data), 12)
        for changed in (None, b"", data[:-1], data + b"\0", *(flip(data, int(b)) for b in bits)):
            if changed is None:
                del storage.files[path]
            else:
                storage.files[path] = changed
            with pytest.raises(LogError):
                LogReader.open(storage, NAME, KEYS).audit()
            storage.files[path] = data
    LogReader.open(storage, NAME, KEYS).audit()


def test_an_upper_tile_that_no_proof_passes_is_audited_too() -> None:
    storage, log = log_of(256)
    storage.files["tile/1/000.p/1"] = bytes(32)
    reader = LogReader(storage, log.checkpoint)
    assert reader.read(255).entry == sample_entries(256)[255]
    with pytest.raises(LogStorageError, match="not over the tiles below"):
        reader.audit()


def test_a_damaged_entry_is_not_handed_out() -> None:
    storage, log = log_of(3)
    path = "tile/entries/000.p/3"
    whole = storage.files[path]
    storage.files[path] = flip(whole, 8 * len(whole) - 1)
    reader = LogReader(storage, log.checkpoint)
    assert reader.read(1).entry == sample_entries(3)[1]
    with pytest.raises(LogStorageError, match="entry 2"):
        reader.read(2)
    with pytest.raises(LogStorageError):
        list(reader.entries())
    with pytest.raises(LogStorageError, match="not what its checkpoint says"):
        Log.open(storage, SIGNER)
    storage.files[path] = bytes(2**25)
    with pytest.raises(LogStorageError, match="larger"):
        reader.read(0)


def test_tiles_are_read_once_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, log = log_of(1000)
    reads: list[str] = []

    def counted(self: MemoryStorage, path: str) -> bytes | None:
        reads.append(path)
        return self.files.get(path)

    monkeypatch.setattr(MemoryStorage, "read", counted)
    nodes = TileNodes(storage, log.size)
    for index in range(1000):
        assert nodes.node(0, index) == leaf_hash(sample_entries(1, index)[0])
    assert len(reads) == 4
    monkeypatch.setattr("watermark.log.storage.CACHED_TILES", 1)
    small = TileNodes(storage, log.size)
    for index in (0, 300, 0):
        small.node(0, index)
    assert len(reads) == 7
