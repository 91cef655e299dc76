"""`watermark audit`: planned, logged, run, reported and replayed, and refused where it must be."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.watermark.suspects.audits import marked_text, plain_text
from watermark.keys import load_keys
from watermark.radioactivity.plan import encode_plan
from watermark.suspects import AuditFolder, CollectedSuspect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.watermark.cli.shell import Shell


@pytest.fixture
def keys(shell: Shell, tmp_path: Path) -> Path:
    file = tmp_path / "KEYS.toml"
    made = shell("keys", "new", "--id", "k", "--dir", tmp_path, "--rho", "1")
    file.write_text("schema = 1\n" + made.stdout)
    assert shell("keys", "commit", "--keys", file, "--create-log", "example.com/log").exit_code == 0
    prompts = [{"id": f"p{i}", "prompt": f"Write number {i}"} for i in range(30)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    return file


def plan(shell: Shell, keys: Path, name: str, *options: str | Path) -> Path:
    folder = keys.parent / name
    made = shell(
        "audit", "plan", "-o", folder, "--keys", keys, "--suspect", "Example", "--model", "m",
        "--prompts", keys.parent / "prompts.jsonl", "--requests", "30", "--max-tokens", "60",
        "--effect", "0.5", "--alpha", "0.001", *options,
    )  # fmt: skip
    assert made.exit_code == 0, made.stderr
    return folder


def collect(keys: Path, folder: Path, *, is_marked: bool) -> Path:
    """Write answers, as somebody has collected them."""
    record = load_keys(keys).by_id("k")[0]
    digest = AuditFolder(folder).digest
    path = keys.parent / "collected.jsonl"
    rows = [
        {
            "id": f"p{i}",
            "plan": digest,
            "answer": marked_text(record, i) if is_marked else plain_text(i),
        }
        for i in range(30)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_from_plan_to_replay(shell: Shell, keys: Path) -> None:
    folder = plan(shell, keys, "a")
    plan(shell, keys, "b")
    answers = collect(keys, folder, is_marked=True)
    ran = shell("audit", "run", folder, "--keys", keys, "--answers", answers)
    assert ran.exit_code == 0, ran.stderr
    assert "the null hypothesis is rejected" in ran.stderr
    said = shell("audit", "report", folder, "--keys", keys, "--json")
    result = json.loads(said.stdout)
    assert result["is_rejected"]
    assert not result["is_exploratory"]
    assert any("'prompts.jsonl'" in one and "vouches" in one for one in result["limits"])
    assert [one["is_this"] for one in result["plans"]] == [True, False]
    page = (folder / "report.html").read_text()
    assert "Every plan for this suspect" in page
    assert "Exploratory" not in page
    assert "<script" not in page
    shell.check_leaks(page)
    disclosed = disclose(shell, keys)
    again = shell("audit", "replay", folder, "--subkey", disclosed)
    assert again.exit_code == 0, again.stderr
    assert "every figure" in again.stdout
    for name in ("plan.json", "prompts.jsonl", "answers.jsonl", "run.json", "result.json",
                 "report.html"):  # fmt: skip
        path = folder / name
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[len(whole) // 2] ^= 4
        path.write_bytes(bytes(changed))
        assert shell("audit", "replay", folder, "--subkey", disclosed).exit_code == 1, name
        path.write_bytes(whole)
    path = folder / "run.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 1 + len(whole) // 25):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert shell("audit", "replay", folder, "--subkey", disclosed).exit_code == 1, place
    path.write_bytes(whole)
    assert shell("audit", "replay", folder, "--subkey", disclosed).exit_code == 0


def test_a_promised_control_is_missed_aloud(shell: Shell, keys: Path) -> None:
    folder = plan(shell, keys, "a", "--control")
    answers = collect(keys, folder, is_marked=False)
    run = ("audit", "run", folder, "--keys", keys, "--answers", answers)
    ran = shell(*run)
    assert "warning: the plan promises a clean model as a control, and 30 prompts" in ran.stderr
    said = shell("audit", "report", folder, "--keys", keys, "--json")
    assert "warning: The plan promises a clean model" in said.stderr
    assert len(json.loads(said.stdout)["warnings"]) == 1
    assert "warning" not in shell(*run, "--as-control").stderr
    said = shell("audit", "report", folder, "--keys", keys, "--json")
    assert json.loads(said.stdout)["warnings"] == []


def test_a_report_beside_a_run_leaves_out_what_is_not_whole(shell: Shell, keys: Path) -> None:
    folder = plan(shell, keys, "a")
    answers = collect(keys, folder, is_marked=True)
    run = ("audit", "run", folder, "--keys", keys, "--answers", answers)
    assert shell(*run).exit_code == 0
    path = folder / "answers.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    report = ("audit", "report", folder, "--keys", keys)
    said = shell(*report)
    assert said.exit_code == 0
    assert "answers.jsonl ends in the middle of a line, which does not count" in said.stderr
    assert path.read_bytes() == whole[:-9]
    disclosed = disclose(shell, keys)
    replay = ("audit", "replay", folder, "--subkey", disclosed)
    refused = shell(*replay)
    assert refused.exit_code == 1
    assert "middle of a line" in refused.stderr
    assert shell(*run).exit_code == 0
    assert path.read_bytes() == whole.rpartition(b"\n{")[0] + b"\n"  # it had decided before
    assert "middle" not in shell(*report).stderr
    assert shell(*replay).exit_code == 0


def disclose(shell: Shell, keys: Path) -> Path:
    path = keys.parent / "k.context"
    assert shell("keys", "rotate", "--keys", keys, "--now").exit_code == 0
    done = shell("keys", "disclose", "k", "--keys", keys, "--output", path)
    assert done.exit_code == 0, done.stderr
    return path


def test_a_plan_that_is_not_logged_runs_as_exploratory_only(shell: Shell, keys: Path) -> None:
    folder = plan(shell, keys, "a", "--no-log")
    answers = collect(keys, folder, is_marked=False)
    refused = shell("audit", "run", folder, "--keys", keys, "--answers", answers)
    assert refused.exit_code == 1
    assert "never logged" in refused.stderr
    assert not (folder / "answers.jsonl").exists()
    ran = shell("audit", "run", folder, "--keys", keys, "--answers", answers, "--exploratory")
    assert ran.exit_code == 0
    assert "EXPLORATORY" in shell("audit", "report", folder, "--keys", keys).stdout
    page = (folder / "report.html").read_text()
    assert page.count("<strong>Exploratory:") == page.count("<section>")


def test_a_key_that_no_log_holds_is_not_committed_to(shell: Shell, keys: Path) -> None:
    text = keys.read_text()
    log = text.index("[log]")
    table = re.search(r"\[log\]\n(?:[^\[\n]+\n)+", text[log:])
    assert table is not None
    keys.write_text(text.replace(table[0], ""))
    folder = plan(shell, keys, "a")
    keys.write_text(text)  # committed to after the plan was made
    (found,) = AuditFolder(folder).plan.keys
    assert found.log_index is None
    answers = collect(keys, folder, is_marked=False)
    run = ("audit", "run", folder, "--keys", keys, "--answers", answers)
    refused = shell(*run)
    assert refused.exit_code == 1
    assert "a key was never logged" in refused.stderr
    assert shell(*run, "--exploratory").exit_code == 0
    said = shell("audit", "report", folder, "--keys", keys, "--json")
    result = json.loads(said.stdout)
    assert result["is_exploratory"]
    assert any("not committed to in a log" in one for one in result["limits"])
    committed = plan(shell, keys, "b")
    assert AuditFolder(committed).plan.keys[0].log_index is not None


def test_a_plan_that_was_edited_is_refused(shell: Shell, keys: Path) -> None:
    folder = plan(shell, keys, "a")
    path = folder / "plan.json"
    whole, made = path.read_text(), AuditFolder(folder).plan
    answers = collect(keys, folder, is_marked=False)
    run = ("audit", "run", folder, "--keys", keys, "--answers", answers)
    path.write_text(whole.replace('"alpha": 0.001', '"alpha": 0.1'))
    refused = shell(*run)
    assert refused.exit_code == 1
    assert "says in words what its numbers do not say, so it was edited" in refused.stderr
    edited = msgspec.structs.replace(made, alpha=0.1).in_words()
    path.write_bytes(encode_plan(edited))
    collect(keys, folder, is_marked=False)  # for that plan
    refused = shell(*run)
    assert refused.exit_code == 1
    assert "was not in the log before its first query, with its keys before it: it was edited" in (
        refused.stderr
    )


def test_delivered_conversations_weigh_and_first_prompts_need_consent(
    shell: Shell, keys: Path
) -> None:
    record = load_keys(keys).by_id("k")[0]
    delivered, accounts = keys.parent / "delivered.jsonl", keys.parent / "accounts.toml"
    rows = [
        {
            "account": "probe" if i % 2 else "customer",
            "key_id": "k",
            "path": "splice",
            "messages": [
                {"role": "user", "content": f"question {i}"},
                {"role": "assistant", "content": marked_text(record, i)},
            ],
        }
        for i in range(40)
    ]
    delivered.write_text("".join(json.dumps(row) + "\n" for row in rows))
    accounts.write_text('schema = 1\n[[account]]\nname = "probe"\naudit_prompts = true\n')
    folder = plan(
        shell, keys, "a", "--delivered", delivered, "--accounts", accounts,
        "--weights", "all-keys", "--full-at", "1",
    )  # fmt: skip
    sent = [
        json.loads(line)["prompt"] for line in (folder / "prompts.jsonl").read_text().splitlines()
    ]
    assert len(sent) == 30
    assert all(int(text.split()[1]) % 2 for text in sent)
    begun = plan(
        shell, keys, "p", "--delivered", delivered, "--accounts", accounts, "--prefix-units", "9"
    )
    sent = [
        json.loads(line)["prompt"] for line in (begun / "prompts.jsonl").read_text().splitlines()
    ]
    assert {len(text.split()) for text in sent} == {9}
    assert AuditFolder(begun).plan.prompt_source == "prefixes"
    for one in (folder, begun):
        origin = AuditFolder(one).plan.prompt_origin
        assert origin is not None
        assert origin.sha256 == hashlib.sha256(delivered.read_bytes()).hexdigest()
        assert (origin.name, origin.rows) == ("delivered.jsonl", 40)
    accounts.write_text('schema = 1\n[[account]]\nname = "probe"\n')
    refused = shell(
        "audit", "plan", "-o", keys.parent / "b", "--keys", keys, "--suspect", "E",
        "--delivered", delivered, "--accounts", accounts, "--requests", "30",
    )  # fmt: skip
    assert refused.exit_code == 1
    assert "agreed" in refused.stderr
    opened = plan(shell, keys, "c", "--access", "open-argmax", "--delivered", delivered,
                  "--effect", "1")  # fmt: skip
    assert "splice" in (opened / "prompts.jsonl").read_text()
    assert AuditFolder(opened).plan.prompt_origin is not None


def test_a_ledgers_contexts_are_those_of_a_key_at_hand(shell: Shell, keys: Path) -> None:
    contexts = keys.parent / "contexts.jsonl"
    row = {"key_id": "k", "unit": "words/v1", "fingerprint": 7, "conversations": 2}
    contexts.write_text(json.dumps(row) + "\n")
    folder = plan(shell, keys, "a", "--ledger-contexts", contexts, "--weights", "all-keys")
    assert (folder / "delivered-0.bin").stat().st_size == 16
    for changes, message in (
        ({"key_id": "another"}, "not at hand"),
        ({"unit": "tokenizer:sha256:00"}, "another deployment"),
        ({"fingerprint": "x"}, "holds no contexts"),
    ):
        contexts.write_text(json.dumps(row | changes) + "\n")
        refused = shell(
            "audit", "plan", "-o", keys.parent / "b", "--keys", keys, "--suspect", "E",
            "--ledger-contexts", contexts, "--requests", "30",
            "--prompts", keys.parent / "prompts.jsonl",
        )  # fmt: skip
        assert refused.exit_code == 1
        assert message in refused.stderr


def test_what_a_hosted_model_refuses_is_left_out_by_the_plan(shell: Shell, keys: Path) -> None:
    folder = plan(shell, keys, "a", "--temperature", "none", "--max-tokens-as",
                  "max_completion_tokens", "--answers-as", "full-name")  # fmt: skip
    made = AuditFolder(folder).plan
    assert (made.temperature, made.max_tokens_as, made.answers_as) == (
        None, "max_completion_tokens", "full-name",
    )  # fmt: skip
    assert made.prompt_source == "given"
    for bad in ("hot", "-1", "nan", "inf"):
        refused = shell("audit", "plan", "-o", keys.parent / "b", "--keys", keys, "--suspect", "E",
                        "--requests", "30", "--temperature", bad)  # fmt: skip
        assert refused.exit_code == 2
        assert "is no temperature" in refused.stderr


def test_a_run_goes_on_with_the_server_it_began_with(shell: Shell, keys: Path) -> None:
    folder = plan(shell, keys, "a")
    answers = collect(keys, folder, is_marked=False)
    run = ("audit", "run", folder, "--keys", keys)
    assert shell(*run, "--answers", answers).exit_code == 0
    before = {one.name: one.read_bytes() for one in folder.iterdir()}
    refused = shell(*run, "--url", "http://u:secret@127.0.0.1:9/b")
    assert refused.exit_code == 1
    assert "needs a plan of its own" in refused.stderr
    assert "127.0.0.1:9/b chat" in refused.stderr
    assert "secret" not in refused.stderr
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == before


class Suspect(BaseHTTPRequestHandler):
    """A server of chat completions, which says the same to everybody."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        said = {"choices": [{"message": {"content": plain_text(1)}}], "model": "m"}
        is_here = self.path == "/v1/chat/completions"
        self.send_response(200 if is_here else 404)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # who gets a 404 may not wait for its body
            self.wfile.write(json.dumps(said if is_here else {}).encode())

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@contextlib.contextmanager
def serve_suspect() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Suspect) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_an_address_can_be_corrected_until_something_was_answered(shell: Shell, keys: Path) -> None:
    folder = plan(shell, keys, "a")
    run = ("audit", "run", folder, "--keys", keys)
    with serve_suspect() as url:
        for bad, dialect, why in (
            (url + "/nowhere", "chat", "status 404"),
            (url, "messages", "status 404"),
        ):
            wrong = shell(*run, "--url", bad, "--dialect", dialect)
            assert wrong.exit_code == 1
            assert why in wrong.stderr
        right = shell(*run, "--url", url)
        assert right.exit_code == 0, right.stderr
        again = shell(*run, "--url", url + "/nowhere")
        assert "needs a plan of its own" in again.stderr
    facts = json.loads((folder / "run.json").read_bytes())
    assert facts["suspect"] == url.removeprefix("http://") + " chat"
    assert facts["is_logged"]


def test_whoever_interrupts_a_run_is_told_how_it_goes_on(
    shell: Shell, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = plan(shell, keys, "a")
    run = ("audit", "run", folder, "--keys", keys)
    answers = collect(keys, folder, is_marked=False)
    with monkeypatch.context() as patch:
        patch.setattr(CollectedSuspect, "ask", _interrupted)
        stopped = shell(*run, "--answers", answers)
    assert stopped.exit_code == 130
    assert "the same command goes on" in stopped.stderr
    assert shell(*run, "--answers", answers).exit_code == 0


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_usage(shell: Shell, keys: Path) -> None:
    folder = plan(shell, keys, "a")
    assert shell("audit", "run", folder, "--keys", keys).exit_code == 2
    both = shell("audit", "run", folder, "--keys", keys, "--url", "x", "--gguf", "y")
    assert both.exit_code == 2
    unset = shell(
        "audit", "run", folder, "--keys", keys, "--url", "http://x", "--api-key-env", "UNSET_7"
    )
    assert unset.exit_code == 2
    assert "not set" in unset.stderr
    missing = shell("audit", "report", folder, "--keys", keys)
    assert missing.exit_code == 1
    assert "was not run" in missing.stderr or "no answers" in missing.stderr
