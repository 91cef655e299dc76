"""What `select` and `reply` are worth: effect per scored token, and what it costs upstream.

    OUTPUT_WATERMARK_SHARED=... python -m benchmarks.select_reply [--prompts 32] [--plot FILE]

Story model, context width 2, through the proxy over HTTP, scored from the delivered text in the
key's unit. `select` draws m continuations of k tokens, `reply` n whole replies. Of `words/v1` only
words that are complete inside a chunk are scored in its race. The end of text is banned, so that
all replies have one length. A standard error of the effect is 1/sqrt(scored).
"""

from __future__ import annotations

import argparse
import asyncio
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmarks.story import (
    Setting,
    Story,
    complete,
    counter,
    load_story,
    print_table,
    proxied,
    story_upstream,
)
from watermark.detection import Detector
from watermark.text import WORDS_V1, WordsUnit

if TYPE_CHECKING:
    from proxy.cli.servers import EmbeddedReady

    Unit = Literal["tokenizer", "words/v1"]

SIZES = (4, 8, 16)
UNITS: tuple[Unit, ...] = ("tokenizer", "words/v1")
BAR = 0.62  # select, k = 4, m = 8, tokens, temperature 1.0


@dataclass(frozen=True)
class Row:
    """One cell of the figure."""

    setting: Setting
    effect: float
    n_scored: int
    extra_tokens: float
    requests: float
    seconds: float


async def measure(
    story: Story, ready: EmbeddedReady, setting: Setting, args: argparse.Namespace
) -> Row:
    """Return what a setting is worth, and its cost upstream a delivered token."""
    unit = WordsUnit() if setting.unit == WORDS_V1 else story.unit
    record = story.key(1, unit=unit.unit_id)
    began = time.perf_counter()
    async with proxied(setting, ready, record) as client:
        answers = await asyncio.gather(
            *(
                complete(
                    client,
                    model=ready.model,
                    prompt=story.unit.decode(prompt) if setting.path == "reply" else prompt,
                    max_tokens=args.tokens,
                    temperature=args.temperature,
                    logit_bias={str(story.end_id): -100},
                )
                for prompt in story.prompts(args.prompts)
            )
        )
        drafts = await counter(client, "watermark_upstream_drafts_total")
        drafted = await counter(client, "watermark_drafted_tokens_total")
    assert all(answer["watermark"].startswith(f"marked; path={setting.path}") for answer in answers)
    detector = Detector(record, unit)
    results = [detector.detect(answer["choices"][0]["text"]) for answer in answers]
    n_scored = sum(result.n_scored for result in results)
    delivered = args.tokens * args.prompts
    return Row(
        setting=setting,
        effect=sum(result.statistic for result in results) / n_scored - 1.0,
        n_scored=n_scored,
        extra_tokens=drafted / delivered - 1.0,
        requests=drafts / delivered,
        seconds=time.perf_counter() - began,
    )


def settings() -> list[Setting]:
    """Return every cell: select over k and m, reply over n, in both units."""
    select = [
        Setting("select", chunk_tokens=k, candidates=m, unit=unit)
        for unit in UNITS
        for k in SIZES
        for m in SIZES
    ]
    reply = [Setting("reply", candidates=n, unit=unit) for unit in UNITS for n in SIZES]
    return [*select, *reply]


def draw(rows: list[Row], path: Path) -> None:
    """Write the plot: effect over extra tokens, one line a chunk length."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, unit in zip(axes, UNITS, strict=True):
        for k in (*SIZES, 0):
            line = [row for row in rows if row.setting.unit == unit and _chunk(row) == k]
            axis.errorbar(
                [row.extra_tokens for row in line],
                [row.effect for row in line],
                yerr=[1 / math.sqrt(row.n_scored) for row in line],
                marker="o",
                label=f"select, k = {k}" if k else "reply",
            )
        axis.set(title=unit, xlabel="extra tokens a delivered token")
    axes[0].set_ylabel("effect a scored unit")
    axes[0].legend()
    figure.savefig(path)


def _chunk(row: Row) -> int:
    return row.setting.chunk_tokens if row.setting.path == "select" else 0


def main() -> None:
    """Measure, print, and say whether the bar is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--plot", type=Path, help="also write a picture here (extra `plots`)")
    args = parser.parse_args()
    story = load_story()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, story_upstream(Path(folder)) as ready:
        for setting in settings():
            rows.append(asyncio.run(measure(story, ready, setting, args)))
            print(rows[-1], flush=True)
    print_table(
        f"Story model, {args.prompts} prompts, {args.tokens} tokens, T {args.temperature}",
        ("path", "unit", "k", "m or n", "effect", "s.e.", "extra tokens", "requests"),
        [
            (
                row.setting.path,
                row.setting.unit,
                _chunk(row) or "whole",
                row.setting.candidates,
                row.effect,
                1 / math.sqrt(row.n_scored),
                row.extra_tokens,
                row.requests,
            )
            for row in rows
        ],
    )
    (cell,) = (row for row in rows if row.setting == Setting("select", chunk_tokens=4))
    print(f"\nselect, k = 4, m = 8, tokens: {cell.effect:.3f} (bar {BAR})")
    if args.plot:
        draw(rows, args.plot)


if __name__ == "__main__":
    main()
