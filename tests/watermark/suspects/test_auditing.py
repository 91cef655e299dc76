"""An audit as it runs: found, left alone, resumed, stopped where it must."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from tests.watermark.suspects.audits import (
    NOW,
    UNIT,
    Parrot,
    key,
    make,
    marked_text,
    plain_text,
    result_of,
    speaker,
    wishes,
)
from watermark.cli.audit_page import audit_page
from watermark.errors import AuditPlanError, AuditRunError, SuspectError
from watermark.radioactivity import Access, Budget, PromptSource
from watermark.radioactivity.forecasting import forecast
from watermark.radioactivity.plan import TokensField
from watermark.suspects import (
    Attempt,
    Audit,
    AuditFolder,
    CallableSuspect,
    Outcome,
    Prompt,
    ReadText,
    begin,
    planning,
    write_plan,
)
from watermark.suspects.figures import encode_result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from watermark.radioactivity.plan import Forecast


def test_a_suspect_that_says_marked_text_is_found_and_asked_no_further(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()])
    look = audit.run(speaker([marked_text(key(), i) for i in range(24)]))
    assert look.is_rejected
    assert look.n_answers < 24
    assert audit.run(speaker([])).n_answers == look.n_answers
    result = result_of(audit)
    assert result["is_rejected"]
    assert result["is_exploratory"]
    assert not result["is_complete"]
    assert encode_result(result) == encode_result(result_of(audit))


def test_a_clean_suspect_is_left_alone_and_its_dose_is_bounded(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()])
    look = audit.run(speaker([plain_text(i) for i in range(24)]))
    assert not look.is_rejected
    assert look.n_answers == 24
    findings = audit.findings()
    assert findings.is_complete
    assert 0 < findings.evidence.dose.high < 1
    assert "excluded" in str(result_of(audit)["claim"])


@pytest.mark.parametrize(("system", "n_scored"), [("", 2), ("be brief and", 0)])
def test_where_system_prompt_and_prompt_meet_nothing_is_scored(
    tmp_path: Path, system: str, n_scored: int
) -> None:
    audit = make(tmp_path / "a", [key()], system=system)
    assert audit.run(speaker(["brief and Please write loud"] * 24)).n_scored == n_scored


def test_a_clean_model_stands_beside(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()], has_control=True)
    look = audit.run(speaker([marked_text(key(), i) for i in range(24)]))
    audit.run(speaker([plain_text(i) for i in range(24)]), is_control=True)
    control = audit.findings().control
    assert control is not None
    assert control.evidence.n_answers == look.n_answers
    assert not control.evidence.rejects_null(alpha=1e-3)
    result = result_of(audit)
    assert result["warnings"] == []
    path = tmp_path / "a/control.jsonl"
    whole = path.read_bytes()
    before, last = whole[:-1].rsplit(b"\n", 1)
    changed = last.replace(b'"completion_tokens":0', b'"completion_tokens":7')
    path.write_bytes(before + b"\n" + changed + b"\n")
    assert result_of(audit) != result  # no figure has it, and no byte can be changed


def test_a_control_that_was_promised_and_never_asked_is_missed(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()], has_control=True)
    assert audit.n_uncontrolled() == 0
    look = audit.run(speaker([marked_text(key(), i) for i in range(24)]))
    assert audit.n_uncontrolled() == look.n_answers
    (warning,) = result_of(audit)["warnings"]
    assert "promises a clean model" in warning
    assert "none was asked" in warning
    page = audit_page(audit.plan, result_of(audit) | {"plans": [], "log": None})
    assert "promised by the plan, and MISSING" in page
    assert "<strong>Warning:</strong> The plan promises" in page
    audit.run(speaker([plain_text(i) for i in range(4)]), is_control=True)  # and fails then
    assert audit.n_uncontrolled() == look.n_answers - 4
    (warning,) = result_of(audit)["warnings"]
    assert f"has not answered {look.n_answers - 4} of the prompts" in warning
    audit.run(speaker([plain_text(i) for i in range(24)]), is_control=True)
    assert result_of(audit)["warnings"] == []
    other = make(tmp_path / "b", [key()])
    other.run(speaker([marked_text(key(), i) for i in range(24)]))
    assert (other.n_uncontrolled(), result_of(other)["warnings"]) == (0, [])
    assert "not planned" in audit_page(other.plan, result_of(other) | {"plans": [], "log": None})
    other.run(speaker([marked_text(key(), i) for i in range(24)]), is_control=True)
    assert any("chosen afterwards" in one for one in result_of(other)["limits"])
    assert any("rejects the null hypothesis too" in one for one in result_of(other)["warnings"])


def test_a_clean_model_is_promised_for_closed_audits_only(tmp_path: Path) -> None:
    with pytest.raises(AuditPlanError, match="beside a closed audit only"):
        make(tmp_path / "a", [key()], has_control=True, access=Access.ARGMAX)


def test_one_session_at_a_time_writes(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()])
    other = Audit(AuditFolder(tmp_path / "a"), [key()], UNIT)

    def answer(prompts: list[str]) -> list[str]:
        with pytest.raises(AuditRunError, match="another session"):
            other.run(speaker([]))
        with pytest.raises(AuditRunError, match="another session"):
            begin(other.folder, None, "again", is_exploratory=True)
        return [plain_text(len(prompts) + i) for i in range(len(prompts))]

    audit.run(CallableSuspect(answer))
    assert audit.findings().is_complete
    assert other.run(speaker([])).n_answers == 24


def test_another_models_answers_do_not_count(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()])

    class Renamed:
        def ask(self, prompts: Sequence[Prompt], keep: object) -> None:
            assert callable(keep)
            for i, one in enumerate(prompts):
                name = "m-1" if i < 5 else "m-2"
                keep(Attempt(prompt=one.id, outcome=Outcome.ANSWER, text=plain_text(i), model=name))

    with pytest.raises(SuspectError, match="'m-1' and now answers as 'm-2'"):
        audit.run(Renamed())
    findings = audit.findings()
    assert findings.evidence.n_answers == 5
    assert findings.kinds["other-model"] == 3


def test_a_function_that_always_fails_or_miscounts_is_told(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()])
    with pytest.raises(SuspectError, match=r"5 prompts in a row \(at last ZeroDivisionError\)"):
        audit.run(CallableSuspect(lambda _: [str(1 // 0)]))
    with pytest.raises(SuspectError, match="1 answers to 8"):
        audit.run(CallableSuspect(lambda _: ["one"]))


def test_a_function_that_fails_at_one_prompt_or_at_random_loses_no_other(tmp_path: Path) -> None:
    audit, rng = make(tmp_path / "a", [key()]), np.random.default_rng(0)

    def answer(prompts: list[str]) -> list[str]:
        if "Please write text number 3" in prompts or rng.random() < 0.2:
            raise ValueError("customer text")
        return [plain_text(len(one)) for one in prompts]

    audit.run(CallableSuspect(answer, batch=4))
    findings = audit.findings()
    assert findings.kinds["failed"] == 1
    assert findings.kinds["answer"] == 23
    assert findings.kinds["retried"] >= 4
    journal = (tmp_path / "a/answers.jsonl").read_text()
    assert "ValueError" in journal
    assert "customer text" not in journal
    audit.run(CallableSuspect(lambda prompts: ["Once upon a time" for _ in prompts]))
    assert audit.findings().is_complete


def test_a_function_that_says_nothing_burns_no_plan(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()])
    with pytest.raises(SuspectError, match="empty text"):
        audit.run(CallableSuspect(lambda prompts: ["" for _ in prompts]))
    assert audit.findings().kinds == {"failed": 5}
    audit.run(speaker([plain_text(i) for i in range(22)] + ["", ""]))
    assert audit.findings().kinds["empty"] == 2
    assert audit.findings().is_complete


class Dear:
    """Bills all that may be billed, and more for the prompt than was thought."""

    def __init__(self, prompt_tokens: int = 40, completion_tokens: int = 60) -> None:
        self.n_asked, self._billed = 0, {"prompt_tokens": prompt_tokens}
        self._billed["completion_tokens"] = completion_tokens

    def ask(self, prompts: Sequence[Prompt], keep: Callable[[Attempt], None]) -> None:
        for i, one in enumerate(prompts):
            self.n_asked += 1
            said = {"text": plain_text(i), "outcome": "answer"} | self._billed
            keep(msgspec.convert({"prompt": one.id} | said, Attempt))


def test_a_price_limit_holds_before_every_request(tmp_path: Path) -> None:
    unpriced = Budget(requests=24, max_tokens=60, price=5.0)
    with pytest.raises(AuditPlanError, match="never holds where tokens cost nothing"):
        make(tmp_path / "a", [key()], budget=unpriced)
    budget = Budget(requests=24, max_tokens=60, price=0.0016, price_in=0.5, price_out=1.0)
    audit = make(tmp_path / "a", [key()], budget=budget)

    suspect = Dear()
    looks = [audit.run(suspect) for _ in range(3)]
    assert 1 < suspect.n_asked < 24
    assert looks[0].spent <= 0.0016 + 8 * 40 * 0.5 / 1e6  # of one wave the prompts were dearer
    assert looks[0].spent + 80 / 1e6 > 0.0016
    assert {one.n_answers for one in looks} == {suspect.n_asked}


@pytest.mark.parametrize("has_control", [True, False])
def test_suspect_and_clean_model_share_one_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_control: bool
) -> None:
    def for_nothing(budget: Budget, **facts: Any) -> Forecast:
        return forecast(msgspec.structs.replace(budget, price=0.0), **facts)

    monkeypatch.setattr(planning, "forecast", for_nothing)  # too dear: it would be refused
    budget = Budget(requests=24, max_tokens=60, price=0.0016, price_in=0.5, price_out=1.0)
    audit = make(tmp_path / "a", [key()], budget=budget, has_control=has_control)
    suspect, clean = Dear(5), Dear(5)
    audit.run(suspect)
    look = audit.run(clean, is_control=True)
    assert look.spent == pytest.approx((suspect.n_asked + clean.n_asked) * 62.5 / 1e6)
    assert look.spent <= 0.0016
    assert audit.findings().look.spent == look.spent
    assert audit.run(suspect).spent == look.spent
    if has_control:  # half of the money was kept for it
        assert 1 < suspect.n_asked == clean.n_asked < 15
        assert audit.n_uncontrolled() == 0
    else:
        assert (suspect.n_asked, clean.n_asked) == (24, 1)


def test_without_max_tokens_the_longest_answer_stands_for_the_next(tmp_path: Path) -> None:
    budget = Budget(requests=24, max_tokens=60, price=0.02, price_in=0.5, price_out=1.0)
    audit = make(tmp_path / "a", [key()], budget=budget, max_tokens_as=TokensField.NONE)
    suspect = Dear(40, 1000)
    look = audit.run(suspect)
    assert 8 < suspect.n_asked < 24
    assert 0.02 - 1020 / 1e6 < look.spent <= 0.02 + 8 * 20 / 1e6


def test_a_price_limit_ends_reading_too(tmp_path: Path) -> None:
    rows = [ReadText(id=f"r{i}", text=plain_text(i), path="splice") for i in range(24)]

    class Dear(Parrot):
        billed = (0, 0)

        def next_tokens(self, text: str, places: Sequence[int]) -> list[Any]:
            self.billed = (self.billed[0] + 200, self.billed[1])
            return super().next_tokens(text, places)

    budget = Budget(requests=24, max_tokens=60, price=0.0021, price_in=1.0)
    asked = wishes(access=Access.ARGMAX, prompt_source=PromptSource.PASSAGES, budget=budget)
    write_plan(tmp_path / "a", asked, [key()], rows=rows, traffic=(), unit=UNIT, now=NOW)
    begin(AuditFolder(tmp_path / "a"), None, "http://s", is_exploratory=True)
    audit = Audit(AuditFolder(tmp_path / "a"), [key()], UNIT)
    audit.read(Dear([]))
    findings = audit.findings()
    assert not findings.is_complete
    assert 0.0018 <= findings.look.spent <= 0.0021


@pytest.mark.parametrize("access", [Access.ARGMAX, Access.EXPECTATION])
def test_a_student_is_found_by_reading(tmp_path: Path, access: Access) -> None:
    texts = [marked_text(key(), i) for i in range(20)]
    rows = [ReadText(id=f"r{i}", text=text, path="splice") for i, text in enumerate(texts)]
    for name, learned in (("student", texts), ("clean", [plain_text(i) for i in range(20)])):
        write_plan(
            tmp_path / name,
            wishes(access=access, prompt_source=PromptSource.PASSAGES, effect=0.5),
            [key()],
            rows=rows,
            traffic=(),
            unit=UNIT,
            now=NOW,
        )
        folder = AuditFolder(tmp_path / name)
        begin(folder, None, "weights", is_exploratory=True)
        audit = Audit(folder, [key()], UNIT)
        look = audit.read(Parrot(learned))
        assert look.is_rejected is (name == "student")
        assert audit.findings().evidence.n_scored > 100
        with pytest.raises(AuditRunError, match="reads weights"):
            audit.run(speaker([]))


def test_text_of_whole_replies_is_never_read(tmp_path: Path) -> None:
    rows = [ReadText(id="r", text=marked_text(key(), 1), path="reply")] * 1
    write_plan(
        tmp_path / "a", wishes(access=Access.ARGMAX, effect=3.0), [key()], rows=rows, traffic=(),
        unit=UNIT, now=NOW,
    )  # fmt: skip
    folder = AuditFolder(tmp_path / "a")
    begin(folder, None, "weights", is_exploratory=True)
    audit = Audit(folder, [key()], UNIT)
    audit.read(Parrot([rows[0].text]))
    assert audit.findings().evidence.n_scored == 0


def test_what_failed_is_asked_once_a_session(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()])
    asked: list[str] = []

    class Fickle:
        def ask(self, prompts: Sequence[Prompt], keep: object) -> None:
            assert callable(keep)
            for one in prompts:
                asked.append(one.id)
                outcome = Outcome.FAILED if one.id in {"p1", "p9"} else Outcome.EMPTY
                keep(Attempt(prompt=one.id, outcome=outcome))

    audit.run(Fickle())
    assert sorted(asked) == sorted(f"p{i}" for i in range(24))
    assert audit.findings().kinds == {"empty": 22, "failed": 2}
    audit.run(speaker([plain_text(1), plain_text(2)]))
    assert audit.findings().is_complete


def test_a_wave_without_an_answer_is_not_the_end(tmp_path: Path) -> None:
    class Late:
        def __init__(self, n_failing: int) -> None:
            self.left = n_failing

        def ask(self, prompts: Sequence[Prompt], keep: object) -> None:
            assert callable(keep)
            for one in prompts:
                self.left -= 1
                outcome = Outcome.FAILED if self.left >= 0 else Outcome.EMPTY
                keep(Attempt(prompt=one.id, outcome=outcome))

    audit = make(tmp_path / "a", [key()])
    audit.run(Late(8))
    assert audit.findings().kinds == {"empty": 16, "failed": 8}
    with pytest.raises(SuspectError, match="none of 8 prompts"):
        audit.run(Late(8))
