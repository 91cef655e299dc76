"""Which accounts, and which clusters of them, look like a harvest, and why.

It informs, and judges nobody: every line says what was seen. Several accounts are a cluster where
they were used with one key, or send prompts of one rare form. The order is by the number of
reasons, then by the tokens delivered.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

from proxy.accounts import sketch
from proxy.accounts.watch import LONG_TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from proxy.accounts.watch_store import Record

_LEAST_REQUESTS: Final = 20  # below, a share says nothing
_VOLUME_TIMES: Final = 10.0
_BREADTH_TIMES: Final = 10.0
_HIGH_SHARE: Final = 0.5
_REGULAR: Final = 0.3  # a Poisson stream has 1
_LINK_USES: Final = 5
_MOST_LINKED: Final = 50  # a form that more accounts share is everybody's
_PROMPT_TRAITS: Final = ("first-words", "last-words")
_LINK_TRAITS: Final = ("key", "system-prompt", *_PROMPT_TRAITS)
# Reasons that a caller brings about: a harvester who knows of the mark asks for what is not marked.
_EVADING: Final = frozenset(
    {"temperature-zero", "tools", "structured-output", "unsupported-parameter", "too-short",
     "batch-prompt", "other-path", "no-capable-path"}
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What was seen of one account or cluster.

    Attributes:
        requests: Requests let in.
        tokens: Tokens of marked replies.
        long_share: Share of marked replies with at least 512 tokens.
        templated_share: Share of requests that have the most frequent beginning or end.
        contexts: About how many different contexts were delivered.
        contexts_share: The same over those of all accounts together.
        reasoning_share: Share of requests that asked for a reasoning trace.
        regularity: Coefficient of variation of the pauses; NaN where there are too few.
        unmarked_share: Share of requests unmarked for a reason that the caller brings about.
        unmarked: Requests by reason, unmarked ones only.
    """

    requests: int
    tokens: int
    long_share: float
    templated_share: float
    contexts: float
    contexts_share: float
    reasoning_share: float
    regularity: float
    unmarked_share: float
    unmarked: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """One account or cluster, and why it is listed.

    Attributes:
        name: The account, or `cluster-` and eight digits.
        accounts: Whose notes it is made of.
        features: What was seen.
        links: What joins a cluster: kinds of traits, with how many of them are shared.
        reasons: What stands out, in words; empty where nothing does.
    """

    name: str
    accounts: tuple[str, ...]
    features: Features
    links: Mapping[str, int] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()


def rank_suspects(records: Mapping[str, Record]) -> list[Suspect]:
    """Return all clusters and accounts, those with the most reasons first.

    Args:
        records: What is known, by account.
    """
    every = list(records.values())
    whole = _union(every)
    found = [_suspect(name, [record], whole, {}) for name, record in records.items()]
    for names, links in clusters(records):
        members = [records[name] for name in names]
        found.append(_suspect(cluster_name(names), members, whole, links))
    found = [_with_reasons(one, found, len(every)) for one in found]
    return sorted(found, key=lambda one: (-len(one.reasons), -one.features.tokens, one.name))


def cluster_name(names: Iterable[str]) -> str:
    """Return what a cluster is called; another membership is another name."""
    return "cluster-" + hashlib.sha256("\0".join(sorted(names)).encode()).hexdigest()[:8]


class _Groups:
    """Accounts that are joined pair by pair."""

    def __init__(self, names: Iterable[str]) -> None:
        self._above = {name: name for name in names}

    def top(self, name: str) -> str:
        """Return the account that stands for a group."""
        while self._above[name] != name:
            self._above[name] = name = self._above[self._above[name]]
        return name

    def join(self, names: Sequence[str]) -> None:
        """Put accounts into one group."""
        for name in names[1:]:
            self._above[self.top(name)] = self.top(names[0])


def clusters(records: Mapping[str, Record]) -> Iterator[tuple[tuple[str, ...], dict[str, int]]]:
    """Yield groups of accounts that share keys or prompts, and what they share."""
    groups, links = _Groups(records), list(_links(records))
    for _, names in links:
        groups.join(names)
    members: dict[str, list[str]] = defaultdict(list)
    for name in records:
        members[groups.top(name)].append(name)
    shared: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for kind, names in links:
        shared[groups.top(names[0])][kind] += 1
    for top, counts in shared.items():
        yield tuple(sorted(members[top])), dict(counts)


def _links(records: Mapping[str, Record]) -> Iterator[tuple[str, list[str]]]:
    """Yield the accounts that have a trait in common, with its kind."""
    users: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, record in records.items():
        for kind in _LINK_TRAITS:
            for digest, count in record.traits.get(kind, {}).items():
                if kind == "key" or count >= _LINK_USES:
                    users[kind, digest].append(name)
    most = min(_MOST_LINKED, max(2, len(records) // 4))
    for (kind, _), names in users.items():
        if 1 < len(names) <= (len(records) if kind == "key" else most):
            yield kind, names


def _union(records: Sequence[Record]) -> float:
    registers = sketch.empty()
    for record in records:
        registers = sketch.merged(registers, record.registers)
    return max(sketch.estimate(registers), 1.0)


def _suspect(
    name: str, records: Sequence[Record], whole: float, links: Mapping[str, int]
) -> Suspect:
    registers = sketch.empty()
    reasons: dict[str, int] = defaultdict(int)
    for record in records:
        registers = sketch.merged(registers, record.registers)
        for reason, count in record.reasons.items():
            reasons[reason] += count
    requests = _total(records, lambda one: one.requests)
    decided = sum(reasons.values())
    unmarked = {reason: n for reason, n in reasons.items() if reason != "marked"}
    evading = sum(n for reason, n in unmarked.items() if reason in _EVADING)
    contexts = sketch.estimate(registers)
    features = Features(
        requests=requests,
        tokens=_total(records, lambda one: one.tokens),
        long_share=_share(
            _total(records, lambda one: one.long_replies), _total(records, lambda one: one.replies)
        ),
        templated_share=_templated(records, requests),
        contexts=contexts,
        contexts_share=contexts / whole,
        reasoning_share=_share(_total(records, lambda one: one.reasoning), requests),
        regularity=_regularity(records),
        unmarked_share=_share(evading, decided),
        unmarked=unmarked,
    )
    return Suspect(
        name=name,
        accounts=tuple(record.account for record in records),
        features=features,
        links=links,
    )


def _total(records: Iterable[Record], of: Callable[[Record], int]) -> int:
    return sum(map(of, records))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _templated(records: Sequence[Record], requests: int) -> float:
    """Return the share of requests with the most frequent beginning, or end, of a prompt."""
    most = 0
    for kind in _PROMPT_TRAITS:
        counts: dict[str, int] = defaultdict(int)
        for record in records:
            for digest, count in record.traits.get(kind, {}).items():
                counts[digest] += count
        most = max(most, *counts.values(), 0)
    return _share(most, requests)


def _regularity(records: Sequence[Record]) -> float:
    """Return the coefficient of variation of the pauses of the most regular account."""
    found = [math.nan]
    for record in records:
        if record.gaps >= _LEAST_REQUESTS and record.gap_seconds > 0:
            mean = record.gap_seconds / record.gaps
            variance = max(0.0, record.gap_squares / record.gaps - mean * mean)
            found.append(math.sqrt(variance) / mean)
    known = [value for value in found if not math.isnan(value)]
    return min(known, default=math.nan)


def _with_reasons(suspect: Suspect, everybody: Sequence[Suspect], n_accounts: int) -> Suspect:
    usual = median(one.features.tokens for one in everybody if len(one.accounts) == 1)
    reasons = list(_reasons(suspect.features, usual, n_accounts))
    if suspect.links:
        shown = ", ".join(f"{n} {kind}" for kind, n in sorted(suspect.links.items()))
        reasons.append(f"{len(suspect.accounts)} accounts share {shown}")
    return Suspect(
        name=suspect.name,
        accounts=suspect.accounts,
        features=suspect.features,
        links=suspect.links,
        reasons=tuple(reasons),
    )


def _reasons(seen: Features, usual_tokens: float, n_accounts: int) -> Iterator[str]:
    """Yield what stands out, with its figure."""
    if seen.requests < _LEAST_REQUESTS:
        return
    times = seen.tokens / usual_tokens if usual_tokens else 0.0
    broad = min(_HIGH_SHARE, _BREADTH_TIMES / n_accounts) if n_accounts > 1 else math.inf
    looks = (
        (times >= _VOLUME_TIMES, f"{times:.0f} times the usual volume"),
        (
            seen.long_share >= _HIGH_SHARE,
            f"{seen.long_share:.0%} of replies have {LONG_TOKENS} tokens or more",
        ),
        (
            seen.templated_share >= _HIGH_SHARE,
            f"{seen.templated_share:.0%} of prompts follow one template",
        ),
        (
            seen.contexts_share >= broad,
            f"saw {seen.contexts_share:.0%} of all contexts delivered",
        ),
        (
            seen.reasoning_share >= _HIGH_SHARE,
            f"{seen.reasoning_share:.0%} of requests ask for reasoning traces",
        ),
        (
            seen.regularity <= _REGULAR,
            f"steady pauses (variation {seen.regularity:.2f})",
        ),
        (
            seen.unmarked_share >= _HIGH_SHARE,
            f"{seen.unmarked_share:.0%} of requests are of a form that is not marked",
        ),
    )
    yield from (text for stands_out, text in looks if stands_out)
