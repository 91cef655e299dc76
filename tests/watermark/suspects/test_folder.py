"""What was planned and said is kept, and no byte of it can be changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.watermark.suspects.audits import key, make, marked_text, plain_text, result_of, speaker
from watermark.errors import AuditPlanError, AuditRunError
from watermark.radioactivity.plan import encode_plan, parse_plan
from watermark.suspects import (
    Attempt,
    AuditFolder,
    CallableSuspect,
    CollectedSuspect,
    Outcome,
    begin,
)
from watermark.suspects.figures import encode_result
from watermark.suspects.folder import encode_facts
from watermark.suspects.journal import Journal

if TYPE_CHECKING:
    from pathlib import Path


def test_answers_collected_before_are_of_this_plan(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()])
    path, digest = tmp_path / "collected.jsonl", audit.folder.digest
    rows = [{"id": f"p{i}", "answer": marked_text(key(), i), "plan": digest} for i in range(20)]

    def write(*last: dict[str, str]) -> None:
        path.write_text("".join(json.dumps(row) + "\n" for row in (*rows, *last)))

    for last, message in (
        ({"id": "p20", "answer": "so", "plan": "0" * 64}, r":21: an answer to another plan, '0000"),
        ({"id": "p20", "answer": "so"}, r':21: no object with "id", "answer" and "plan"'),
        ({"id": "p99", "answer": "so", "plan": digest}, r":21: an answer to prompt 'p99' \(no id"),
        ({"id": "p3", "answer": "so", "plan": digest}, ":21: a second answer to prompt 'p3'"),
    ):
        write(last)
        with pytest.raises(AuditRunError, match=message):
            CollectedSuspect(path, audit.folder)
    path.write_bytes(b"")
    with pytest.raises(AuditRunError, match="holds no answers"):
        CollectedSuspect(path, audit.folder)
    write()
    assert audit.run(CollectedSuspect(path, audit.folder)).is_rejected


def test_a_report_says_who_vouches_for_collected_answers(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()])
    audit.run(speaker([plain_text(i) for i in range(24)]))
    facts = audit.folder.facts()
    assert facts is not None
    assert not any("somebody collected" in one for one in result_of(audit)["limits"])
    collected = msgspec.structs.replace(facts, suspect="answers collected before")
    audit.folder.write("run.json", encode_facts(collected))
    assert any("somebody collected" in one for one in result_of(audit)["limits"])


def test_a_line_that_lacks_its_end_alone_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    journal = Journal(path, "00" * 32, Attempt)
    said = [Attempt(prompt=f"p{i}", outcome=Outcome.ANSWER, text=plain_text(i)) for i in range(3)]
    for one in said:
        journal.append(one)
    whole = path.read_bytes()
    for cut in range(1, len(whole.splitlines()[-1]) + 1):
        path.write_bytes(whole[:-cut])
        again = Journal(path, "00" * 32, Attempt)
        assert again.entries == said[:2]
        assert not again.is_whole
        again.mend()
        n_kept = 3 if cut == 1 else 2
        assert again.entries == said[:n_kept]
        assert Journal(path, "00" * 32, Attempt).entries == said[:n_kept]
        for one in said[n_kept:]:
            again.append(one)
        assert path.read_bytes() == whole


def test_a_journal_of_another_plan_is_refused(tmp_path: Path) -> None:
    first = make(tmp_path / "a", [key()])
    first.run(speaker([plain_text(i) for i in range(24)]))
    second = make(tmp_path / "b", [key()], suspect="Another")
    (tmp_path / "b/answers.jsonl").write_bytes((tmp_path / "a/answers.jsonl").read_bytes())
    with pytest.raises(AuditRunError, match="another plan"):
        second.findings()


def test_every_changed_byte_of_the_journal_is_seen(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()])
    audit.run(speaker([marked_text(key(), i) for i in range(24)]))
    before = result_of(audit)
    path = tmp_path / "a/answers.jsonl"
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(bytes(changed))
        try:
            after = result_of(audit)
        except AuditRunError:
            continue
        assert encode_result(after) != encode_result(before)


def test_a_plan_or_its_files_that_were_changed_are_refused(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()])
    plan = tmp_path / "a/plan.json"
    data = plan.read_bytes()
    assert encode_plan(audit.plan) == data
    plan.write_bytes(data.replace(b" ", b"  ", 1))
    with pytest.raises(AuditPlanError, match="edited"):
        AuditFolder(tmp_path / "a")
    for old, new in (
        (b'"alpha": 0.001', b'"alpha": 0.01'),
        (b'"n_decoys": 3000', b'"n_decoys": 30'),
        (b"reaches 1 / alpha = 1000", b"reaches 1 / alpha = 100"),
        (b"independent of key k", b"independent of key j"),
        (b"each rounded down", b"each rounded"),
    ):
        assert data.count(old) == 1
        plan.write_bytes(data.replace(old, new))
        with pytest.raises(AuditPlanError, match="says in words what its numbers do not"):
            AuditFolder(tmp_path / "a")
    other = msgspec.structs.replace(audit.plan, alpha=0.01)
    for bad in ({"alpha": 0.0}, {"share": 5.0}, {"share": -1.0}):
        plan.write_bytes(encode_plan(msgspec.structs.replace(audit.plan, **bad)))
        with pytest.raises(AuditPlanError):
            AuditFolder(tmp_path / "a")
    plan.write_bytes(encode_plan(other.in_words()))
    edited = AuditFolder(tmp_path / "a")
    assert edited.digest != audit.folder.digest
    with pytest.raises(AuditRunError, match="is of plan"):
        begin(edited, None, "", is_exploratory=True)
    plan.write_bytes(data)
    prompts = tmp_path / "a/prompts.jsonl"
    prompts.write_bytes(prompts.read_bytes() + b"\n")
    with pytest.raises(AuditPlanError, match="not the file that the plan names"):
        AuditFolder(tmp_path / "a").prompts()
    for broken in (b"", b"{}", b"\xff", data[:-2]):
        with pytest.raises(AuditPlanError):
            parse_plan(broken, "plan.json")


def test_what_was_said_survives_a_kill_and_is_not_asked_again(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()])
    asked: list[str] = []

    def answer(prompts: list[str]) -> list[str]:
        asked.extend(prompts)
        if len(asked) > 10:
            raise KeyboardInterrupt
        return [plain_text(len(asked) + i) for i in range(len(prompts))]

    with pytest.raises(KeyboardInterrupt):
        audit.run(CallableSuspect(answer, batch=2))
    path = tmp_path / "a/answers.jsonl"
    kept = path.read_bytes()
    path.write_bytes(kept + b'{"before": "half a li')  # the kill came in the middle of a line
    with pytest.raises(AuditRunError, match="middle of a line"):
        audit.check_whole()
    seen = audit.findings()  # a report may be made at any time, and takes nothing away
    assert seen.cut_off == ("answers.jsonl",)
    assert seen.evidence.n_answers == kept.count(b"\n")
    assert path.read_bytes().endswith(b"half a li")
    again: list[str] = []

    def answer_again(prompts: list[str]) -> list[str]:
        again.extend(prompts)
        return [plain_text(99)] * len(prompts)

    audit.run(CallableSuspect(answer_again))
    assert path.read_bytes().startswith(kept)
    assert len(again) == 24 - kept.count(b"\n")
    assert audit.findings().is_complete
