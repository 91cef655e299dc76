"""The writer: what it stores, what it refuses to sign, and that no cut between writes hurts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.watermark.log.samples import (
    NAME,
    OTHER,
    SIGNER,
    log_of,
    sample_entries,
    tree_of,
)
from watermark.errors import (
    LogForkError,
    LogRangeError,
    LogStorageError,
    LogVerificationError,
)
from watermark.log import (
    CHECKPOINT_PATH,
    MAX_ENTRY_BYTES,
    Checkpoint,
    Log,
    LogReader,
    MemoryStorage,
    NoteSigner,
    VerifiedCheckpoint,
    bundles_of,
    open_checkpoint,
    sign_checkpoint,
    tiles_of,
    verify_consistency,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = [SIGNER.verifier]


class PowerCutError(Exception):
    """The machine went away."""


class CutStorage(MemoryStorage):
    """Storage whose power is cut at one write: before it, or after it and before the answer."""

    def __init__(self, files: dict[str, bytes], writes_left: int, *, is_stored: bool) -> None:
        super().__init__()
        self.files = files
        self.writes_left = writes_left
        self.is_stored = is_stored

    def write(self, path: str, data: bytes) -> None:
        if self.writes_left == 0:
            if self.is_stored:
                super().write(path, data)
            raise PowerCutError
        self.writes_left -= 1
        super().write(path, data)


def test_what_is_stored_is_what_the_specification_lists() -> None:
    for batches in ((1,), (255, 1), (256,), (1, 300), (65_536 + 257,)):
        storage, log = log_of(*batches)
        size = sum(batches)
        assert log.checkpoint.root == tree_of(sample_entries(size)).root()
        wanted = {CHECKPOINT_PATH, *(t.path for t in tiles_of(size))}
        wanted |= {bundle.path for bundle in bundles_of(size)}
        assert wanted <= storage.files.keys()
        assert all(path in wanted or ".p/" in path for path in storage.files)
        LogReader.open(storage, NAME, KEYS).audit()


def test_one_by_one_or_many_at_once() -> None:
    entries = sample_entries(600)
    whole, log = log_of(600)[1], Log.create(MemoryStorage(), SIGNER)
    assert [log.append(entry) for entry in entries] == list(range(600))
    assert log.size == 600
    assert log.checkpoint.size == 0
    assert log.publish() == log.checkpoint == whole.checkpoint
    assert log.publish() is log.checkpoint
    assert log.extend([]) == range(600, 600)


def test_a_log_is_created_once_and_opened_after() -> None:
    storage, log = log_of(3)
    with pytest.raises(LogStorageError, match="stored already"):
        Log.create(storage, SIGNER)
    assert Log.open(storage, SIGNER).checkpoint == log.checkpoint
    del storage.files[CHECKPOINT_PATH]
    with pytest.raises(LogStorageError, match=r"000\.p/3 is stored already"):
        Log.create(storage, SIGNER)
    for read in (lambda: Log.open(storage, SIGNER), lambda: LogReader.open(storage, NAME, KEYS)):
        with pytest.raises(LogStorageError, match="no checkpoint"):
            read()


def test_the_key_of_a_log_may_change_under_its_name() -> None:
    storage, old = log_of(3)
    renewed = NoteSigner(NAME, bytes(32))
    for signer in (renewed, OTHER):
        with pytest.raises(LogVerificationError):
            Log.open(storage, signer)
    log = Log.open(storage, renewed, former=KEYS)
    log.append(b"new")
    assert log.publish().verified == (renewed.verifier,)
    LogReader.open(storage, NAME, [renewed.verifier]).prove_consistency(old.checkpoint.checkpoint)


def test_entries_that_do_not_fit_are_refused_before_anything_changed() -> None:
    storage, log = log_of(3)
    before = dict(storage.files)
    with pytest.raises(LogRangeError, match="log its digest"):
        log.extend([b"a"] * 300 + [bytes(MAX_ENTRY_BYTES + 1)])
    assert (log.size, storage.files) == (3, before)
    assert log.append(bytes(MAX_ENTRY_BYTES)) == 3
    assert log.publish().size == 4


def test_two_writers_cannot_fork_a_log() -> None:
    storage, first = log_of(3)
    second = Log.open(storage, SIGNER)
    first.append(b"one way")
    second.append(b"the other way")
    published = first.publish()
    with pytest.raises(LogForkError, match="another writer"):
        second.publish()
    with pytest.raises(LogStorageError, match="open the log again"):
        second.append(b"a")
    assert open_checkpoint(storage.files[CHECKPOINT_PATH], NAME, KEYS) == published


def test_storage_that_was_set_back_is_noticed() -> None:
    storage, log = log_of(3)
    copy = dict(storage.files)
    log.append(b"acknowledged")
    known = log.publish().checkpoint
    assert Log.open(storage, SIGNER, last_known=known).size == 4
    other = Checkpoint(origin="other.example", size=known.size, root=known.root)
    with pytest.raises(LogForkError, match="does not extend"):  # of another log
        Log.open(storage, SIGNER, last_known=other)
    storage.files = copy
    with pytest.raises(LogForkError, match="does not extend"):
        Log.open(storage, SIGNER, last_known=known)
    fork = Log.open(storage, SIGNER)
    fork.extend([b"another", b"history"])
    fork.publish()
    with pytest.raises(LogForkError, match="does not extend"):
        Log.open(storage, SIGNER, last_known=known)


def test_only_what_extends_the_last_checkpoint_is_signed() -> None:
    for path in ("tile/0/000.p/4", "tile/0/001.p/9", "tile/1/000.p/1"):
        storage, log = log_of(4, 252 + 9)

        class Losing(MemoryStorage):
            """Answers for one path with something else."""

            lost = path

            def read(self, path: str) -> bytes | None:
                data = super().read(path)
                return data and bytes(len(data)) if path == self.lost else data

        losing = Losing()
        losing.files = storage.files
        before = storage.files[CHECKPOINT_PATH]
        if path == "tile/0/000.p/4":  # of no size that is still read
            assert Log.open(losing, SIGNER).size == log.size
        else:
            with pytest.raises(LogStorageError):
                Log.open(losing, SIGNER)
        assert storage.files[CHECKPOINT_PATH] == before
    storage, log = log_of(4)
    log.checkpoint = lied_about(log.checkpoint)
    storage.write(CHECKPOINT_PATH, log.checkpoint.note)
    log.append(b"a")
    with pytest.raises(LogForkError, match="nothing was signed"):
        log.publish()
    assert storage.files[CHECKPOINT_PATH] == log.checkpoint.note


def lied_about(last: VerifiedCheckpoint) -> VerifiedCheckpoint:
    """Return a checkpoint of the same size over another tree, validly signed."""
    lie = Checkpoint(origin=NAME, size=last.size, root=bytes(32))
    return open_checkpoint(sign_checkpoint(lie, [SIGNER]), NAME, KEYS)


def test_tiles_that_did_not_arrive_are_not_signed_over() -> None:
    class Faulty(MemoryStorage):
        """Forgets or changes what is written to one path, and says nothing."""

        path = ""
        is_forgotten = True

        def write(self, path: str, data: bytes) -> None:
            if path != self.path:
                super().write(path, data)
            elif not self.is_forgotten:
                super().write(path, bytes(len(data)))

    for path, is_forgotten, said in (
        ("tile/0/001.p/44", True, "missing"),
        ("tile/1/000.p/1", True, "missing"),
        ("tile/0/001.p/44", False, "not those written"),
        ("tile/1/000.p/1", False, "not those written"),
    ):
        storage = Faulty()
        log = Log.create(storage, SIGNER)
        storage.path, storage.is_forgotten = path, is_forgotten
        log.extend(sample_entries(300))
        with pytest.raises(LogStorageError, match=said):
            log.publish()
        assert open_checkpoint(storage.files[CHECKPOINT_PATH], NAME, KEYS).size == 0


BATCHES = (3, 250, 2, 1, 300, 1)


def run(storage: MemoryStorage, published: list[VerifiedCheckpoint]) -> None:
    """Write the log of `BATCHES`, noting each checkpoint that was acknowledged."""
    log = Log.create(storage, SIGNER)
    published.append(log.checkpoint)
    for count in BATCHES:
        log.extend(sample_entries(count, log.size))
        published.append(log.publish())


def count_writes() -> int:
    """Return how many writes the whole log takes."""
    counting = CutStorage({}, 10**9, is_stored=False)
    run(counting, [])
    return 10**9 - counting.writes_left


def cuts() -> Iterator[tuple[CutStorage, list[VerifiedCheckpoint]]]:
    """Yield storage after a cut at each write, and what had been acknowledged."""
    for writes in range(count_writes()):
        for is_stored in (False, True):
            storage = CutStorage({}, writes, is_stored=is_stored)
            published: list[VerifiedCheckpoint] = []
            with pytest.raises(PowerCutError):
                run(storage, published)
            yield storage, published


def test_a_cut_at_any_write_loses_nothing_acknowledged() -> None:
    assert count_writes() > 20
    for storage, published in cuts():
        files = MemoryStorage()
        files.files = storage.files
        if not published and CHECKPOINT_PATH not in files.files:
            assert not files.files
            Log.create(files, SIGNER)
            continue
        log = Log.open(files, SIGNER, last_known=published[-1].checkpoint if published else None)
        kept = log.size
        assert kept >= (published[-1].size if published else 0)
        # Whatever was being written is forgotten: the log goes on with other entries.
        log.extend([b"after the cut %d" % index for index in range(259)])
        final = log.publish()
        reader = LogReader.open(files, NAME, KEYS)
        reader.audit()
        assert list(reader.entries())[:kept] == sample_entries(kept)
        for earlier in published:
            proof = reader.prove_consistency(earlier.checkpoint)
            verify_consistency(earlier.size, earlier.root, final.size, final.root, proof)


def test_after_a_failed_write_the_writer_refuses_to_go_on() -> None:
    storage = CutStorage({}, 10**9, is_stored=False)
    log = Log.create(storage, SIGNER)
    log.extend(sample_entries(3))
    storage.writes_left = 2
    with pytest.raises(PowerCutError):
        log.publish()
    storage.writes_left = 10**9
    for go_on in (log.publish, lambda: log.append(b"a")):
        with pytest.raises(LogStorageError, match="open the log again"):
            go_on()
    assert Log.open(storage, SIGNER).size == 0
