"""Many keys and documents in one family; exclusion and decoys see the text only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.support.drive import make_record
from tests.support.foreign import foreign_record
from tests.watermark.detection.test_detector import marked_text
from watermark.detection import DecoyRank, DetectionFamily, Detector, Document, detect_many
from watermark.detection.distinct_pairs import context_identities, distinct_pairs
from watermark.errors import SchemeParameterError, TextTooShortError, UnitMismatchError
from watermark.keys import KeyRecord, SecretKey
from watermark.stats import holm
from watermark.text import WordsUnit

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORDS = " ".join(f"word{i}" for i in range(24))


def record(seed: int, *, width: int = 2, share: int = 0) -> KeyRecord:
    secret = SecretKey(f"key-{seed}", np.random.default_rng(seed).bytes(32))
    return KeyRecord(
        key_id=secret.key_id,
        unit="words/v1",
        context_width=width,
        account_share_q16=share,
        secret=secret,
    )


def ids(seed: int, n: int = 300, vocab: int = 30) -> NDArray[np.uint32]:
    weights = 1 / np.arange(1, vocab + 1)
    drawn = np.random.default_rng(seed).choice(vocab, n, p=weights / weights.sum())
    return drawn.astype(np.uint32)


def same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-11, abs_tol=1e-11)


def test_many_agree_with_one_at_a_time_in_the_order_given() -> None:
    records = [record(i, width=1 + i % 4, share=(i % 3) * 9_000) for i in range(12)]
    records.insert(5, foreign_record("vllm-gumbel", [7]))
    documents: list[NDArray[np.uint32] | Document] = [
        ids(1),
        ids(2),
        Document(replies=(ids(3), ids(1), ids(3)), name="three"),
    ]

    family = detect_many(records, documents)

    assert family.documents == tuple(i for i in range(3) for _ in records)
    assert family.names == ("", "", "three")
    expected = [
        Detector(key).detect_pooled(d.replies if isinstance(d, Document) else [d])
        for d in documents
        for key in records
    ]
    for found, alone in zip(family, expected, strict=True):
        assert found.key_id == alone.key_id
        assert found.n_scored == alone.n_scored
        assert found.n_repeated == alone.n_repeated
        assert same(found.statistic, alone.statistic)
        assert same(found.log_pvalue, alone.log_pvalue)
    assert [r.log_pvalue_family for r in family] == holm([r.log_pvalue for r in family])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), max_size=20), min_size=1, max_size=3),
    st.lists(st.integers(0, 3), max_size=12),
    st.integers(1, 4),
)
def test_pairs_are_those_of_the_rules(
    replies: list[list[int]], excluded: list[int], width: int
) -> None:
    view = {tuple(excluded[i : i + width]) for i in range(len(excluded) - width + 1)}
    kept: set[tuple[tuple[int, ...], int]] = set()
    n_excluded = 0
    for reply in replies:
        seen: set[tuple[int, ...]] = set()
        for i in range(width, len(reply)):
            context = tuple(reply[i - width : i])
            if context not in seen:
                seen.add(context)
                n_excluded += context in view
                if context not in view:
                    kept.add((context, reply[i]))
    arrays = [np.array(reply, np.uint32) for reply in replies]
    identities = context_identities([np.array(excluded, np.uint32)], width)

    pairs = distinct_pairs(arrays, width, identities)

    found = zip(map(tuple, pairs.contexts.tolist()), pairs.tokens.tolist(), strict=True)
    assert sorted(found) == sorted(kept)
    every = [(tuple(r[i - width : i]), r[i]) for r in replies for i in range(width, len(r))]
    assert [every[place] for place in pairs.places] == list(
        zip(map(tuple, pairs.contexts.tolist()), pairs.tokens.tolist(), strict=True)
    )
    assert pairs.n_excluded == n_excluded
    assert pairs.n_tokens == sum(map(len, replies))


def test_excluded_text_is_not_scored_by_the_call_or_by_the_record() -> None:
    key, reply = record(0), ids(6, 200)
    prompt = np.concatenate([ids(5, 80), reply[50:90]])
    for scheme in (key, foreign_record("vllm-gumbel", [7]), foreign_record("sglang-gumbel", [9])):
        alone = Detector(scheme).detect(reply, exclude=[prompt])
        assert alone.n_excluded > 0
        (by_call,) = detect_many([scheme], [reply], exclude=[prompt])
        (by_record,) = detect_many([scheme], [Document(replies=(reply,), prompts=(prompt,))])
        for found in (by_call, by_record):
            assert found.n_excluded == alone.n_excluded
            assert found.n_scored == alone.n_scored
            assert same(found.log_pvalue, alone.log_pvalue)
    nothing = Detector(key).detect(reply, exclude=[reply])
    assert (nothing.n_scored, nothing.log_pvalue, nothing.effect) == (0, 0.0, 0.0)


def test_a_quoted_prompt_is_evidence_unless_it_is_excluded() -> None:
    """A reply that copies marked text from its prompt is no marked reply."""
    key = make_record(3, width=2)
    quoted = marked_text(3, 300)
    innocent = [*quoted, *ids(9, 100, 200).tolist()]
    assert Detector(key).detect(innocent).log10_pvalue < -6
    assert Detector(key).detect(innocent, exclude=[quoted]).log10_pvalue > -3


def excluded_p_values(*, by_pair: bool) -> NDArray[np.float64]:
    """P-values of one text under 600 keys, excluding by context, or what scores low."""
    text = ids(11, 150, 60)
    found = []
    for seed in range(600):
        key = record(seed)
        if by_pair:  # a choice that looks at this key's scores: repeat the weaker half away
            halves = [text[:75], text[75:]]
            found.append(min(Detector(key).detect(half).log_pvalue for half in halves))
        else:
            found.append(Detector(key).detect(text, exclude=[ids(12, 60, 60)]).log_pvalue)
    return np.exp(found)


def test_exclusion_keeps_p_uniform_and_choosing_by_score_does_not() -> None:
    assert stats.kstest(excluded_p_values(by_pair=False), "uniform").pvalue > 1e-3
    assert stats.kstest(excluded_p_values(by_pair=True), "uniform").pvalue < 1e-6


@pytest.mark.parametrize("share", [0, 20_000])
def test_decoys_agree_with_the_closed_form(share: int) -> None:
    records = [record(i, share=share) for i in range(40)]
    family = detect_many(records, [Document(replies=(ids(4), ids(8)))], decoys=2000)
    for result in family:
        assert result.decoys is not None
        p, n = math.exp(result.log_pvalue), result.decoys.n_decoys
        assert n == 2000
        spread = 5 * math.sqrt(p * (1 - p) / n) + 2 / n
        assert abs(math.exp(result.decoys.log_pvalue) - p) < spread
        assert not result.decoys.contradicts(result.log_pvalue)
    ranks = [result.decoys.log_pvalue for result in family if result.decoys is not None]
    families = [result.decoys.log_pvalue_family for result in family if result.decoys is not None]
    assert families == holm(ranks)


def test_decoys_rank_engines_keys_and_marked_text_hits_the_floor() -> None:
    key = make_record(3, width=2)
    (marked,) = detect_many([key], [marked_text(3, 200)], decoys=500)
    assert marked.decoys == DecoyRank.of(500, 0)
    assert marked.decoys.log_pvalue == marked.decoys.log_pvalue_floor == -math.log(501)
    (engine,) = detect_many([foreign_record("vllm-gumbel", [7])], [ids(4, 60)], decoys=300)
    assert engine.decoys is not None
    p = math.exp(engine.log_pvalue)
    assert abs(math.exp(engine.decoys.log_pvalue) - p) < 5 * math.sqrt(p * (1 - p) / 300) + 0.01


def test_decoys_are_the_same_for_whoever_recomputes() -> None:
    first, second = (detect_many([record(0)], [ids(4)], decoys=300)[0] for _ in range(2))
    assert first == second


def test_a_contradiction_is_said() -> None:
    assert DecoyRank.of(1000, 30).contradicts(math.log(1e-3))
    assert DecoyRank.of(1000, 1).contradicts(-1000.0)
    assert not DecoyRank.of(1000, 3).contradicts(math.log(1e-3))
    assert not DecoyRank.of(1000, 0).contradicts(-1000.0)
    assert not DecoyRank.of(1000, 1000).contradicts(0.0)


def test_forms_of_characters_are_one_test() -> None:
    text = " ".join(f"The *quick* br\u200bown fox {i}, and the **lazy** dog." for i in range(9))
    (found,) = detect_many([record(0)], [text], decoys=400)
    assert found.n_forms == 2
    assert found.log_pvalue_family == pytest.approx(min(0.0, found.log_pvalue + math.log(2)))
    assert found.decoys is not None


def test_what_cannot_be_tested_is_a_failure_and_the_rest_is_tested() -> None:
    family = detect_many([record(0), record(1, width=3)], [[1, 2, 3], [1, 2, 3, 4, 5], "\ud800"])
    assert [result.n_tokens for result in family] == [3, 5, 5]
    assert [index for index, _ in family.failures] == [0, 2]
    assert isinstance(family.failures[0][1], TextTooShortError)
    other = KeyRecord(
        key_id="t", unit="tokenizer:sha256:" + "0" * 64, secret=SecretKey("t", bytes(32))
    )
    with pytest.raises(UnitMismatchError, match="pass it in `units`"):
        detect_many([other], ["some text here"])
    assert detect_many([], ["text"]).best is None


def test_results_are_worth_reading_and_hold_no_text() -> None:
    family = detect_many(
        [record(i) for i in range(12)], [Document(replies=(f"a <b> secret {WORDS}",), name="<x>")],
        decoys=20,
    )  # fmt: skip
    assert isinstance(family, DetectionFamily)
    assert repr(family).startswith("<DetectionFamily of 12 tests; smallest p first\n  <x>: <Det")
    assert "... and 2 more" in repr(family)
    assert "secret" not in repr(family)
    assert "&lt;x&gt;" in family._repr_html_()
    assert "and 2 more tests" in family._repr_html_()
    best = family.best
    assert best is not None
    assert best in family[0:12]
    assert best._repr_html_().count("<tr>") == 2
    assert "decoys: p=10^" in repr(best)
    assert family.rejected(alpha=0.999) or best.log_pvalue_family == 0.0
    assert best.keywise_rate(alpha=1e-6, beta=0.01) == pytest.approx(1e-4)
    with pytest.raises(SchemeParameterError):
        family.rejected(alpha=2.0)
    assert WordsUnit().unit_id == best.unit
