"""Put a question, check the answer's form, count its cost: the same for every path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.errors import UpstreamProtocolError
from proxy.sampling.questions import Finish

if TYPE_CHECKING:
    from collections.abc import Generator

    from proxy.sampling.budget import Budget
    from proxy.sampling.questions import Chosen, Continuation, Draft, Drafted
    from proxy.sampling.reply import Reply


def ask(
    reply: Reply, question: Draft, budget: Budget, end_ids: frozenset[int]
) -> Generator[Draft | Chosen, Drafted | None, tuple[Continuation, ...]]:
    """Yield the question and return its continuations.

    A continuation cut short of what was asked shows where the context ends; the reply is bounded
    there.

    Raises:
        UpstreamProtocolError: The answer does not have the form that was asked for.
    """
    budget.begin()
    answer = yield question
    if answer is None or len(answer.continuations) != question.n:
        count = 0 if answer is None else len(answer.continuations)
        raise UpstreamProtocolError(
            f"the upstream gave {count} of {question.n} continuations; check the model's max_n "
            "(1 with parallel > 1 where the API ignores n)"
        )
    budget.charge(answer)
    if answer.room is not None:
        reply.bound(reply.n_tokens + answer.room)
    for one in answer.continuations:
        _check(one, question)
        if not reply.is_text:
            _check_end(one, end_ids)
        is_short = one.n_tokens < question.max_tokens and not question.is_whole
        if one.finish is Finish.LENGTH and is_short:
            reply.bound(reply.n_tokens + one.n_tokens)
    return answer.continuations


def _check(one: Continuation, question: Draft) -> None:
    if not 1 <= one.n_tokens <= question.max_tokens:
        raise UpstreamProtocolError(
            f"the upstream gave {one.n_tokens} tokens where 1 to {question.max_tokens} were "
            "asked for; check the model's continuation capability"
        )
    if question.logprobs and len(one.logprobs) != len(one.tokens):
        raise UpstreamProtocolError(
            f"the upstream gave {len(one.logprobs)} lists of log-probabilities for "
            f"{len(one.tokens)} tokens; check the model's logprobs capability"
        )


def _check_end(one: Continuation, end_ids: frozenset[int]) -> None:
    """Refuse an end that is not one of the configured tokens: the reply would go on after it."""
    *before, last = one.tokens
    if (one.finish is Finish.STOP) != (last in end_ids) or not end_ids.isdisjoint(before):
        raise UpstreamProtocolError(
            f"the upstream ended a draft ({one.finish}) and the model's end_tokens do not agree; "
            "list every token that ends a reply, as generation_config.json names them"
        )
