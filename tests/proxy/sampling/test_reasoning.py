"""Reasoning and answer: which is which, what is marked, and the law of both stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from proxy.sampling.budget import BudgetLimits
from proxy.sampling.flow import mark
from proxy.sampling.questions import Path
from proxy.sampling.reasoning import Part, Parts, Tags
from proxy.sampling.reply import Reply
from tests.proxy.sampling.test_flow import END, TABLE, make_plan
from tests.support.drive import drive, law_pvalue, make_record, no_clock
from tests.support.toy_model import ToyModel
from watermark.seeding import KeyedUniforms

START, STOP = 8, 9
TAGS = Tags(START, STOP)


def told(parts: Parts, *tokens: int) -> list[Part]:
    return [parts.add(token) for token in tokens]


def test_reasoning_stands_at_the_beginning_and_nowhere_else() -> None:
    r, tag, a = Part.REASONING, Part.TAG, Part.ANSWER
    assert told(Parts(TAGS), START, 1, START, 2, STOP, 3, STOP, START, 4) == [
        tag, r, r, r, tag, a, a, a, a,
    ]  # fmt: skip
    assert told(Parts(TAGS), 1, START, STOP) == [a, a, a]
    assert told(Parts(TAGS, is_open=True), 1, STOP, 2) == [r, tag, a]
    assert told(Parts(None), START, STOP) == [a, a]


def test_a_template_may_have_begun_it() -> None:
    assert TAGS.is_open([1, 2, START])
    assert TAGS.is_open([1, START, 7, 7])
    assert not TAGS.is_open([START, 7, STOP, 7])
    assert not TAGS.is_open([START, 1, 2, 3, 4, 5])  # a user's word, long ago
    assert not TAGS.is_open([])


def reply_of(seed: int, tags: Tags, *, max_tokens: int | None, is_open: bool = True) -> Reply:
    return Reply(
        KeyedUniforms(make_record(seed)),
        np.random.default_rng([seed, 1]),
        max_tokens=max_tokens,
        parts=Parts(tags, is_open=is_open),
    )


def test_no_context_reaches_from_the_reasoning_into_the_answer() -> None:
    for is_marked in (False, True):
        reply = reply_of(0, replace(TAGS, is_marked=is_marked), max_tokens=None)
        reply.extend((1, 2))
        assert (reply.stream() is not None) == is_marked
        assert (reply.score((1,), 2) is not None) == is_marked
        assert reply.is_silent != is_marked
        reply.extend((STOP,))
        assert reply.stream() is None  # nothing before it in the answer
        assert not reply.is_silent
        reply.extend((5,))
        assert reply.stream() is not None
        assert reply.part == [5]
        assert reply.tokens == [1, 2, STOP, 5]


def test_a_context_of_marked_reasoning_is_not_marked_again_in_the_answer() -> None:
    for is_marked in (False, True):
        reply = reply_of(0, replace(TAGS, is_marked=is_marked), max_tokens=None)
        reply.spend((1,), (2,))
        reply.extend((1, 2, STOP, 1))
        assert (reply.stream() is None) == is_marked


@pytest.mark.parametrize("is_marked", [False, True])
@pytest.mark.parametrize("splices", [False, True])
def test_the_law_of_reasoning_and_answer_is_the_upstreams(is_marked: bool, splices: bool) -> None:
    """Token 2 ends the reasoning wherever it comes; chunks are cut there and drawn anew."""
    model = ToyModel(TABLE, END, np.random.default_rng(0))
    tags = Tags(START, 2, is_marked=is_marked)
    limits = BudgetLimits()
    plan = make_plan(splice=limits if splices else None, select=limits, drafts=2)
    found = []
    for seed in range(200):
        reply = reply_of(seed, tags, max_tokens=4)
        found.append(drive(mark(reply, plan, no_clock), model.answer).sequence)
    assert law_pvalue(found, model.law(4)) > 1e-4


def test_unmarked_reasoning_is_drawn_once_and_the_answer_is_raced() -> None:
    never_ends = np.array([[0.0, 1.0, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0], [0.5, 0.5, 0.0, 0.0]])
    model = ToyModel(never_ends, END, np.random.default_rng(1))
    plan = make_plan(splice=None, select=BudgetLimits())
    reply = reply_of(1, Tags(START, 2), max_tokens=60)
    questions = drive(mark(reply, plan, no_clock), model.answer).questions
    place = next(i for i, one in enumerate(questions) if one.n > 1)
    assert {one.n for one in questions[:place]} == {1}
    assert {one.path for one in questions[:place]} == {Path.NONE}
    assert 2 in questions[place].tokens
    assert {one.n for one in questions[place:]} == {3}
