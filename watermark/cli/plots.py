"""Pictures of where marks are, by matplotlib (extra `plots`)."""

from __future__ import annotations

import importlib.util
import io
from typing import TYPE_CHECKING, Any, Final

import click

from watermark.detection import Level

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from watermark.cli.places import Located

_FORMATS: Final = (".png", ".svg")
_COLORS: Final = {Level.NONE: "#d9dde3", Level.HINT: "#f2b84b", Level.MARKED: "#c2410c"}
_NAMES: Final = {
    Level.NONE: "p > 0.01",
    Level.HINT: "p ≤ 0.01",
    Level.MARKED: "in a marked span",
}
_PANEL_INCHES: Final = 1.7


def check(path: Path, *, formats: Sequence[str] = _FORMATS) -> None:
    """Refuse a picture that cannot be drawn, before any work.

    Args:
        path: Where it is to go.
        formats: The endings that can be written.

    Raises:
        click.UsageError: The name has another ending, or matplotlib is not installed.
    """
    if path.suffix.lower() not in formats:
        raise click.UsageError(f"--plot draws {', '.join(formats)}; found {path.name!a}")
    if importlib.util.find_spec("matplotlib") is None:
        raise click.UsageError(
            "--plot needs matplotlib; `pip install 'output-watermark[plots]'` brings it"
        )


def picture(located: Sequence[Located], path: Path) -> bytes:
    """Return a picture with a panel a test: the level of each window along the text.

    Args:
        located: The tests, at least one.
        path: Its ending names the format.
    """
    from matplotlib import rc_context  # noqa: PLC0415 - an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    height = _PANEL_INCHES * len(located) + 0.6
    figure = Figure(figsize=(9, height), layout="constrained")
    panels = figure.subplots(len(located), 1, squeeze=False)[:, 0]
    for axes, one in zip(panels, located, strict=True):
        _panel(axes, one)
    panels[-1].set_xlabel("unit of the text")
    out = io.BytesIO()
    # No date and no random names: the same text gives the same bytes.
    with rc_context({"svg.hashsalt": "watermark"}):
        figure.savefig(out, format=path.suffix[1:].lower(), dpi=150, metadata=_metadata(path))
    return out.getvalue()


def _metadata(path: Path) -> dict[str, None]:
    return {"Date": None} if path.suffix.lower() == ".svg" else {}


def _panel(axes: Any, one: Located) -> None:  # noqa: ANN401 - matplotlib has no types here
    title = f"{one.sought.name}, key {one.sought.result.key_id}"
    axes.set_title(title.replace("$", r"\$"), loc="left", fontsize=9)
    axes.set_yticks([level.value for level in Level], [_NAMES[level] for level in Level])
    axes.set_ylim(-0.2, 2.4)
    axes.set_xlim(0, max(1, one.sought.result.n_tokens))
    if one.where is None:
        axes.text(0.5, 0.5, "no place", transform=axes.transAxes, ha="center")
        return
    for level in Level:
        chosen = [window.units for window in one.where.windows if window.level is level]
        axes.bar(
            [first for first, _ in chosen],
            [level.value + 0.15] * len(chosen),
            width=[last - first for first, last in chosen],
            align="edge",
            color=_COLORS[level],
        )
    for span in one.where.spans:
        axes.axvspan(*span.units, color=_COLORS[Level.MARKED], alpha=0.12, lw=0)
