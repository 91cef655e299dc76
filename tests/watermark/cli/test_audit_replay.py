"""`watermark audit replay`: what was changed fails, and the list of plans is the log's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.watermark.cli import test_audit as audits
from tests.watermark.suspects.audits import marked_text
from watermark.cli.audit_page import audit_page
from watermark.keys import load_keys
from watermark.suspects import AuditFolder
from watermark.suspects.figures import encode_result

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from tests.watermark.cli.shell import Shell

keys = audits.keys
Lists = list[dict[str, Any]]


@pytest.fixture
def folder(shell: Shell, keys: Path) -> Path:
    """Make two plans for the suspect, of which the second is run, and one for another."""
    audits.plan(shell, keys, "before")
    found = audits.plan(shell, keys, "a")
    audits.plan(shell, keys, "other", "--suspect", "Quite another")
    answers = audits.collect(keys, found, is_marked=True)
    assert shell("audit", "run", found, "--keys", keys, "--answers", answers).exit_code == 0
    assert shell("audit", "report", found, "--keys", keys).exit_code == 0
    return found


def replayer(shell: Shell, keys: Path, folder: Path) -> Callable[..., Result]:
    subkey = audits.disclose(shell, keys)
    return lambda *options: shell("audit", "replay", folder, "--subkey", subkey, *options)


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a result, and make the page anew from it, as the code would."""
    path = folder / "result.json"
    result = json.loads(path.read_bytes())
    change(result)
    path.write_bytes(encode_result(result))
    try:
        page = audit_page(AuditFolder(folder).plan, result).encode()
    except (TypeError, KeyError):
        return  # nobody can make one of that
    (folder / "report.html").write_bytes(page)


def plans(result: dict[str, Any]) -> Lists:
    found: Lists = result["plans"]
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda result: plans(result).clear(),
        lambda result: plans(result)[1].update(log_index=plans(result)[0]["log_index"]),
        lambda result: plans(result)[1].update(log_index=3),
        lambda result: plans(result)[1].update(log_index=None),
        lambda result: plans(result)[0].update(is_this=True),
        lambda result: plans(result)[0].update(log_index=99),
        lambda result: plans(result)[1].update(plan="ab" * 32),
        lambda result: plans(result)[1].update(more=1),
        lambda result: result.update(plans=None),
        lambda result: result.update(plans=7),
        lambda result: result.update(plans=[1]),
        lambda result: result.update(log=None),
        lambda result: result["log"].update(size=2),
        lambda result: result["log"].update(checkpoint="so"),
    ],
)
def test_a_list_of_plans_that_cannot_be_fails(
    shell: Shell, keys: Path, folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    replay = replayer(shell, keys, folder)
    assert replay().exit_code == 0
    forge(folder, change)
    refused = replay()
    assert refused.exit_code == 1
    assert "plans" in refused.stderr


def test_a_list_of_plans_is_held_against_the_log_where_it_is_at_hand(
    shell: Shell, keys: Path, folder: Path
) -> None:
    replay = replayer(shell, keys, folder)
    result = json.loads((folder / "result.json").read_bytes())
    assert [one["is_this"] for one in plans(result)] == [False, True]
    assert result["log"]["n_other_plans"] == 1
    assert "held against no log" in replay().stdout
    log = ("--log", keys.parent / "log")
    assert "since then it has had 0 more" in replay(*log).stdout
    audits.plan(shell, keys, "later", "--suspect", "EXAMPLE ")
    assert "since then it has had 1 more" in replay(*log).stdout
    assert replay("--log", keys.parent / "none").exit_code == 1
    whole = (folder / "result.json").read_bytes()
    for change in (
        lambda result: plans(result).pop(0),
        lambda result: plans(result)[0].update(plan="ab" * 32),
        lambda result: result["log"].update(n_other_plans=0),
    ):
        (folder / "result.json").write_bytes(whole)
        forge(folder, change)
        assert "held against no log" in replay().stdout  # and that is all it says
        refused = replay(*log)
        assert refused.exit_code == 1
        assert "not what the log's first" in refused.stderr


def test_a_page_that_is_missing_fails(shell: Shell, keys: Path, folder: Path) -> None:
    replay = replayer(shell, keys, folder)
    (folder / "report.html").unlink()
    refused = replay()
    assert refused.exit_code == 1
    assert "holds no report.html" in refused.stderr


def test_a_changed_control_or_ledger_fails(shell: Shell, keys: Path) -> None:
    record = load_keys(keys).by_id("k")[0]
    texts = [marked_text(record, i) for i in range(30)]

    rows = [{"key_id": "k", "messages": [{"role": "assistant", "content": one}]} for one in texts]
    delivered = keys.parent / "delivered.jsonl"
    delivered.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = audits.plan(
        shell, keys, "a", "--control", "--delivered", delivered, "--weights", "all-keys"
    )
    run = ("audit", "run", folder, "--keys", keys, "--answers")
    assert shell(*run, audits.collect(keys, folder, is_marked=True)).exit_code == 0
    clean = audits.collect(keys, folder, is_marked=False)
    assert shell(*run, clean, "--as-control").exit_code == 0
    assert shell("audit", "report", folder, "--keys", keys).exit_code == 0
    replay = replayer(shell, keys, folder)
    assert replay().exit_code == 0
    for name in ("control.jsonl", "delivered-0.bin"):
        path = folder / name
        whole = path.read_bytes()
        for place in (0, len(whole) // 3, len(whole) - 2):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            assert replay().exit_code == 1, (name, place)
        path.unlink()
        assert replay().exit_code == 1, name
        path.write_bytes(whole)
    assert replay().exit_code == 0
