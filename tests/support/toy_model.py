"""A first-order Markov language model behind the flows' questions, with its exact law.

It does what a server does, in a server's order: penalties and biases on the logits, temperature,
top-k, top-p on what that leaves; then it lists and samples. `cuts_first` divides by the temperature
last, as llama.cpp does.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from proxy.sampling.candidates import LogprobsMode
from proxy.sampling.parameters import SamplingParameters
from proxy.sampling.questions import Continuation, Draft, Drafted, Finish, TokenLogprobs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

PLAIN = SamplingParameters()


def log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return natural logs, -inf at zero."""
    with np.errstate(divide="ignore"):
        return np.log(values)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.exp(logits - logits.max())
    weights /= weights.sum()
    return weights


def truncate(p: NDArray[np.float64], parameters: SamplingParameters) -> NDArray[np.float64]:
    """Return the distribution after top-k, then top-p; of equal tokens the lower id is kept."""
    order = np.argsort(-p, kind="stable")
    if parameters.top_k:
        order = order[: parameters.top_k]
    if parameters.top_p < 1:
        shares = p[order] / p[order].sum()
        before = np.concatenate([[0.0], np.cumsum(shares)[:-1]])
        order = order[before < parameters.top_p]
    kept = np.zeros_like(p)
    kept[order] = p[order] / p[order].sum()
    return kept


@dataclass(frozen=True, slots=True)
class Position:
    """The three distributions that a server could list, and the one it samples from."""

    raw: NDArray[np.float64]
    tempered: NDArray[np.float64]
    processed: NDArray[np.float64]

    def listed(self, mode: LogprobsMode) -> NDArray[np.float64]:
        """Return the distribution that a mode lists."""
        if mode is LogprobsMode.RAW:
            return self.raw
        return self.tempered if mode is LogprobsMode.TEMPERED else self.processed


@dataclass(slots=True)
class ToyModel:
    """An upstream with a small vocabulary.

    Attributes:
        table: Next-token probabilities, one row a last token; row 0 for an empty reply.
        end: The token that ends a text, or None.
        parameters: The client's parameters; penalties arrive as biases.
        mode: Which distribution is listed.
        rng: The upstream's own randomness.
        context: Longest reply that fits, or None.
        cuts_first: Whether top-k and top-p come before the temperature.
    """

    table: NDArray[np.float64]
    end: int | None
    rng: np.random.Generator
    parameters: SamplingParameters = PLAIN
    mode: LogprobsMode = LogprobsMode.TEMPERED
    context: int | None = None
    cuts_first: bool = False
    questions: list[Draft] = field(default_factory=list)
    _known: dict[tuple[int, tuple[tuple[int, float], ...]], Position] = field(default_factory=dict)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self.table[0])

    def at(self, prefix: Sequence[int], bias: Mapping[int, float]) -> Position:
        """Return the distributions after a prefix."""
        row = (prefix[-1] + 1) % len(self.table) if prefix else 0
        key = (row, tuple(sorted(bias.items())))
        if key not in self._known:
            raw = self.table[row]
            logits = log(raw)
            for token, added in bias.items():
                logits[token] += added
            temperature = self.parameters.temperature
            tempered = softmax(logits / temperature)
            if self.cuts_first:
                kept = truncate(softmax(logits), self.parameters)
                processed = kept ** (1 / temperature) / (kept ** (1 / temperature)).sum()
            else:
                processed = truncate(tempered, self.parameters)
            self._known[key] = Position(raw, tempered, processed)
        return self._known[key]

    def answer(self, question: Draft) -> Drafted:
        """Return the continuations that a question asks for."""
        self.questions.append(question)
        rng = self.rng if question.seed is None else np.random.default_rng(question.seed)
        return Drafted(tuple(self._continue(question, rng) for _ in range(question.n)))

    def _continue(self, question: Draft, rng: np.random.Generator) -> Continuation:
        prefix = list(question.tokens)
        lists: list[TokenLogprobs] = []
        room = question.max_tokens
        if self.context is not None:
            room = min(room, self.context - len(prefix))
        finish = Finish.LENGTH
        for _ in range(room):
            position = self.at(prefix, question.bias)
            token = self._next(position, rng, is_greedy=question.is_greedy)
            if question.logprobs:
                lists.append(self._list(position, token, question))
            prefix.append(token)
            if token == self.end:
                finish = Finish.STOP
                break
        tokens = tuple(prefix[len(question.tokens) :])
        return Continuation(tokens=tokens, finish=finish, logprobs=tuple(lists))

    def _next(self, position: Position, rng: np.random.Generator, *, is_greedy: bool) -> int:
        if is_greedy:
            return int(position.processed.argmax())
        cumulative = np.cumsum(position.processed)
        drawn = rng.random() * cumulative[-1]
        return int(np.searchsorted(cumulative, drawn, side="right"))

    def _list(self, position: Position, sampled: int, question: Draft) -> TokenLogprobs:
        listed = position.listed(self.mode)
        top = np.argsort(-listed, kind="stable")[: question.logprobs]
        if question.chosen:
            top = np.array(question.chosen)
        if self.mode is LogprobsMode.PROCESSED:
            top = top[listed[top] > 0]
        ids = top if sampled in top else np.append(top, sampled)
        return TokenLogprobs(ids.astype(np.uint32), log(listed[ids]))

    def law(self, max_tokens: int) -> dict[tuple[int, ...], float]:
        """Return the probability of every reply, a closing end token included."""
        found: dict[tuple[int, ...], float] = {}
        longest = max_tokens if self.context is None else min(max_tokens, self.context)
        stack: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
        while stack:
            prefix, mass = stack.pop()
            if len(prefix) == longest or (prefix and prefix[-1] == self.end):
                found[prefix] = mass
                continue
            p = self.at(prefix, self._penalties(prefix)).processed
            stack += [((*prefix, t), mass * float(p[t])) for t in np.flatnonzero(p).tolist()]
        return found

    def _penalties(self, prefix: Sequence[int]) -> dict[int, float]:
        """Return the client's biases less penalties, as a server that saw the reply has them."""
        bias = dict(self.parameters.logit_bias)
        for token, count in Counter(prefix).items():
            penalty = self.parameters.presence_penalty + count * self.parameters.frequency_penalty
            if penalty:
                bias[token] = bias.get(token, 0.0) - penalty
        return bias
