"""The ranked plot of `watermark trace`. Only this file knows matplotlib (extra `plots`)."""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Any, Final

from watermark.cli import render
from watermark.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from watermark.tracing import BodyTrace

FORMATS: Final = (".png", ".svg", ".pdf")
_MOST_LABELS: Final = 12
_MOST_CURVES: Final = 10


def write_plot(path: Path, bodies: Sequence[tuple[str, BodyTrace]], *, alpha: float) -> None:
    """Draw -log10 p by rank for each body, and the line above which an account is named.

    Args:
        path: Where to.
        bodies: A label and a trace each.
        alpha: The family-wise level.

    Raises:
        InputError: The file cannot be written.
    """
    figure_module = importlib.import_module("matplotlib.figure")
    figure = figure_module.Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for label, trace in bodies[:_MOST_CURVES]:
        ranks = range(1, len(trace.ranked) + 1)
        values = [-one.log10_pvalue for one in trace.ranked]
        axes.plot(ranks, values, marker=".", linewidth=0.8, label=render.printable(label))
        _label_named(axes, trace, alpha=alpha)
    n_tests = bodies[0][1].n_accounts * len(bodies)
    level = math.log10(n_tests / alpha)
    axes.axhline(level, color="black", linestyle="--", linewidth=0.8)
    axes.annotate(f"named at {alpha:g} family-wise", (1, level), va="bottom", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel(f"rank among {bodies[0][1].n_accounts} accounts")
    axes.set_ylabel("-log10 p of the single test")
    axes.set_title(_title(len(bodies)))
    axes.legend(fontsize=8)
    try:
        figure.savefig(path, dpi=150)
    except OSError as err:
        reason = (err.strerror or str(err)).lower()
        raise InputError(f"{path}: {reason}; give --plot a path that can be written") from err


def _label_named(axes: Any, trace: BodyTrace, *, alpha: float) -> None:  # noqa: ANN401 - untyped
    for rank, one in enumerate(trace.named(alpha=alpha)[:_MOST_LABELS], start=1):
        name = render.printable(one.account).replace("$", r"\$")
        place = (rank, -one.log10_pvalue)
        axes.annotate(name, place, xytext=(4, 2), textcoords="offset points", fontsize=8)


def _title(n_bodies: int) -> str:
    more = f", the first {_MOST_CURVES} of {n_bodies} bodies" if n_bodies > _MOST_CURVES else ""
    return f"Accounts by the strength of their code{more}"
