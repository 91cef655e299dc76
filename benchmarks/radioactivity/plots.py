"""Cells to plots: effect a score, with its 95% interval, and what 1e-6 takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.radioactivity.audits import Z_ALPHA
from benchmarks.radioactivity.tables import TITLES, pool
from watermark.errors import WatermarkError
from watermark.extras import load_extra

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.radioactivity.results import Row


def plot(figure: int, cells: Sequence[Row], path: Path) -> None:
    """Draw a figure's cells to a file."""
    lines = pool(cells)
    if not lines:
        return
    matplotlib = load_extra("matplotlib", "plots", "plots need", WatermarkError)
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "radioactivity"  # equal results, equal bytes
    from matplotlib import pyplot as plt

    plane, axes = plt.subplots(figsize=(8.0, 1.4 + 0.32 * len(lines)))
    names = [", ".join(_named(key, value) for key, value in one.labels.items()) for one in lines]
    heights = range(len(lines), 0, -1)
    axes.errorbar(
        [one.effect for one in lines],
        list(heights),
        xerr=[one.quantile * one.error for one in lines],
        fmt="o",
        capsize=3,
    )
    axes.axvline(0.0, color="0.6", linewidth=1)
    axes.set_yticks(list(heights), names)
    axes.set_xlabel("effect, standard deviations a score (95% interval)")
    top = axes.secondary_xaxis("top")
    ticks = [tick for tick in axes.get_xticks() if tick > 0.02]
    top.set_xticks(ticks, [f"{(Z_ALPHA / tick) ** 2:,.0f}" for tick in ticks])
    top.set_xlabel("scores at which half of the audits have p <= 1e-6, by a normal law")
    axes.set_title(TITLES[figure], fontsize=10)
    plane.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(plane)


def _named(key: str, value: object) -> str:
    if key == "marked" and isinstance(value, float):
        return f"{value:.0%} marked"
    return f"width {value}" if key == "width" else str(value)
