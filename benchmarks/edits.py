"""How much of a text may be changed before the mark is gone, by context width?

    OUTPUT_WATERMARK_SHARED=... python -m benchmarks.edits [--texts 128] [--plot edits.svg]

Replies of the story model (200 tokens, temperature 1.0, rho 0.9, in process), a share of their
tokens deleted, replaced, or as many inserted, at random places; new tokens are drawn from other
stories. *Detected*: share with p <= 1e-6 under the key, in percent.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.marked import marked_replies
from benchmarks.story import Story, load_story, print_table, stories
from watermark.detection import Detector

if TYPE_CHECKING:
    from collections.abc import Callable

    Edit = Callable[[np.ndarray, float, np.ndarray, np.random.Generator], np.ndarray]

ALPHA = 1e-6
TOKENS = 200
WIDTHS = (1, 2, 4)
SHARES = (0.0, 0.1, 0.2, 0.3)


def _places(ids: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(len(ids), round(share * len(ids)), replace=False)


def delete(
    ids: np.ndarray, share: float, _pool: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the ids without a share of them."""
    return np.delete(ids, _places(ids, share, rng))


def insert(ids: np.ndarray, share: float, pool: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the ids with foreign ones before a share of them."""
    places = _places(ids, share, rng)
    return np.insert(ids, places, rng.choice(pool, len(places)))


def substitute(
    ids: np.ndarray, share: float, pool: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the ids with a share of them exchanged."""
    places = _places(ids, share, rng)
    changed = ids.copy()
    changed[places] = rng.choice(pool, len(places))
    return changed


EDITS: dict[str, Edit] = {
    "deletion": delete,
    "insertion": insert,
    "substitution": substitute,
}


def measure(story: Story, count: int) -> dict[tuple[int, str, float], tuple[float, float]]:
    """Return the percentage detected and the median log10 p for width, edit and share."""
    pool = story.unit.encode("\n".join(stories()[1500:1700]))
    found = {}
    for width in WIDTHS:
        record = story.key(width, context_width=width)
        detector = Detector(record)
        replies = marked_replies(
            story, record, story.prompts(count), tokens=TOKENS, temperature=1.0
        )
        for number, (name, edit) in enumerate(EDITS.items()):
            for share in SHARES:
                results = [
                    detector.detect(
                        edit(ids, share, pool, np.random.default_rng([row, number, width]))
                    )
                    for row, ids in enumerate(replies)
                ]
                rate = np.mean([result.rejects_null(alpha=ALPHA) for result in results])
                median = np.median([result.log10_pvalue for result in results])
                found[width, name, share] = 100 * float(rate), float(median)
    return found


def plot(found: dict[tuple[int, str, float], tuple[float, float]], path: Path) -> None:
    """Write the detected shares as a picture, one panel an edit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels = figure.subplots(1, len(EDITS), sharey=True)
    for axes, name in zip(panels, EDITS, strict=True):
        for width, marker in zip(WIDTHS, "os^", strict=True):
            values = [found[width, name, share][0] for share in SHARES]
            axes.plot([100 * s for s in SHARES], values, marker=marker, label=f"width {width}")
        axes.set_xlabel(f"{name}, % of tokens")
        axes.set_ylim(-3, 103)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("detected at p ≤ 1e-6, %")
    panels[0].legend()
    figure.savefig(path)


def main() -> None:
    """Print the table, and draw it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    found = measure(load_story(), args.texts)
    head = ["context width", "edit", *(f"{100 * share:.0f}%" for share in SHARES)]
    rows = [
        [width, name, *("{:.1f} ({:.1f})".format(*found[width, name, share]) for share in SHARES)]
        for width in WIDTHS
        for name in EDITS
    ]
    print_table("Detected at 1e-6, % (median log10 p)", head, rows)
    if args.plot:
        plot(found, args.plot)


if __name__ == "__main__":
    main()
