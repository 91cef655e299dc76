"""`watermark keys`: every change explains itself, leaves comments, and can be loaded."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.watermark.cli.authority import make_authority, serving
from tests.watermark.cli.shell import Shell, marked_text
from watermark.cli import desk
from watermark.keys import KEYS_HEADER, KeyState, load_keys
from watermark.keys import folder as folders
from watermark.keys.history import HistoryReader, history_path
from watermark.keys.reports import WorkerReport, workers_folder, write_report

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
COMMENT = "# kept by hand: ask Ada before you touch this\n"


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def add(self, **parts: float) -> datetime:
        self.now += timedelta(**parts)
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(desk, "utc_now", clock)
    return clock


@pytest.fixture
def ready(shell: Shell, clock: Clock) -> Shell:
    assert clock() == START
    shell.keys.write_text(KEYS_HEADER + COMMENT)
    shell.key("a")
    return shell


def run(shell: Shell, *args: str | Path, code: int = 0) -> Result:
    result = shell("keys", *args, "--keys", shell.keys)
    assert result.exit_code == code, result.stderr
    return result


def test_a_rotation_is_prepared_and_comes_by_itself(ready: Shell, clock: Clock) -> None:
    shown = run(ready, "rotate", "--id", "b", "--period", "30d", "--dry-run")
    assert '+id = "b"' in shown.stdout
    assert "nothing was changed" in shown.stderr
    assert load_keys(ready.keys).by_id("b") == ()
    assert not (ready.folder / "b.key").exists()
    done = run(ready, "rotate", "--id", "b", "--period", "30d", "--operator", "Ada")
    assert "key b follows a and marks from 2026-11-03T12:01:00Z to 2026-12-03T12:01:00Z" in (
        done.stderr
    )
    assert "hint: " in done.stderr
    assert COMMENT in ready.keys.read_text()
    ring = load_keys(ready.keys, now=clock())
    assert ring.marking("words/v1", now=clock()).key_id == "a"
    assert ring.marking("words/v1", now=clock.add(days=3)).key_id == "b"
    lines = HistoryReader(history_path(ready.keys)).read().lines
    assert [(line.key_id, line.operator) for line in lines] == [("a", "Ada"), ("b", "Ada")]
    later = run(ready, "rotate", "--id", "c")
    assert "from 2026-12-03T12:01:00Z to 2027-01-02T12:01:00Z" in later.stderr
    run(ready, "check")


def test_a_pending_rotation_is_rolled_back(ready: Shell, clock: Clock) -> None:
    before = load_keys(ready.keys).records
    run(ready, "rotate", "--id", "b")
    assert "is the last already" in run(ready, "rotate", "--id", "c", code=1).stderr
    assert "key b is taken back; a marks for ever" in run(ready, "rollback").stderr
    assert load_keys(ready.keys, now=clock()).records == before
    assert COMMENT in ready.keys.read_text()
    assert "no rotation of scope 'default' is pending" in run(ready, "rollback", code=1).stderr
    assert "known already" in run(ready, "rotate", "--id", "b", code=1).stderr


def test_a_rollback_gives_the_former_end_back(ready: Shell, clock: Clock) -> None:
    run(ready, "rotate", "--id", "b", "--at", "2026-11-05T00:00:00Z", "--period", "10d")
    clock.add(days=5)
    run(ready, "rotate", "--id", "c", "--at", "2026-11-08")
    assert "b marks to 2026-11-15T00:00:00Z" in run(ready, "rollback").stderr


def test_three_in_the_morning(ready: Shell, clock: Clock) -> None:
    run(ready, "rotate", "--id", "next", "--at", "2026-12-01")
    clock.add(days=3)
    done = run(ready, "rotate", "--now", "--compromised", "a", "--id", "b")
    assert "at once" in done.stderr
    ring = load_keys(ready.keys, now=clock())
    assert ring.marking("words/v1", now=clock()).key_id == "b"
    assert ring.by_id("a")[0].state is KeyState.COMPROMISED
    assert ring.by_id("a")[0].compromised_at == clock()
    assert ring.marking("words/v1", now=clock() + timedelta(days=40)).key_id == "next"
    assert "does not mark now" in (
        run(ready, "rotate", "--now", "--compromised", "a", code=1).stderr
    )
    assert [one.key_id for one in ring.detecting(clock())] == ["a", "b"]


def test_a_suspended_key_can_be_taken_up_again(ready: Shell, clock: Clock) -> None:
    assert "is suspended" in run(ready, "suspend", "a").stderr
    assert load_keys(ready.keys).records[0].state_at(clock()) is KeyState.SUSPENDED
    run(ready, "check")
    assert "marks again" in run(ready, "suspend", "a", "--resume").stderr
    assert load_keys(ready.keys).marking("words/v1", now=clock()).key_id == "a"
    run(ready, "suspend", "a")
    run(ready, "rotate", "--now", "--id", "b")
    assert load_keys(ready.keys).marking("words/v1", now=clock()).key_id == "b"


def test_status_counts_hours_and_warns_two_days_ahead(ready: Shell, clock: Clock) -> None:
    assert "next change: none" in run(ready, "status").stdout
    run(ready, "rotate", "--id", "b", "--at", "2026-11-05T12:00:00Z", "--period", "10d")
    fields = json.loads(run(ready, "status", "--json").stdout)
    assert fields["hours_to_next_change"] == 96.0
    assert fields["generation"] == load_keys(ready.keys).generation
    assert [row["key_id"] for row in fields["marking"]] == ["a"]
    assert "warning" not in run(ready, "status").stderr
    clock.add(days=13)
    assert "key b of scope default runs out in 24.0 h and has no successor" in (
        run(ready, "status").stderr
    )
    rows = [json.loads(line) for line in run(ready, "list", "--json").stdout.splitlines()]
    assert [(row["key_id"], row["state"]) for row in rows] == [("a", "detect"), ("b", "marking")]


def test_status_says_which_worker_has_what(ready: Shell) -> None:
    assert "no worker reports" in run(ready, "status", "--state", ready.folder / "s").stderr
    generation = load_keys(ready.keys).generation
    folder = workers_folder(ready.folder / "s")
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            now = {"generation": generation, "loaded_at": "2026-11-01T12:00:00Z"}
            write_report(folder, WorkerReport(pid=os.getpid(), **now))
            old = {**now, "generation": "0" * 16, "error": "KEYS.toml:3: not TOML"}
            write_report(folder, WorkerReport(pid=other.pid, **old))
            config = ready.file("proxy.toml", 'state = "s"\n[server]\nworkers = 2\n')
            done = run(ready, "status", "--config", config)
            fields = json.loads(run(ready, "status", "--state", folder.parent, "--json").stdout)
        finally:
            other.kill()
    assert f"worker {os.getpid()}  {generation}  as the file" in done.stdout
    assert f"worker {other.pid}  {'0' * 16}  not as the file" in done.stdout
    assert f"worker {other.pid} keeps its keys: KEYS.toml:3: not TOML" in done.stderr
    assert "hint: `watermark-proxy reload" in done.stderr
    assert {one["pid"]: one["is_current"] for one in fields["workers"]} == {
        os.getpid(): True,
        other.pid: False,
    }
    good = ready.keys.read_text()
    write_report(folder, WorkerReport(pid=os.getpid(), **now))
    ready.keys.write_text(good + "[[key]")
    broken = run(ready, "status", "--state", folder.parent, code=1)
    assert f"worker {os.getpid()}  {generation}  not as the file" in broken.stdout
    assert "not TOML" in broken.stderr
    ready.keys.write_text(good)
    for bad, says in (("state = 1\n", "`state` is no path"), ("state = \n", "cannot read")):
        config.write_text(bad)
        assert says in run(ready, "status", "--config", config, code=1).stderr
    run(ready, "status", "--config", config, "--state", folder, code=2)


def test_check_names_file_and_line_and_exits_with_one(ready: Shell) -> None:
    assert "1 records, 1 scope" in run(ready, "check").stdout
    ready.keys.write_text(ready.keys.read_text().replace("0.9", "9.9"))
    assert f"{ready.keys}:4: record 1 ('a'): rho 9.9" in run(ready, "check", code=1).stderr


def test_an_edit_by_hand_is_recorded_and_not_set_back(ready: Shell) -> None:
    ready.keys.write_text(ready.keys.read_text().replace('"marking"', '"detect"'))
    assert "--record adds them" in run(ready, "check").stderr
    run(ready, "check", "--record", "--operator", "Ada")
    ready.keys.write_text(ready.keys.read_text().replace('"detect"', '"marking"'))
    assert "goes back from 'detect' to 'marking'" in run(ready, "check", code=1).stderr


def test_a_concurrent_edit_is_not_overwritten(
    ready: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(path: Path, data: bytes, mode: int = 0o644) -> None:
        write(path, data, mode)
        ready.keys.write_text(ready.keys.read_text() + "# another editor\n")

    write = folders.write_synced
    monkeypatch.setattr(folders, "write_synced", slow)
    result = run(ready, "rotate", "--id", "b", code=1)
    assert "was changed by another while it was edited; nothing was written" in result.stderr
    assert load_keys(ready.keys).by_id("b") == ()
    assert {path.name for path in ready.folder.iterdir()} == {"KEYS.toml", "a.key"}


def test_a_link_is_not_edited(ready: Shell) -> None:
    real = ready.folder / "real.toml"
    ready.keys.rename(real)
    ready.keys.symlink_to(real)
    assert "is a symbolic link" in run(ready, "suspend", "a", code=1).stderr


def commit(shell: Shell, *more: str) -> Result:
    return run(shell, "commit", *more)


def demand(shell: Shell, more: str = "") -> None:
    text = shell.keys.read_text()
    head = f"{KEYS_HEADER}require_commitment = true\n{more}"
    shell.keys.write_text(text.replace(KEYS_HEADER, head, 1))


def test_a_key_may_not_mark_before_it_is_committed_to(ready: Shell, clock: Clock) -> None:
    assert "made log example.com/keys" in commit(ready, "--create-log", "example.com/keys").stderr
    demand(ready)
    assert load_keys(ready.keys, now=clock()).marking("words/v1", now=clock()).key_id == "a"
    ready.key("b", "--unit", f"tokenizer:sha256:{'ab' * 32}")
    assert "commitment is not logged" in run(ready, "check", code=1).stderr
    assert "logged 1 new commitments; the log has 2 entries" in commit(ready).stderr
    assert "logged 0 new commitments; the log has 2 entries" in commit(ready).stderr
    run(ready, "check")
    run(ready, "rotate", "--id", "c", "--now")
    assert load_keys(ready.keys, now=clock()).uncommitted == frozenset()
    (ready.folder / "log" / "checkpoint").unlink()
    assert "cannot be used" in run(ready, "check", code=1).stderr


def test_a_log_can_be_made_where_it_is_demanded(ready: Shell) -> None:
    demand(ready)
    assert "names no log" in run(ready, "check", code=1).stderr
    commit(ready, "--create-log", "example.com/keys")
    run(ready, "check")


def test_a_disclosed_key_is_proved_verified_and_detects(ready: Shell, clock: Clock) -> None:
    commit(ready, "--create-log", "example.com/keys")
    text = marked_text(load_keys(ready.keys).records[0])
    assert "becomes 'disclosed' only from" in run(ready, "disclose", "a", code=1).stderr
    run(ready, "rotate", "--now", "--id", "b")
    clock.add(seconds=1)
    run(ready, "disclose", "a", "--output", ready.folder / "a.context")
    run(ready, "prove", "a", "--dir", ready.folder)
    verifier = next(
        line.split('"')[1]
        for line in ready.keys.read_text().splitlines()
        if line.startswith("verifier")
    )
    files = [ready.folder / f"a.{suffix}" for suffix in ("commitment", "tlog-proof")]
    told = ready(
        "keys", "verify", *files, "--verifier", verifier, "--disclosed", ready.folder / "a.context"
    )
    assert (told.exit_code, "is the committed one" in told.stdout) == (0, True)
    run(ready, "prove", "b", "--dir", ready.folder)
    wrong = ready(
        "keys", "verify", ready.folder / "b.commitment", ready.folder / "b.tlog-proof",
        "--verifier", verifier, "--disclosed", ready.folder / "a.context",
    )  # fmt: skip
    assert (wrong.exit_code, "not the one that was committed" in wrong.stderr) == (1, True)
    swapped = ready(
        "keys", "verify", files[0], ready.folder / "b.tlog-proof", "--verifier", verifier
    )
    assert swapped.exit_code == 1
    public = ready.folder / "public"
    public.mkdir()
    (public / "a.context").write_bytes((ready.folder / "a.context").read_bytes())
    (public / "KEYS.toml").write_text(
        f'{KEYS_HEADER}[[key]]\nid = "a"\nunit = "words/v1"\nsecret = "context-subkey:a.context"\n'
        'state = "disclosed"\ndisclosed_at = 2026-11-01T12:00:01Z\n'
    )
    reply = ready.file("reply.txt", text)
    found = ready("detect", reply, "--keys", public / "KEYS.toml", "--exit-code")
    assert found.exit_code == 0, found.stderr


def test_a_key_is_destroyed_a_month_after_it_was_archived(ready: Shell, clock: Clock) -> None:
    commit(ready, "--create-log", "example.com/keys")
    run(ready, "rotate", "--now", "--id", "b")
    clock.add(seconds=1)
    assert "+destroy_at = 2026-12-01T12:01:00Z" in run(ready, "destroy", "a", "--dry-run").stdout
    assert load_keys(ready.keys).by_id("a")
    told = run(ready, "destroy", "a", "--operator", "Ada").stderr
    assert "archived, and to be destroyed at 2026-12-01T12:01:00Z" in told
    assert "--restore" in told
    assert [one.key_id for one in load_keys(ready.keys, now=clock()).detecting(clock())] == ["b"]
    assert (ready.folder / "a.key").exists()
    assert "already" in run(ready, "destroy", "a", "--yes", code=1).stderr
    assert "destroy a --restore` takes it back" in run(ready, "status").stderr
    clock.add(days=29)
    assert "its state is detect" in run(ready, "destroy", "a", "--restore").stderr
    assert load_keys(ready.keys, now=clock()).by_id("a")
    run(ready, "destroy", "a")
    clock.add(days=31)
    assert "it is destroyed" in run(ready, "destroy", "a", "--restore", code=1).stderr
    assert "destroy a --yes` deletes it" in run(ready, "status").stderr
    assert "add --yes" in run(ready, "destroy", "a", code=2).stderr
    shown = run(ready, "destroy", "a", "--dry-run")
    assert "a.key would be deleted" in shown.stderr
    assert (ready.folder / "a.key").exists()
    logged = (ready.folder / "log" / "checkpoint").read_bytes()
    run(ready, "destroy", "a", "--yes", "--operator", "Grace")
    assert not (ready.folder / "a.key").exists()
    ring = load_keys(ready.keys, now=clock())
    assert [(one.key_id, one.state) for one in ring.retired] == [("a", KeyState.DESTROYED)]
    lines = HistoryReader(history_path(ready.keys)).read().lines
    told_of_a = [(line.operator, line.detail) for line in lines if line.key_id == "a"][-4:]
    assert [words.partition(" at ")[0] for _, words in told_of_a] == [
        "to be destroyed", "restored", "to be destroyed", "destroyed",
    ]  # fmt: skip
    assert (told_of_a[0][0], told_of_a[-1][0]) == ("Ada", "Grace")
    assert (ready.folder / "log" / "checkpoint").read_bytes() == logged  # it stays there
    run(ready, "check")


def test_no_key_is_destroyed_too_soon_or_by_hand(ready: Shell, clock: Clock) -> None:
    assert "becomes 'destroyed' only from" in run(ready, "destroy", "a", code=1).stderr
    run(ready, "rotate", "--now", "--id", "b")
    clock.add(seconds=1)
    assert "after 1d at the soonest" in run(ready, "destroy", "a", "--after", "5m", code=1).stderr
    run(ready, "destroy", "a", "--after", "2d", "--restore", code=2)
    run(ready, "destroy", "a", "--after", "2d")
    good = ready.keys.read_text()
    for bad in (
        good.replace("destroy_at = 2026-11-03", "destroy_at = 2026-11-02"),
        good.replace("destroy_at = 2026-11-03T12:01:00Z", 'state = "destroyed"'),
    ):
        ready.keys.write_text(bad)
        assert "is to be destroyed at 2026-11-03T12:01:00Z, not earlier" in (
            run(ready, "check", code=1).stderr
        )
    ready.keys.write_text(good)
    clock.add(days=3)
    ready.keys.write_text(good.replace("destroy_at = 2026-11-03T12:01:00Z\n", ""))
    assert "goes back from 'destroyed' to 'detect'" in run(ready, "check", code=1).stderr


def test_a_beacon_key_needs_a_share_that_was_committed_to(ready: Shell) -> None:
    assert ready("keys", "new", "--id", "op", "--dir", ready.folder).exit_code == 0
    commit(ready, "--create-log", "example.com/keys")
    operator, beacon = ready.folder / "op.key", ready.file("round-12", b"published later")
    new: list[str | Path] = [
        "new", "--id", "b", "--dir", ready.folder, "--beacon", beacon,
        "--operator-secret", operator,
    ]  # fmt: skip
    assert "is in the log" in run(ready, *new, code=1).stderr
    commit(ready, "--operator-secret", str(operator), "--id", "b", "--beacon", "round-12")
    record = run(ready, *new, "--not-before", "2026-12-01", "--scope", "default").stdout
    assert "not_before = 2026-12-01T00:00:00Z" in record
    first = (ready.folder / "b.key").read_bytes()
    (ready.folder / "b.key").unlink()
    run(ready, *new)
    assert (ready.folder / "b.key").read_bytes() == first


def test_stamps_by_a_real_authority(
    ready: Shell, clock: Clock, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tsa")
    roots = make_authority(folder)
    commit(ready, "--create-log", "example.com/keys")
    with serving(folder) as url:
        table = f'[timestamp]\nurl = "{url}"\nroots = "file:{roots}"\n[log]\n'
        ready.keys.write_text(ready.keys.read_text().replace("[log]\n", table, 1))
        demand(ready, "require_timestamp = true\n")
        assert "logged and stamped" in run(ready, "check", code=1).stderr
        told = commit(ready).stderr
        assert told.count("warning") == 0, told
        assert "stamped the log at 1 entries" in told
        run(ready, "check")
    clock.add(hours=1)
    done = run(ready, "rotate", "--now", "--compromised", "a", "--id", "b")
    assert "the stamp waits" in done.stderr
    ring = load_keys(ready.keys, now=clock())
    assert ring.marking("words/v1", now=clock()).key_id == "b"
    events = [line.event for line in HistoryReader(history_path(ready.keys)).read().lines]
    assert {"gap", "stamp-queued", "stamped"} <= set(events)
    with serving(folder) as url:
        text = ready.keys.read_text()
        old = text.partition('url = "')[2].partition('"')[0]
        ready.keys.write_text(text.replace(old, url))
        assert "stamped the log at 3 entries" in commit(ready).stderr
    run(ready, "prove", "b", "--dir", ready.folder)
    verifier = text.partition('verifier = "')[2].partition('"')[0]
    verify: list[str | Path] = [
        "keys", "verify", ready.folder / "b.commitment", ready.folder / "b.tlog-proof",
        "--verifier", verifier, "--roots",
    ]  # fmt: skip
    assert "stamped at 20" in ready(*verify, roots).stdout
    other = tmp_path_factory.mktemp("other")
    assert ready(*verify, make_authority(other)).exit_code == 1
    note, answer = ready.folder / "log/stamps/3.note", ready.folder / "log/stamps/3.tsr"
    second = subprocess.run(
        ["openssl", "ts", "-verify", "-data", note, "-in", answer, "-CAfile", roots],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Verification: OK" in second.stdout + second.stderr
    answer.write_bytes(answer.read_bytes()[:-1] + b"\0")
    stamped = load_keys(ready.keys).uncommitted
    assert ("a", "words/v1") not in stamped


def test_plan_says_the_price(shell: Shell) -> None:
    result = shell("keys", "plan", "--period", "30d", "--training-window", "365d")
    assert "12.2 keys mark in a window of 365d" in result.stdout
    assert "12.2 times the tokens" in result.stdout
    bad = shell("keys", "plan", "--period", "30", "--training-window", "365d")
    assert "write it as 90m, 36h, 30d or 52w" in bad.stderr
