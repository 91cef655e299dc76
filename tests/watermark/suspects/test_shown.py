"""What a result shows of its evidence, and what it withholds while keys are secret."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watermark.suspects.audits import key, make, marked_text, plain_text, result_of, speaker
from watermark.cli.audit_page import audit_page
from watermark.detection.result import FEWEST_SHOWN, DecoyRank
from watermark.radioactivity import Budget, Evidence, KeyEvidence, Traffic, dose
from watermark.stats import LN_10
from watermark.suspects.shown import STEPS, evidence_fields
from watermark.suspects.statements import warnings

if TYPE_CHECKING:
    from pathlib import Path

ALPHA = 1e-3


def body(counts: list[int], growths: list[float], n_keys: int = 1, **changes: object) -> Evidence:
    """Return evidence whose bet grew so after answers of so many scores."""
    ends = list(itertools.accumulate(counts))
    logs = [0.0, *itertools.accumulate(growths)]
    keys = tuple(
        KeyEvidence(
            key_id=f"k{i}", n_scored=ends[-1] // n_keys, log_pvalue=-1.0, log_pvalue_family=-0.5,
            effect=0.1,
        )
        for i in range(n_keys)
    )  # fmt: skip
    fields: dict[str, Any] = {
        "n_answers": len(counts),
        "n_units": 2 * ends[-1],
        "n_scored": ends[-1],
        "statistic": 3.0,
        "log_pvalue": -2.0,
        "effect": 0.1 if ends[-1] else 0.0,
        "log_evalue": logs[-1],
        "log_evalue_peak": max(logs),
        "peak_after": int(np.argmax(logs)),
        "path": tuple(zip(ends, logs[1:], strict=True)),
        "answer_units": tuple(2 * one for one in counts),
        "decoys": DecoyRank.of(999, 135),
        "decoy_statistics": np.array([0.0, 1.0]),
        "dose": dose(np.ones(3), np.ones(3), reference=1.0, n_planned=3),
        "keys": keys,
    }
    return Evidence(**(fields | changes))


def test_the_bet_stands_against_the_tokens_that_were_said(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key(rho=0.5)], alpha=1e-9, n_decoys=999)
    lengths = [40 + i for i in range(24)]
    audit.run(speaker([plain_text(i, n) for i, n in enumerate(lengths)]))
    told: list[tuple[int, float]] = []
    n_scored = audit.findings(lambda *one: told.append(one)).look.n_scored
    ((n_decoys, seconds),) = told
    assert n_decoys == 999
    assert seconds == pytest.approx(999 * (n_scored + 600) * 30e-9)
    result = result_of(audit)
    path = result["suspect"]["path"]
    said = list(itertools.accumulate(lengths))
    assert len(path) > 3
    assert path[-1]["n_units"] == said[-1]
    assert all(one["n_units"] == said[one["n_answers"] - 1] for one in path)
    page = audit_page(audit.plan, result | {"plans": [], "log": None})
    assert f"tokens that the suspect said or read, 0 to {said[-1]}" in page
    assert ">1,000</text>" in page


@given(
    st.lists(st.tuples(st.integers(0, 70), st.floats(-3, 3)), min_size=1, max_size=120),
    st.integers(1, 3),
)
def test_no_two_figures_of_a_bet_are_few_pairs_apart(
    answers: list[tuple[int, float]], n_keys: int
) -> None:
    one = body([n for n, _ in answers], [g * (n > 0) for n, g in answers], n_keys)
    found = evidence_fields(one, alpha=ALPHA)
    fewest = FEWEST_SHOWN * n_keys
    assert found["is_withheld"] is (0 < one.n_scored < fewest)
    if found["is_withheld"]:
        assert set(found) == {"n_answers", "n_units", "n_scored", "is_withheld"}
        return
    points = [0, *(at["n_scored"] for at in found["path"])]
    assert all(b - a >= fewest for a, b in itertools.pairwise(points))
    assert points[-1] == one.n_scored
    assert len(points) <= STEPS + 2
    level = -math.log10(ALPHA)
    shown = {0.0, *(at["log10_evalue"] for at in found["path"])}
    peak = found["log10_evalue_peak"]
    assert peak in shown or peak == pytest.approx(level)
    assert (peak >= level * (1 - 1e-8)) is one.rejects_null(alpha=ALPHA)
    assert peak <= one.log_evalue_peak / LN_10 + 1e-8
    assert found["peak_after"] in {0, *(at["n_answers"] for at in found["path"])}


def test_a_bet_that_passed_the_level_between_two_points_says_so() -> None:
    one = body([100, 100, 4, 4, 100], [0.0, 0.0, 9.0, -8.0, 0.0])
    found = evidence_fields(one, alpha=ALPHA)
    assert [at["n_answers"] for at in found["path"]] == [1, 2, 5]
    assert (found["log10_evalue_peak"], found["peak_after"]) == (3.0, 5)


def test_keys_with_few_pairs_are_not_told_by_the_others() -> None:
    one = body([100], [0.0], 2)
    few = replace(one.keys[1], n_scored=FEWEST_SHOWN - 1)
    shown = evidence_fields(replace(one, keys=(one.keys[0], few)), alpha=ALPHA)["keys"]
    assert shown == [
        {"key_id": "k0", "n_scored": 50},
        {"key_id": "k1", "n_scored": FEWEST_SHOWN - 1},
    ]
    none = replace(one.keys[1], n_scored=0)
    shown = evidence_fields(replace(one, keys=(one.keys[0], none)), alpha=ALPHA)["keys"]
    assert "log10_pvalue" in shown[0]


def test_a_part_that_is_nearly_the_whole_is_withheld() -> None:
    whole, part = body([100], [0.0]), body([100 - FEWEST_SHOWN + 1], [0.0])
    assert evidence_fields(part, alpha=ALPHA, within=whole)["is_withheld"]
    assert not evidence_fields(part, alpha=ALPHA)["is_withheld"]
    assert not evidence_fields(whole, alpha=ALPHA, within=whole)["is_withheld"]
    smaller = body([100 - FEWEST_SHOWN], [0.0])
    assert not evidence_fields(smaller, alpha=ALPHA, within=whole)["is_withheld"]


def test_an_audit_of_few_pairs_shows_none(tmp_path: Path) -> None:
    delivered = Traffic.of_conversations([], 2, key_id="k")
    audit = make(tmp_path / "a", [key()], [delivered], budget=Budget(requests=24, max_tokens=300))
    audit.run(speaker([plain_text(0, 12), *[" "] * 23]))
    result = result_of(audit)
    assert 0 < result["suspect"]["n_scored"] < FEWEST_SHOWN
    assert result["suspect"]["is_withheld"]
    assert any("too few pairs" in one.lower() for one in result["limits"])
    assert "too few answers" in result["claim"]
    page = audit_page(audit.plan, result | {"plans": [], "log": None})
    assert page.count("withheld") == 6
    assert "<svg" not in page


def test_a_clean_model_that_says_nearly_the_same_is_not_shown(tmp_path: Path) -> None:
    """The difference of two results would tell the score of the one word more."""
    texts = [plain_text(i) for i in range(24)]
    for more, is_withheld in ((0, False), (1, True), (40, False)):
        audit = make(tmp_path / str(more), [key()], has_control=True)
        audit.run(speaker(texts))
        audit.run(
            speaker([f"{texts[0]} {plain_text(99, more)}".strip(), *texts[1:]]), is_control=True
        )
        clean = result_of(audit)["controls"]["clean_model"]
        assert clean["is_withheld"] is is_withheld, more


def test_the_smallest_p_of_the_decoys_and_whether_they_agree_are_said(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()], alpha=1e-6, effect=1.0, n_decoys=999)
    audit.run(speaker([marked_text(key(), i) for i in range(24)]))
    result = result_of(audit)
    found = result["suspect"]["decoys"]
    assert found["log10_pvalue_smallest"] == pytest.approx(-math.log10(found["n"] + 1))
    assert not found["contradict_closed_form"]
    page = audit_page(audit.plan, result | {"plans": [], "log": None})
    assert "Smallest log10 p that the decoys support" in page
    assert "they agree with the closed form" in page
    assert found["n"] == 999
    assert any("support no p-value below" in one for one in result["limits"])


def test_a_closed_form_that_is_too_small_is_contradicted(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key()])
    audit.run(speaker([plain_text(i) for i in range(24)]))
    findings = audit.findings()
    assert warnings(audit.plan, findings) == []
    wrong = replace(findings.evidence, log_pvalue=-30.0, decoys=DecoyRank.of(2999, 30))
    assert evidence_fields(wrong, alpha=ALPHA)["decoys"]["contradict_closed_form"]
    (said,) = warnings(audit.plan, replace(findings, evidence=wrong))
    assert "contradict the closed form" in said
