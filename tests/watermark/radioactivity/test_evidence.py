"""What an audit says: exact laws, ranks that agree, marked text that is found, and the dose."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.radioactivity.ngram import WIDTH, Chain, answers, key_of, marked
from watermark.errors import AuditDesignError
from watermark.radioactivity import (
    Choices,
    ContextWeights,
    Design,
    Observation,
    PairCollector,
    Passage,
    Path,
    Traffic,
    View,
    Weighting,
    bet_path,
    dose,
    power_of_bet,
    scores_for_bet,
    scores_for_fixed_n,
    weigh_evidence,
)
from watermark.seeding import as_token_ids
from watermark.stats import diluted_log_growth, share_of
from watermark.stats.diluted import TILT

CHAIN = Chain.of(3, vocab=60, concentration=0.5)
ONE = np.ones(1)


def design(**changes: object) -> Design:
    return Design(**({"alpha": 1e-3, "share": 0.45, "n_decoys": 400} | changes))  # type: ignore[arg-type]


def observed(texts: np.ndarray, *, given: tuple[np.ndarray, ...] = ()) -> list[Observation]:
    collector = PairCollector(View(WIDTH, given))
    return [collector.answer(ids) for ids in texts]


def test_marked_text_is_found_and_the_dose_is_one() -> None:
    texts = marked(CHAIN, key_of(1), 60, 60, np.random.default_rng(0))
    found = weigh_evidence([key_of(1)], observed(texts), design())
    assert found.rejects_null(alpha=1e-3)
    assert found.log_pvalue < -50
    assert found.decoys.n_reached == 0
    excess = found.dose.estimate
    again = weigh_evidence([key_of(1)], observed(texts), design(reference=excess))
    assert again.dose.estimate == pytest.approx(1.0)
    assert 0.5 < again.dose.low < 1.0 < again.dose.high < 1.5
    assert found.path[-1][0] == found.n_scored
    assert found.path == tuple(bet_path([key_of(1)], observed(texts), design()))


def test_the_rank_among_decoys_agrees_with_the_closed_form() -> None:
    texts = answers(CHAIN, CHAIN.starts(20, np.random.default_rng(1)), 40, np.random.default_rng(2))
    for seed in range(6):
        found = weigh_evidence([key_of(seed)], observed(texts), design())
        p = math.exp(found.log_pvalue)
        assert abs(math.exp(found.decoys.log_pvalue) - p) < 5 * math.sqrt(p * (1 - p) / 400) + 5e-3


def test_keys_are_pooled_and_each_is_said_alone() -> None:
    keys = [key_of(seed, key_id=f"k{seed}") for seed in range(3)]
    parts = [marked(CHAIN, key, 20, 50, np.random.default_rng(7)) for key in keys[:2]]
    found = weigh_evidence(keys, observed(np.concatenate(parts)), design())
    assert found.rejects_null(alpha=1e-3)
    assert [one.key_id for one in found.keys] == ["k0", "k1", "k2"]
    assert [one.log_pvalue_family < -6 for one in found.keys] == [True, True, False]
    assert all(one.log_pvalue_family >= one.log_pvalue for one in found.keys)


def test_pairs_are_counted_once_over_all_sessions() -> None:
    texts = marked(CHAIN, key_of(1), 4, 40, np.random.default_rng(0))
    collector = PairCollector(View(WIDTH))
    first = [len(collector.answer(ids)) for ids in texts]
    assert all(first)
    assert [len(collector.answer(ids)) for ids in texts] == [0, 0, 0, 0]


def test_what_occurs_in_a_prompt_is_not_scored() -> None:
    ids = as_token_ids([1, 2, 3, 4, 5, 6])
    assert len(PairCollector(View(2)).answer(ids)) == 4
    left = PairCollector(View(2, [as_token_ids([9, 2, 3, 9])])).answer(ids)
    assert left.contexts.tolist() == [[1, 2], [3, 4], [4, 5]]
    assert len(PairCollector(View(2, [ids])).answer(ids)) == 0
    assert len(PairCollector(View(2)).answer(as_token_ids([1]))) == 0


def test_reading_counts_a_context_where_it_is_met_first() -> None:
    view = View(2, [as_token_ids([7, 8])])
    passage = Passage(ids=as_token_ids([1, 2, 3, 1, 2, 4, 7, 8, 9]), path=Path.SPLICE)
    assert view.read(passage).tolist() == [2, 3, 4, 6, 7]  # not 5: (1, 2) again; not 8: in view
    assert view.read(passage).tolist() == []
    other = Passage(ids=as_token_ids([4, 5, 6]), path=Path.NATIVE, before=(as_token_ids([4, 5]),))
    assert View(2).read(other).tolist() == []


def test_delivered_text_is_cut_only_where_the_rest_had_no_say() -> None:
    ids = as_token_ids(range(9))
    select = Passage(ids=ids, path=Path.SELECT, chunk_ends=(3, 6))
    assert View(1).read(select).tolist() == [3, 6]
    assert select.prefix(3).tolist() == [0, 1, 2]
    for passage, cut in itertools.product([select, Passage(ids=ids, path=Path.REPLY)], (1, 4, 8)):
        with pytest.raises(AuditDesignError, match="cannot be cut"):
            passage.prefix(cut)
    assert View(1).read(Passage(ids=ids, path=Path.REPLY)).tolist() == []
    assert Passage(ids=ids, path=Path.NATIVE).prefix(5).tolist() == [0, 1, 2, 3, 4]


def test_reading_by_expectation_has_the_law_of_its_weights() -> None:
    """Enumerated: one position with probabilities 1/2, 1/4, 1/4 under many keys."""
    passage = Passage(ids=as_token_ids([1, 2, 3]), path=Path.SPLICE)
    choices = Choices(tokens=as_token_ids([4, 5, 6]), probabilities=np.array([0.5, 0.25, 0.25]))
    observation = PairCollector(View(2)).reading(passage, [None, None, choices])
    assert observation.shares.tolist() == [0.5, 0.25, 0.25]
    plain = design(n_decoys=1)
    p = [
        math.exp(weigh_evidence([key_of(seed)], [observation], plain).log_pvalue)
        for seed in range(300)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert choices.likeliest().tokens.tolist() == [4]


def test_a_conversation_counts_once_and_weights_leave_out_the_own_key() -> None:
    turns = [as_token_ids([1, 2, 3, 1, 2, 3, 1])]
    own = Traffic.of_conversations([turns, turns], 2, key_id="k")
    other = Traffic.of_conversations([turns], 2, key_id="other")
    contexts = np.array([[1, 2], [5, 5]], np.uint32)
    assert own.counts(contexts).tolist() == [2, 0]
    both = (own, other)
    every = ContextWeights(weighting=Weighting.ALL_KEYS, full_at=3, traffic=both)
    free = ContextWeights(weighting=Weighting.OTHER_KEYS, full_at=3, traffic=both)
    assert every.of(["k"], contexts).tolist() == [1.0, 0.0]
    assert free.of(["k"], contexts).tolist() == [0.5, 0.0]
    assert ContextWeights().of(["k"], contexts).tolist() == [1.0, 1.0]
    unknown = ContextWeights(
        weighting=Weighting.OTHER_KEYS, traffic=(Traffic.of_conversations([turns], 2),)
    )
    assert unknown.of(["k"], contexts).tolist() == [0.0, 0.0]


def test_keyed_fingerprints_are_found_by_their_key() -> None:
    from watermark.seeding import KeyedUniforms  # noqa: PLC0415 - one test

    key = key_of(4)
    contexts = np.array([[1, 2], [3, 4], [5, 6]], np.uint32)
    streams = np.sort(KeyedUniforms(key).streams(contexts[:2]))
    context_key = key.secret.subkey("context", 16)
    traffic = Traffic(
        key_id="k",
        fingerprints=streams,
        conversations=np.array([3, 3]),
        context_key=context_key,
    )
    assert traffic.counts(contexts).tolist() == [3, 3, 0]
    assert context_key.hex() not in repr(traffic)


def test_the_account_channel_counts_for_nothing() -> None:
    texts = answers(CHAIN, CHAIN.starts(30, np.random.default_rng(1)), 50, np.random.default_rng(2))
    keys = [key_of(seed, account_share_q16=1 << 15) for seed in range(40)]
    several = [weigh_evidence([key], observed(texts), design(n_decoys=20)) for key in keys]
    p = [math.exp(one.log_pvalue) for one in several]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    whole = weigh_evidence([key_of(0)], observed(texts), design(n_decoys=20))
    assert 0.4 < several[0].n_scored / whole.n_scored < 0.6


def test_power_is_that_of_simulated_bets() -> None:
    effect, alpha = 0.3, 1e-3
    n = scores_for_bet(effect, alpha=alpha, power=0.9, n_parts=3)
    assert power_of_bet(n, effect, alpha=alpha, n_parts=3) == pytest.approx(0.9, abs=0.01)
    assert scores_for_fixed_n(effect, alpha=1e-6, power=0.5) == math.ceil(22.595 / effect**2)
    rng = np.random.default_rng(0)
    wins = 0
    shares = design(share=share_of(effect)).shares
    for _ in range(300):  # scores of a student: a share of them is of marked text
        s = rng.exponential(1.0, n)
        s[rng.random(n) < shares[1]] /= 1.0 - TILT
        capitals = np.array([diluted_log_growth(shares, s[i : i + 1], ONE) for i in range(n)])
        logs = np.logaddexp.reduce(capitals.cumsum(axis=0), axis=1) - math.log(len(shares))
        wins += bool(logs.max() >= -math.log(alpha))
    assert 0.8 < wins / 300 <= 1.0


def test_the_interval_of_the_dose_holds_at_any_time() -> None:
    rng = np.random.default_rng(5)
    misses = 0
    for _ in range(200):
        weights = rng.integers(5, 40, 300).astype(float)
        excesses = np.array([(rng.exponential(1.2, int(w)) - 1).sum() for w in weights])
        found = [
            dose(excesses[:n], weights[:n], reference=0.4, n_planned=200)
            for n in range(40, 301, 20)
        ]
        misses += any(not one.low <= 0.5 <= one.high for one in found)
    assert misses <= 18
    assert dose(np.zeros(3), np.ones(3), reference=1.0, n_planned=9).high == math.inf
    assert dose(np.zeros(0), np.zeros(0), reference=1.0, n_planned=9).n_answers == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 0.0},
        {"share": 0.0},
        {"share": 1.5},
        {"n_decoys": 0},
        {"n_answers": 0},
        {"reference": 0.0},
    ],
)
def test_a_design_without_sense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(AuditDesignError):
        design(**changes)


def test_keys_that_do_not_belong_together_are_refused() -> None:
    for keys in (
        [],
        [key_of(0), key_of(1)],
        [key_of(0), key_of(1, key_id="b", account_share_q16=9)],
    ):
        with pytest.raises(AuditDesignError):
            weigh_evidence(keys, [], design())


def test_nothing_scored_says_nothing() -> None:
    found = weigh_evidence([key_of(0)], [], design())
    assert (found.log_pvalue, found.n_scored, found.log_evalue_peak) == (0.0, 0, 0.0)
    assert not found.rejects_null(alpha=0.5)
