"""Segments: sealed once, chained, verified, sent when the store is there, and read."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec
import numpy as np
import pytest

from tests.support.ledgers import make_settings, open_ledger
from watermark.errors import LedgerConfigError, LedgerUnavailableError, SegmentError
from watermark.keys import KeyRecord, SecretKey
from watermark.keys.document import LogOptions, Options
from watermark.keys.keylog import KeyLog, create_log
from watermark.ledger import (
    Delivered,
    Ending,
    Kind,
    LedgerSettings,
    Outcome,
    Row,
    files_in,
    fingerprints,
)
from watermark.ledger.files import PAGE_BYTES, LedgerFile, open_rows
from watermark.ledger.headers import open_header, sign_header
from watermark.ledger.reading import (
    count_contexts,
    count_contexts_with_ray,
    replies_of,
    tables,
    verify_node,
)
from watermark.ledger.sealing import Sealed, Sealer, _Tally
from watermark.ledger.store import SegmentStore, header_name, segment_name
from watermark.seeding import KeyedUniforms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from watermark.ledger import Ledger

DAY_US = 86_400_000_000
RECORD = KeyRecord(key_id="k", unit="words/v1", secret=SecretKey("k", b"k" * 32))
KEYED = KeyedUniforms(RECORD)


def deliver(
    ledger: Ledger,
    tokens: Sequence[int],
    *,
    opening: bytes = b"?",
    outcome: Outcome = Outcome.FINISH,
    account: str | None = None,
) -> None:
    entry = ledger.begin(
        account=account, opening=opening, keyed=KEYED, tokenizer="t", model="m", path="splice"
    )
    entry.durable.result(5)
    ending = Ending(outcome=outcome, n_tokens=len(tokens), n_bytes=1, digest=bytes(32))
    given = list(tokens) if outcome is not Outcome.VOID else []
    ledger.end(entry, ending, [Delivered(tokens=given, units=lambda: given)], KEYED).result(5)


def sealer(settings: LedgerSettings, key_log: KeyLog | None = None) -> Sealer:
    return Sealer(settings, node="node", signer=settings.signer(), key_log=key_log)


def seal(
    settings: LedgerSettings, *, now_us: int | None = None, log: KeyLog | None = None
) -> Sealed:
    done = sealer(settings, log).run(int(time.time() * 1e6) if now_us is None else now_us)
    assert done is not None
    return done


def counted(settings: LedgerSettings) -> dict[int, int]:
    store = SegmentStore(settings.store)
    verified = [verify_node(store, node, settings.verifier) for node in store.nodes()]
    found = []
    for n_bytes in (0, 60 << 20):  # in one part and in four
        parts = count_contexts(
            tables(store, verified), n_bytes=n_bytes, folder=settings.path.parent
        )
        found.append(
            [
                pair
                for part in parts
                for pair in zip(
                    part["fingerprint"].to_pylist(), part["conversations"].to_pylist(), strict=True
                )
            ]
        )
    assert found[0] == found[1] == sorted(found[0])
    return dict(found[0])


def prints(tokens: Sequence[int]) -> list[int]:
    choices = [Delivered(tokens=tokens, units=lambda: tokens)]
    (found,) = fingerprints([(KEYED, choices)])
    return [int(one) for one in found]


@pytest.fixture
def settings(tmp_path: Path) -> LedgerSettings:
    return make_settings(tmp_path)


def test_two_workers_become_one_segment_and_contexts_count_conversations(
    settings: LedgerSettings, tmp_path: Path
) -> None:
    first, second = open_ledger(settings), open_ledger(settings)
    deliver(first, [1, 2, 3, 4], opening=b"a")
    deliver(first, [1, 2, 3, 4], opening=b"a")  # asked again: the same conversation
    deliver(second, [1, 2, 3, 9], opening=b"b", outcome=Outcome.ABORT)
    deliver(second, [7, 8, 9], opening=b"c", outcome=Outcome.VOID)
    open_reply = second.begin(
        account="a", opening=b"d", keyed=KEYED, tokenizer="t", model="m", path="select"
    )
    open_reply.durable.result(5)
    assert seal(settings).segment is None  # they are being written
    first.close()
    done = seal(settings)
    assert done.segment is not None
    assert done.segment.rows == 4
    second.close()
    done = seal(settings)
    assert done.segment is not None
    assert (done.segment.number, done.segment.begins, done.segment.ends) == (2, 3, 2)
    assert (done.waiting, done.problem, done.segment.gaps) == (0, "", ())
    assert files_in(settings.rows) == []
    assert counted(settings) == {
        one: 2 if one in prints([1, 2, 3, 9]) else 1 for one in prints([1, 2, 3, 4])
    }
    store = SegmentStore(settings.store)
    verified = verify_node(store, "node", settings.verifier)
    found = []
    for n_rows in (0, 1 << 20):  # in one part and in five
        parts = [*replies_of(tables(store, [verified]), n_rows=n_rows, folder=tmp_path)]
        found.append([row for part in parts for row in part.to_pylist()])
    assert sorted(row["outcome"] for row in found[0]) == [
        "abort", "finish", "finish", "open", "void",
    ]  # fmt: skip
    assert [row["begun_us"] for row in found[0]] == sorted(row["begun_us"] for row in found[0])
    assert sorted(map(str, found[0])) == sorted(map(str, found[1]))
    assert not [*tmp_path.glob(".ledger-*")]
    assert seal(settings).segment is None


def test_files_that_are_sealed_and_not_removed_are_not_sealed_again(
    settings: LedgerSettings,
) -> None:
    ledger = open_ledger(settings)
    deliver(ledger, [1, 2, 3])
    ledger.close()
    (name,) = files_in(settings.rows)
    copy = (settings.rows / str(name)).read_bytes()
    seal(settings)
    (settings.rows / str(name)).write_bytes(copy)  # as if the machine stopped before
    (settings.rows / "outbox" / "1.segment.draft").write_bytes(b"half")
    assert seal(settings).segment is None
    assert files_in(settings.rows) == []
    assert list((settings.rows / "outbox").iterdir()) == []
    assert counted(settings) == dict.fromkeys(prints([1, 2, 3]), 1)


def test_what_is_missing_is_a_signed_fact(settings: LedgerSettings) -> None:
    for number in range(3):
        ledger = open_ledger(settings)
        deliver(ledger, [number, 2, 3])
        ledger.close()
    killed = LedgerFile(settings.rows / "node_0_4.ledger")
    killed.append([Row(seq=0, kind=Kind.BEGIN, at_us=1)])
    killed.abandon()
    paths = [settings.rows / str(name) for name in files_in(settings.rows)]
    paths[0].unlink()
    data = bytearray(paths[1].read_bytes())
    data[PAGE_BYTES : PAGE_BYTES + 4096] = b"\xff" * 4096
    paths[1].write_bytes(data)
    segment = seal(settings).segment
    assert segment is not None
    assert [(gap.cause, gap.file) for gap in segment.gaps] == [
        ("file-missing", "node_0_1.ledger"),
        ("file-damaged", "node_0_2.ledger"),
        ("file-not-closed", "node_0_4.ledger"),
    ]
    assert (settings.rows / "damaged" / "node_0_2.ledger").exists()
    assert verify_node(SegmentStore(settings.store), "node", settings.verifier).ends == 1


def test_a_file_that_another_process_reads_waits_for_the_next_round(
    settings: LedgerSettings,
) -> None:
    ledger = open_ledger(settings)
    deliver(ledger, [1, 2, 3])
    ledger.close()
    (name,) = files_in(settings.rows)
    one = sealer(settings)
    with open_rows(settings.rows / str(name)) as reader:
        list(reader.batches(1))
        assert seal(settings).segment is None  # it looks as if it were being written
        with pytest.raises(LedgerUnavailableError, match="in use"):
            one._write(settings.rows / "outbox" / "1.segment.draft", [name], _Tally())
    segment = seal(settings).segment
    assert segment is not None
    assert (segment.ends, segment.gaps) == (1, ())


def test_a_store_that_is_away_is_sent_everything_once_it_is_back(
    settings: LedgerSettings, tmp_path: Path
) -> None:
    away = replace(settings, store=str(tmp_path / "blocked"))
    (tmp_path / "blocked").write_text("a file where a folder should be")
    for number in range(3):
        ledger = open_ledger(settings)
        deliver(ledger, [number, 2, 3], opening=bytes([number]))
        ledger.close()
        done = seal(away)
        assert done.segment is not None
        assert done.waiting == number + 1
        assert "does not answer" in done.problem
    done = seal(settings)
    assert (done.segment, done.waiting, done.problem) == (None, 0, "")
    assert seal(settings).segment is None
    assert counted(settings) == {p: 1 for n in range(3) for p in prints([n, 2, 3])}
    assert list((settings.rows / "outbox").iterdir()) == []


def test_another_machine_goes_on_from_what_the_store_has(
    settings: LedgerSettings,
) -> None:
    for number in range(2):
        ledger = open_ledger(settings)
        deliver(ledger, [number, 2, 3])
        ledger.close()
        seal(settings)
    for path in (settings.rows / "headers").iterdir():
        path.unlink()
    ledger = open_ledger(settings)
    deliver(ledger, [5, 2, 3])
    ledger.close()
    segment = seal(settings).segment
    assert segment is not None
    assert (segment.number, segment.gaps) == (3, ())


def test_whatever_is_changed_is_found(settings: LedgerSettings) -> None:
    for number in range(3):
        ledger = open_ledger(settings)
        deliver(ledger, [number, 2, 3])
        ledger.close()
        seal(settings)
    store = SegmentStore(settings.store)
    folder = settings.path.parent / "segments" / "node"
    verified = verify_node(store, "node", settings.verifier)
    header = verified.headers[1]
    path, segment = folder / header_name(2), folder / segment_name(header.header.segment)
    good, data = path.read_bytes(), segment.read_bytes()

    def finds(message: str) -> None:
        with pytest.raises(SegmentError, match=message):
            verify_node(store, "node", settings.verifier)

    segment.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    finds("segment 2 of node node was changed")
    segment.unlink()
    finds("segment 2 of node node is missing")
    segment.write_bytes(data)
    path.write_bytes(good.replace(b'"rows":2', b'"rows":3'))
    finds("does not hold")
    path.unlink()
    finds("header 2 of node node is missing")
    signer = settings.signer()
    for changes in ({"rows": 3}, {"root": "0" * 64}):
        forged = sign_header(msgspec.structs.replace(header.header, **changes), signer)
        path.write_bytes(forged.note)
        (folder / header_name(3)).rename(folder / "aside")
        finds("holds other rows")
        (folder / "aside").rename(folder / header_name(3))
        finds("does not follow")
    path.write_bytes(good)
    assert verify_node(store, "node", settings.verifier) == verified


def test_the_roots_go_into_the_log_of_keys(settings: LedgerSettings, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    table = msgspec.toml.decode(create_log(keys, "test.invalid/keys", b"l" * 32).encode())
    log = KeyLog(keys, Options(schema=1, log=msgspec.convert(table["log"], LogOptions)))
    for number in range(2):
        ledger = open_ledger(settings)
        deliver(ledger, [number, 2, 3])
        ledger.close()
        seal(settings, log=log)
    store = SegmentStore(settings.store)
    logged = log.read().index
    assert verify_node(store, "node", settings.verifier, logged=logged).is_logged
    assert len(logged) == 2
    note = store.read("node", header_name(1))
    assert note is not None
    header = open_header(note, settings.verifier)
    assert f"root: {header.header.root}\n".encode() in header.entry()
    assert log.prove(header.entry()).index == 0


def test_what_is_too_old_goes_and_the_chain_stays(settings: LedgerSettings) -> None:
    settings = replace(settings, retention_days=2)
    now = int(time.time() * 1e6)
    for number in range(2):
        ledger = open_ledger(settings)
        deliver(ledger, [number, 2, 3])
        ledger.close()
        seal(settings, now_us=now)
    done = seal(settings, now_us=now + 3 * DAY_US)
    assert done.segment is not None
    assert (done.segment.rows, done.segment.expired) == (0, 2)
    verified = verify_node(SegmentStore(settings.store), "node", settings.verifier)
    assert [header.number for header in verified.kept] == [3]
    assert len(list((settings.path.parent / "segments" / "node").glob("*.parquet"))) == 1
    assert seal(settings, now_us=now + 3 * DAY_US).segment is None


def test_duckdb_reads_a_segment(settings: LedgerSettings) -> None:
    ledger = open_ledger(settings)
    deliver(ledger, [1, 2, 3, 4], account="somebody")
    ledger.close()
    seal(settings)
    pattern = f"{settings.store}/node/*.parquet"
    found = duckdb.sql(
        "SELECT key_id, outcome, n_tokens, octet_length(contents) FROM read_parquet($1) "
        "WHERE kind = 2",
        params=[pattern],
    ).fetchall()
    assert found == [("k", "finish", 4, 16)]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs  # noqa: PLC0415

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("ledgers")
    yield "s3://ledgers/production"
    server.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the stand-in for S3
def test_segments_lie_in_s3(settings: LedgerSettings, bucket: str) -> None:
    settings = replace(settings, store=bucket)
    for number in range(2):
        ledger = open_ledger(settings)
        deliver(ledger, [number, 2, 3])
        ledger.close()
        assert not seal(settings).problem
    assert counted(settings) == {one: 1 for n in range(2) for one in prints([n, 2, 3])}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_ray_counts_what_one_machine_counts(settings: LedgerSettings) -> None:
    import ray  # noqa: PLC0415

    rng = np.random.default_rng(0)
    for _ in range(3):
        ledger = open_ledger(settings)
        for _ in range(4):
            tokens = [int(one) for one in rng.integers(6, size=30)]
            deliver(ledger, tokens, opening=rng.bytes(1))
        ledger.close()
        seal(settings)
    folder = settings.path.parent / "segments" / "node"
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        paths = [str(path) for path in sorted(folder.glob("*.parquet"))]
        found = count_contexts_with_ray(paths).take_all()
    finally:
        ray.shutdown()
    assert {row["fingerprint"]: row["conversations"] for row in found} == counted(settings)
    assert max(row["conversations"] for row in found) > 1


def test_a_store_of_no_known_kind_is_refused() -> None:
    with pytest.raises(LedgerConfigError, match="cannot be used"):
        SegmentStore("nothing://here")


def test_only_one_seals_at_a_time(settings: LedgerSettings) -> None:
    ledger = open_ledger(settings)
    deliver(ledger, [1, 2, 3])
    ledger.close()
    one, entered, leave = sealer(settings), threading.Event(), threading.Event()

    def slow(*given: Any) -> Any:
        entered.set()
        assert leave.wait(10)
        return original(*given)

    original = one._seal
    one._seal = slow  # type: ignore[method-assign, assignment]
    thread = threading.Thread(target=one.run, args=(1,))
    thread.start()
    assert entered.wait(10)
    assert sealer(settings).run(2) is None
    leave.set()
    thread.join()
    assert files_in(settings.rows) == []
    assert [one.name for one in (settings.rows / "headers").iterdir()] == [header_name(1)]
