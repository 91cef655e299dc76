"""Two looks at one text, and what they cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tests.support.drive import make_record
from tests.watermark.cli.shell import marked_text
from watermark.detection import Detector, detect_forms, text_forms
from watermark.errors import TextEncodingError, TextTooShortError
from watermark.text import WordsUnit
from watermark.text.canonical import canonical

UNIT = WordsUnit()
CYRILLIC = str.maketrans("aceopxyiAEOPCTH", "асеорхуіАЕОРСТН")


def test_a_disguised_text_is_found_and_pays_for_two_looks() -> None:
    record = make_record(0, width=2)
    detector = Detector(record, UNIT)
    text = marked_text(record)
    hidden = text.translate(CYRILLIC)
    assert detector.detect(hidden).log10_pvalue > -3
    result = detect_forms(detector, text_forms([hidden], UNIT))
    assert (result.form, result.n_forms) == ("canonical", 2)
    assert result.log_pvalue == detector.detect(canonical(hidden)).log_pvalue
    assert result.log_pvalue_family == result.log_pvalue + math.log(2)
    assert result.log10_pvalue_family < -12


def test_a_text_that_is_its_own_form_pays_nothing() -> None:
    record = make_record(0, width=2)
    text = marked_text(record)
    for same in (text, f"**{text}** ".replace("**", ""), text.replace(" ", "\n")):
        result = detect_forms(Detector(record, UNIT), text_forms([same], UNIT))
        assert (result.form, result.n_forms) == ("raw", 1)
        assert result.log_pvalue_family == result.log_pvalue


def disguised(seed: int, n: int) -> str:
    """Return a text whose two forms are scored at other places."""
    rng = np.random.default_rng(seed)
    words = [f"wоrd{rng.integers(1000)}" for _ in range(n)]
    return "** **".join(words)


def test_the_corrected_p_is_valid_over_keys_and_the_smaller_of_two_is_not() -> None:
    forms = text_forms([disguised(0, 60)], UNIT)
    assert len(forms) == 2
    detectors = [Detector(make_record(seed), UNIT) for seed in range(3000)]
    results = [detect_forms(detector, forms) for detector in detectors]
    for alpha in (0.2, 0.05, 0.01):
        share = np.mean([result.rejects_null(alpha=alpha) for result in results])
        assert share <= alpha + 4 * math.sqrt(alpha / 3000)
    careless = np.exp([result.log_pvalue for result in results])
    assert stats.kstest(careless, "uniform").pvalue < 1e-6  # negative control


def test_replies_are_pooled_form_by_form() -> None:
    record = make_record(1)
    texts = ["one twо three", "fоur five six"]
    result = detect_forms(Detector(record, UNIT), text_forms(texts, UNIT))
    raw = Detector(record, UNIT).detect_pooled(texts)
    other = Detector(record, UNIT).detect_pooled([canonical(text) for text in texts])
    assert result.log_pvalue == min(raw.log_pvalue, other.log_pvalue)


def test_a_form_without_a_place_to_score_does_not_hide_the_other() -> None:
    result = detect_forms(Detector(make_record(0), UNIT), text_forms(["<a><b>"], UNIT))
    assert (result.form, result.n_forms) == ("raw", 2)
    assert result.log_pvalue_family == min(0.0, result.log_pvalue + math.log(2))
    with pytest.raises(TextTooShortError):
        detect_forms(Detector(make_record(0), UNIT), text_forms(["one"], UNIT))


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(TextEncodingError):
        text_forms(["\ud800"], UNIT)
