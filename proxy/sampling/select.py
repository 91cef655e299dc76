"""`select`: sampling and continuation, no log-probabilities needed.

Draw m continuations of k tokens under the client's own parameters and race them on their trie;
the winner is appended as it is, and the next m continue from there.

Where the upstream continues text, the law is that of the upstream which continues its own text k
tokens at a time: at a seam it reads the text anew, marked or not, and the race is among draws
that it made after the same text, so each is delivered with probability 1/m. Two things are the
seam's and not the mark's: the upstream may cut the text into other tokens than it had drawn, and
a character that k tokens leave unfinished is drawn anew.

Source: `watermark.schemes.trie_race`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from proxy.errors import UpstreamProtocolError
from proxy.sampling.ask import ask
from proxy.sampling.questions import UNREAD_TOKEN, Chosen, Draft, Finish, Path, TextPiece
from watermark.schemes import race

if TYPE_CHECKING:
    from proxy.sampling.budget import Budget
    from proxy.sampling.parameters import SamplingParameters
    from proxy.sampling.questions import Continuation, Flow
    from proxy.sampling.reply import Reply
    from proxy.sampling.units import Units

_LONGEST_CHARACTER: Final = 4  # tokens: a byte each


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectPlan:
    """How to select one request.

    Attributes:
        parameters: The client's sampling parameters.
        units: How the key's unit reads continuations.
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
    """Choose a reply's tokens; return why it ended, or None where the budget or the part did.

    Raises:
        UpstreamProtocolError: The upstream's continuations break its promises.
    """
    is_silent = reply.is_silent
    while not reply.is_full:
        if budget.is_spent or reply.is_silent != is_silent:
            return None
        reply.reread()
        question = _question(reply, plan)
        continuations = yield from ask(reply, question, budget, plan.end_ids)
        winner, chosen = deliver(reply, plan, continuations)
        yield from chosen
        if winner.finish is Finish.STOP:
            return Finish.STOP
        if reply.is_text and not winner.text:  # k tokens are less than a character
            plan = replace(plan, chunk_tokens=plan.chunk_tokens + _LONGEST_CHARACTER)
    return Finish.LENGTH


def _question(reply: Reply, plan: SelectPlan) -> Draft:
    length = 1 if plan.parameters.has_penalties else plan.chunk_tokens
    return Draft(
        tokens=tuple(reply.tokens),
        text=reply.text,
        n=plan.candidates,
        max_tokens=reply.room(length),
        logprobs=plan.logprobs,
        bias=plan.parameters.bias(reply.tokens),
        seed=reply.upstream_seed(),
        path=plan.path,
    )


def deliver(
    reply: Reply, plan: SelectPlan, continuations: tuple[Continuation, ...]
) -> tuple[Continuation, list[Chosen]]:
    """Race continuations and append the winner; return it, and what to give out.

    Raises:
        UpstreamProtocolError: Log-probabilities were asked for, and one is missing.
    """
    continuations = tuple(map(reply.within_part, continuations))
    reading = plan.units.read(reply, continuations)
    place = race(reading.candidates, reading.history, reply, reply, reply.rng)
    reply.spend(reading.history, reading.candidates[place].units)
    winner = continuations[place]
    return winner, _take(reply, winner, plan.path)


def _take(reply: Reply, winner: Continuation, path: Path) -> list[Chosen]:
    """Append a continuation; return its tokens, or its text."""
    is_ended = winner.finish is Finish.STOP
    if not reply.is_text:
        reply.extend(winner.tokens[:-1] if is_ended else winner.tokens, path)
        return _spell(winner)
    reply.extend_text(TextPiece(winner.text, winner.n_tokens - is_ended), path)
    piece = TextPiece(winner.text, winner.n_tokens)
    return [Chosen(UNREAD_TOKEN, piece=piece, origin=winner.origin)]


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
