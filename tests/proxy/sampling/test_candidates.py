"""The certain part of a list is certain, its ratios are exact, and its rest is right or unknown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.errors import UpstreamProtocolError
from proxy.sampling.candidates import CandidateList, ListReader, LogprobsMode
from proxy.sampling.parameters import SamplingParameters
from proxy.sampling.questions import TokenLogprobs
from tests.support.toy_model import log, softmax

RAW, TEMPERED, PROCESSED = LogprobsMode
MARGIN = 1e-5  # cases where a cut falls this close to a sum are left to "not certain"


@dataclass(frozen=True, slots=True)
class Case:
    """A position: logits, what the client asked, and what the upstream shows."""

    raw: tuple[float, ...]
    parameters: SamplingParameters
    mode: LogprobsMode
    size: int
    order: tuple[int, ...]  # of equal tokens the first in this order is listed
    sampled: int

    def tempered(self) -> np.ndarray:
        logits = log(np.array(self.raw))
        for token, added in self.parameters.logit_bias.items():
            logits[token] += added
        return softmax(logits / self.parameters.temperature)

    def support(self, prefer: tuple[int, ...]) -> np.ndarray:
        """Return which tokens are kept where, of equal ones, the first in `prefer` comes first."""
        p = self.tempered()
        levels = np.round(log(p), 9)  # equal up to the last digits
        rank = np.argsort(prefer)
        order = np.lexsort((rank, -levels))
        kept = order[: self.parameters.top_k] if self.parameters.top_k else order
        shares = p[kept] / p[kept].sum()
        before = np.concatenate([[0.0], np.cumsum(shares)[:-1]])
        if self.parameters.top_p < 1:
            kept = kept[before < self.parameters.top_p]
        mask = np.zeros(len(p), np.bool_)
        mask[kept] = True
        return mask

    def is_near_a_cut(self) -> bool:
        p = np.sort(self.tempered())[::-1]
        if self.parameters.top_k:
            p = p[: self.parameters.top_k] / p[: self.parameters.top_k].sum()
        return bool((abs(np.cumsum(p) - self.parameters.top_p) < MARGIN).any())

    def listed(self) -> TokenLogprobs:
        if self.mode is RAW:
            p = np.array(self.raw)
        else:
            p = self.tempered()
            if self.mode is PROCESSED:
                p = np.where(self.support(self.order), p, 0.0)
                p /= p.sum()
        rank = np.argsort(self.order)
        top = np.lexsort((rank, -p))[: self.size]
        if self.mode is PROCESSED:
            top = top[p[top] > 0]
        ids = top if self.sampled in top else np.append(top, self.sampled)
        return TokenLogprobs(ids.astype(np.uint32), log(p[ids]))

    def read(self, sampled: int | None = None) -> CandidateList:
        reader = ListReader(
            parameters=self.parameters, mode=self.mode, size=self.size, vocab_size=len(self.raw)
        )
        bias = self.parameters.bias([])
        return reader.read(self.listed(), self.sampled if sampled is None else sampled, bias)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n = draw(st.integers(2, 8))
    shares = draw(st.lists(st.integers(1, 6), min_size=n, max_size=n))  # many ties
    raw = np.array(shares) / sum(shares)
    bias = draw(
        st.dictionaries(
            st.integers(0, n - 1), st.sampled_from([-100.0, -1.0, -0.5, 0.5, 2.0]), max_size=3
        )
    )
    parameters = SamplingParameters(
        temperature=draw(st.sampled_from([0.5, 1.0, 1.0, 1.7])),
        top_p=draw(st.sampled_from([1.0, 0.97, 0.9, 0.7, 0.45, 0.1])),
        top_k=draw(st.sampled_from([0, 0, 1, 2, 3, 5, 20])),
        logit_bias=bias,
    )
    case = Case(
        raw=tuple(raw),
        parameters=parameters,
        mode=draw(st.sampled_from(LogprobsMode)),
        size=draw(st.integers(1, n + 1)),
        order=tuple(draw(st.permutations(range(n)))),
        sampled=0,
    )
    possible = np.flatnonzero(case.support(case.order)).tolist()
    sampled = draw(st.sampled_from(possible))
    return Case(case.raw, parameters, case.mode, case.size, case.order, sampled)


def tied(raw: list[float], top_p: float, top_k: int, size: int, mode: LogprobsMode) -> Case:
    parameters = SamplingParameters(top_p=top_p, top_k=top_k)
    return Case(tuple(raw), parameters, mode, size, tuple(range(len(raw))), 0)


BIASED = SamplingParameters(top_k=3, logit_bias={0: -100.0, 1: -100.0, 2: -100.0})


@settings(max_examples=400, deadline=None, derandomize=True)
@given(cases())
@example(tied([0.4, 0.2, 0.2, 0.2], 0.7, 0, 3, TEMPERED))  # a tie goes on beyond the list
@example(tied([0.4, 0.2, 0.2, 0.2], 0.7, 0, 2, PROCESSED))
@example(tied([0.4, 0.2, 0.2, 0.2], 1.0, 2, 3, TEMPERED))
@example(
    Case((0.3, 0.2, 0.15, 0.1, 0.0625, 0.0625, 0.0625, 0.0625), BIASED, RAW, 5, tuple(range(8)), 4)
)
def test_what_may_win_is_certain_and_exact(case: Case) -> None:
    if case.is_near_a_cut():
        return
    found = case.read()
    p = case.tempered()
    tokens = found.tokens.astype(int)
    assert len(set(tokens.tolist())) == len(tokens)
    # PROCESSED lists are of the one cut that the upstream made; else any order of ties may be.
    backwards = tuple(reversed(case.order))
    orders = [case.order] if case.mode is PROCESSED else [case.order, backwards]
    orders += [] if case.mode is PROCESSED else [tuple(range(len(p))), tuple(range(len(p)))[::-1]]
    live = tokens[found.weights > 0]
    for order in orders:
        support = case.support(order)
        assert support[live].all()
        if found.rest == 0:
            assert p[support].sum() == pytest.approx(p[live].sum(), rel=1e-9)
    if len(live):
        ratios = p[live] / p[live].sum()
        weights = found.weights[found.weights > 0]
        assert weights / weights.sum() == pytest.approx(ratios, rel=1e-9)
    if found.rest:
        assert case.support(case.order).sum() == len(p) or not len(tokens)
        kept = p[tokens].sum() / p.sum()
        assert found.weights.sum() / (found.weights.sum() + found.rest) == pytest.approx(kept)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cases(), st.data())
def test_the_list_does_not_depend_on_the_sample(case: Case, data: st.DataObject) -> None:
    possible = np.flatnonzero(case.support(case.order)).tolist()
    other_sample = data.draw(st.sampled_from(possible))
    other = Case(case.raw, case.parameters, case.mode, case.size, case.order, other_sample)
    one, two = case.read(), other.read()
    assert sorted(one.tokens.tolist()) == sorted(two.tokens.tolist())
    assert one.rest == pytest.approx(two.rest)


def plain(mode: LogprobsMode, size: int, **changed: float) -> ListReader:
    given_parameters = SamplingParameters(**changed)  # type: ignore[arg-type]
    return ListReader(parameters=given_parameters, mode=mode, size=size, vocab_size=10)


def a_list(ids: list[int], p: list[float]) -> TokenLogprobs:
    return TokenLogprobs(np.array(ids, np.uint32), log(np.array(p)))


def test_an_added_sample_is_left_out() -> None:
    found = plain(TEMPERED, 2).read(a_list([4, 2, 9], [0.5, 0.3, 0.01]), 9, {})
    assert found.tokens.tolist() == [4, 2]
    assert found.rest == pytest.approx(0.2)
    assert 4 in found
    assert 9 not in found


def test_raw_lists_are_cooled() -> None:
    found = plain(RAW, 2, temperature=0.5).read(a_list([4, 2], [0.6, 0.3]), 4, {})
    assert found.weights[0] / found.weights[1] == pytest.approx(4.0)
    assert found.rest is None


def test_the_rest_of_a_biased_raw_list_is_known_where_all_biases_are_listed() -> None:
    listed = a_list([4, 2], [0.6, 0.3])
    known = plain(RAW, 2).read(listed, 4, {4: 1.0})
    assert known.rest is not None
    total = 0.6 * np.e + 0.3 + 0.1
    assert known.rest / (known.weights.sum() + known.rest) == pytest.approx(0.1 / total)
    assert plain(RAW, 2).read(listed, 4, {5: 1.0}).rest is None


def test_a_tempered_nucleus_inside_the_list_is_closed() -> None:
    found = plain(TEMPERED, 3, top_p=0.7).read(a_list([1, 2, 3], [0.5, 0.3, 0.1]), 1, {})
    assert found.tokens.tolist() == [1, 2]
    assert found.rest == 0.0


def test_a_nucleus_beyond_the_list_is_open() -> None:
    found = plain(TEMPERED, 3, top_p=0.95).read(a_list([1, 2, 3], [0.5, 0.3, 0.1]), 1, {})
    assert found.rest is None


def test_a_cut_processed_list_has_no_rest_that_could_be_asked_for() -> None:
    listed = a_list([1, 2], [0.5, 0.3])
    assert plain(PROCESSED, 2, top_p=0.9).read(listed, 1, {}).rest is None
    assert plain(PROCESSED, 2).read(listed, 1, {}).rest == pytest.approx(0.2)


def test_a_processed_list_that_is_shorter_than_asked_is_whole() -> None:
    found = plain(PROCESSED, 4, top_p=0.9).read(a_list([1, 2], [0.6, 0.39999]), 1, {})
    assert found.rest == 0.0
    padded = plain(PROCESSED, 3, top_p=0.9).read(a_list([1, 2, 3], [0.6, 0.39999, 0.0]), 1, {})
    assert padded.rest == 0.0


@pytest.mark.parametrize(
    ("listed", "sampled", "message"),
    [
        (a_list([1, 2, 3], [0.5, 0.3, 0.1]), 4, "lack the token"),
        (a_list([1, 2, 3], [0.8, 0.3, 0.1]), 1, "sum to"),
        (a_list([1, 2, 3], [float("nan"), 0.3, 0.1]), 1, "sum to"),
        (a_list([1, 2, 3], [float("inf"), 0.3, 0.1]), 1, "sum to"),
        (a_list([1, 2], [0.5, 0.3]), 1, "listed 2 tokens where 3"),
    ],
)
def test_lists_that_cannot_be_are_refused(
    listed: TokenLogprobs, sampled: int, message: str
) -> None:
    with pytest.raises(UpstreamProtocolError, match=message):
        plain(TEMPERED, 3).read(listed, sampled, {})


def test_banned_tokens_are_not_missed_in_a_list_of_the_whole_vocabulary() -> None:
    reader = ListReader(
        parameters=SamplingParameters(), mode=LogprobsMode.TEMPERED, size=4, vocab_size=4
    )
    listed = TokenLogprobs(
        np.array([0, 1, 3], np.uint32), np.log(np.array([0.5, 0.3, 0.2], np.float64))
    )
    read = reader.read(listed, 1, {2: -100.0})
    assert read.rest == 0.0
    with pytest.raises(UpstreamProtocolError, match="listed 3 tokens where 4"):
        reader.read(listed, 1, {})
