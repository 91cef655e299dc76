"""Cells to tables: seeds pooled, errors stated, extrapolations labelled."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import stats

from benchmarks.radioactivity.audits import Measured, half_of
from benchmarks.radioactivity.marks import OURS, PEERS
from benchmarks.story import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.radioactivity.results import Row

TITLES: Final = {
    2: "Figure 2: scored tokens to p <= 1e-6, closed and supervised",
    3: "Figure 3: no weights, a filter, weights by conversations; the price of looking at any time",
    4: "Figure 4: open, reading mode: contexts to p <= 1e-6",
    5: "Figure 5: training text marked through `select`, sampling access only",
    6: "Figure 6: a student with another tokenizer",
    7: "Figure 7: what happens to the mark on its way",
}
_MEASURED: Final = {one.name for one in fields(Measured)} | {"id", "seed"}
BAR: Final = 0.5


@dataclass(frozen=True, slots=True)
class Pooled:
    """One line of a table: the seeds of one kind of cell.

    Attributes:
        labels: What it is called.
        rows: Its cells.
        effect: Mean effect of its seeds.
        error: Standard error: between seeds, or of the null where that is larger.
        quantile: 97.5% quantile that goes with the error.
        tail: Mean over its seeds of what the exact tail asks for, over what a normal law does.
    """

    labels: dict[str, Any]
    rows: tuple[Row, ...]
    effect: float
    error: float
    quantile: float
    tail: float

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the effect."""
        half = self.quantile * self.error
        return self.effect - half, self.effect + half


def pool(cells: Sequence[Row]) -> list[Pooled]:
    """Return a line for each kind of cell, in the order of the file."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in cells:
        labels = tuple((key, value) for key, value in row.items() if key not in _MEASURED)
        groups.setdefault(labels, []).append(row)
    return [_pooled(dict(labels), rows) for labels, rows in groups.items()]


def _pooled(labels: dict[str, Any], rows: list[Row]) -> Pooled:
    effects = np.array([row["effect"] for row in rows])
    k = len(rows)
    tail = float(np.mean([row["tail"] for row in rows]))
    null = math.sqrt(sum(row["error"] ** 2 for row in rows)) / k
    if k == 1:
        return Pooled(labels, tuple(rows), float(effects[0]), null, 1.96, tail)
    between = float(effects.std(ddof=1)) / math.sqrt(k)
    quantile = float(stats.t.ppf(0.975, k - 1)) if between > null else 1.96
    error = max(between, null)
    return Pooled(labels, tuple(rows), float(effects.mean()), error, quantile, tail)


def ratio_of_tokens(ours: Pooled, peer: Pooled) -> tuple[float, float, float]:
    """Return our tokens over the peer's with a 95% interval.

    It is the squared ratio of effects, times that of what the exact tails ask for. Fieller's
    interval holds where the peer's effect is all but nothing, too.
    """
    tails = ours.tail / peer.tail
    t = max(ours.quantile, peer.quantile)
    a = ours.effect**2 - (t * ours.error) ** 2
    b = ours.effect * peer.effect
    c = peer.effect**2 - (t * peer.error) ** 2
    ratio = (max(peer.effect, 0.0) / ours.effect) ** 2 if ours.effect > 0 else math.inf
    if a <= 0 or b * b < a * c:
        return tails * ratio, 0.0, math.inf
    root = math.sqrt(b * b - a * c)
    low, high = (b - root) / a, (b + root) / a
    return tails * ratio, tails * max(low, 0.0) ** 2, tails * max(high, 0.0) ** 2


def ratio_of_first_looks(ours: Pooled, peer: Pooled) -> tuple[float, float, float] | None:
    """Return the ratio of scores at which seeds first had p <= 1e-6, with a 95% interval.

    Geometric means, and Welch's interval of the difference of their logarithms. None where a seed
    did not get there, or there are too few.
    """
    reached = [[row["reached"] for row in one.rows] for one in (ours, peer)]
    if any(None in found or len(found) < 2 for found in reached):
        return None
    logs = [np.log(found) for found in reached]
    found = stats.ttest_ind(*logs, equal_var=False)
    low, high = found.confidence_interval(0.95)
    return (
        math.exp(float(logs[0].mean() - logs[1].mean())),
        math.exp(float(low)),
        math.exp(float(high)),
    )


def print_figure(figure: int, cells: Sequence[Row]) -> None:
    """Print a figure's table."""
    lines = pool(cells)
    if not lines:
        print(f"\n{TITLES[figure]}: nothing measured yet")
        return
    labels = list(lines[0].labels)
    head = [*labels, "seeds", "scored", "effect [95%]", "log10 p", "1e-6 at", "tokens said"]
    head += [
        "half of audits at [95%]",
        *(["by the plain sum", "bet at", "bet / half", "bet / first look"] if figure == 3 else []),
    ]
    print_table(TITLES[figure], head, [_line(figure, one) for one in lines])
    if figure == 2:
        _print_ratios(lines)


def _line(figure: int, one: Pooled) -> list[object]:
    n = float(np.median([row["n_scored"] for row in one.rows]))
    low, high = one.interval
    line: list[object] = [
        *one.labels.values(),
        len(one.rows),
        f"{n:,.0f}",
        f"{one.effect:.3f} [{low:.3f}, {high:.3f}]",
        f"{np.median([row['log10_p'] for row in one.rows]):.1f}",
        _reached(one, "reached"),
        _reached(one, "reached_units"),
        _half(one, n),
    ]
    if figure == 3:
        line += [_reached(one, "plain_half"), _reached(one, "bet_reached")]
        line += [_price(one, "half"), _price(one, "reached")]
    return line


def _price(one: Pooled, of: str) -> str:
    """Return the median over seeds of what the bet takes, over what a test at one number does."""
    found = [row["bet_reached"] / row[of] for row in one.rows if row["bet_reached"] and row[of]]
    return f"{np.median(found):.2f}" if found else "-"


def _reached(one: Pooled, name: str) -> str:
    """Return the median over the seeds that got there, and how many that are."""
    found = [row[name] for row in one.rows if row[name] is not None]
    if not found:
        return "-"
    share = "" if len(found) == len(one.rows) else f" ({len(found)} of {len(one.rows)})"
    return f"{np.median(found):,.0f}{share}"


def _half(one: Pooled, n_scored: float) -> str:
    half = half_of(one.effect, one.error, one.tail)
    if half is None:
        return "no effect seen"
    low, high = one.interval
    shown = f"{half:,.0f} [{_half_at(high, one.tail)}, {_half_at(low, one.tail)}]"
    return f"{shown}, extrapolated" if half > n_scored else shown


def _half_at(effect: float, tail: float) -> str:
    """Return the tokens at an end of an interval."""
    found = half_of(effect, 0.0, tail) if effect > 0 else None
    return "inf" if found is None else f"{found:,.0f}"


def _print_ratios(lines: Sequence[Pooled]) -> None:
    rows: list[list[object]] = []
    for ours in (one for one in lines if one.labels["scheme"] in OURS and one.labels["marked"]):
        where = {key: ours.labels[key] for key in ("width", "marked")}
        peers = [
            one
            for one in lines
            if one.labels["scheme"] in PEERS and where.items() <= one.labels.items()
        ]
        if not peers:
            continue
        best = max(peers, key=lambda one: one.effect / math.sqrt(one.tail))  # fewest tokens
        ratio, low, high = ratio_of_tokens(ours, best)
        seen = ratio_of_first_looks(ours, best)
        met = "yes" if high <= BAR else "no" if low > BAR else "open"
        rows.append(
            [
                *where.values(),
                ours.labels["scheme"],
                best.labels["scheme"],
                "-" if seen is None else f"{seen[0]:.2f} [{seen[1]:.2f}, {seen[2]:.2f}]",
                f"{ratio:.2f} [{low:.2f}, {high:.2f}]",
                met,
            ]
        )
    head = [
        "width",
        "marked",
        "ours",
        "better peer",
        "our tokens / its tokens, first p <= 1e-6 [95%]",
        "half of the audits [95%]",
        f"at most {BAR}",
    ]
    if rows:
        print_table("Ours against the better of the two", head, rows)
