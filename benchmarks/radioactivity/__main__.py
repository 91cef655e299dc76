"""The laboratory: is a student of marked text caught, after how many tokens, beside its peers?

    OUTPUT_WATERMARK_SHARED=... python -m benchmarks.radioactivity [1 2 3 4 5 6 7] [--quick]

A teacher writes marked replies, a student is trained on them, an audit asks the student. Texts,
students and answers are cached by digest in the folder that --cache or
OUTPUT_WATERMARK_LABORATORY names, results lie in `benchmarks/radioactivity/results`, and a run
that was stopped goes on where it was. What is there already is not measured again. Figure 1,
clean suspects, is `benchmarks.radioactivity.clean`; it is run from here too.

Sizes are options: with --device cuda, --teacher, --base, --replies and --tokens it is the same
laboratory for larger models.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from transformers.utils import logging

from benchmarks.radioactivity.figures import FULL, QUICK, Grid, Scale
from benchmarks.radioactivity.laboratory import Laboratory, held
from benchmarks.radioactivity.nulls import measure_clean, measure_story, print_clean
from benchmarks.radioactivity.plots import plot
from benchmarks.radioactivity.results import RESULTS, Results, identity
from benchmarks.radioactivity.tables import print_figure
from benchmarks.story import shared

if TYPE_CHECKING:
    from collections.abc import Sequence

FIGURES = (1, 2, 3, 4, 5, 6, 7)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, and print and plot what there is."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    scale = _scale(options)
    options.models = options.models or shared() / "models"
    options.keys = options.keys or (40 if options.quick else 500)
    options.story_keys = options.story_keys or (10 if options.quick else 50)
    results = Results(options.results, "quick" if options.quick else "full")
    laboratory = Laboratory(options.cache, options.models, options.device)
    if not options.print_only:
        helpers = [_helper(arguments) for _ in range(1, options.jobs)]
        for figure in options.figures:
            _measure(figure, laboratory, scale, results, options)
        for helper in helpers:
            helper.wait()
    if not options.is_helper:
        for figure in options.figures:
            _show(figure, results)


def _helper(arguments: Sequence[str] | None) -> subprocess.Popen[bytes]:
    """Start another run of the same: it takes what is not being measured."""
    given = sys.argv[1:] if arguments is None else arguments
    command = [sys.executable, "-m", "benchmarks.radioactivity", *given, "--jobs", "1"]
    return subprocess.Popen([*command, "--is-helper"])


def _measure(
    figure: int,
    laboratory: Laboratory,
    scale: Scale,
    results: Results,
    options: argparse.Namespace,
) -> None:
    if figure == 1:
        if not options.is_helper:
            measure_clean(results.path(1), options.keys)
            measure_story(results.path(1), laboratory, options.story_keys)
        return
    options.cache.mkdir(parents=True, exist_ok=True)
    for cell in Grid(laboratory, scale).cells(figure):
        with held(options.cache / f"cell-{identity(cell)}.lock", waits=False) as is_mine:
            if not is_mine or results.has(cell):
                continue
            found = cell.audit(laboratory, cell.recipe)
            results.add(cell, found)
        print(f"figure {figure}, seed {cell.seed}: {cell.labels} {_short(found)}", flush=True)


def _show(figure: int, results: Results) -> None:
    if figure == 1:
        print_clean(results.path(1))
        return
    cells = results.read(figure)
    print_figure(figure, cells)
    plot(figure, cells, results.path(figure).with_suffix(".svg"))


def _short(found: Any) -> str:
    return f"effect {found.effect:.3f} over {found.n_scored}, log10 p {found.log10_p:.1f}"


def _scale(options: argparse.Namespace) -> Scale:
    scale = QUICK if options.quick else FULL
    given = {one.name: getattr(options, one.name, None) for one in fields(Scale)}
    return replace(scale, **{name: value for name, value in given.items() if value is not None})


def _figure(text: str) -> int:
    """Return a figure's number; argparse holds a default against `choices`, and so refuses it."""
    if text not in {str(one) for one in FIGURES}:
        raise argparse.ArgumentTypeError(f"figures are 1 to 7, found {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.radioactivity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cache = os.environ.get("OUTPUT_WATERMARK_LABORATORY", "~/.cache/output-watermark/laboratory")
    add = parser.add_argument
    add("figures", nargs="*", type=_figure, default=FIGURES, metavar="FIGURE", help="1 to 7")
    add("--quick", action="store_true", help="the small grid")
    add("--cache", type=Path, default=Path(cache).expanduser())
    add("--results", type=Path, default=RESULTS)
    add("--print-only", action="store_true", help="measure nothing")
    add("--jobs", type=int, default=1, help="processes that share the work")
    add("--is-helper", action="store_true", help=argparse.SUPPRESS)
    add("--keys", type=int, help="keys of figure 1, n-gram teacher (500; quick: 40)")
    add("--story-keys", type=int, help="the same, story model (50; quick: 10)")
    add("--models", type=Path, help="folder of the models; by default of the shared ones")
    add("--device", default="cpu")
    add("--threads", type=int, default=1)
    add("--teacher", help="its folder there")
    add("--base", help="the student's folder there")
    add("--from-scratch", action="store_true", default=None)
    for name in ("replies", "tokens", "epochs", "batch", "answers", "seeds", "other-seeds"):
        add(f"--{name}", type=int)
    add("--answer-tokens", type=int)
    add("--rate", type=float)
    add("--widths", type=int, nargs="+")
    add("--shares", type=float, nargs="+")
    add("--other-shares", type=float, nargs="+")
    add("--rotations", type=int, nargs="+")
    return parser


if __name__ == "__main__":
    main()
