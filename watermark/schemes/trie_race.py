r"""The trie race: choose among sampled continuations, without bias.

The upstream drew m continuations; one of them is delivered. Continuations that share tokens share
scores, and the plain rule (argmax of U_i^(1/c_i) over whole continuations) then favours outliers.
So the race is run bottom-up on the continuations' trie:

- Equal continuations are one leaf of weight w = their number.
- Every edge carries the scores of its unit: s = -log(1 - u) of its (context, unit) pair, unless
  the pair is not new or sits on two edges.
- A child stands for (winner, G, r, w): G is the sum of r scores, Gamma(r, 1) under the key's
  randomness. At a node the child with the largest CDF_r(G)^(1/w) wins; a child with r = 0 brings
  a private uniform instead. Child i wins with probability w_i / W, W = sum w, because the
  CDF_r(G) are independent uniforms.
- V = (that maximum)^W is uniform and independent of who won. So the node passes up the winner
  with G' = CDF_r^-1(V), r the winner's, and W; the edge above adds its own scores.

A score serves one race of a reply: in the next, it would not be independent of who won before
(losers' scores tend to be small). `PairScores` leaves those out.

By induction every continuation wins with probability 1/m, given all m of them: the delivered text
has the upstream's law. Two continuations with the same units but other characters share a leaf;
a private coin decides between them.

Source: this project (ARCHITECTURE, `select`); order statistics of exponential races as in
`gumbel_copula`.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from scipy import special

from watermark.errors import SchemeParameterError

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    import numpy as np

    Context = tuple[int, ...]
    Pair = tuple[Context, int]


class PairScores(Protocol):
    """The keyed score of a (context, unit) pair."""

    @property
    def context_width(self) -> int:
        """Number of preceding units in a context."""
        ...

    def score(self, context: tuple[int, ...], unit: int) -> float | None:
        """Return s >= 0, or None where the position is not keyed.

        None too where the pair took part in an earlier race of the reply: its score is then no
        longer independent of the text so far, whether it won or lost. One race asks for a pair
        once.
        """
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sampled continuation.

    Attributes:
        units: Its complete units, in order.
        is_ended: Whether the text ends here; the end itself is not scored.
    """

    units: tuple[int, ...]
    is_ended: bool = False


@dataclass(slots=True)
class _Node:
    children: dict[int, _Node] = field(default_factory=dict)
    leaves: dict[bool, list[int]] = field(default_factory=dict)  # is_ended -> candidate indices
    score: float | None = None  # of the edge above


@dataclass(frozen=True, slots=True)
class _Entrant:
    winner: int
    total: float  # G, the sum of `shape` scores
    shape: int  # r
    weight: int  # w


def race(
    candidates: Sequence[Candidate],
    history: Sequence[int],
    spent: Container[tuple[int, ...]],
    scores: PairScores,
    rng: np.random.Generator,
) -> int:
    """Return the index of the continuation to deliver.

    Args:
        candidates: The sampled continuations, independent and equally distributed.
        history: Units of the reply so far, oldest first.
        spent: Contexts already marked in this reply, or supplied with the request; their pairs
            are not new.
        scores: The keyed scores.
        rng: Private randomness.

    Raises:
        SchemeParameterError: There is no candidate.
    """
    if not candidates:
        raise SchemeParameterError("the race needs at least one continuation")
    root = _Node()
    for index, candidate in enumerate(candidates):
        node = root
        for unit in candidate.units:
            node = node.children.setdefault(unit, _Node())
        node.leaves.setdefault(candidate.is_ended, []).append(index)
    _score_edges(root, history, spent, scores)
    return _run(root, rng).winner


def _score_edges(
    root: _Node,
    history: Sequence[int],
    spent: Container[Context],
    scores: PairScores,
) -> None:
    """Give every edge the score of its pair, where the pair is new and sits on one edge only."""
    width = scores.context_width
    edges: list[tuple[_Node, Pair, bool]] = []
    start = tuple(history[-width:])
    # Depth first; `seen` are the contexts on the path from the root.
    stack: list[tuple[_Node, Context, frozenset[Context]]] = [(root, start, frozenset())]
    while stack:
        node, context, seen = stack.pop()
        has_context = len(context) == width
        is_new = has_context and context not in spent and context not in seen
        below = seen | {context} if has_context else seen
        for unit, child in node.children.items():
            if has_context:
                edges.append((child, (context, unit), is_new))
            stack.append((child, (*context, unit)[-width:], below))
    times = Counter(pair for _, pair, _ in edges)
    for child, pair, is_new in edges:
        if is_new and times[pair] == 1:
            child.score = scores.score(*pair)


def _run(root: _Node, rng: np.random.Generator) -> _Entrant:
    """Run the race at every node, children before parents, without recursion."""
    order = [root]
    for node in order:
        order.extend(node.children.values())
    done: dict[int, _Entrant] = {}
    for node in reversed(order):
        entrants = [done.pop(id(child)) for child in node.children.values()]
        entrants += [_leaf(indices, rng) for indices in node.leaves.values()]
        winner = entrants[0] if len(entrants) == 1 else _compete(entrants, rng)
        done[id(node)] = _climb(winner, node.score)
    return done[id(root)]


def _leaf(indices: list[int], rng: np.random.Generator) -> _Entrant:
    """Return a group of equal continuations; a private coin picks its text."""
    winner = indices[int(rng.integers(len(indices)))]
    return _Entrant(winner=winner, total=0.0, shape=0, weight=len(indices))


def _compete(entrants: list[_Entrant], rng: np.random.Generator) -> _Entrant:
    """Return the winner with G' = CDF_r^-1(V), V = max(U^(1/w))^W."""
    weight = sum(entrant.weight for entrant in entrants)
    # log(U)/w <= 0; the largest wins
    arrivals = [_log_uniform(entrant, rng) / entrant.weight for entrant in entrants]
    best = max(range(len(entrants)), key=arrivals.__getitem__)
    winner = entrants[best]
    return _Entrant(
        winner=winner.winner,
        total=_gamma_quantile(winner.shape, arrivals[best] * weight),
        shape=winner.shape,
        weight=weight,
    )


def _log_uniform(entrant: _Entrant, rng: np.random.Generator) -> float:
    """Return log CDF_r(G), or the log of a private uniform where nothing is scored."""
    if entrant.shape == 0:
        return -float(rng.standard_exponential())
    upper = float(special.gammaincc(entrant.shape, entrant.total))
    if upper < 0.5:  # noqa: PLR2004 - log1p keeps the digits near 1
        return math.log1p(-upper)
    return math.log(float(special.gammainc(entrant.shape, entrant.total)))


def _gamma_quantile(shape: int, log_cdf: float) -> float:
    """Return the Gamma(shape, 1) quantile of a probability given by its logarithm."""
    if shape == 0:
        return 0.0
    if log_cdf > math.log(0.5):
        return float(special.gammainccinv(shape, -math.expm1(log_cdf)))
    return float(special.gammaincinv(shape, math.exp(log_cdf)))


def _climb(entrant: _Entrant, score: float | None) -> _Entrant:
    """Return the entrant with the score of the edge above added."""
    if score is None:
        return entrant
    return _Entrant(
        winner=entrant.winner,
        total=entrant.total + score,
        shape=entrant.shape + 1,
        weight=entrant.weight,
    )
