"""What an engine marked with its own key: from a ledger into the weights of an audit of our key."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.watermark.cli.test_audit import collect, disclose, keys, plan
from tests.watermark.cli.test_ledger import TOKENIZER, TOKENS, deliver, lines, make
from tests.watermark.suspects.audits import marked_text
from watermark.keys import KEYS_HEADER, load_keys
from watermark.ledger import (
    Delivered,
    Ending,
    Ledger,
    Outcome,
    WriterLimits,
    engine_context_key,
    fingerprinter,
    fingerprints,
    load_settings,
)
from watermark.seeding import context_windows
from watermark.suspects import AuditFolder
from watermark.text import WordsUnit

if TYPE_CHECKING:
    from pathlib import Path

    from tests.watermark.cli.shell import Shell

__all__ = ["keys"]  # the fixture
N_REPLIES = 20


@pytest.fixture
def engine(shell: Shell, keys: Path) -> Path:
    """The keys, and one of an engine with contexts of another width."""
    number = shell.file("engine.txt", "42")
    made = shell(
        "keys", "import", number, "--scheme", "vllm-gumbel", "--id", "engine", "--dir", keys.parent,
        "--unit", "words/v1",
    )  # fmt: skip
    assert made.exit_code == 0, made.stderr
    keys.write_text(keys.read_text() + made.stdout)
    return keys


def delivered(shell: Shell, keys: Path) -> tuple[Path, Path]:
    """Return a ledger of what the engine said, and the contexts that were read from it."""
    folder = keys.parent / "ledger"
    made = shell("ledger", "new", "--dir", folder, "--name", "example.com/l")
    assert made.exit_code == 0, made.stderr
    path = folder / "LEDGER.toml"
    settings = replace(load_settings(path), limits=WriterLimits(reserve_bytes=0), node="node")
    ledger = Ledger(
        settings, machine="m", now=time.time, clock=time.monotonic, entropy=secrets.token_bytes
    )
    ring = load_keys(keys)
    (record,) = ring.by_id("engine")
    keyed = ledger.fingerprinter(record)
    assert "42" not in repr(keyed)
    for number in range(N_REPLIES):
        entry = ledger.begin(
            account=None, opening=b"%d" % number, keyed=keyed, tokenizer=record.unit, model="m",
            path="native",
        )  # fmt: skip
        ids = WordsUnit().encode(marked_text(ring.by_id("k")[0], number))
        ending = Ending(outcome=Outcome.FINISH, n_tokens=len(ids), n_bytes=9, digest=b"d" * 32)
        ledger.end(entry, ending, [Delivered(tokens=ids.tolist(), units=lambda i=ids: i)], keyed)  # type: ignore[misc]
    ledger.close()
    sealed = shell("ledger", "seal", "--ledger", path, "--node", "node")
    assert sealed.exit_code == 0, sealed.stderr
    contexts = keys.parent / "contexts.jsonl"
    counted = shell("ledger", "contexts", "--ledger", path, "-o", contexts)
    assert counted.exit_code == 0, counted.stderr
    return path, contexts


def test_contexts_that_an_engine_marked_weigh_an_audit_of_our_key(
    shell: Shell, engine: Path
) -> None:
    ledger, contexts = delivered(shell, engine)
    rows = [json.loads(line) for line in contexts.read_text().splitlines()]
    assert {row["key_id"] for row in rows} == {"engine"}
    options = ("--ledger-contexts", contexts, "--weights", "other-keys", "--full-at", "1")
    folder = plan(shell, engine, "a", *options, "--ledger", ledger)
    (record,) = load_keys(engine).by_id("k")
    (traffic,) = AuditFolder(folder).traffic({})  # no key is needed: the plan has the subkey
    windows = context_windows(WordsUnit().encode(marked_text(record, 0)), 2)[:-1]
    assert (traffic.counts(windows) >= 1).all()
    assert not traffic.counts(windows[:, ::-1] + 1).any()
    answers = collect(engine, folder, is_marked=True)
    ran = shell("audit", "run", folder, "--keys", engine, "--answers", answers)
    assert ran.exit_code == 0, ran.stderr
    said = json.loads(shell("audit", "report", folder, "--keys", engine, "--json").stdout)
    assert said["is_rejected"]
    weighed, control = (
        one["n_scored"] for one in (said["suspect"], said["controls"]["undelivered"])
    )
    assert weighed > 0
    assert control > 0  # the last ten answers were never delivered
    again = shell("audit", "replay", folder, "--subkey", disclose(shell, engine))
    assert again.exit_code == 0, again.stderr


def test_what_cannot_be_used_is_said(shell: Shell, engine: Path) -> None:
    ledger, contexts = delivered(shell, engine)
    common = (
        "audit", "plan", "--keys", engine, "--suspect", "E", "--requests", "30",
        "--prompts", engine.parent / "prompts.jsonl", "--ledger-contexts", contexts,
        "--weights", "all-keys", "--effect", "0.5", "--alpha", "0.001",
    )  # fmt: skip
    without = shell(*common, "-o", engine.parent / "x")
    assert without.exit_code == 1
    assert "give --ledger with its LEDGER.toml" in without.stderr
    wide = shell("keys", "new", "--id", "wide", "--dir", engine.parent, "--context-width", "3")
    engine.write_text(
        engine.read_text() + wide.stdout.replace('state = "marking"', 'state = "detect"')
    )
    other = shell(*common, "-o", engine.parent / "y", "--ledger", ledger, "--key-id", "wide")
    assert other.exit_code == 1
    assert "left out: contexts of other widths than 3, delivered under 'engine' (2)" in other.stderr
    assert "there is nothing" in other.stderr
    tested = shell(*common, "-o", engine.parent / "z", "--ledger", ledger, "--key-id", "engine")
    assert tested.exit_code == 1
    assert "an engine marks" in tested.stderr


def test_kept_tokens_become_the_same_fingerprints(shell: Shell) -> None:
    tokenizer = shell.file("tokenizer.json", TOKENIZER)
    made = shell(
        "keys", "import", shell.file("engine.txt", "42"), "--scheme", "vllm-gumbel",
        "--id", "engine", "--dir", shell.folder, "--tokenizer", tokenizer,
    )  # fmt: skip
    keys = shell.file("KEYS.toml", KEYS_HEADER + made.stdout)
    path = make(shell, "--keeps", "tokens")
    secret = load_settings(path).secret()
    keyed = fingerprinter(load_keys(keys).by_id("engine")[0], engine_context_key(secret))
    deliver(path, keyed)
    assert shell("ledger", "seal", "--ledger", path, "--node", "node").exit_code == 0
    out = shell.folder / "contexts.jsonl"
    counted = shell("ledger", "contexts", "--ledger", path, "-o", out, "--keys", keys)
    assert counted.exit_code == 0, counted.stderr
    choices = [Delivered(tokens=one, units=lambda one=one: one) for one in TOKENS]  # type: ignore[misc]
    (wanted,) = fingerprints([(keyed, choices)])
    assert len(wanted) == 3  # of two tokens each, one of them in both choices
    assert [row["fingerprint"] for row in lines(out)] == wanted.tolist()
