"""Streams may be stopped at any time; what was seen before is not bet on again."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.drive import make_record
from tests.support.foreign import foreign_record
from tests.watermark.detection.test_detector import marked_text, zipf_text
from tests.watermark.detection.test_many import record
from watermark.detection import DetectionStream
from watermark.detection.result import FEWEST_SHOWN
from watermark.errors import SchemeParameterError
from watermark.stats import binomial_log_sf
from watermark.text import WordsUnit

ALPHA = 0.1


def test_unmarked_streams_reach_a_level_as_rarely_as_promised() -> None:
    documents = [zipf_text(120, seed, 80) for seed in range(8)]
    count = 0
    for seed in range(300):
        stream = DetectionStream(record(seed))
        last = [stream.observe(document) for document in documents][-1]
        count += last.log_pvalue <= math.log(ALPHA)
    assert count > 0
    assert binomial_log_sf(count, 300, ALPHA) > math.log(0.01)


def test_a_template_counts_once_and_marked_text_is_found() -> None:
    stream = DetectionStream(make_record(0, width=2))
    first = stream.observe(marked_text(0, 250))
    again = [stream.observe(marked_text(0, 250)) for _ in range(20)][-1]
    assert first.log_pvalue < math.log(1e-6)
    assert first.n_new == first.n_scored == again.n_scored
    assert again.n_new == 0
    assert again.log_evalue == first.log_evalue
    assert "anytime p=10^-" in repr(again)
    assert repr(stream) == f"<DetectionStream key='k' {first.n_scored} scored>"


def test_what_the_writer_had_in_view_is_not_bet_on() -> None:
    text = marked_text(0, 250)
    excluded = DetectionStream(make_record(0, width=2)).observe(text, exclude=[text])
    assert (excluded.n_new, excluded.log_evalue) == (0, 0.0)


@given(st.lists(st.lists(st.integers(0, 40), max_size=25), max_size=12))
def test_no_two_numbers_differ_by_fewer_than_16_scores(documents: list[list[int]]) -> None:
    stream = DetectionStream(record(1))
    results = [stream.observe(document) for document in documents]
    n_bet = 0
    for before, after in itertools.pairwise([None, *results]):
        assert after is not None
        n_bet += after.n_new
        last = 0 if before is None else before.n_scored
        if after.n_scored == last:
            assert n_bet - last < FEWEST_SHOWN
            assert before is None or after.log_evalue == before.log_evalue
        else:
            assert after.n_scored == n_bet >= last + FEWEST_SHOWN


def test_a_result_is_a_table_in_notebooks() -> None:
    assert DetectionStream(record(0)).observe(zipf_text(60))._repr_html_().count("<td>") == 6


def test_words_empty_documents_and_engines_keys() -> None:
    stream = DetectionStream(record(0), WordsUnit())
    assert stream.observe("").n_scored == 0
    few = stream.observe("one two three four")
    assert (few.n_new, few.n_scored, few.log_evalue) == (2, 0, 0.0)
    assert stream.observe(np.zeros(0, np.uint32)).n_scored == 0
    with pytest.raises(SchemeParameterError, match="detect_each"):
        DetectionStream(foreign_record("vllm-gumbel", [7]))
