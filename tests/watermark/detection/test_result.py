"""What a result says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from watermark.detection import DecoyRank, DetectionResult
from watermark.detection.result import FEWEST_SHOWN
from watermark.errors import SchemeParameterError

RESULT = DetectionResult(
    statistic=150.0,
    n_tokens=120,
    n_scored=100,
    n_repeated=18,
    log_pvalue=math.log(1e-5),
    log_pvalue_family=math.log(1e-3),
    key_id="k",
    unit="words/v1",
    scheme="gumbel-copula",
    context_width=2,
)


def test_logarithms_to_base_ten() -> None:
    assert RESULT.log10_pvalue == pytest.approx(-5)
    assert RESULT.log10_pvalue_family == pytest.approx(-3)


def test_the_effect_is_the_mean_excess() -> None:
    assert RESULT.effect == pytest.approx(0.5)
    assert replace(RESULT, n_scored=0, statistic=0.0).effect == 0.0


@pytest.mark.parametrize(
    ("log_pvalue", "shown"),
    [
        (-50.0, 1e-4),
        (math.log(1e-4), 1e-4),
        (math.log(2e-4), 1e-2),
        (math.log(0.3), 1.0),
        (0.0, 1.0),
    ],
)
def test_of_a_few_pairs_only_a_level_is_kept_and_it_is_rounded_up(
    log_pvalue: float, shown: float
) -> None:
    rank = DecoyRank.of(99, 0)
    told = replace(RESULT, log_pvalue=log_pvalue, log_pvalue_family=log_pvalue, decoys=rank)
    few = replace(told, n_scored=FEWEST_SHOWN - 1)
    assert math.exp(few.log_pvalue) == math.exp(few.log_pvalue_family) == pytest.approx(shown)
    assert few.log_pvalue >= log_pvalue
    assert math.isnan(few.statistic)
    assert math.isnan(few.effect)
    assert few.decoys is None
    assert "150" not in repr(few)
    enough = replace(told, n_scored=FEWEST_SHOWN)
    assert (enough.statistic, enough.log_pvalue, enough.decoys) == (150.0, log_pvalue, rank)


def test_the_decision_is_the_familys() -> None:
    assert RESULT.rejects_null(alpha=0.002)
    assert not RESULT.rejects_null(alpha=1e-4)
    assert replace(RESULT, log_pvalue_family=math.log(0.05)).rejects_null(alpha=0.05)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 2.0, math.nan])
def test_a_level_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(SchemeParameterError):
        RESULT.rejects_null(alpha=alpha)
