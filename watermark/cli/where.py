"""`watermark detect --highlight`, `--html`, `--plot`: where in each file the mark is.

Rule 1: what is shown comes from a `Localization`, which holds three levels a window and no score.
Rule 2: every test of the call, in each form of its text, counts in the family-wise error.
Rule 3: the null is drawn by decoy keys from a seed that follows from key and text, so that the
same command says the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from watermark.cli import plots, render, report
from watermark.cli.places import Located, Sought, legend, level_runs
from watermark.detection import Level, Localizer, Nulls
from watermark.errors import InputError, SchemeParameterError, TextTooShortError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Option = Callable[[Callable[..., int]], Callable[..., int]]

STYLES = {Level.NONE: "", Level.HINT: "underline", Level.MARKED: "black on yellow"}
BRACKETS = {Level.NONE: ("", ""), Level.HINT: ("", ""), Level.MARKED: ("[[", "]]")}
"""What stands around a piece where there are no colors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """How the place of a mark is to be shown.

    Attributes:
        highlight: Print the text with the place marked.
        html: Page to write.
        plot: Picture to write, PNG or SVG.
    """

    highlight: bool
    html: Path | None
    plot: Path | None

    def __bool__(self) -> bool:
        """Return whether anything is to be shown."""
        return self.highlight or self.html is not None or self.plot is not None


def view_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options to a command."""
    options: Sequence[Option] = (
        click.option("--highlight", is_flag=True, help="Print each text with the mark's place."),
        click.option(
            "--html",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="Write a page that opens offline: the text, its windows, the marked spans.",
        ),
        click.option(
            "--plot",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="Write a picture, PNG or SVG by its name (extra `plots`).",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_views(views: Views, *, pooled: bool, as_ids: bool, has_excluded: bool) -> None:
    """Refuse options that contradict each other.

    Raises:
        click.UsageError: They do, or a picture cannot be written.
    """
    if views and (pooled or as_ids):
        raise click.UsageError(
            "--highlight, --html and --plot show texts one by one; leave out --pooled and --ids"
        )
    if views and has_excluded:
        raise click.UsageError(
            "--highlight, --html and --plot look at the whole text; leave out --exclude"
        )
    if views.plot is not None:
        plots.check(views.plot)


def locate(sought: Sequence[Sought], n_tests: int) -> list[Located]:
    """Look for every key in every text.

    Args:
        sought: The tests, in their order.
        n_tests: Tests of the call, counting each form of a text.
    """
    nulls = Nulls()
    return [_locate(one, n_tests, nulls) for one in sought]


def _locate(one: Sought, n_tests: int, nulls: Nulls) -> Located:
    (text,) = one.form.texts
    try:
        localizer = Localizer(one.record, one.unit, nulls=nulls)
        rng = np.random.default_rng(localizer.seed_for(text))  # noqa: TID251 - see rule 3
        where = localizer.localize(text, rng=rng, n_tests=n_tests, with_decoys=True)
    except (TextTooShortError, SchemeParameterError) as err:
        return Located(sought=one, text=text, where=None, reason=str(err))
    return Located(sought=one, text=text, where=where)


def show(located: Sequence[Located], views: Views, *, as_json: bool) -> None:
    """Print and write what was asked for; JSON holds the place itself.

    Where nothing could be tested there is nothing to show, and no file is written or replaced.

    Raises:
        InputError: A file cannot be written.
    """
    if not located:
        return
    if views.highlight and not as_json:
        _highlight(located)
    if views.html is not None:
        _write(views.html, report.page(located).encode())
    if views.plot is not None:
        _write(views.plot, plots.picture(located, views.plot))


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as err:
        reason = (err.strerror or str(err)).lower()
        raise InputError(f"cannot write {path}: {reason}; give another path") from err


def _highlight(located: Iterable[Located]) -> None:
    for one in located:
        render.write_data(f"\n{_heading(one)}\n\n")
        render.write_styled(_pieces(one))
    render.write_data(f"\n{legend('yellow, or in [[ ]]', 'underlined')}\n")


def _heading(one: Located) -> str:
    name = render.printable(f"{one.sought.name}, key {one.sought.result.key_id}")
    form = f", {one.sought.form.name} form" if one.sought.result.n_forms > 1 else ""
    if one.where is None:
        return f"{name}{form}: no place: {one.reason}"
    spans = ", ".join(f"{first}-{last - 1}" for first, last in (s.units for s in one.where.spans))
    return f"{name}{form}: {f'marked units {spans}' if spans else 'no marked span'}"


def _pieces(one: Located) -> Iterator[render.Piece]:
    """Yield the text in pieces of one level each."""
    if one.where is None:
        yield render.Piece(one.text)
        return
    for level, (first, last) in level_runs(one.where, len(one.text)):
        yield render.Piece(one.text[first:last], STYLES[level], *BRACKETS[level])
