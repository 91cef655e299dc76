"""What a plan fixes, what it refuses, and what its keys and ledger must be."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from tests.watermark.suspects.audits import (
    NOW,
    UNIT,
    key,
    make,
    marked_text,
    plain_text,
    result_of,
    speaker,
    wishes,
)
from watermark.cli.audit_page import audit_page
from watermark.errors import AuditPlanError, AuditRunError
from watermark.radioactivity import Access, Budget, Traffic, Weighting
from watermark.radioactivity.plan import plan_entry, read_entry, suspect_tag
from watermark.suspects import (
    Audit,
    AuditFolder,
    Prompt,
    ReadText,
    begin,
    write_plan,
)
from watermark.suspects.conversations import Conversation, Message, prefixes
from watermark.suspects.planning import check_records

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from watermark.radioactivity.plan import Forecast


def test_entries_of_plans_are_told_from_others() -> None:
    entry = plan_entry("ab" * 32, "Example ")
    assert read_entry(entry) == read_entry(plan_entry("ab" * 32, "example"))
    assert read_entry(entry + b"\n") is None
    assert read_entry(b"output-watermark-key-commitment/v1\nkey-id: k\n") is None
    assert b"xample" not in entry


def test_a_suspect_has_one_tag_however_it_is_spelled() -> None:
    names = ("Example 7B", "Example  7B", "example-7b", "EXAMPLE_7B.", "\uff25xample\u00a0\uff17B")
    assert len({suspect_tag(name) for name in names}) == 1
    others = ("Example 7", "Example 70B", "Exemple 7B", "\u6a21\u578b 7B")
    assert len({suspect_tag(name) for name in (names[0], *others)}) == 5


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
    twice = make(tmp_path / "b", [key()], budget=budget, has_control=True).plan.forecast
    assert twice.requests == 48
    assert twice.days == pytest.approx(48 / 1440, abs=1e-4)
    assert twice.price == pytest.approx(2 * found.price, abs=1e-3)
    limited = msgspec.structs.replace(budget, price=1.5 * found.price)
    make(tmp_path / "c", [key()], budget=limited)
    with pytest.raises(AuditPlanError, match="48 requests cost"):
        make(tmp_path / "d", [key()], budget=limited, has_control=True)


def test_what_reading_takes_is_told_as_the_least(tmp_path: Path) -> None:
    texts = [
        ReadText(id=f"r{i}", text=plain_text(i), before=("once upon a time",), path="splice")
        for i in range(24)
    ]
    asked = wishes(
        access=Access.ARGMAX, budget=Budget(requests=24, price_in=1e6 / 24, requests_per_minute=1)
    )

    def forecast(n: int) -> Forecast:
        plan, _ = write_plan(
            tmp_path / str(n), asked, [key()], rows=texts[:n], traffic=(), unit=UNIT, now=NOW
        )
        return plan.forecast

    found = forecast(24)
    assert found.is_least
    assert found.scores_expected == 24 * 60 // 2
    assert found.price == 60 + 4  # the turns before a text are sent with it
    with pytest.raises(AuditPlanError, match=r"passages would do.*or more delivered text"):
        forecast(1)
    assert not make(tmp_path / "a", [key()]).plan.forecast.is_least


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
    assert "Nothing was tested" in result["claim"]
    assert any("Nothing was tested" in one for one in result["warnings"])
    assert result_of(audit)["warnings"] == []


def test_a_ledger_of_another_secret_is_told_however_short_the_audit(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    keyed = Traffic(
        key_id="k",
        fingerprints=np.sort(rng.integers(0, 2**63, 900).astype(np.uint64)),
        conversations=np.full(900, 20),
        context_key=key(9).secret.subkey("context", 16),
    )
    audit = make(tmp_path / "a", [key()], [keyed], weighting=Weighting.ALL_KEYS)
    look = audit.run(speaker([marked_text(key(), i) for i in range(24)]))
    assert not look.is_unheard  # too little was said for a word in the middle
    result = result_of(audit)
    assert result["claim"].startswith("Nothing was tested")
    assert ["another secret" in one for one in result["warnings"]] == [True]
    assert "not tested at" in audit_page(audit.plan, result | {"plans": [], "log": None})


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
