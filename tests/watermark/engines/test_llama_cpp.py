"""Our mark as llama-cpp-python calls it: all tokens so far, raw logits, one reply after another."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tests.support.drive import make_record
from watermark.detection import Detector
from watermark.engines.llama_cpp import CopulaProcessor
from watermark.errors import SchemeParameterError

SIGNIFICANCE = 1e-4
LOGITS = (-1.1 * np.log(np.arange(1.0, 401))).astype(np.single)


def reply(processor: CopulaProcessor, n: int, rng: np.random.Generator) -> list[int]:
    """Return a reply that is sampled as llama.cpp samples what a processor leaves."""
    ids = [300, 301, 302]
    for _ in range(n):
        scores = processor(np.array(ids, np.intc), LOGITS.copy())
        top = np.argsort(-scores)[:40]
        masses = np.exp(scores[top].astype(np.float64) - scores.max())
        ids.append(int(rng.choice(top, p=masses / masses.sum())))
    return ids[3:]


def test_one_object_marks_reply_after_reply() -> None:
    record, rng = make_record(0, width=2), np.random.default_rng(0)
    processor = CopulaProcessor(record, rng, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
    for _ in range(2):
        text = reply(processor, 120, rng)
        assert Detector(record).detect(text).log10_pvalue < -15
        assert Detector(make_record(1, width=2)).detect(text).log10_pvalue > -4
    assert repr(processor) == "<CopulaProcessor 'k'>"


def test_the_law_is_that_of_the_cuts_in_llama_cpps_order() -> None:
    logits = np.log([0.5, 0.2, 0.15, 0.1, 0.05]).astype(np.single)
    counts = np.zeros(5)
    for seed in range(1500):
        processor = CopulaProcessor(
            make_record(seed), np.random.default_rng(seed),
            temperature=2.0, top_k=4, top_p=0.9, min_p=0.25,
        )  # fmt: skip
        processor(np.array([9], np.intc), logits)
        counts[np.argmax(processor(np.array([9, 1], np.intc), logits))] += 1
    masses = np.array([0.5, 0.2, 0.15]) ** 0.5  # 0.1 falls to min_p, 0.05 to top_k
    assert counts[3:].sum() == 0
    assert stats.chisquare(counts[:3], 1500 * masses / masses.sum()).pvalue > SIGNIFICANCE


def test_temperature_zero_is_never_altered() -> None:
    processor = CopulaProcessor(make_record(0), np.random.default_rng(0), temperature=0.0)
    for ids in ([1], [1, 2], [1, 2, 3]):
        assert (processor(np.array(ids, np.intc), LOGITS) == LOGITS).all()


@pytest.mark.parametrize("values", [{"temperature": -1.0}, {"top_p": 0.0}, {"min_p": 1.5}])
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(SchemeParameterError):
        CopulaProcessor(make_record(0), np.random.default_rng(0), **values)  # type: ignore[arg-type]
