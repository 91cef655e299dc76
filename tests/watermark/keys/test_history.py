"""A history is only added to, and what it says of a key is never taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.watermark.keys.rings import NOW, day, record, write_keys
from watermark.errors import KeyHistoryError, KeysConfigError
from watermark.keys import KeyRing, KeyState, load_keys
from watermark.keys.history import (
    History,
    HistoryReader,
    append_history,
    history_path,
    record_line,
)

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, ring: KeyRing) -> None:
    news = HistoryReader(path).read().news(ring)
    lines = [record_line(fields, name) for fields, name in news]
    append_history(path, lines, now=NOW, operator="tester")


def test_what_is_new_is_recorded_once(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    ring = KeyRing((record("a", not_after=day(1)), record("b", not_before=day(1))))
    write(path, ring)
    write(path, ring)
    history = HistoryReader(path).read()
    assert [line.key_id for line in history.lines] == ["a", "b"]
    assert {line.operator for line in history.lines} == {"tester"}
    assert history.news(ring) == []
    assert history.find_regress(ring, NOW) is None
    assert record("a").secret.reveal().hex() not in path.read_text()


def test_a_regress_is_refused_where_the_record_stands(tmp_path: Path) -> None:
    path = write_keys(tmp_path, {"key_id": "k", "not_after": day(-1)})
    write(history_path(path), load_keys(path))
    write_keys(tmp_path, {"key_id": "k"})
    with pytest.raises(KeysConfigError, match=r"KEYS.toml:3: record 1 .*goes back from 'detect'"):
        load_keys(path, now=NOW)
    assert load_keys(path).records[0].state is KeyState.MARKING  # detection asks for no history


def test_an_id_never_gets_other_material(tmp_path: Path) -> None:
    path = write_keys(tmp_path, {"key_id": "k"})
    write(history_path(path), load_keys(path))
    from watermark.keys import SecretKey, write_key_file  # noqa: PLC0415 - the one test

    (tmp_path / "k.key").unlink()
    write_key_file(tmp_path / "k.key", SecretKey("k", bytes(32)))
    with pytest.raises(KeysConfigError, match=r"KEYS.toml:3.*recorded with other material"):
        load_keys(path, now=NOW)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_changed_line_breaks_the_chain(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "h.jsonl"
    path.unlink(missing_ok=True)
    for number in range(3):
        write(path, KeyRing((record(f"k{number}"),)))
    good = path.read_bytes()
    first = good.index(b"\n")
    at = data.draw(st.integers(0, first))  # the last line is covered by none after it
    changed = bytearray(good)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(KeyHistoryError, match=r"h.jsonl:\d"):
        History(path, bytes(changed))
    for cut in (good[first + 1 :], good[:-1], good[: first + 1] * 2):
        with pytest.raises(KeyHistoryError):
            History(path, cut)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_our_error_or_nothing(data: bytes) -> None:
    try:
        assert History(history_path(__import__("pathlib").Path("K.toml")), data).lines == []
    except KeyHistoryError as err:
        assert "K.history.jsonl:" in str(err)  # noqa: PT017
