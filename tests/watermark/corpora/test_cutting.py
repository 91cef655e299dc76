"""What is kept of documents is what the detector scores, and follows from the text alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watermark.corpora.conftest import key, plain
from watermark import Detector, WordsUnit
from watermark.corpora.cutting import BUCKETS, bucket_of, context_hashes, cut, pair_hashes
from watermark.corpora.fields import Document
from watermark.corpora.scoring import Scorer
from watermark.text.canonical import RAW

UNIT = WordsUnit()
WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=40).map(" ".join)


def pairs_of(texts: tuple[str, ...], width: int) -> set[tuple[int, ...]]:
    found = set()
    for text in texts:
        ids = UNIT.encode(text).tolist()
        found |= {tuple(ids[i - width : i + 1]) for i in range(width, len(ids))}
    return found


def contexts_of(texts: tuple[str, ...], width: int) -> set[tuple[int, ...]]:
    return {
        tuple(ids[i : i + width])
        for ids in (UNIT.encode(text).tolist() for text in texts)
        for i in range(len(ids) - width + 1)
    }


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@given(replies=st.lists(WORDS, max_size=4), prompts=st.lists(WORDS, max_size=2))
def test_the_first_of_each_context_that_no_prompt_shows_is_kept(
    width: int, replies: list[str], prompts: list[str]
) -> None:
    document = Document(tuple(replies), tuple(prompts))
    (found,) = cut(UNIT, [width], [document])
    expected, seen = [], contexts_of(document.prompts, width)
    for text in replies:
        ids = UNIT.encode(text).tolist()
        for i in range(width, len(ids)):
            context = tuple(ids[i - width : i])
            if context not in seen:
                seen.add(context)
                expected.append((*context, ids[i]))
    assert [tuple(row) for row in found.rows.tolist()] == expected
    assert found.counts.tolist() == [len(expected)]
    assert found.n_tokens.tolist() == [sum(len(UNIT.encode(text)) for text in replies)]


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6), st.sampled_from([1, 2, 3]))
def test_documents_cut_together_are_cut_as_if_alone(
    texts: list[tuple[str, str]], width: int
) -> None:
    documents = [Document((reply,), (prompt,)) for reply, prompt in texts]
    (together,) = cut(UNIT, [width], documents)
    alone = [cut(UNIT, [width], [one])[0] for one in documents]
    assert together.rows.tolist() == [row for one in alone for row in one.rows.tolist()]
    assert together.counts.tolist() == [int(one.counts[0]) for one in alone]
    pairs = together.rows[together.pairs]
    assert sorted(map(tuple, pairs.tolist())) == sorted(set(map(tuple, together.rows.tolist())))
    hashes = context_hashes(pairs[:, :width])
    buckets = bucket_of(hashes)
    assert (np.diff(buckets.astype(int)) >= 0).all()
    assert together.pair_ends[-1] == len(pairs)
    sizes = np.bincount(buckets, minlength=BUCKETS)
    assert np.diff(together.pair_ends.astype(int)).tolist() == sizes.tolist()
    views = {tuple(row) for row in together.prompts.tolist()}
    assert views == contexts_of(tuple(prompt for _, prompt in texts), width)


@pytest.mark.parametrize(
    "options",
    [
        {"context_width": 1}, {"context_width": 2}, {"context_width": 4},
        {"account_share_q16": 20_000},
    ],
)  # fmt: skip
def test_a_document_has_the_p_value_that_the_detector_gives(options: dict[str, int]) -> None:
    record = key(3, **options)
    texts = [plain(seed, 5 + 37 * seed) for seed in range(12)] + ["one", ""]
    (found,) = cut(UNIT, [record.context_width], [Document((text,)) for text in texts])
    scores = Scorer(record, RAW).documents(found, 0.0)
    detector = Detector(record, UNIT)
    results = [detector.detect(text) for text in texts[1:12]]  # the first is too short to be shown
    assert scores.found.tolist() == list(range(1, 12))
    assert scores.n_tested == 11
    assert scores.found_scored.tolist() == [one.n_scored for one in results]
    np.testing.assert_allclose(scores.statistics, [one.statistic for one in results], rtol=1e-14)
    np.testing.assert_allclose(scores.log_pvalues, [one.log_pvalue for one in results], rtol=1e-11)


def test_only_p_values_up_to_the_level_are_kept(marked: str) -> None:
    texts = [plain(seed) for seed in range(40)] + [marked]
    (found,) = cut(UNIT, [2], [Document((text,)) for text in texts])
    scorer = Scorer(key(), RAW)
    every, few = scorer.documents(found, 0.0), scorer.documents(found, np.log(0.2))
    kept = every.log_pvalues <= np.log(0.2)
    assert few.found.tolist() == every.found[kept].tolist()
    assert few.n_tested == every.n_tested == 41
    assert 0 < len(few.found) < 41
    assert every.log_pvalues[-1] < -30


def test_public_hashes_tell_contexts_and_pairs_apart() -> None:
    rng = np.random.default_rng(0)
    contexts = rng.integers(0, 50, (5000, 4)).astype(np.uint32)
    tokens = rng.integers(0, 50, 5000).astype(np.uint32)
    for width in (1, 2, 3, 4):
        hashes = context_hashes(contexts[:, :width])
        n_contexts = len({tuple(row) for row in contexts[:, :width].tolist()})
        assert len(np.unique(hashes)) == n_contexts
        rows = np.column_stack([contexts[:, :width], tokens])
        n_pairs = len({tuple(row) for row in rows.tolist()})
        assert len(np.unique(pair_hashes(hashes, tokens))) == n_pairs
