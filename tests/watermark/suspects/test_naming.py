"""Which model answers, and whether an audit goes on with the one it began with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.watermark.suspects.audits import NOW, UNIT, Parrot, key, make, plain_text, wishes
from watermark.errors import AuditRunError, SuspectError
from watermark.radioactivity import Access, PromptSource
from watermark.suspects import (
    Attempt,
    Audit,
    AuditFolder,
    Outcome,
    ReadText,
    begin,
    write_plan,
)
from watermark.suspects.naming import NameWatch
from watermark.suspects.weights import weights_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from watermark.suspects import Prompt


class Named:
    """A suspect that calls itself something."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ask(self, prompts: Sequence[Prompt], keep: Callable[[Attempt], None]) -> None:
        for i, one in enumerate(prompts):
            text = plain_text(i)
            keep(Attempt(prompt=one.id, outcome=Outcome.ANSWER, text=text, model=self.name))


class NamedParrot(Parrot):
    """A reader that calls itself something."""

    model = "m-1"


@pytest.mark.parametrize(
    ("name", "is_taken"),
    [("m", True), ("m-2026-01-31", True), ("", True), ("mini", False), ("other", False)],
)
def test_the_planned_name_or_a_longer_one_is_taken(name: str, is_taken: bool) -> None:
    assert NameWatch("m").accepts(name) is is_taken


def test_the_first_name_is_the_only_one() -> None:
    watch = NameWatch("m")
    assert [watch.accepts(name) for name in ("m-1", "m-1", "m-2", "m", "")] == [
        True, True, False, False, True,
    ]  # fmt: skip
    exact = NameWatch("alias", "llama.gguf")
    assert not exact.accepts("alias")
    assert exact.accepts("llama.gguf")
    assert NameWatch().accepts("anything")


def test_a_closed_audit_pauses_at_another_name_and_goes_on(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()], model="m")
    with pytest.raises(SuspectError, match="about 'm' and the suspect answers as 'x'"):
        audit.run(Named("x"))
    assert not audit.run(Named("m-1")).is_rejected
    findings = audit.findings()
    assert findings.is_complete
    assert findings.evidence.n_answers == 24
    audit.run(Named("clean"), is_control=True)


def test_an_open_audit_pauses_at_another_name_and_goes_on(tmp_path: Path) -> None:
    rows = [ReadText(id=f"r{i}", text=plain_text(i, 90), path="splice") for i in range(16)]
    asked = wishes(access=Access.ARGMAX, prompt_source=PromptSource.PASSAGES, model="m")
    write_plan(tmp_path / "a", asked, [key()], rows=rows, traffic=(), unit=UNIT, now=NOW)
    folder = AuditFolder(tmp_path / "a")
    begin(folder, None, "http://s", is_exploratory=True)
    audit, reader = Audit(folder, [key()], UNIT), NamedParrot([])

    def rename(_look: object) -> None:
        reader.model = "m-2"

    with pytest.raises(SuspectError, match="'m-1' and now answers as 'm-2'"):
        audit.read(reader, tell=rename)
    kept = (tmp_path / "a/answers.jsonl").read_bytes()
    assert 0 < kept.count(b"\n") < len(rows)
    reader.model = "m-1"
    audit.read(reader)
    assert (tmp_path / "a/answers.jsonl").read_bytes().startswith(kept)
    assert audit.findings().is_complete


def test_an_audit_goes_on_with_nobody_else(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()])
    audit.run(Named("m"))
    before = {one.name: one.read_bytes() for one in (tmp_path / "a").iterdir()}
    with pytest.raises(AuditRunError, match=r"'a function'.*'another' needs a plan of its own"):
        begin(audit.folder, None, "another", is_exploratory=True)
    assert {one.name: one.read_bytes() for one in (tmp_path / "a").iterdir()} == before
    begin(audit.folder, None, "a function", is_exploratory=True)
    for name in ("misspelt", "clean"):  # none of its answers counts yet
        begin(audit.folder, None, name, is_control=True, is_exploratory=True)
    audit.run(Named("c"), is_control=True)
    with pytest.raises(AuditRunError, match="control 'clean'"):
        begin(audit.folder, None, "cleaner", is_control=True, is_exploratory=True)


def test_weights_are_told_apart_wherever_they_lie(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.bin").write_bytes(bytes(3 << 20))
    assert weights_digest(tmp_path / "a") == weights_digest(tmp_path / "b")
    with (tmp_path / "b/model.bin").open("r+b") as file:
        file.seek(-9, 2)
        file.write(b"x")
    assert weights_digest(tmp_path / "a") != weights_digest(tmp_path / "b")
    with pytest.raises(SuspectError, match="cannot read"):
        weights_digest(tmp_path / "none")
