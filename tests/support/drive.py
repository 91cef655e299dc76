"""Drive a flow against a toy model, and hold replies against their law."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy import stats

from proxy.sampling.questions import Chosen, Draft, Drafted, Finish
from proxy.sampling.reply import Reply
from watermark.keys import KeyRecord, SecretKey
from watermark.seeding import KeyedUniforms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from proxy.sampling.questions import Flow

OutcomeT = TypeVar("OutcomeT", tuple[int, ...], str)


@dataclass(frozen=True, slots=True)
class Driven:
    """What came out of a flow."""

    finish: Finish | None
    chosen: tuple[Chosen, ...]
    questions: tuple[Draft, ...]

    @property
    def sequence(self) -> tuple[int, ...]:
        """The tokens given out, a closing end token included."""
        return tuple(one.token for one in self.chosen)


def drive(flow: Flow, answer: Callable[[Draft], Drafted]) -> Driven:
    """Run a flow to its end."""
    chosen: list[Chosen] = []
    questions: list[Draft] = []
    reply: Drafted | None = None
    while True:
        try:
            event = flow.send(reply)
        except StopIteration as stopped:
            return Driven(stopped.value, tuple(chosen), tuple(questions))
        reply = None
        if isinstance(event, Draft):
            questions.append(event)
            reply = answer(event)
        else:
            chosen.append(event)


def make_record(
    seed: int, *, width: int = 1, rho: float = 0.9, account_share_q16: int = 0
) -> KeyRecord:
    """Return a key record whose secret is that of a seed."""
    secret = SecretKey("k", np.random.default_rng(seed).bytes(32))
    return KeyRecord(
        key_id="k",
        unit="words/v1",
        context_width=width,
        rho=rho,
        account_share_q16=account_share_q16,
        secret=secret,
    )


def make_reply(seed: int, *, max_tokens: int | None, width: int = 1, rho: float = 0.9) -> Reply:
    """Return an empty reply under a key of its own."""
    keyed = KeyedUniforms(make_record(seed, width=width, rho=rho))
    return Reply(keyed, np.random.default_rng([seed, 1]), max_tokens=max_tokens)


def no_clock() -> float:
    """Return a time that never passes."""
    return 0.0


def law_pvalue(sequences: Iterable[OutcomeT], law: Mapping[OutcomeT, float]) -> float:
    """Return the chi-square p-value of outcomes under a law; impossible ones give 0.

    Cells of fewer than five expected are pooled into one.
    """
    counts = Counter(sequences)
    if any(one not in law for one in counts):
        return 0.0
    n = counts.total()
    cells = [(counts[one], n * mass) for one, mass in law.items() if n * mass >= 5]
    observed, expected = map(np.array, zip(*cells, strict=True))
    rest = n - expected.sum()
    if rest > 1e-6 * n:
        observed = np.append(observed, n - observed.sum())
        expected = np.append(expected, rest)
    expected = expected * (n / expected.sum())
    if len(observed) == 1:
        return 1.0
    return float(stats.chisquare(observed, expected).pvalue)
