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

Where the upstream also lists chosen tokens (`SplicePlan.chosen`), what lies outside the list is
raced once more among those: the list is banned, and one token drawn, which is an honest draw of
the rest. Outside the chosen tokens it is the next token, inside the race decides, as in a sampled
draft. The keyed numbers of the chosen tokens took no part before, so each race is among fresh
ones.

Why the sampled draft is exact: let C be the certain list and x the draw. x is independent of the
key and of the race. P(token i outside C) = P(x = i) = p_i; for i in C, P(x in C) times the race's
p_i / p(C) is p_i again. Which continuation is asked depends on tokens before this position only.

Where the upstream continues *text* (`SplicePlan.spelling`), drafts are sampled, tokens are read
from their labels, and the next draft begins at a seam: the upstream reads the text anew, as the
detector will (`Reply.reread`). The law: every piece of text is an honest draw of the upstream's
own law after the text that it was given, plus what it went on to draw itself; whether it read
the text before in one go or at a seam is settled before the piece is drawn. So the reply is the
upstream continuing its own text. What this needs, beyond the argument above:

- Which tokens are raced must not depend on the draw. A list is cut before the first label that
  names no single token, and tokens that end a text are never raced: an upstream may draw one
  without listing it, and its mass would count twice.
- Where a draft ends must not depend on what it holds. A draw that is part of a character is
  taken with the rest of that character; drafts are longer than the walk by as many tokens as a
  character has bytes, less one, so that the rest is there. Cut at the end of the draft, such
  characters would be drawn again, and become rare.
- A context serves one race even where a seam has removed it from the text (Rule 6 of `Reply`).

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
from proxy.sampling.questions import UNREAD_TOKEN, Chosen, Draft, Finish, Path, TextPiece
from proxy.sampling.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Generator

    from proxy.sampling.budget import Budget
    from proxy.sampling.candidates import CandidateList, ListReader
    from proxy.sampling.questions import Continuation, Drafted, Flow, TokenLogprobs
    from proxy.sampling.reply import Reply
    from proxy.sampling.spelling import Spelling
    from watermark.seeding import ContextStream

_OUTSIDE_TRIES: Final = 4
_REST_OF_CHARACTER: Final = 3  # tokens: UTF-8 takes at most four bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SplicePlan:
    """How to splice one request.

    Attributes:
        reader: Reads the upstream's lists.
        draft_tokens: Tokens a draft, >= 1.
        drafts: Continuations a sampled draft; 0 drafts greedily.
        end_ids: Token ids that end the text.
        chosen: Tokens outside a list that the upstream lists by name; 0 for none.
        spelling: What tokens look like, where the upstream continues text; `drafts` is >= 1 then.
    """

    reader: ListReader
    draft_tokens: int
    drafts: int
    end_ids: frozenset[int]
    chosen: int = 0
    spelling: Spelling | None = None

    @property
    def draws_outside(self) -> bool:
        """Whether a sampled token outside the list is drawn anew, among chosen ones.

        What a truncation keeps would change with the list banned.
        """
        return self.chosen > 0 and not self.reader.parameters.is_truncated


def splice(reply: Reply, plan: SplicePlan, budget: Budget) -> Flow:
    """Choose a reply's tokens; return why it ended, or None where the budget or the part did.

    Raises:
        UpstreamProtocolError: The upstream's lists or continuations break its promises.
    """
    tail = Tail(plan.chosen, plan.reader.vocab_size)
    while not reply.is_full:
        if budget.is_spent or reply.is_silent:
            return None
        reply.reread()
        question = _draft(reply, plan)
        continuations = yield from ask(reply, question, budget, plan.end_ids)
        walk = _Walk(reply, plan, budget, question, tail)
        finish = yield from walk.follow(continuations)
        if finish is not None:
            return finish
        if walk.is_undecided:
            plan = replace(plan, drafts=1)
    return Finish.LENGTH


def draft_length(walk: int, *, is_text: bool) -> int:
    """Return how many tokens are asked for, so that so many can be followed."""
    return walk + (_REST_OF_CHARACTER if is_text else 0)


def _draft(reply: Reply, plan: SplicePlan) -> Draft:
    parameters = plan.reader.parameters
    length = draft_length(_walk_length(plan), is_text=plan.spelling is not None)
    return Draft(
        tokens=tuple(reply.tokens),
        text=reply.text,
        n=plan.drafts or 1,
        max_tokens=reply.room(length),
        is_greedy=plan.drafts == 0,
        logprobs=plan.reader.size,
        bias=parameters.bias(reply.tokens),
        seed=reply.upstream_seed(),
        path=Path.SPLICE,
    )


def _walk_length(plan: SplicePlan) -> int:
    """Return how many tokens of a draft are followed.

    Penalties change with every token; as biases they are exact for one token.
    """
    return 1 if plan.reader.parameters.has_penalties else plan.draft_tokens


class _Walk:
    """One draft, followed as far as it agrees with the reply."""

    __slots__ = ("_budget", "_plan", "_question", "_reply", "_tail", "is_undecided")

    def __init__(
        self, reply: Reply, plan: SplicePlan, budget: Budget, question: Draft, tail: Tail
    ) -> None:
        self._tail = tail
        self._reply = reply
        self._plan = plan
        self._budget = budget
        self._question = question
        self.is_undecided = False

    def follow(self, continuations: tuple[Continuation, ...]) -> Flow:
        """Yield tokens; return why the reply ended, None where only this draft did."""
        alive = [one for one in continuations if _reaches(one, 0)]
        for depth in range(_walk_length(self._plan)):
            if not alive or self._reply.is_full:
                break
            if len(alive[0].tokens) == depth:  # the draw ends the text
                yield Chosen(UNREAD_TOKEN, piece=TextPiece(""))
                return Finish.STOP
            chosen = yield from self._choose(alive[0], depth)
            if chosen is None:
                self.is_undecided = True
                return None
            yield chosen
            if chosen.token in self._plan.end_ids:
                return Finish.STOP
            if chosen.token == UNREAD_TOKEN:
                break
            alive = [
                one
                for one in alive
                if one.tokens[depth : depth + 1] == (chosen.token,) and _reaches(one, depth + 1)
            ]
        return Finish.LENGTH if self._reply.is_full else None

    def _choose(
        self, one: Continuation, depth: int
    ) -> Generator[Draft | Chosen, Drafted | None, Chosen | None]:
        """Return the next token; None where the list alone cannot tell."""
        listed, draw = one.logprobs[depth], one.tokens[depth]
        candidates = self._plan.reader.read(listed, draw, self._question.bias)
        if self._plan.spelling:
            candidates = self._plan.spelling.raced(candidates)
        self._tail.note(listed)
        stream = self._reply.stream()
        if self._question.is_greedy and candidates.rest is None:
            return None
        token = self._race(candidates, draw, stream)
        if token is None:
            return (yield from self._outside(candidates, listed, stream))
        if self._plan.spelling:
            is_drawn = token == draw
            piece = one.pieces[depth] if is_drawn else TextPiece(self._plan.spelling.text_of(token))
            return self._take_text(Chosen(token, piece=piece), piece)
        return self._take(Chosen(token, listed.of(token), listed))

    def _race(
        self, candidates: CandidateList, draw: int, stream: ContextStream | None
    ) -> int | None:
        """Return the winner; None where it lies outside the list and is still to be drawn."""
        if self._question.is_greedy:
            return self._reply.choose(candidates, stream)
        if stream is not None and draw in candidates:
            return self._reply.choose(replace(candidates, rest=0.0), stream)
        # An honest draw of the client's own distribution; a race would choose no better.
        return None if stream is not None and self._plan.draws_outside else draw

    def _outside(
        self, candidates: CandidateList, listed: TokenLogprobs, stream: ContextStream | None
    ) -> Generator[Draft | Chosen, Drafted | None, Chosen]:
        """Draw a token outside the list, which is banned; race the chosen ones."""
        banned = dict.fromkeys(candidates.tokens.tolist(), -MAX_BIAS)
        bias = {**self._question.bias, **banned}
        impossible = {token for token, value in bias.items() if value <= -MAX_BIAS}
        chosen = self._tail.pick(impossible) if stream is not None else ()
        for _ in range(_OUTSIDE_TRIES):
            question = replace(
                self._question,
                tokens=tuple(self._reply.tokens),
                n=1,
                max_tokens=1,
                is_greedy=False,
                logprobs=1,
                chosen=chosen,
                bias=bias,
                seed=self._reply.upstream_seed(),
            )
            (drawn,) = yield from ask(self._reply, question, self._budget, self._plan.end_ids)
            token = drawn.tokens[0]
            if token in candidates:
                continue
            if token in chosen:
                token = self._among(chosen, drawn.logprobs[0], question, stream)
            logprob = self._unbanned(drawn.logprobs[0].of(token), candidates)
            return self._take(Chosen(token, logprob, listed))
        raise UpstreamProtocolError(
            f"the upstream gave a banned token {_OUTSIDE_TRIES} times; it ignores logit_bias, so "
            "set logit_bias = false for this model"
        )

    def _among(
        self,
        chosen: tuple[int, ...],
        listed: TokenLogprobs,
        question: Draft,
        stream: ContextStream | None,
    ) -> int:
        """Return the winner among chosen tokens, one of which was drawn."""
        candidates = self._plan.reader.read_chosen(listed, chosen, question.bias)
        token = self._reply.choose(candidates, stream)
        if token is None:  # pragma: no cover - a race without rest has a winner
            raise UpstreamProtocolError("the upstream listed no token with any probability")
        return token

    def _unbanned(self, logprob: float | None, candidates: CandidateList) -> float | None:
        """Return what the log-probability was before the list was banned."""
        if logprob is None or self._plan.reader.mode is LogprobsMode.RAW:
            return logprob
        rest = candidates.rest or 0.0
        return logprob + math.log(rest / (rest + float(candidates.weights.sum())))

    def _take(self, chosen: Chosen) -> Chosen:
        """Append the token, unless it ends the text."""
        if chosen.token not in self._plan.end_ids:
            self._reply.spend(tuple(self._reply.part), (chosen.token,))
            self._reply.extend((chosen.token,), Path.SPLICE)
        return chosen

    def _take_text(self, chosen: Chosen, piece: TextPiece) -> Chosen:
        """Append text; the contexts of what no token is told of are spent when it is read."""
        if chosen.token != UNREAD_TOKEN:
            self._reply.spend(tuple(self._reply.tokens), (chosen.token,))
        self._reply.extend_text(piece, Path.SPLICE, token=chosen.token)
        return chosen


def _reaches(one: Continuation, depth: int) -> bool:
    """Return whether a continuation says what comes after so many tokens: a token, or the end.

    Of tokens, the end is one itself.
    """
    return len(one.tokens) > depth or (
        bool(one.generated) and len(one.tokens) == depth and one.finish is Finish.STOP
    )
