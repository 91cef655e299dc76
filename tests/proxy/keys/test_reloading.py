"""What a reload takes, what it refuses, and what it says of it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from proxy.cli.reloading import Reloader, load_ring
from proxy.sampling.keys import KeyedModel, KeyHolder
from proxy.telemetry.metrics import Metrics
from watermark.errors import WatermarkError
from watermark.keys import (
    KEYS_HEADER,
    KeysLoader,
    SecretKey,
    format_key_file,
    format_record,
)

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 1, tzinfo=UTC)
DAY = timedelta(days=1)
UNIT = "words/v1"
MODELS = (KeyedModel("m", UNIT),)


class Desk:
    """A folder with keys, and what a process makes of it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "KEYS.toml"
        self.now = NOW
        self.reports = 0
        self.metrics = Metrics()

    def key(self, key_id: str, **fields: Any) -> str:
        path = self.path.parent / f"{key_id}.key"
        if not path.exists():
            path.write_bytes(format_key_file(SecretKey(key_id, key_id.encode().ljust(32, b"."))))
            path.chmod(0o600)
        return format_record(key_id=key_id, unit=UNIT, secret=path.name, **fields)

    def write(self, *tables: str) -> None:
        draft = self.path.with_name("draft")
        draft.write_text(KEYS_HEADER + "\n".join(tables))
        draft.replace(self.path)

    def open(self) -> tuple[KeyHolder, Reloader]:
        loader = KeysLoader(self.path)
        holder = KeyHolder(load_ring(loader, MODELS, now=self.now), now=self.now)
        reloader = Reloader(
            loader,
            holder,
            MODELS,
            metrics=self.metrics,
            report=self._report,
            now=lambda: self.now,
        )
        return holder, reloader

    def _report(self) -> None:
        self.reports += 1

    def metric(self, name: str) -> float:
        lines = self.metrics.exposition().decode().splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(name + " "))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_nothing_is_read_again_without_a_change(desk: Desk) -> None:
    desk.write(desk.key("one"))
    holder, reloader = desk.open()
    held = holder.current
    reloader.step()
    assert holder.current is held
    assert desk.reports == 0
    reloader.step(is_asked=True)
    assert desk.reports == 1
    assert holder.current.generation == held.generation


def test_an_atomic_rename_is_seen(desk: Desk) -> None:
    desk.write(desk.key("one"))
    holder, reloader = desk.open()
    before = holder.current.generation
    desk.write(desk.key("one", not_after=NOW + DAY), desk.key("two", not_before=NOW + DAY))
    reloader.step()
    assert holder.current.generation != before
    assert desk.metric("watermark_config_last_reload_success") == 1


def test_a_swap_of_kubernetes_links_is_seen(desk: Desk) -> None:
    folder = desk.path.parent
    for place, key_id in enumerate(("one", "one")):
        mount = folder / f"..{place}"
        mount.mkdir()
        (mount / "one.key").write_bytes(b"")
        end = {"not_after": NOW + (9 + place) * DAY}
        (mount / "KEYS.toml").write_text(KEYS_HEADER + desk.key(key_id, **end))
    (folder / "..data").symlink_to("..0")
    desk.path.symlink_to("..data/KEYS.toml")
    holder, reloader = desk.open()
    (folder / "..tmp").symlink_to("..1")
    (folder / "..tmp").rename(folder / "..data")
    reloader.step()
    assert holder.current.ends() == {"default": NOW + 10 * DAY}


def test_a_bad_file_changes_nothing_and_is_loud_once(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    good = desk.key("one")
    desk.write(good)
    holder, reloader = desk.open()
    held = holder.current
    desk.write(good.replace("rho", "rhoo"))
    reloader.step()
    reloader.step()
    assert holder.current is held
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert f"{desk.path}:2: " in line.getMessage()
    assert "\n" not in line.getMessage()
    assert holder.error in line.getMessage()
    assert desk.metric("watermark_config_last_reload_success") == 0
    assert desk.metric("watermark_config_reload_failures_total") == 1
    assert desk.reports == 1
    desk.now += timedelta(minutes=1)
    reloader.step()  # what failed is tried again, and said once
    assert desk.reports == 2
    assert len(caplog.records) == 1
    desk.write(good)
    reloader.step()
    assert holder.error == ""
    assert desk.metric("watermark_config_last_reload_success") == 1


def test_a_secret_that_others_can_read_now_is_seen(desk: Desk) -> None:
    desk.write(desk.key("one"))
    holder, reloader = desk.open()
    (desk.path.parent / "one.key").chmod(0o644)
    reloader.step()
    assert "KEYS.toml:2: " in holder.error
    assert "chmod 600" in holder.error
    (desk.path.parent / "one.key").chmod(0o600)
    reloader.step()
    assert holder.error == ""


def test_a_mistake_that_is_taken_back_is_no_regress(desk: Desk) -> None:
    good = desk.key("one")
    desk.write(good)
    holder, reloader = desk.open()
    desk.write(desk.key("one", not_after=NOW - DAY))  # nothing would mark
    reloader.step()
    assert "is not served" in holder.error
    desk.write(good)
    reloader.step()
    assert holder.error == ""


def test_nothing_stops_the_marking_by_mistake(desk: Desk) -> None:
    now_and_next = (
        desk.key("one", not_after=NOW + DAY),
        desk.key("two", not_before=NOW + DAY),
    )
    desk.write(*now_and_next)
    holder, reloader = desk.open()
    desk.write(now_and_next[1])
    reloader.step()
    assert "would not be" in holder.error
    assert ":1: " in holder.error
    desk.write(desk.key("one", not_after=NOW + DAY) + 'state = "suspended"\n', now_and_next[1])
    reloader.step()
    assert holder.error == ""  # on purpose


def test_a_scope_that_ran_out_does_not_block_another(desk: Desk) -> None:
    scope = '[[scope]]\nname = "gold"\nroutes = ["/v1/completions"]\n'
    gold = desk.key("gold", scope="gold", not_after=NOW + DAY)
    desk.write(desk.key("one"), gold, scope)
    holder, reloader = desk.open()
    desk.now += 2 * DAY
    desk.write(
        desk.key("one", not_after=NOW + 3 * DAY),
        desk.key("two", not_before=NOW + 3 * DAY),
        gold,
        scope,
    )
    reloader.step()
    assert holder.error == ""
    # A process that starts is held to all of it, with the place of the scope.
    with pytest.raises(WatermarkError, match=r"KEYS\.toml:\d+: model 'm' is not served"):
        desk.open()


def test_warnings_begin_two_days_before_and_come_hourly(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.write(desk.key("one", not_after=NOW + 3 * DAY))
    _, reloader = desk.open()
    counts = []
    for minutes in range(0, 4 * 24 * 60, 30):
        desk.now = NOW + timedelta(minutes=minutes)
        caplog.clear()
        reloader.step()
        counts.append(len(caplog.records))
    assert counts[:48] == [0] * 48
    assert counts[48:] == [1, 0] * 72
    caplog.clear()
    desk.now += timedelta(hours=2)
    reloader.step()
    assert "ran out" in caplog.text


def test_a_successor_ends_the_warnings(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.write(desk.key("one", not_after=NOW + DAY), desk.key("two", not_before=NOW + DAY))
    _, reloader = desk.open()
    reloader.step()
    assert not caplog.records


@pytest.mark.parametrize("text", ["", "schema = 1\n", "\x00", KEYS_HEADER + "[[key]]\n"])
def test_a_bad_file_at_start_refuses(desk: Desk, text: str) -> None:
    desk.path.write_text(text)
    with pytest.raises(WatermarkError, match=r"KEYS\.toml:\d+: "):
        desk.open()


def test_a_file_that_cannot_be_reported_stops_nothing(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.write(desk.key("one"))
    holder, reloader = desk.open()

    def broken() -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(reloader, "_report", broken)
    reloader.step(is_asked=True)
    assert holder.error == ""
    assert "cannot report" in caplog.text


@pytest.mark.parametrize("folder", ["log", "tlog"])
@pytest.mark.parametrize("head", ["checkpoint", "stamps"])
def test_what_is_logged_later_is_seen(desk: Desk, folder: str, head: str) -> None:
    where = "" if folder == "log" else f'folder = "{folder}"\n'
    desk.path.write_text(f'{KEYS_HEADER}[log]\nverifier = "x"\n{where}\n{desk.key("one")}')
    _, reloader = desk.open()
    reloader.step()
    assert desk.reports == 0
    (desk.path.parent / folder).mkdir()
    (desk.path.parent / folder / head).touch()
    reloader.step()
    assert desk.reports == 1
