"""A log of commitments is read on where it has grown, and never goes back."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.watermark.keys.rings import record
from watermark.errors import CommitmentError
from watermark.keys.document import DocumentReader
from watermark.keys.keylog import Commitments, KeyLog, LoggedKeys, create_log, entry_of

if TYPE_CHECKING:
    from pathlib import Path

    from watermark.keys import KeyRecord

RECORDS = [record(f"k{number}") for number in range(400)]


def open_log(folder: Path, table: str) -> KeyLog:
    text = f"schema = 1\n{table}"
    return KeyLog(folder, DocumentReader().read(folder / "KEYS.toml", text).options)


def missing(log: KeyLog, records: list[KeyRecord]) -> frozenset[tuple[str, str]]:
    return Commitments(log).missing(records)


def test_a_log_that_has_grown_is_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = create_log(tmp_path, "example.com/keys", bytes(32))
    log, writer = open_log(tmp_path, table), open_log(tmp_path, table)
    writer.append([entry_of(one) for one in RECORDS[:300]])
    assert len(log.read().index) == 300
    read: list[str] = []
    real = log.storage.read

    def noted(path: str) -> bytes | None:
        read.append(path)
        return real(path)

    monkeypatch.setattr(log.storage, "read", noted)
    writer.append([entry_of(one) for one in RECORDS[300:303]])
    assert log.read().index == open_log(tmp_path, table).read().index
    assert not any("entries/000" in path for path in read)  # the first 256 are known


def test_a_log_that_was_put_in_anothers_place_is_refused(tmp_path: Path) -> None:
    table = create_log(tmp_path, "example.com/keys", bytes(32))
    log = open_log(tmp_path, table)
    log.append([entry_of(one) for one in RECORDS[:5]])
    shutil.copytree(tmp_path / "log", tmp_path / "former")
    log.read()
    log.append([entry_of(one) for one in RECORDS[5:7]])
    log.read()
    shutil.rmtree(tmp_path / "log")
    (tmp_path / "former").rename(tmp_path / "log")
    with pytest.raises(CommitmentError, match="5 leaves does not extend one of 7"):
        log.read()  # cut short
    other = open_log(tmp_path, table)
    other.append([entry_of(one) for one in RECORDS[10:20]])
    with pytest.raises(CommitmentError, match="does not extend"):
        log.read()  # another history
    assert len(open_log(tmp_path, table).read().index) == 15  # a process that starts knows no other


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_is_missing_is_what_a_fresh_reader_misses(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("log")
    table = create_log(folder, "example.com/keys", bytes(32))
    writer, log = open_log(folder, table), open_log(folder, table)
    needs_stamp = data.draw(st.booleans())
    if needs_stamp:
        log.options = _stamped(log.options)
    kept, stamped = Commitments(log), [0]

    def restamped(logged: LoggedKeys) -> LoggedKeys:
        return replace(logged, stamped=stamped[0])

    log._restamped = restamped  # type: ignore[method-assign]
    for _ in range(4):
        writer.append([entry_of(one) for one in data.draw(st.lists(st.sampled_from(RECORDS[:8])))])
        stamped[0] = data.draw(st.integers(0, 8))
        records = data.draw(st.lists(st.sampled_from(RECORDS[:8]), unique_by=id))
        assert kept.missing(records) == missing(log, records)


def _stamped(options: Any) -> Any:
    return type(options)(
        **{name: getattr(options, name) for name in options.__struct_fields__}
        | {"require_timestamp": True}
    )
