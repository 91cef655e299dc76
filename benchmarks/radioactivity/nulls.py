"""Figure 1: clean suspects, made anew for every key, and the controls that must fail.

The trials are those of `benchmarks.radioactivity.clean`. Of each, the rates at a nominal 5% by
p-value and by bet are written down with their exact 95% intervals.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from benchmarks.radioactivity.clean import ALPHA, Outcome, Trial, run
from benchmarks.radioactivity.clean_story import run_story
from benchmarks.radioactivity.results import read_rows, write_rows
from benchmarks.story import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.radioactivity.laboratory import Laboratory

CONTROL_KEYS = 100
"""Keys of a negative control: those fail at once."""
CHANCE = 1e-4
"""Below this chance a rate is not one of the null's."""


def measure_clean(path: Path, keys: int) -> None:
    """Run the trials that were not run with so many keys, and write each down at once."""
    for trial in Trial:
        n = min(keys, CONTROL_KEYS) if trial.is_broken else keys
        if not _is_done(path, trial.name, n):
            outcomes = [run(trial, seed) for seed in range(n)]
            write_rows(path, [_row(trial.name, trial.value, outcomes)], key="trial")


def measure_story(path: Path, laboratory: Laboratory, keys: int) -> None:
    """Run the story model as a suspect, and its control."""
    if _is_done(path, "STORY", keys):
        return
    found = [run_story(laboratory, seed) for seed in range(keys)]
    kept = [one["kept"] for one in found]
    broken = [one["broken"] for one in found]
    rows = [
        _row("STORY", "story model sent marked text, filter by delivered contexts", kept),
        _row("BROKEN_STORY", "BROKEN: the same, contexts of prompts scored", broken),
    ]
    write_rows(path, rows, key="trial")


def _is_done(path: Path, trial: str, keys: int) -> bool:
    return any(row["trial"] == trial and row["keys"] >= keys for row in read_rows(path))


def _row(trial: str, what: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    p = np.exp([one.log_pvalue for one in outcomes])
    return {
        "trial": trial,
        "what": what,
        "keys": len(outcomes),
        "by_p": int((p <= ALPHA).sum()),
        "by_e": sum(one.log_evalue_peak >= -math.log(ALPHA) for one in outcomes),
        "by_decoys": sum(one.decoy_pvalue <= ALPHA + 1e-9 for one in outcomes),
        "uniform": float(stats.kstest(p, "uniform").pvalue),
        "quantiles": np.quantile(p, np.linspace(0.0, 1.0, 21)).round(6).tolist(),
    }


def print_clean(path: Path) -> None:
    """Print the table, and say of each trial whether it is as it must be."""
    rows = read_rows(path)
    head = [
        "suspect",
        "keys",
        "p <= .05 [95%]",
        "bet >= 20",
        "decoys <= .05",
        "KS",
        "as it must be",
    ]
    lines = [_line(row) for row in rows]
    print_table(f"Figure 1: clean suspects at a nominal {ALPHA:.0%}", head, lines)
    if rows:
        plot_clean(rows, path.with_suffix(".svg"))


def _line(row: dict[str, Any]) -> list[object]:
    n = row["keys"]
    rate = stats.binomtest(row["by_p"], n, ALPHA)
    low, high = rate.proportion_ci(0.95)
    is_broken = row["trial"].startswith("BROKEN")
    beyond = [stats.binom.sf(row[one] - 1, n, ALPHA) < CHANCE for one in ("by_p", "by_e")]
    is_right = beyond[0] if is_broken else not any(beyond)
    return [
        row["what"],
        n,
        f"{row['by_p'] / n:.3f} [{low:.3f}, {high:.3f}]",
        f"{row['by_e'] / n:.3f}",
        f"{row['by_decoys'] / n:.3f}",
        f"{row['uniform']:.2g}",
        "yes" if is_right else "NO",
    ]


def plot_clean(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw p-values against the uniform law, kept rules and broken ones."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "radioactivity"
    from matplotlib import pyplot as plt

    plane, both = plt.subplots(1, 2, figsize=(11.0, 4.5), sharey=True)
    levels = np.linspace(0.0, 1.0, 21)
    for row in rows:
        axes = both[int(row["trial"].startswith("BROKEN"))]
        axes.plot(levels, row["quantiles"], label=row["what"].removeprefix("BROKEN: "))
    for axes, title in zip(both, ("rules kept", "one rule broken: must fail"), strict=True):
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        axes.set_title(title)
        axes.set_xlabel("quantile of the uniform law")
        axes.legend(fontsize=6)
    both[0].set_ylabel("quantile of p")
    plane.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(plane)
