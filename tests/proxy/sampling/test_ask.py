"""The form of an answer is checked in one place."""

from __future__ import annotations

import numpy as np
import pytest

from proxy.errors import UpstreamProtocolError
from proxy.sampling.ask import ask
from proxy.sampling.budget import Budget, BudgetLimits
from proxy.sampling.questions import Continuation, Draft, Drafted, Finish, TokenLogprobs
from tests.support.drive import make_reply, no_clock

LIST = TokenLogprobs(np.array([1], np.uint32), np.array([-0.1]))


END = 7
END_IDS = frozenset({END})


def answer_of(*tokens: tuple[int, ...], finish: Finish = Finish.LENGTH) -> Drafted:
    return Drafted(tuple(Continuation(tokens=one, finish=finish) for one in tokens))


def put(question: Draft, answer: Drafted | None) -> tuple[tuple[Continuation, ...], int]:
    """Return the continuations, and how many tokens then fit into the reply."""
    reply = make_reply(0, max_tokens=None)
    reply.extend(question.tokens)
    budget = Budget(BudgetLimits(), no_clock)
    asking = ask(reply, question, budget, END_IDS)
    assert next(asking) is question
    with pytest.raises(StopIteration) as stopped:
        asking.send(answer)
    assert budget.requests == 1
    found: tuple[Continuation, ...] = stopped.value.value
    return found, reply.room(1000)


def test_a_whole_answer_passes() -> None:
    question = Draft(tokens=(9, 9), n=2, max_tokens=3)
    continuations, room = put(question, answer_of((1, 2, 3), (4, 5, 6)))
    assert len(continuations) == 2
    assert room == 1000


def test_a_continuation_cut_short_shows_the_end_of_the_context() -> None:
    question = Draft(tokens=(9, 9), n=1, max_tokens=3)
    assert put(question, answer_of((1,)))[1] == 1
    assert put(question, answer_of((END,), finish=Finish.STOP))[1] == 1000


@pytest.mark.parametrize(
    "answer", [None, answer_of(), answer_of((1,)), answer_of((1,), ()), answer_of((1,), (1,) * 4)]
)
def test_another_form_is_refused(answer: Drafted | None) -> None:
    with pytest.raises(UpstreamProtocolError):
        put(Draft(tokens=(), n=2, max_tokens=3), answer)


def test_a_list_for_every_token_or_none() -> None:
    question = Draft(tokens=(), n=1, max_tokens=2, logprobs=1)
    one = Continuation(tokens=(1, 1), finish=Finish.LENGTH, logprobs=(LIST,))
    with pytest.raises(UpstreamProtocolError, match="1 lists"):
        put(question, Drafted((one,)))


@pytest.mark.parametrize(
    "answer",
    [
        answer_of((1, 2), finish=Finish.STOP),  # an end token that the config does not name
        answer_of((1, END), finish=Finish.LENGTH),
        answer_of((END, 1)),  # text after an end
    ],
)
def test_an_end_that_the_config_does_not_name_is_refused(answer: Drafted) -> None:
    with pytest.raises(UpstreamProtocolError, match="end_tokens"):
        put(Draft(tokens=(), n=1, max_tokens=3), answer)
