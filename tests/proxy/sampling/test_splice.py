"""Splice delivers the upstream's law, whatever it lists and wherever it cuts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from proxy.errors import UpstreamProtocolError
from proxy.sampling.budget import Budget, BudgetLimits
from proxy.sampling.candidates import ListReader, LogprobsMode
from proxy.sampling.parameters import SamplingParameters
from proxy.sampling.questions import Continuation, Draft, Drafted, Finish, TokenLogprobs
from proxy.sampling.splice import SplicePlan, splice
from tests.support.drive import Driven, drive, law_pvalue, make_reply, no_clock
from tests.support.toy_model import ToyModel

if TYPE_CHECKING:
    from collections.abc import Callable

END = 5
LIKELY = np.array([0.40, 0.24, 0.15, 0.10, 0.08, 0.03])
TABLE = np.stack([np.roll(LIKELY, shift) for shift in range(6)])
RAW, TEMPERED, PROCESSED = LogprobsMode
SIGNIFICANCE = 1e-4  # seeds are fixed: a pass stays a pass
LENGTH = 3
COUNTS = [500, pytest.param(6000, marks=pytest.mark.slow)]


def make_plan(
    model: ToyModel, *, size: int, drafts: int, draft_tokens: int = 3, chosen: int = 0
) -> SplicePlan:
    reader = ListReader(
        parameters=model.parameters,
        mode=model.mode,
        size=size,
        vocab_size=model.vocab_size,
        cuts_first=model.cuts_first,
    )
    return SplicePlan(
        reader=reader,
        draft_tokens=draft_tokens,
        drafts=drafts,
        end_ids=frozenset() if model.end is None else frozenset({model.end}),
        chosen=chosen,
    )


def run_one(model: ToyModel, plan: SplicePlan, seed: int, **reply: Any) -> Driven:
    budget = Budget(BudgetLimits(), no_clock)
    return drive(splice(make_reply(seed, **reply), plan, budget), model.answer)


def sample(model: ToyModel, plan: SplicePlan, count: int, **reply: Any) -> list[tuple[int, ...]]:
    return [run_one(model, plan, seed, **reply).sequence for seed in range(count)]


LAWS = [
    pytest.param({}, TEMPERED, 3, 0, id="greedy-short-list"),
    pytest.param({}, TEMPERED, 3, 2, id="sampled-short-list"),
    pytest.param({}, TEMPERED, 6, 0, id="greedy-whole-list"),
    pytest.param({}, RAW, 2, 0, id="raw-plain-greedy"),
    pytest.param({"temperature": 0.7}, RAW, 3, 0, id="raw-cooled-hands-over"),
    pytest.param({"temperature": 0.7}, RAW, 2, 3, id="raw-cooled-short-list"),
    pytest.param({"temperature": 0.7, "top_p": 0.8}, RAW, 3, 2, id="raw-cooled-top-p"),
    pytest.param({"temperature": 1.5, "logit_bias": {0: -1.5, 4: 2.0}}, RAW, 3, 2, id="raw-bias"),
    pytest.param({"top_k": 3, "logit_bias": {0: -3.0, 1: -2.0}}, RAW, 4, 2, id="raw-bias-top-k"),
    pytest.param({"top_p": 0.8, "logit_bias": {0: -3.0, 1: -2.0}}, RAW, 3, 2, id="raw-bias-top-p"),
    pytest.param({"top_p": 0.5}, TEMPERED, 3, 0, id="top-p-inside"),
    pytest.param({"top_p": 0.9}, TEMPERED, 3, 0, id="top-p-beyond"),
    pytest.param({"top_p": 0.9}, TEMPERED, 3, 2, id="top-p-beyond-sampled"),
    pytest.param({"top_k": 3}, TEMPERED, 4, 0, id="top-k-inside"),
    pytest.param({"top_k": 5, "top_p": 0.9}, TEMPERED, 3, 1, id="top-k-and-p-beyond"),
    pytest.param({"top_p": 0.8}, PROCESSED, 2, 0, id="processed-cut-list"),
    pytest.param({"top_k": 4, "temperature": 1.3}, PROCESSED, 6, 0, id="processed-whole"),
    pytest.param({"presence_penalty": 1.0}, TEMPERED, 3, 0, id="presence"),
    pytest.param(
        {"presence_penalty": 0.5, "frequency_penalty": 0.7, "temperature": 0.8},
        RAW,
        3,
        2,
        id="raw-penalties-cooled",
    ),
    pytest.param({"logit_bias": {1: 100.0, 2: 99.0}}, TEMPERED, 2, 0, id="extreme-bias"),
]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(("parameters", "mode", "size", "drafts"), LAWS)
def test_the_law_of_replies_is_the_upstreams(
    parameters: dict[str, Any], mode: LogprobsMode, size: int, drafts: int, count: int
) -> None:
    given = SamplingParameters(max_tokens=LENGTH, **parameters)
    model = ToyModel(TABLE, END, np.random.default_rng(size), given, mode)
    plan = make_plan(model, size=size, drafts=drafts)
    sequences = sample(model, plan, count, max_tokens=LENGTH)
    assert law_pvalue(sequences, model.law(LENGTH)) > SIGNIFICANCE


CHOSEN = [
    pytest.param({}, TEMPERED, 2, 0, id="greedy"),
    pytest.param({}, TEMPERED, 2, 2, id="sampled"),
    pytest.param({"temperature": 1.4}, RAW, 2, 2, id="raw-warmed-sampled"),
    pytest.param({"logit_bias": {1: 1.0, 3: -100.0}}, TEMPERED, 2, 0, id="biased"),
    pytest.param({"top_p": 0.8}, TEMPERED, 2, 2, id="truncated-asks-for-none"),
    pytest.param({"frequency_penalty": 0.7}, TEMPERED, 2, 1, id="penalties"),
]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(("parameters", "mode", "size", "drafts"), CHOSEN)
def test_chosen_tokens_outside_the_list_are_raced_without_bias(
    parameters: dict[str, Any], mode: LogprobsMode, size: int, drafts: int, count: int
) -> None:
    given = SamplingParameters(max_tokens=LENGTH, **parameters)
    model = ToyModel(TABLE, END, np.random.default_rng(size), given, mode)
    plan = make_plan(model, size=size, drafts=drafts, chosen=2)
    sequences = sample(model, plan, count, max_tokens=LENGTH)
    assert law_pvalue(sequences, model.law(LENGTH)) > SIGNIFICANCE
    asked = any(question.chosen for question in model.questions)
    assert asked == (not given.is_truncated)


def test_a_race_without_the_honest_draw_would_be_seen() -> None:
    """Negative control: outside the list the upstream draws the likeliest, so others are lost."""
    model = ToyModel(TABLE, END, np.random.default_rng(0))

    def eager(question: Draft) -> Drafted:
        return model.answer(replace(question, is_greedy=bool(question.chosen)))

    plan = make_plan(model, size=2, drafts=0, chosen=2)
    sequences = []
    for seed in range(500):
        reply = make_reply(seed, max_tokens=LENGTH)
        flow = splice(reply, plan, Budget(BudgetLimits(), no_clock))
        sequences.append(drive(flow, eager).sequence)
    assert law_pvalue(sequences, model.law(LENGTH)) < SIGNIFICANCE


def test_an_upstream_that_does_not_list_what_was_chosen_is_refused() -> None:
    model = ToyModel(TABLE, None, np.random.default_rng(3))

    def deaf(question: Draft) -> Drafted:
        return model.answer(replace(question, chosen=()))

    plan = make_plan(model, size=2, drafts=0, chosen=3)
    flow = splice(make_reply(0, max_tokens=200), plan, Budget(BudgetLimits(), no_clock))
    with pytest.raises(UpstreamProtocolError, match="chosen_logprobs = 0"):
        drive(flow, deaf)


CUTS_FIRST = [
    pytest.param({"temperature": 0.6, "top_p": 0.8}, 6, 0, id="cooled-top-p"),
    pytest.param({"temperature": 1.6, "top_p": 0.7}, 6, 0, id="warmed-top-p"),
    pytest.param({"temperature": 1.6, "top_k": 3}, 6, 0, id="warmed-top-k"),
    pytest.param({"temperature": 0.6, "logit_bias": {0: -1.5, 4: 2.0}}, 6, 0, id="biased"),
    pytest.param({"temperature": 1.6, "top_p": 0.7}, 3, 2, id="short-list"),
]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(("parameters", "size", "drafts"), CUTS_FIRST)
def test_a_temperature_that_divides_last_is_redone(
    parameters: dict[str, Any], size: int, drafts: int, count: int
) -> None:
    given = SamplingParameters(max_tokens=LENGTH, **parameters)
    model = ToyModel(TABLE, END, np.random.default_rng(size), given, RAW, cuts_first=True)
    plan = make_plan(model, size=size, drafts=drafts)
    sequences = sample(model, plan, count, max_tokens=LENGTH)
    assert law_pvalue(sequences, model.law(LENGTH)) > SIGNIFICANCE


def test_the_other_order_would_be_seen() -> None:
    """Negative control: the engine cuts first, and the reader believes that it cuts last."""
    given = SamplingParameters(max_tokens=LENGTH, temperature=1.6, top_p=0.7)
    model = ToyModel(TABLE, END, np.random.default_rng(0), given, RAW, cuts_first=True)
    plan = make_plan(model, size=6, drafts=0)
    plan = replace(plan, reader=replace(plan.reader, cuts_first=False))
    sequences = sample(model, plan, 500, max_tokens=LENGTH)
    assert law_pvalue(sequences, model.law(LENGTH)) < SIGNIFICANCE


def test_a_law_that_is_slightly_off_would_be_seen() -> None:
    """Negative control: the same test on an upstream at temperature 0.8."""
    warm = ToyModel(TABLE, END, np.random.default_rng(0))
    cool = ToyModel(TABLE, END, np.random.default_rng(0), SamplingParameters(temperature=0.8))
    sequences = sample(warm, make_plan(warm, size=3, drafts=2), 800, max_tokens=LENGTH)
    assert law_pvalue(sequences, warm.law(LENGTH)) > SIGNIFICANCE
    assert law_pvalue(sequences, cool.law(LENGTH)) < SIGNIFICANCE


@pytest.mark.parametrize("drafts", [0, 2])
def test_a_context_limit_ends_the_reply_and_keeps_the_law(drafts: int) -> None:
    model = ToyModel(TABLE, None, np.random.default_rng(1), context=3)
    plan = make_plan(model, size=3, drafts=drafts, draft_tokens=4)
    runs = [run_one(model, plan, seed, max_tokens=None) for seed in range(500)]
    assert {run.finish for run in runs} == {Finish.LENGTH}
    assert law_pvalue([run.sequence for run in runs], model.law(10)) > SIGNIFICANCE


@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize("end", [0, END])
def test_the_end_token_ends_the_reply_in_the_list_and_outside(drafts: int, end: int) -> None:
    model = ToyModel(TABLE[:1], end, np.random.default_rng(2))
    plan = make_plan(model, size=2, drafts=drafts)
    runs = [run_one(model, plan, seed, max_tokens=3) for seed in range(500)]
    for run in runs:
        assert (run.finish is Finish.STOP) == (run.sequence[-1] == end)
        assert end not in run.sequence[:-1]
    assert law_pvalue([run.sequence for run in runs], model.law(3)) > SIGNIFICANCE


def test_greedy_drafts_give_a_geometric_number_of_tokens_a_request() -> None:
    p, length, count = 0.7, 4, 4000
    table = np.array([[p, 0.12, 0.1, 0.08]])
    model = ToyModel(table, None, np.random.default_rng(3))
    plan = make_plan(model, size=4, drafts=0, draft_tokens=length)
    run = run_one(model, plan, 0, max_tokens=count, width=4)
    expected = (1 - p**length) / (1 - p)
    # One request's tokens vary by less than length / 2 around their mean.
    tolerance = 5 * (length / 2) / np.sqrt(len(run.questions))
    assert abs(len(run.sequence) / len(run.questions) - expected) < tolerance


def test_every_token_of_a_marked_reply_scores_higher_than_chance() -> None:
    model = ToyModel(TABLE, None, np.random.default_rng(4))
    plan = make_plan(model, size=3, drafts=0)
    scores = []
    for seed in range(300):
        sequence = run_one(model, plan, seed, max_tokens=4).sequence
        fresh = make_reply(seed, max_tokens=4)
        scores += [fresh.score(sequence[i - 1 : i], sequence[i]) for i in range(1, 3)]
    known = [score for score in scores if score is not None]
    assert np.mean(known) > 1.3


@pytest.mark.parametrize("drafts", [0, 2])
def test_a_seed_repeats_the_reply(drafts: int) -> None:
    def once() -> tuple[int, ...]:
        model = ToyModel(TABLE, END, np.random.default_rng())
        plan = make_plan(model, size=2, drafts=drafts)
        reply = make_reply(5, max_tokens=12)
        reply._repeats_seed = True
        return drive(splice(reply, plan, Budget(BudgetLimits(), no_clock)), model.answer).sequence

    assert len({once() for _ in range(5)}) == 1


def test_without_a_seed_the_upstream_is_left_free() -> None:
    model = ToyModel(TABLE, END, np.random.default_rng(6))
    run_one(model, make_plan(model, size=2, drafts=2), 0, max_tokens=8)
    assert {question.seed for question in model.questions} == {None}


def test_a_spent_budget_stops_between_drafts() -> None:
    model = ToyModel(TABLE, None, np.random.default_rng(7))
    plan = make_plan(model, size=3, drafts=2)
    reply = make_reply(0, max_tokens=50)
    run = drive(splice(reply, plan, Budget(BudgetLimits(requests=3), no_clock)), model.answer)
    assert run.finish is None
    assert len(run.questions) == 3
    assert tuple(reply.tokens) == run.sequence


def test_no_question_asks_beyond_the_reply() -> None:
    model = ToyModel(TABLE, None, np.random.default_rng(8))
    run_one(model, make_plan(model, size=3, drafts=2, draft_tokens=7), 0, max_tokens=10)
    assert all(len(one.tokens) + one.max_tokens <= 10 for one in model.questions)


def test_penalties_are_asked_one_token_at_a_time() -> None:
    given = SamplingParameters(presence_penalty=0.5)
    model = ToyModel(TABLE, None, np.random.default_rng(9), given)
    run_one(model, make_plan(model, size=3, drafts=2), 0, max_tokens=6)
    assert {question.max_tokens for question in model.questions} == {1}


def test_a_choice_carries_the_upstreams_log_probability() -> None:
    model = ToyModel(TABLE, END, np.random.default_rng(10))
    for drafts in (0, 2):
        plan = make_plan(model, size=2, drafts=drafts)
        for seed in range(30):
            run = run_one(model, plan, seed, max_tokens=4)
            for i, one in enumerate(run.chosen):
                p = model.at(run.sequence[:i], {}).tempered
                assert one.logprob == pytest.approx(np.log(p[one.token]))
                assert one.alternatives is not None
                assert len(one.alternatives) in (2, 3)


def fewer(_question: Draft, answer: Drafted) -> Drafted:
    return Drafted(answer.continuations[:-1])


def emptied(_question: Draft, answer: Drafted) -> Drafted:
    nothing = Continuation(tokens=(), finish=Finish.LENGTH)
    return Drafted((nothing,) * len(answer.continuations))


def too_long(question: Draft, answer: Drafted) -> Drafted:
    one = answer.continuations[0]
    longer = Continuation(
        tokens=(0,) * (question.max_tokens + 1), finish=Finish.LENGTH, logprobs=one.logprobs
    )
    return Drafted((longer,) * len(answer.continuations))


def unlisted(_question: Draft, answer: Drafted) -> Drafted:
    bare = [Continuation(tokens=one.tokens, finish=one.finish) for one in answer.continuations]
    return Drafted(tuple(bare))


def without_sampled(_question: Draft, answer: Drafted) -> Drafted:
    def cut(one: Continuation) -> Continuation:
        pairs = zip(one.logprobs, one.tokens, strict=True)
        lists = tuple(listed.without(token) for listed, token in pairs)
        return Continuation(tokens=one.tokens, finish=one.finish, logprobs=lists)

    return Drafted(tuple(map(cut, answer.continuations)))


def doubled(_question: Draft, answer: Drafted) -> Drafted:
    def lift(one: Continuation) -> Continuation:
        lists = tuple(TokenLogprobs(each.ids, each.logprobs + 1.0) for each in one.logprobs)
        return Continuation(tokens=one.tokens, finish=one.finish, logprobs=lists)

    return Drafted(tuple(map(lift, answer.continuations)))


@pytest.mark.parametrize("drafts", [0, 2])
@pytest.mark.parametrize("spoil", [fewer, emptied, too_long, unlisted, without_sampled, doubled])
def test_an_answer_that_breaks_the_promise_is_refused(
    spoil: Callable[[Draft, Drafted], Drafted], drafts: int
) -> None:
    model = ToyModel(TABLE, None, np.random.default_rng(11))
    flow = splice(
        make_reply(0, max_tokens=6),
        make_plan(model, size=3, drafts=drafts),
        Budget(BudgetLimits(), no_clock),
    )
    with pytest.raises(UpstreamProtocolError):
        drive(flow, lambda question: spoil(question, model.answer(question)))


def test_a_driver_that_sends_no_answer_is_refused() -> None:
    model = ToyModel(TABLE, None, np.random.default_rng(11))
    budget = Budget(BudgetLimits(), no_clock)
    flow = splice(make_reply(0, max_tokens=6), make_plan(model, size=3, drafts=0), budget)
    next(flow)
    with pytest.raises(UpstreamProtocolError, match="gave 0 of 1"):
        flow.send(None)


def test_an_upstream_that_ignores_bans_is_found_out() -> None:
    model = ToyModel(TABLE[:1], None, np.random.default_rng(12))

    def deaf(question: Draft) -> Drafted:
        if question.bias:
            ids = np.array([0], np.uint32)
            lists = (TokenLogprobs(ids, np.array([-0.9])),)
            banned = Continuation(tokens=(0,), finish=Finish.LENGTH, logprobs=lists)
            return Drafted((banned,))
        return model.answer(question)

    flow = splice(
        make_reply(0, max_tokens=500),
        make_plan(model, size=3, drafts=0),
        Budget(BudgetLimits(), no_clock),
    )
    with pytest.raises(UpstreamProtocolError, match="ignores logit_bias"):
        drive(flow, deaf)
