"""Penalties become biases."""

from __future__ import annotations

import pytest

from proxy.sampling.parameters import MAX_BIAS, SamplingParameters


def test_penalties_count_occurrences() -> None:
    parameters = SamplingParameters(
        presence_penalty=0.5, frequency_penalty=0.25, logit_bias={1: 2.0, 9: -1.0}
    )
    assert parameters.bias([1, 2, 1]) == pytest.approx({1: 1.0, 2: -0.75, 9: -1.0})
    assert parameters.bias([]) == {1: 2.0, 9: -1.0}


def test_biases_stay_in_the_range_of_the_api() -> None:
    parameters = SamplingParameters(presence_penalty=-2.0, logit_bias={1: 100.0, 2: -100.0})
    assert parameters.bias([1, 2]) == {1: MAX_BIAS, 2: pytest.approx(-98.0)}
    assert SamplingParameters(logit_bias={1: -400.0}).bias([]) == {1: -MAX_BIAS}


def test_what_asks_for_nothing_is_not_there() -> None:
    plain = SamplingParameters()
    assert not plain.has_penalties
    assert not plain.is_truncated
    assert plain.bias([1, 2, 3]) == {}
    assert SamplingParameters(top_k=1).is_truncated
    assert SamplingParameters(top_p=0.9).is_truncated
    assert SamplingParameters(frequency_penalty=-0.1).has_penalties
