"""`splice`: list of likeliest tokens and continuation.

Ask for a few tokens with their lists, walk them, keep while they equal the winner of the race,
write the winner at the first difference, ask again from there.

Two kinds of draft, both without bias:

- *greedy*: one continuation of likeliest tokens; kept with probability max p. Where the rest of
  the mass wins, one further request draws a token outside the list, which is banned by bias.
- *sampled*: n continuations under the client's own parameters. The first one that still agrees
  with the reply is an honest draw of the next token: outside the list it *is* the next token (so
  the mass outside need not be known), inside it only says "inside", and the race over the list
  decides. Any other continuation that holds the winner keeps the walk going.

A greedy walk that meets a position whose rest is not known hands over to sampled drafts.

Why the sampled draft is exact: let C be the certain list and x the draw. x is independent of the
key and of the race. P(token i outside C) = P(x = i) = p_i; for i in C, P(x in C) times the race's
p_i / p(C) is p_i again. Which continuation is asked depends on tokens before this position only.

Source: this project (ARCHITECTURE, `splice`); the greedy walk is speculative decoding with an
exact-match test (Leviathan et al. 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from proxy.errors import UpstreamProtocolError
from proxy.sampling.ask import ask
from proxy.sampling.candidates import LogprobsMode
from proxy.sampling.parameters import MAX_BIAS
from proxy.sampling.questions import Chosen, Draft, Finish, Path

if TYPE_CHECKING:
    from collections.abc import Generator

    from proxy.sampling.budget import Budget
    from proxy.sampling.candidates import CandidateList, ListReader
    from proxy.sampling.questions import Continuation, Drafted, Flow, TokenLogprobs
    from proxy.sampling.reply import Reply

_OUTSIDE_TRIES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SplicePlan:
    """How to splice one request.

    Attributes:
        reader: Reads the upstream's lists.
        draft_tokens: Tokens a draft, >= 1.
        drafts: Continuations a sampled draft; 0 drafts greedily.
        end_ids: Token ids that end the text.
    """

    reader: ListReader
    draft_tokens: int
    drafts: int
    end_ids: frozenset[int]


def splice(reply: Reply, plan: SplicePlan, budget: Budget) -> Flow:
    """Choose a reply's tokens; return why it ended, or None where the budget did.

    Raises:
        UpstreamProtocolError: The upstream's lists or continuations break its promises.
    """
    while not reply.is_full:
        if budget.is_spent:
            return None
        question = _draft(reply, plan)
        continuations = yield from ask(reply, question, budget, plan.end_ids)
        walk = _Walk(reply, plan, budget, question)
        finish = yield from walk.follow(continuations)
        if finish is not None:
            return finish
        if walk.is_undecided:
            plan = replace(plan, drafts=1)
    return Finish.LENGTH


def _draft(reply: Reply, plan: SplicePlan) -> Draft:
    parameters = plan.reader.parameters
    # Penalties change with every token; as biases they are exact for one token.
    length = 1 if parameters.has_penalties else plan.draft_tokens
    return Draft(
        tokens=tuple(reply.tokens),
        n=plan.drafts or 1,
        max_tokens=reply.room(length),
        is_greedy=plan.drafts == 0,
        logprobs=plan.reader.size,
        bias=parameters.bias(reply.tokens),
        seed=reply.upstream_seed(),
        path=Path.SPLICE,
    )


class _Walk:
    """One draft, followed as far as it agrees with the reply."""

    __slots__ = ("_budget", "_plan", "_question", "_reply", "is_undecided")

    def __init__(self, reply: Reply, plan: SplicePlan, budget: Budget, question: Draft) -> None:
        self._reply = reply
        self._plan = plan
        self._budget = budget
        self._question = question
        self.is_undecided = False

    def follow(self, continuations: tuple[Continuation, ...]) -> Flow:
        """Yield tokens; return why the reply ended, None where only this draft did."""
        alive = list(continuations)
        depth = 0
        while alive and not self._reply.is_full:
            listed, draw = alive[0].logprobs[depth], alive[0].tokens[depth]
            chosen = yield from self._choose(listed, draw)
            if chosen is None:
                self.is_undecided = True
                return None
            yield chosen
            if chosen.token in self._plan.end_ids:
                return Finish.STOP
            depth += 1
            alive = [
                one
                for one in alive
                if one.tokens[depth - 1] == chosen.token and len(one.tokens) > depth
            ]
        return Finish.LENGTH if self._reply.is_full else None

    def _choose(
        self, listed: TokenLogprobs, draw: int
    ) -> Generator[Draft | Chosen, Drafted | None, Chosen | None]:
        """Return the next token; None where the list alone cannot tell."""
        candidates = self._plan.reader.read(listed, draw, self._question.bias)
        stream = self._reply.stream()
        if self._question.is_greedy:
            if candidates.rest is None:
                return None
            token = self._reply.choose(candidates, stream)
            if token is None:
                return (yield from self._outside(candidates, listed))
        elif stream is None or draw not in candidates:
            # An honest draw of the client's own distribution; a race would choose no better.
            token = draw
        else:
            token = self._reply.choose(replace(candidates, rest=0.0), stream)
        if token is None:  # pragma: no cover - a race without rest has a winner
            raise UpstreamProtocolError("the upstream listed no token with any probability")
        return self._take(Chosen(token, listed.of(token), listed))

    def _outside(
        self, candidates: CandidateList, listed: TokenLogprobs
    ) -> Generator[Draft | Chosen, Drafted | None, Chosen]:
        """Draw a token outside the list, which is banned."""
        banned = dict.fromkeys(candidates.tokens.tolist(), -MAX_BIAS)
        for _ in range(_OUTSIDE_TRIES):
            question = replace(
                self._question,
                tokens=tuple(self._reply.tokens),
                n=1,
                max_tokens=1,
                is_greedy=False,
                logprobs=1,
                bias={**self._question.bias, **banned},
                seed=self._reply.upstream_seed(),
            )
            (drawn,) = yield from ask(self._reply, question, self._budget, self._plan.end_ids)
            token = drawn.tokens[0]
            if token not in candidates:
                logprob = self._unbanned(drawn.logprobs[0].of(token), candidates)
                return self._take(Chosen(token, logprob, listed))
        raise UpstreamProtocolError(
            f"the upstream gave a banned token {_OUTSIDE_TRIES} times; it ignores logit_bias, so "
            "set logit_bias = false for this model"
        )

    def _unbanned(self, logprob: float | None, candidates: CandidateList) -> float | None:
        """Return what the log-probability was before the list was banned."""
        if logprob is None or self._plan.reader.mode is LogprobsMode.RAW:
            return logprob
        rest = candidates.rest or 0.0
        return logprob + math.log(rest / (rest + float(candidates.weights.sum())))

    def _take(self, chosen: Chosen) -> Chosen:
        """Append the token, unless it ends the text."""
        if chosen.token not in self._plan.end_ids:
            self._reply.spend(tuple(self._reply.tokens), (chosen.token,))
            self._reply.extend((chosen.token,), Path.SPLICE)
        return chosen
