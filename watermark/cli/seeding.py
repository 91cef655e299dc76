"""`watermark seeding`: for whoever ports the specification of seeding."""

from __future__ import annotations

from typing import Final

import click

from watermark.cli import render
from watermark.cli.reading import read_file
from watermark.errors import VectorsError
from watermark.seeding.vectors import VectorsReport, check_vectors
from watermark.text import WordsUnit, words

_CHECK_EPILOG: Final = """\
Examples:

\b
  watermark seeding check tests/vectors/seeding.json
  my-port --vectors | watermark seeding check -
"""


@click.group()
def seeding() -> None:
    """Check implementations of the seeding specification."""


@seeding.command("check", epilog=_CHECK_EPILOG)
@click.argument("file", metavar="VECTORS.json")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(*, file: str, as_json: bool) -> int:
    """Recompute every vector of VECTORS.json (- for standard input).

    Names those that differ, and exits with 1 where there is one.
    """
    try:
        report = check_vectors(read_file(file), _cut_words)
    except VectorsError as err:
        raise VectorsError(f"{file}: {err}; write it in the specified form") from err
    if not report.total:
        raise VectorsError(f"{file}: no vectors in it; give some to compare")
    _print(report, as_json=as_json)
    return render.EXIT_ERROR if report.differing else render.EXIT_DONE


def _cut_words(text: str) -> tuple[list[str], list[int]]:
    """Return the `words/v1` units of a text, and their ids."""
    return words(text), WordsUnit().encode(text).tolist()


def _print(report: VectorsReport, *, as_json: bool) -> None:
    """Print how many vectors agree, and which do not."""
    version = WordsUnit.unicode_version
    if as_json:
        fields = {
            "total": report.total,
            "agreeing": report.n_agreeing,
            "differing": list(report.differing),
            "unicode_version": version,
        }
        render.write_objects([fields])
        return
    lines = [f"{report.n_agreeing} of {report.total} vectors agree"]
    lines += [f"{name} differs" for name in report.differing]
    render.write_data("".join(f"{line}\n" for line in lines))
    if any(name.startswith("words") for name in report.differing):
        render.write_hints([f"words are cut here by Unicode {version}; another version may differ"])
