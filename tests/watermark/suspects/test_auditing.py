"""An audit from plan to figures: found, left alone, resumed, and refused where it must be."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from tests.watermark.cli.shell import LEXICON
from watermark.errors import AuditPlanError, AuditRunError, SuspectError
from watermark.keys import KeyRecord, SecretKey
from watermark.radioactivity import Access, Budget, PromptSource, Traffic, Weighting
from watermark.radioactivity.plan import encode_plan, parse_plan, plan_entry, read_entry
from watermark.seeding import KeyedUniforms
from watermark.suspects import (
    Attempt,
    Audit,
    AuditFolder,
    CallableSuspect,
    CollectedSuspect,
    Outcome,
    Prompt,
    ReadText,
    Wishes,
    begin,
    write_plan,
)
from watermark.suspects.conversations import Conversation, Message, prefixes
from watermark.suspects.figures import encode_result, figures
from watermark.suspects.planning import check_records
from watermark.text import WordsUnit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

UNIT = WordsUnit()
NOW = datetime(2026, 11, 24, tzinfo=UTC)
IDS = UNIT.encode(" ".join(LEXICON))


def key(seed: int = 1, **changes: object) -> KeyRecord:
    fields = {"key_id": "k", "unit": UNIT.unit_id, "context_width": 2, "rho": 1.0} | changes
    secret = SecretKey(str(fields["key_id"]), np.random.default_rng(seed).bytes(32))
    return KeyRecord(secret=secret, **fields)  # type: ignore[arg-type]


def marked_text(record: KeyRecord, seed: int, n: int = 60) -> str:
    """Return words that the key chose among four each."""
    rng = np.random.default_rng(seed)
    keyed = KeyedUniforms(record)
    chosen = [int(one) for one in rng.integers(0, len(LEXICON), 2)]
    while len(chosen) < n:
        options = rng.choice(len(LEXICON), 4, replace=False)
        stream = keyed.at([int(IDS[one]) for one in chosen[-2:]])
        assert stream is not None
        chosen.append(int(options[stream.uniforms(IDS[options]).argmax()]))
    return " ".join(LEXICON[one] for one in chosen)


def plain_text(seed: int, n: int = 60) -> str:
    return " ".join(np.random.default_rng([seed, 5]).choice(LEXICON, n).tolist())


def wishes(**changes: object) -> Wishes:
    fields = {
        "suspect": "Example",
        "alpha": 1e-3,
        "effect": 0.5,
        "share_scored": 0.5,
        "budget": Budget(requests=24, max_tokens=60),
    }
    return Wishes(**(fields | changes))  # type: ignore[arg-type]


def make(
    folder: Path, records: Sequence[KeyRecord], traffic: Sequence[Traffic] = (), **changes: object
) -> Audit:
    prompts = [Prompt(id=f"p{i}", prompt=f"Please write text number {i}") for i in range(24)]
    write_plan(
        folder, wishes(**changes), records, rows=prompts, traffic=traffic, unit=UNIT, now=NOW
    )
    opened = AuditFolder(folder)
    begin(opened, None, "a function", is_exploratory=True)
    return Audit(opened, check_records(opened.plan, records), UNIT, records)


def speaker(texts: Sequence[str]) -> CallableSuspect:
    left = iter(texts)
    return CallableSuspect(lambda prompts: [next(left) for _ in prompts], batch=4)


def result_of(audit: Audit) -> dict[str, object]:
    facts = audit.folder.facts()
    assert facts is not None
    return figures(audit.plan, audit.folder.digest, facts, audit.findings())


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


def test_a_clean_model_stands_beside(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()])
    look = audit.run(speaker([marked_text(key(), i) for i in range(24)]))
    audit.run(speaker([plain_text(i) for i in range(24)]), is_control=True)
    control = audit.findings().control
    assert control is not None
    assert control.n_answers == look.n_answers
    assert not control.rejects_null(alpha=1e-3)


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
        audit.findings()
    again: list[str] = []

    def answer_again(prompts: list[str]) -> list[str]:
        again.extend(prompts)
        return [plain_text(99)] * len(prompts)

    audit.run(CallableSuspect(answer_again))
    assert path.read_bytes().startswith(kept)
    assert len(again) == 24 - kept.count(b"\n")
    assert audit.findings().is_complete


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


def test_a_function_that_fails_or_miscounts_is_told(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()])
    with pytest.raises(SuspectError, match="ZeroDivisionError"):
        audit.run(CallableSuspect(lambda _: [str(1 // 0)]))
    with pytest.raises(SuspectError, match="1 answers to 8"):
        audit.run(CallableSuspect(lambda _: ["one"]))


def test_answers_collected_before_are_of_this_plan(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()])
    path = tmp_path / "collected.jsonl"

    def write(plan: str) -> None:
        rows = [{"id": f"p{i}", "answer": marked_text(key(), i), "plan": plan} for i in range(20)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    write("0" * 64)
    with pytest.raises(AuditRunError, match="another plan"):
        CollectedSuspect(path, audit.folder.digest)
    write(audit.folder.digest)
    assert audit.run(CollectedSuspect(path, audit.folder.digest)).is_rejected


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
    plan.write_bytes(data.replace(b'"alpha": 0.001', b'"alpha": 0.01'))
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


def test_an_audit_begins_with_its_plan_in_the_log_or_is_exploratory(tmp_path: Path) -> None:
    prompts = [Prompt(id="p", prompt="Say something")] * 1
    write_plan(
        tmp_path / "a", wishes(budget=Budget(requests=24, max_tokens=60)), [key()],
        rows=prompts, traffic=(), unit=UNIT, now=NOW,
    )  # fmt: skip
    folder = AuditFolder(tmp_path / "a")
    audit = Audit(folder, [key()], UNIT)
    with pytest.raises(AuditRunError, match="has not begun"):
        audit.run(speaker(["x"]))
    with pytest.raises(AuditPlanError, match="never logged"):
        begin(folder, None, "")
    begin(folder, None, "", is_exploratory=True)
    audit.run(speaker([plain_text(1)]))
    (tmp_path / "a/run.json").unlink()
    with pytest.raises(AuditRunError, match=r"no run\.json"):
        begin(folder, None, "", is_exploratory=True)


def test_entries_of_plans_are_told_from_others() -> None:
    entry = plan_entry("ab" * 32, "Example ")
    assert read_entry(entry) == read_entry(plan_entry("ab" * 32, "example"))
    assert read_entry(b"output-watermark-key-commitment/v1\nkey-id: k\n") is None
    assert b"xample" not in entry


def test_what_cannot_succeed_is_refused_with_what_would(tmp_path: Path) -> None:
    with pytest.raises(AuditPlanError, match=r"\d+ requests would do"):
        make(tmp_path / "a", [key()], effect=0.02)
    budget = Budget(requests=24, max_tokens=1000, price=1.0, price_out=100.0)
    with pytest.raises(AuditPlanError, match=r"cost 2\.4"):
        make(tmp_path / "a", [key()], budget=budget)
    late = dataclasses.replace(key(), not_before=datetime(2026, 6, 1, tzinfo=UTC))
    with pytest.raises(AuditPlanError, match="no key marked before"):
        make(tmp_path / "a", [late], training_cutoff=datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(AuditPlanError, match=r"'k' marks from 2026-06-01.*leave it out"):
        make(
            tmp_path / "a", [late, key(2, key_id="old")],
            training_cutoff=datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip
    future = dataclasses.replace(key(), not_before=datetime(2027, 1, 1, tzinfo=UTC))
    for cutoff in (None, datetime(2028, 1, 1, tzinfo=UTC)):
        with pytest.raises(AuditPlanError, match="not before now"):
            make(tmp_path / "a", [future, key(2, key_id="old")], training_cutoff=cutoff)
    with pytest.raises(AuditPlanError, match="need what was delivered"):
        make(tmp_path / "a", [key()], weighting=Weighting.ALL_KEYS)
    make(tmp_path / "a", [late, key(2, key_id="old")], training_cutoff=NOW)
    assert len(AuditFolder(tmp_path / "a").plan.keys) == 2
    with pytest.raises(AuditPlanError, match="holds a plan already"):
        make(tmp_path / "a", [key()])


def test_prompts_that_are_repeated_at_temperature_0_count_for_nothing(tmp_path: Path) -> None:
    prompts = [Prompt(id=f"p{i}", prompt=f"Please write text number {i % 8}") for i in range(24)]

    def plan(rows: Sequence[Prompt], **changes: object) -> None:
        asked = wishes(**changes)
        write_plan(tmp_path / "a", asked, [key()], rows=rows, traffic=(), unit=UNIT, now=NOW)

    with pytest.raises(AuditPlanError, match="only 8 of 24 prompts differ; plan 8 requests"):
        plan(prompts, temperature=0.0)
    plan(prompts[:8], temperature=0.0, budget=Budget(requests=8, max_tokens=200))


def test_a_forecast_counts_money_and_days(tmp_path: Path) -> None:
    budget = Budget(
        requests=24, max_tokens=1000, price_in=2.0, price_out=10.0, requests_per_minute=1.0
    )
    found = make(tmp_path / "a", [key()], budget=budget).plan.forecast
    assert found.days == pytest.approx(24 / 1440, abs=1e-4)
    assert found.price == pytest.approx(24 * (6 * 2 + 1000 * 10) / 1e6, abs=1e-3)
    assert found.power > 0.99


def test_a_price_limit_holds_before_every_request(tmp_path: Path) -> None:
    unpriced = Budget(requests=24, max_tokens=60, price=5.0)
    with pytest.raises(AuditPlanError, match="never holds where tokens cost nothing"):
        make(tmp_path / "a", [key()], budget=unpriced)
    budget = Budget(requests=24, max_tokens=60, price=0.0016, price_in=0.5, price_out=1.0)
    audit = make(tmp_path / "a", [key()], budget=budget)

    class Dear:
        """Bills all that may be billed, and more for the prompt than was thought."""

        n_asked = 0

        def ask(self, prompts: Sequence[Prompt], keep: Callable[[Attempt], None]) -> None:
            for i, one in enumerate(prompts):
                self.n_asked += 1
                said = {"text": plain_text(i), "prompt_tokens": 40, "completion_tokens": 60}
                keep(msgspec.convert({"prompt": one.id, "outcome": "answer"} | said, Attempt))

    suspect = Dear()
    looks = [audit.run(suspect) for _ in range(3)]
    assert 1 < suspect.n_asked < 24
    assert looks[0].spent <= 0.0016 + 8 * 40 * 0.5 / 1e6  # of one wave the prompts were dearer
    assert looks[0].spent + 80 / 1e6 > 0.0016
    assert {one.n_answers for one in looks} == {suspect.n_asked}


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


def test_several_keys_share_what_a_student_shows(tmp_path: Path) -> None:
    keys = [key(seed, key_id=f"k{seed}") for seed in range(4)]
    one = make(tmp_path / "one", keys[:1], reference=1.5)
    four = make(tmp_path / "four", keys, reference=1.5)
    assert four.plan.forecast.scores_expected == 4 * one.plan.forecast.scores_expected
    assert four.plan.forecast.scores_needed > 15 * one.plan.forecast.scores_needed
    one.run(speaker([marked_text(keys[0], i, 40) for i in range(24)]), is_control=False)
    four.run(speaker([marked_text(keys[i % 4], i, 40) for i in range(24)]))
    doses = [audit.findings().evidence.dose for audit in (one, four)]
    for found in doses:  # the marked text itself has a dose of about 1, however many keys
        assert 0.6 < found.estimate < 1.5
        assert found.high > 0.8


def test_the_ledger_of_another_key_is_refused(tmp_path: Path) -> None:
    conversations = [[UNIT.encode(marked_text(key(), i))] for i in range(60)]
    own = Traffic.of_conversations(conversations, 2, key_id="k")
    audit = make(tmp_path / "a", [key()], [own], weighting=Weighting.ALL_KEYS)
    look = audit.run(speaker([marked_text(key(), i) for i in range(24)]))
    assert look.is_rejected
    assert audit.findings().undelivered is not None
    other = [key(9)]
    with pytest.raises(AuditPlanError, match="another one than the plan's"):
        check_records(audit.plan, other)
    with pytest.raises(AuditPlanError, match="not at hand"):
        check_records(audit.plan, [key(1, key_id="z")])
    strange = Traffic.of_conversations([[UNIT.encode("far away from here and now")]], 2, key_id="k")
    budget = Budget(requests=24, max_tokens=400)
    lost = make(tmp_path / "b", [key()], [strange], weighting=Weighting.ALL_KEYS, budget=budget)
    look = lost.run(speaker([plain_text(i, 900) for i in range(24)]))
    assert (look.n_answers, look.n_scored, look.is_unheard) == (24, 0, True)
    result = result_of(lost)  # a valid null, which says what it rests on
    assert not result["is_rejected"]
    assert any("nothing was tested" in one for one in result["limits"])  # type: ignore[attr-defined]
    assert not any("nothing was tested" in one for one in result_of(audit)["limits"])  # type: ignore[attr-defined]


def test_keyed_fingerprints_need_their_key(tmp_path: Path) -> None:
    secret = key(5, key_id="other")
    keyed = Traffic(
        key_id="other",
        fingerprints=np.array([3, 9], np.uint64),
        conversations=np.array([1, 1]),
        context_key=secret.secret.subkey("context", 16),
    )
    with pytest.raises(AuditPlanError, match="'other', which is not at hand"):
        make(tmp_path / "a", [key()], [keyed], weighting=Weighting.OTHER_KEYS)
    assert Audit(AuditFolder(tmp_path / "a"), [key()], UNIT, [secret]).plan.delivered[0].is_keyed


class Parrot:
    """A suspect that has learned some texts by heart, and else guesses."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._follows: dict[tuple[str, ...], str] = {}
        for words in (text.split() for text in texts):
            for a, b, c in zip(words, words[1:], words[2:], strict=False):
                self._follows[a, b] = c

    def next_tokens(self, text: str, places: Sequence[int]) -> list[list[tuple[str, float]] | None]:
        found: list[list[tuple[str, float]] | None] = []
        for place in places:
            last = tuple(text[:place].split()[-2:])
            word = self._follows.get(last, LEXICON[sum(map(len, last)) % 7])
            found.append(
                [(f" {word}", 0.75), (" bal", 0.125), ("b\ufffd", 0.1), ("two words", 0.02)]
            )
        return found


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


def test_beginnings_of_replies_are_cut_where_the_rest_had_no_say() -> None:
    def delivered(path: str, **fields: object) -> Conversation:
        turn = Message("assistant", "one two three four five six")
        return Conversation(messages=(turn,), account="probe", path=path, **fields)  # type: ignore[arg-type]

    def begun(*conversations: Conversation, n_units: int = 4) -> list[str]:
        found = prefixes(
            conversations, frozenset({"probe"}), UNIT, n_units=n_units, count=9, seed="1"
        )
        return [one.prompt.strip() for one in found]

    assert begun(delivered("splice")) == ["one two three four"]
    assert begun(delivered("select", chunk_ends=(7, 13))) == ["one two three"]
    for conversation in (delivered("reply"), delivered("select"), delivered("")):
        with pytest.raises(AuditPlanError, match="may be read"):
            begun(conversation)
    with pytest.raises(AuditPlanError, match="shorter beginnings"):
        begun(delivered("splice"), n_units=6)
