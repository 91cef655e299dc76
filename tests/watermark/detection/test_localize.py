"""A marked passage is found in unmarked text, seldom where there is none, and no score gets out."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.support.drive import make_record
from tests.watermark.detection.test_detector import marked_text, zipf_text
from watermark.detection import windows
from watermark.detection.edges import marked_stretches, significant_windows
from watermark.detection.localize import (
    Level,
    Localization,
    Localizer,
    Stretch,
    Window,
    _distinct,
)
from watermark.detection.windows import (
    MaximumNull,
    Nulls,
    decoy_null,
    maximum,
    simulated_null,
)
from watermark.errors import SchemeParameterError, TextTooShortError, UnitMismatchError
from watermark.keys.states import KeyState
from watermark.schemes import CopulaReader, reader_of, scores_from_levels
from watermark.seeding import pair_levels
from watermark.text import WordsUnit

RNG_SEED = 5


def document(seed: int = 0, n: int = 3000, start: int = 1200) -> np.ndarray:
    ids = np.random.default_rng(seed).integers(100, 2000, n)
    marked = marked_text(seed, 200, vocab=80)
    ids[start : start + len(marked)] = marked
    return ids


NULLS = Nulls()  # one for all documents with as many pairs


def find(ids: np.ndarray, seed: int = 0, *, alpha: float = 1e-3, n_tests: int = 1) -> Localization:
    localizer = Localizer(make_record(seed, width=2), nulls=NULLS)
    return localizer.localize(
        ids, rng=np.random.default_rng(RNG_SEED), alpha=alpha, n_tests=n_tests
    )


def test_a_marked_passage_is_found_with_its_edges() -> None:
    for seed in range(5):
        result = find(document(seed), seed)
        assert result.log10_pvalue_ceiling == -3
        (span,) = result.spans
        assert abs(span.units[0] - 1200) <= 40
        assert abs(span.units[1] - 1400) <= 40
        assert span.characters is None


def test_decoy_keys_find_the_same() -> None:
    record = make_record(0, width=2)
    ids = document(0, 1500, 600)
    rng = np.random.default_rng(0)
    plain = Localizer(record).localize(ids, rng=rng)
    decoys = Localizer(record).localize(ids, rng=rng, with_decoys=True)
    assert (plain.null, decoys.null) == ("simulated scores", "decoy keys")
    assert decoys.spans == plain.spans


def test_other_keys_name_no_span_more_often_than_they_may() -> None:
    """500 keys on one templated text at 4%: within four standard deviations."""
    ids = np.tile(zipf_text(500, vocab=400), 3)
    results = [find(ids, seed, alpha=0.04) for seed in range(500)]
    flagged = sum(bool(result.spans) for result in results)
    levels = [window.level for result in results for window in result.windows]
    assert 0 < flagged <= 20 + 4 * math.sqrt(20)
    hints = levels.count(Level.HINT) / len(levels)
    assert hints == pytest.approx(0.01, abs=0.004)


def test_repeats_counted_again_are_not_calibrated() -> None:
    """Negative control: every position a score of its own, on the same text."""
    ids = np.tile(zipf_text(60, vocab=50), 20).astype(np.uint32)
    null = simulated_null(len(ids) - 1, 500, np.random.default_rng(0))
    p = []
    for seed in range(200):
        reader = reader_of(make_record(seed))
        draws = reader.evaluate(reader.positions(ids)).draws
        p.append(null.pvalue(float(maximum(scores_from_levels(pair_levels(draws))))))
    assert np.mean(np.array(p) <= 0.02) > 0.2


def test_the_best_window_alone_is_not_calibrated() -> None:
    """Negative control: the smallest of the windows' p-values, uncorrected."""
    rng = np.random.default_rng(0)
    best = np.exp(-maximum(rng.standard_exponential((400, 1000))))
    assert (best <= 0.02).mean() > 0.2


def test_a_copied_passage_points_at_its_first_copy() -> None:
    ids = document(0)
    copied = np.concatenate([ids, ids[1200:1400]])
    (span,) = find(copied).spans
    assert span.units[1] < 1450


def test_a_result_shows_itself_in_a_line_and_in_a_strip() -> None:
    result = replace(find(document(0)), key_id="<b>")
    assert re.fullmatch(
        r"<Localization key='<b>' marked=\[\d+-\d+\] of 3000 units, p <= 1e-3>", repr(result)
    )
    page = result._repr_html_()
    assert "<b>" not in page
    assert page.count("<span") == len(result.windows)


def test_a_seed_follows_from_key_and_text() -> None:
    one, other = Localizer(make_record(0)), Localizer(make_record(1))
    assert one.seed_for("text") == Localizer(make_record(0)).seed_for("text")
    assert len({one.seed_for("text"), one.seed_for("texts"), other.seed_for("text")}) == 3


def test_characters_are_found_with_units() -> None:
    record = make_record(0, width=2)
    lines = [" ".join(f"w{i}" for i in document(0))]
    text = "“Ünïcode” " + lines[0]
    result = Localizer(record, WordsUnit()).localize(text, rng=np.random.default_rng(0))
    assert result.windows[0].characters is not None
    assert result.windows[0].characters[0] == 0
    assert result.windows[-1].characters is not None
    assert result.windows[-1].characters[1] == len(text)
    for window in result.windows:
        assert window.characters is not None
        first, last = window.units
        units = WordsUnit().encode(text[slice(*window.characters)])
        assert units.tolist() == WordsUnit().encode(text)[first:last].tolist()


SHOWN = {
    Localization: [
        "key_id", "n_tokens", "n_scored", "alpha", "n_tests", "n_null", "null",
        "log10_pvalue_ceiling", "spans", "windows", "exact_spans",
    ],
    Window: ["units", "characters", "n_scored", "level"],
    Stretch: ["units", "characters"],
}  # fmt: skip


@pytest.mark.parametrize("kind", SHOWN, ids=lambda kind: kind.__name__)
def test_a_result_has_no_field_that_was_not_weighed(kind: type) -> None:
    """A new field must be argued for here: it may not tell a score of fewer than 16 positions."""
    assert [field.name for field in dataclasses.fields(kind)] == SHOWN[kind]


def test_what_leaves_is_three_levels_of_windows_that_do_not_overlap() -> None:
    """Everything key-dependent in a result follows from the levels and a power of ten."""
    ids = document(0)
    seen = set()
    for seed in range(15):
        result = find(ids, seed)
        assert result.exact_spans == ()
        assert isinstance(result.log10_pvalue_ceiling, int)
        bounds = [window.units for window in result.windows]
        assert [stop for _, stop in bounds[:-1]] == [start for start, _ in bounds[1:]]
        assert all(window.n_scored >= 16 for window in result.windows)
        seen.add(tuple(bounds))
        marked = [window for window in result.windows if window.level is Level.MARKED]
        spans = [unit for span in result.spans for unit in range(*span.units)]
        assert spans == [unit for window in marked for unit in range(*window.units)]
    assert len(seen) == 1  # where windows lie tells nothing of the key
    assert len(Level) == 3


def test_nudging_one_score_moves_no_number() -> None:
    """Two documents that differ in one pair of a window give results that differ in levels only."""
    ids = document(0)
    other = ids.copy()
    other[700] = 3000  # three pairs, all in unmarked text
    one, two = find(ids), find(other)
    for field in dataclasses.fields(Localization):
        if field.name not in ("windows", "spans"):
            assert getattr(one, field.name) == getattr(two, field.name)
    changed = [a for a, b in zip(one.windows, two.windows, strict=True) if a != b]
    assert len(changed) <= 2


def test_exact_edges_are_given_for_a_disclosed_key_only() -> None:
    record = make_record(0, width=2)
    disclosed = replace(
        record, state=KeyState.DISCLOSED, disclosed_at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    rng = np.random.default_rng(0)
    result = Localizer(disclosed).localize(document(0), rng=rng)
    (exact,) = result.exact_spans
    (span,) = result.spans
    assert abs(exact.units[0] - 1200) <= 30
    assert abs(exact.units[0] - span.units[0]) <= 16
    for state in KeyState:
        if state not in (KeyState.DISCLOSED, KeyState.COMPROMISED, KeyState.PENDING):
            secret = replace(record, state=state)
            assert Localizer(secret).localize(document(0), rng=rng).exact_spans == ()


def test_every_distinct_pair_is_scored_where_it_first_stands() -> None:
    record = make_record(0, width=1)
    ids = np.array([*range(1, 20), 1, 2, 1, 3], np.uint32)  # (1,2) again; (2,1), (1,3) are new
    found = _distinct(CopulaReader.of(record), ids)
    assert found.places.tolist() == [*range(1, 20), 21, 22]
    reader = reader_of(record)
    pairs = reader.evaluate(found.positions)
    assert found.scores.sum() == pytest.approx(reader.statistic(pairs))
    assert len(_distinct(CopulaReader.of(record), ids[:1]).places) == 0


def test_the_account_channel_is_left_out() -> None:
    record = make_record(0, width=2, account_share_q16=32_768)
    ids = np.random.default_rng(0).integers(0, 3000, 2000)
    rng = np.random.default_rng(0)
    result = Localizer(record).localize(ids, rng=rng)
    assert result.n_scored == pytest.approx(1000, rel=0.1)
    decoys = Localizer(record).localize(ids, rng=rng, alpha=0.05, with_decoys=True)
    assert decoys.n_scored == result.n_scored


def test_more_tests_ask_for_more() -> None:
    ids = np.random.default_rng(0).integers(0, 3000, 300)
    one, many = find(ids), find(ids, n_tests=10)
    assert (one.n_null, many.n_null) == (3000, 30_000)
    with pytest.raises(SchemeParameterError):
        find(ids, n_tests=0)
    with pytest.raises(SchemeParameterError):
        find(ids, alpha=2.0)


def test_what_cannot_be_localized_is_said() -> None:
    with pytest.raises(TextTooShortError, match="15 distinct pairs in 17 units"):
        find(np.arange(17))
    assert len(find(np.arange(18)).windows) == 1
    with pytest.raises(UnitMismatchError):
        Localizer(make_record(0)).localize("words", rng=np.random.default_rng(0))
    localizer = Localizer(make_record(0), WordsUnit())
    assert repr(localizer) == "<Localizer key='k' unit=words/v1>"


def test_the_ceiling_is_valid_over_keys() -> None:
    ids = np.random.default_rng(0).integers(0, 3000, 400)
    p = [10.0 ** find(ids, seed, alpha=0.01).log10_pvalue_ceiling for seed in range(300)]
    for level in (0.1, 0.01):
        assert np.mean(np.array(p) <= level) <= level + 4 * math.sqrt(level / 300)
    assert stats.binomtest(int(np.sum(np.array(p) <= 0.1)), 300, 0.1).pvalue > 1e-4


def marked_scores(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return scores as strong as those of Gumbel-max at the story model's effect, 1.5."""
    return rng.standard_exponential(n) * 2.5


@pytest.mark.slow
def test_two_hundred_in_ten_thousand() -> None:
    """The bars of `python -m benchmarks.localization`, on scores alone."""
    rng = np.random.default_rng(0)
    null = simulated_null(9000, 20_000, rng)
    threshold = null.threshold(1e-3)
    errors, found = [], 0
    for _ in range(200):
        scores = rng.standard_exponential(9000)
        start = int(rng.integers(0, 8800))
        scores[start : start + 180] = marked_scores(rng, 180)
        stretches = marked_stretches(scores, significant_windows(scores, threshold))
        hits = [one for one in stretches if one[0] < start + 180 and start < one[1]]
        found += bool(hits)
        errors += [abs(one[0] - start) for one in hits] + [
            abs(one[1] - start - 180) for one in hits
        ]
    assert found >= 190
    assert np.median(errors) <= 25
    clean = sum(
        bool(significant_windows(rng.standard_exponential(9000), threshold)) for _ in range(5000)
    )
    assert clean <= stats.binom.ppf(0.999, 5000, 1.2e-3)


def test_keys_of_one_document_share_its_decoys(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def draw(positions: Any, count: int, rng: Any, *, account_share_q16: int = 0) -> MaximumNull:
        drawn.append(account_share_q16)
        return decoy_null(positions, count, rng, account_share_q16=account_share_q16)

    monkeypatch.setattr(windows, "decoy_null", draw)
    nulls, ids = Nulls(), document(n=600, start=100)

    def look(seed: int, share: int = 0) -> Localization:
        record = make_record(seed, width=2, account_share_q16=share)
        rng = np.random.default_rng(seed)
        return Localizer(record, nulls=nulls).localize(ids, rng=rng, alpha=0.05, with_decoys=True)

    found = [look(seed) for seed in range(4)]
    assert drawn == [0]
    look(0, share=20_000)  # another share leaves out other places
    assert drawn == [0, 20_000]
    ids = document(1, n=600, start=100)
    look(0)
    assert drawn == [0, 20_000, 0]
    assert [len(one.spans) > 0 for one in found] == [True, False, False, False]
