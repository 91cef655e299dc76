"""`select`: sampling and continuation, no log-probabilities needed.

Draw m continuations of k tokens under the client's own parameters and race them on their trie;
the winner is appended as it is, and the next m continue from there.

Source: `watermark.schemes.trie_race`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from proxy.errors import UpstreamProtocolError
from proxy.sampling.ask import ask
from proxy.sampling.questions import Chosen, Draft, Finish, Path
from watermark.schemes import Candidate, race

if TYPE_CHECKING:
    from proxy.sampling.budget import Budget
    from proxy.sampling.parameters import SamplingParameters
    from proxy.sampling.questions import Continuation, Flow
    from proxy.sampling.reply import Reply


class Units(Protocol):
    """How the key's unit reads a reply that grows by tokens."""

    def history(self, reply: Reply) -> tuple[int, ...]:
        """Return the ids of the units of the reply so far that are complete."""
        ...

    def added(self, reply: Reply, tokens: tuple[int, ...], *, is_ended: bool) -> tuple[int, ...]:
        """Return the ids of the units that these tokens would complete."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectPlan:
    """How to select one request.

    Attributes:
        parameters: The client's sampling parameters.
        units: How the key's unit reads tokens.
        chunk_tokens: Tokens a continuation (k), >= 1.
        candidates: Continuations a round (m), >= 1.
        logprobs: How many likeliest tokens to list a position, for the client; 0 for none.
        end_ids: Token ids that end the text.
        path: What it is counted as.
    """

    parameters: SamplingParameters
    units: Units
    chunk_tokens: int
    candidates: int
    logprobs: int
    end_ids: frozenset[int]
    path: Path = Path.SELECT


def select(reply: Reply, plan: SelectPlan, budget: Budget) -> Flow:
    """Choose a reply's tokens; return why it ended, or None where the budget did.

    Raises:
        UpstreamProtocolError: The upstream's continuations break its promises.
    """
    while not reply.is_full:
        if budget.is_spent:
            return None
        length = 1 if plan.parameters.has_penalties else plan.chunk_tokens
        question = Draft(
            tokens=tuple(reply.tokens),
            n=plan.candidates,
            max_tokens=reply.room(length),
            logprobs=plan.logprobs,
            bias=plan.parameters.bias(reply.tokens),
            seed=reply.upstream_seed(),
            path=plan.path,
        )
        continuations = yield from ask(reply, question, budget, plan.end_ids)
        winner = _race(reply, plan, continuations)
        is_ended = _is_ended(winner, plan.end_ids)
        reply.extend(winner.tokens[:-1] if is_ended else winner.tokens, plan.path)
        yield from _spell(winner)
        if is_ended:
            return Finish.STOP
    return Finish.LENGTH


def _race(reply: Reply, plan: SelectPlan, continuations: tuple[Continuation, ...]) -> Continuation:
    """Return the continuation to deliver; its contexts are spent."""
    history = plan.units.history(reply)
    candidates = []
    for one in continuations:
        is_ended = _is_ended(one, plan.end_ids)
        tokens = one.tokens[:-1] if is_ended else one.tokens
        units = plan.units.added(reply, tokens, is_ended=is_ended)
        candidates.append(Candidate(units, is_ended))
    winner = race(candidates, history, reply, reply, reply.rng)
    reply.spend(history, candidates[winner].units)
    return continuations[winner]


def _is_ended(one: Continuation, end_ids: frozenset[int]) -> bool:
    return one.tokens[-1] in end_ids


def _spell(one: Continuation) -> list[Chosen]:
    """Return a continuation's tokens with their log-probabilities."""
    spelled = []
    for index, token in enumerate(one.tokens):
        if not one.logprobs:
            spelled.append(Chosen(token))
            continue
        listed = one.logprobs[index]
        logprob = listed.of(token)
        if logprob is None:
            raise UpstreamProtocolError(
                "the upstream's log-probabilities lack the token it sampled; check the model's "
                "logprobs capability in the config"
            )
        spelled.append(Chosen(token, logprob, listed))
    return spelled
