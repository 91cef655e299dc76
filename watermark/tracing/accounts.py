"""Whose code is in a text: every account held against what the text says of the code positions.

An account's statistic is T = sum_j e_j S_j: S_j the sum of the scores at code position j, e_j = +1
where the account's bit is 0 and -1 where it is 1. The scores are taken of u before any flip; a
sampler that flips u where the bit is 1 prefers tokens with e_j S_j > 0.

Null, one for each account: the text was produced without this account's code. Why the p-value
holds, whatever the text is and whoever else is in it:

1. S = (S_j) is a function of the text and of the context subkey. The account's bits come from
   the account-tag and account-code subkeys and the account's name, by a pseudorandom function.
   Under the null nothing that made the text was given these bits; so given S they are independent
   fair coins, and T is a sum of fair signs with the fixed weights |S_j|.
2. Other accounts' codes may be in the text, in any number and mixture, resold or quoted: that
   changes S, on which everything is conditioned. Several guilty accounts are found in one pass.
3. P(T >= t) for such a sum has the upper bound that `stats.rademacher_log_sf` proves: a p-value,
   valid at every level, no draws, no approximation.
4. A body of several segments is tested a second time, segment by segment (`segments.py`), and
   twice the smaller p-value counts. That is done for the accounts with the largest T only; the
   others keep their first p-value, doubled. To raise a p-value never makes it invalid, whatever
   decides that it is raised.
5. The names are fixed before the text is looked at. All (text, account) pairs of a call are one
   family; Holm's correction needs no independence among them.

First p-values order accounts as T does, so the largest T are all that has to be kept: of those left
out none has a smaller first p-value.

Source: `watermark/spec/seeding.md`, Route to channel; `stats/rademacher.py`; Holm 1979. The score
is in the manner of Škorić et al. (symmetric Tardos scores, 2008); the codes here are not
collusion-secure in Tardos's sense.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from watermark.errors import SchemeParameterError
from watermark.seeding import CODE_BLOCK_BITS, AccountCodes
from watermark.stats import LN_10, holm, rademacher_log_sf
from watermark.tracing.segments import segment_log_pvalues

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from watermark.tracing.codes import CodeSums

CHUNK_ACCOUNTS: Final = 16384  # long steps, so that threads seldom meet at the interpreter
MOST_BODIES: Final = 256  # counted at once: their counts are 64 MiB a thread
MOST_KEPT: Final = 2048  # with C equally active accounts no z exceeds sqrt(65536 / C)
_WORD_BITS: Final = 64
_PER_BLOCK: Final = CODE_BLOCK_BITS // _WORD_BITS
_BYTE: Final = 255
_REFINED_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountTrace:
    """One account held against one body of text.

    Attributes:
        account: Its name.
        statistic: T, in units of half a score step; only for comparison within one body.
        z: T over its standard deviation under the null; a picture, the p-value counts.
        log_pvalue: Natural log of the p-value of this account and body alone.
        log_pvalue_family: The same after Holm over all bodies and accounts of the call.
    """

    account: str
    statistic: int
    z: float
    log_pvalue: float
    log_pvalue_family: float

    @property
    def log10_pvalue(self) -> float:
        """The p-value's decimal logarithm."""
        return self.log_pvalue / LN_10

    @property
    def log10_pvalue_family(self) -> float:
        """The family-wise p-value's decimal logarithm."""
        return self.log_pvalue_family / LN_10

    def rejects_null(self, *, alpha: float) -> bool:
        """Return whether the family-wise p-value is at most alpha, fixed before looking.

        Raises:
            SchemeParameterError: alpha is not in (0, 1).
        """
        if not 0.0 < alpha < 1.0:
            raise SchemeParameterError(f"alpha must lie in (0, 1), found {alpha}")
        return self.log_pvalue_family <= math.log(alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyTrace:
    """All accounts held against one body of text.

    Attributes:
        key_id: The key whose account channel was read.
        n_tokens: Units in the body.
        n_scored: Pairs of the account channel that count.
        n_accounts: Accounts tested.
        ranked: The accounts with the largest statistics, smallest p-value first.
    """

    key_id: str
    n_tokens: int
    n_scored: int
    n_accounts: int
    ranked: tuple[AccountTrace, ...]

    def named(self, *, alpha: float) -> tuple[AccountTrace, ...]:
        """Return the accounts whose null is rejected, family-wise."""
        return tuple(trace for trace in self.ranked if trace.rejects_null(alpha=alpha))


def trace_accounts(
    bodies: Sequence[CodeSums],
    accounts: Sequence[str],
    *,
    over: Callable[..., Iterable[Any]] = map,
) -> list[BodyTrace]:
    """Hold every account against every body of text.

    Args:
        bodies: What the texts say, by key; all of them are one family.
        accounts: Distinct names, fixed before the texts are looked at.
        over: How the accounts' chunks are gone through; a thread pool's `map` uses all cores,
            since the ciphers and numpy let other threads run.

    Returns:
        One trace a body, in order.

    Raises:
        SchemeParameterError: A name cannot be an account's, or stands twice.
    """
    if len(set(accounts)) != len(accounts):
        raise SchemeParameterError("an account is listed twice; test each account once")
    groups = [list(group) for _, group in groupby(bodies, key=lambda body: id(body.record))]
    found = [
        best
        for group in groups
        for start in range(0, len(group), MOST_BODIES)
        for best in _best(group[start : start + MOST_BODIES], accounts, over)
    ]
    logs = [
        rademacher_log_sf(best.statistics.astype(np.float64), body.sums.astype(np.float64))
        for body, best in zip(bodies, found, strict=True)
    ]
    found, logs = _refined(bodies, found, logs, accounts, over)
    family = len(bodies) * len(accounts)
    adjusted = iter(holm(np.concatenate([[], *logs]).tolist(), family_size=family))
    return [
        _trace(body, best, accounts, own, adjusted)
        for body, best, own in zip(bodies, found, logs, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Best:
    """The accounts of one body with the largest statistics: numbers in the list, statistics."""

    numbers: NDArray[np.int64]
    statistics: NDArray[np.int64]

    def joined(self, other: _Best) -> _Best:
        """Return the largest of both, largest first."""
        statistics = np.concatenate([self.statistics, other.statistics])
        numbers = np.concatenate([self.numbers, other.numbers])
        order = np.argsort(-statistics, kind="stable")[:MOST_KEPT]
        return _Best(numbers[order], statistics[order])


def _best(
    bodies: Sequence[CodeSums], accounts: Sequence[str], over: Callable[..., Iterable[Any]]
) -> list[_Best]:
    """Return the best of all accounts, for bodies under one key."""
    plans = [_Plan(body) for body in bodies]
    secret = bodies[0].record.secret

    def of_chunk(start: int) -> list[_Best]:
        codes = AccountCodes(secret, accounts[start : start + CHUNK_ACCOUNTS])
        return [_select(row, start) for row in statistics_of(codes, plans)]

    nothing = _Best(np.zeros(0, np.int64), np.zeros(0, np.int64))
    best = [nothing] * len(bodies)
    for chunk in over(of_chunk, range(0, len(accounts), CHUNK_ACCOUNTS)):
        best = [one.joined(other) for one, other in zip(best, chunk, strict=True)]
    return best


def _select(statistics: NDArray[np.int64], start: int) -> _Best:
    n = len(statistics)
    chosen = np.arange(n) if n <= MOST_KEPT else np.argpartition(-statistics, MOST_KEPT)[:MOST_KEPT]
    return _Best(chosen + start, statistics[chosen])


def _refined(
    bodies: Sequence[CodeSums],
    found: Sequence[_Best],
    logs: Sequence[NDArray[np.float64]],
    accounts: Sequence[str],
    over: Callable[..., Iterable[Any]],
) -> tuple[list[_Best], list[NDArray[np.float64]]]:
    """Return the accounts by both tests, smallest p-value first."""

    def second(part: tuple[CodeSums, NDArray[np.int64]]) -> NDArray[np.float64]:
        body, numbers = part
        names = [accounts[number] for number in numbers.tolist()]
        return segment_log_pvalues(AccountCodes(body.record.secret, names), body.segments)

    tested = [len(body.segments.starts) > 1 for body in bodies]
    parts = [
        (body, one.numbers[start : start + _REFINED_AT_ONCE])
        for body, one, is_tested in zip(bodies, found, tested, strict=True)
        for start in range(0, len(one.numbers) if is_tested else 0, _REFINED_AT_ONCE)
    ]
    seconds = iter(over(second, parts))
    best, both = [], []
    for one, first, is_tested in zip(found, logs, tested, strict=True):
        log = first
        if is_tested and len(first):
            n_parts = -(-len(first) // _REFINED_AT_ONCE)
            log = np.minimum(first, np.concatenate(list(islice(seconds, n_parts))))
            log = np.minimum(log + math.log(2.0), 0.0)
        order = np.lexsort((-one.statistics, log))
        best.append(_Best(one.numbers[order], one.statistics[order]))
        both.append(log[order])
    return best, both


class _Plan:
    """A body's sums as bit masks: magnitudes by binary digit, signs to be undone.

    Attributes:
        total: The largest statistic that an account can have.
        words: By code word (64 positions): the positions with a negative sum, and a mask for each
            binary digit that some magnitude has.
    """

    __slots__ = ("total", "words")

    def __init__(self, body: CodeSums) -> None:
        magnitudes = np.abs(body.sums)
        self.total = int(magnitudes.sum())
        self.words: dict[int, tuple[np.uint64, list[tuple[int, np.uint64]]]] = {}
        if not self.total:
            return
        bits = np.uint64(1) << (body.positions % _WORD_BITS).astype(np.uint64)
        places = body.positions // _WORD_BITS
        for place in np.unique(places).tolist():
            own = places == place
            digits = [
                (digit, _mask(bits[own][(magnitudes[own] >> digit) & 1 == 1]))
                for digit in range(int(magnitudes[own].max()).bit_length())
            ]
            negative = _mask(bits[own][body.sums[own] < 0])
            self.words[place] = (negative, [(digit, mask) for digit, mask in digits if mask])


def _mask(bits: NDArray[np.uint64]) -> np.uint64:
    return np.uint64(np.bitwise_or.reduce(bits, initial=np.uint64(0)))


class _Count:
    """What disagrees with one body, account by account.

    Each binary digit has a count of bytes, added to its whole before a byte can overflow: bytes
    are added at a tenth of what mixed widths take.
    """

    __slots__ = ("_bytes", "_held", "_plan", "_whole")

    def __init__(self, plan: _Plan, n: int) -> None:
        self._plan = plan
        self._whole = np.zeros(n, np.int64)
        self._bytes: dict[int, NDArray[np.uint8]] = {}
        self._held: dict[int, int] = {}

    def add(self, place: int, word: NDArray[np.uint64], buffers: _Buffers) -> None:
        """Add the disagreeing positions of one code word."""
        found = self._plan.words.get(place)
        if found is None:
            return
        negative, digits = found
        np.bitwise_xor(word, negative, out=buffers.signed)
        for digit, mask in digits:
            np.bitwise_and(buffers.signed, mask, out=buffers.disagreeing)
            np.bitwise_count(buffers.disagreeing, out=buffers.counted)
            self._hold(digit, int(mask).bit_count(), buffers.counted)

    def _hold(self, digit: int, most: int, counted: NDArray[np.uint8]) -> None:
        """Add counts of at most so many to a digit's bytes."""
        if digit not in self._bytes:
            self._bytes[digit], self._held[digit] = counted.copy(), most
            return
        if self._held[digit] + most > _BYTE:
            self._whole += self._bytes[digit].astype(np.int64) << digit
            self._bytes[digit][:], self._held[digit] = counted, most
            return
        np.add(self._bytes[digit], counted, out=self._bytes[digit])
        self._held[digit] += most

    def statistics(self) -> NDArray[np.int64]:
        """Return T of every account, shape (n,)."""
        against = self._whole
        for digit, held in self._bytes.items():
            against = against + (held.astype(np.int64) << digit)
        statistics: NDArray[np.int64] = self._plan.total - 2 * against
        return statistics


class _Buffers:
    """Room for the steps of a count, shape (n,) each."""

    __slots__ = ("counted", "disagreeing", "signed")

    def __init__(self, n: int) -> None:
        self.signed, self.disagreeing = np.empty((2, n), np.uint64)
        self.counted = np.empty(n, np.uint8)


def statistics_of(codes: AccountCodes, plans: Sequence[_Plan]) -> list[NDArray[np.int64]]:
    """Return T of every account, shape (n,), plan by plan.

    T = total - 2 (sum of the magnitudes where the account's bit disagrees with the sign of the
    sum), and that sum is counted by binary digit: 2^digit times the number of such positions.
    Each block of the codes is made once, and used while it is in the cache.
    """
    counts = [_Count(plan, len(codes)) for plan in plans]
    users: dict[int, list[_Count]] = {}
    for count, plan in zip(counts, plans, strict=True):
        for block in {place // _PER_BLOCK for place in plan.words}:
            users.setdefault(block, []).append(count)
    buffers = _Buffers(len(codes))
    for block in sorted(users):
        for within, word in enumerate(codes.words(block)):
            for count in users[block]:
                count.add(_PER_BLOCK * block + within, word, buffers)
    return [count.statistics() for count in counts]


def _trace(
    body: CodeSums,
    best: _Best,
    accounts: Sequence[str],
    logs: NDArray[np.float64],
    adjusted: Iterator[float],
) -> BodyTrace:
    deviation = math.sqrt(float((body.sums.astype(np.float64) ** 2).sum())) or 1.0
    ranked = tuple(
        AccountTrace(
            account=accounts[number],
            statistic=statistic,
            z=statistic / deviation,
            log_pvalue=log_pvalue,
            log_pvalue_family=next(adjusted),
        )
        for number, statistic, log_pvalue in zip(
            best.numbers.tolist(), best.statistics.tolist(), logs.tolist(), strict=True
        )
    )
    return BodyTrace(
        key_id=body.record.key_id,
        n_tokens=body.n_tokens,
        n_scored=body.n_scored,
        n_accounts=len(accounts),
        ranked=ranked,
    )
