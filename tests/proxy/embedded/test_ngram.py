"""The n-gram model against a slow reference that counts with dictionaries."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.embedded.ngram import MAX_ORDER
from proxy.embedded.ngram_training import NOVELTY_WEIGHT, train

if TYPE_CHECKING:
    from collections.abc import Sequence

VOCAB, END = 7, 0
tokens = st.integers(1, VOCAB - 1)
corpora = st.lists(st.lists(tokens, max_size=12), min_size=1, max_size=8)


def reference(documents: Sequence[Sequence[int]], context: Sequence[int]) -> np.ndarray:
    """Witten-Bell from the definition, longest context of the current document last."""
    texts = [[END, *document, END] for document in documents]
    counts = Counter(token for text in texts for token in text[1:])
    left = NOVELTY_WEIGHT * len(counts)
    total = sum(counts.values()) + left
    result = np.array([(counts[token] + left / VOCAB) / total for token in range(VOCAB)])
    document = list(context)
    if END in document:
        document = document[len(document) - 1 - document[::-1].index(END) :]
    for length in range(1, min(MAX_ORDER - 1, len(document)) + 1):
        tail = document[-length:]
        counts = Counter(
            text[place + length]
            for text in texts
            for place in range(len(text) - length)
            if text[place : place + length] == tail
        )
        if counts:
            left = NOVELTY_WEIGHT * len(counts)
            total = sum(counts.values()) + left
            seen = np.array([counts[token] for token in range(VOCAB)])
            result = seen / total + left / total * result
    return result


@settings(max_examples=150, deadline=None)
@given(corpora, st.lists(st.integers(0, VOCAB - 1), max_size=8))
def test_equals_the_reference_and_sums_to_one(
    documents: list[list[int]], context: list[int]
) -> None:
    model = train(documents, vocab_size=VOCAB, end_id=END)
    got = model.probabilities(context)
    assert got.sum() == pytest.approx(1, abs=1e-12)
    assert (got > 0).all()
    np.testing.assert_allclose(got, reference(documents, context), atol=1e-6)


def test_a_document_does_not_depend_on_the_one_before() -> None:
    model = train([[1, 2, 3], [4, 5, 6]], vocab_size=VOCAB, end_id=END)
    np.testing.assert_array_equal(
        model.probabilities([1, 2, 3, END]), model.probabilities([6, 6, END])
    )


def test_order_2_forgets_all_but_the_last_token() -> None:
    model = train([[1, 2, 3], [4, 2, 5]], vocab_size=VOCAB, end_id=END, order=2)
    np.testing.assert_array_equal(model.probabilities([1, 2]), model.probabilities([4, 2]))
    longer = train([[1, 2, 3], [4, 2, 5]], vocab_size=VOCAB, end_id=END, order=3)
    assert longer.probabilities([1, 2])[3] > longer.probabilities([4, 2])[3]
