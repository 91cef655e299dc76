"""`watermark scan`: hold keys against a corpus."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from watermark.cli import render
from watermark.cli.detect import select_records
from watermark.cli.options import check_share, key_id_option, keys_option, tokenizer_option
from watermark.corpora import DEFAULT_FDR, PooledResult, Progress, ScanResult
from watermark.corpora import scan as scan_corpus
from watermark.corpora.scoring import refuse_foreign
from watermark.keys import load_keys
from watermark.text import WORDS_V1
from watermark.text.canonical import RAW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NUMBERS: Final = ("units", "scored", "log10 p", "log10 p family-wise")
_SHOWN_UNIT: Final = len("tokenizer:sha256:") + 8  # enough to tell tokenizers apart
_SHOWN_BROKEN: Final = 20
_EPILOG: Final = """\
Examples:

\b
  watermark scan data/ --keys KEYS.toml --out hits.parquet
  watermark scan 'data/*.jsonl.zst' --keys KEYS.toml --tokenizer tokenizer.json \\
      --field answer --prompt-field question --processes 8 --out hits.parquet
  watermark scan s3://bucket/train/ --keys KEYS.toml --ray auto --processes 64 --out hits.parquet
"""


@click.command(epilog=_EPILOG, short_help="Test the documents of a corpus, and all of it together.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@keys_option
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="HITS.parquet",
    help="Where the documents that are found go; never overwritten.",
)
@key_id_option
@tokenizer_option
@click.option(
    "--field",
    metavar="NAME",
    help="Where the text of a record stands, a.b for b in a; by default a usual one is searched.",
)
@click.option(
    "--prompt-field",
    metavar="NAME",
    help="Where its prompt stands; what occurs in that is not scored.",
)
@click.option(
    "--fdr",
    type=float,
    default=DEFAULT_FDR,
    show_default=True,
    callback=check_share,
    help="Share of false ones expected among the documents found; fix it before looking.",
)
@click.option(
    "--canonical",
    "is_canonical",
    is_flag=True,
    help="Test all text in its canonical form too; every correction counts both forms.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that cut text; with --ray, cores of the cluster.",
)
@click.option(
    "--ray",
    "ray_address",
    metavar="ADDRESS",
    help="Cut the text on this Ray cluster; `local` starts one here. Keys never go there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each key.")
def scan(
    *,
    paths: tuple[str, ...],
    keys_file: Path,
    out: Path,
    key_ids: tuple[str, ...],
    tokenizers: tuple[Path, ...],
    field: str | None,
    prompt_field: str | None,
    fdr: float,
    is_canonical: bool,
    processes: int,
    ray_address: str | None,
    as_json: bool,
) -> int:
    """Hold every key of KEYS.toml that has marked against files, folders, globs or URLs.

    Text, JSONL and Parquet, also .gz and .zst. Documents that are discoveries at the rate --fdr go
    to the file --out; for each key an exact p-value over every distinct pair of the whole corpus is
    printed, with its family-wise value (Holm) over keys and forms. A broken record is reported and
    skipped, and the exit status is 4. After a kill, the same command goes on where it stopped.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # noqa: TID251 - --processes says how many
    records = select_records(load_keys(keys_file), key_ids, keys_file)
    if key_ids:  # keys that were asked for are not left out
        for record in records:
            refuse_foreign(record)
    with _progress() as on_progress:
        result = scan_corpus(
            paths,
            records,
            out=out,
            tokenizers=tokenizers,
            field=field,
            prompt_field=prompt_field,
            fdr=fdr,
            is_canonical=is_canonical,
            processes=processes,
            ray_address=ray_address,
            on_progress=on_progress,
        )
    if as_json:
        render.write_objects(_fields(one, result) for one in result.pooled)
    else:
        lines = [_line(one, result) for one in result.pooled]
        render.write_lines(("corpus", "key"), _NUMBERS, lines, _summary(result))
    _report_left_out(result)
    return _report_broken(result)


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None] | None]:
    """Show a bar with rate and time left on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[broken]}"),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(progress.stage, broken="")
            bars.update(
                tasks[progress.stage],
                completed=progress.done,
                total=progress.total,
                broken=f"{progress.n_broken} broken" if progress.n_broken else "",
            )

        yield show


def _line(pooled: PooledResult, result: ScanResult) -> tuple[str, ...]:
    """Return one line of the table."""
    unit = "" if pooled.unit == WORDS_V1 else f" ({pooled.unit[:_SHOWN_UNIT]})"
    form = "" if pooled.form == RAW else f", {pooled.form}"
    return (
        f"{result.n_files} file{'s' * (result.n_files != 1)}{form}",
        pooled.key_id + unit,
        str(pooled.n_tokens),
        str(pooled.n_scored),
        f"{pooled.log10_pvalue:z.2f}",
        f"{pooled.log10_pvalue_family:z.2f}",
    )


def _fields(pooled: PooledResult, result: ScanResult) -> dict[str, object]:
    """Return the stable fields of one key."""
    counts = ("n_files", "n_bytes", "n_records", "n_documents", "n_broken", "fdr", "left_out")
    return {
        **asdict(pooled),
        "log10_pvalue": pooled.log10_pvalue,
        "log10_pvalue_family": pooled.log10_pvalue_family,
        **{name: getattr(result, name) for name in counts},
        "broken_file": None if result.broken_file is None else str(result.broken_file),
    }


def _summary(result: ScanResult) -> str:
    """Return the sentences that say what the numbers are, and what they are not."""
    n_tested = sum(one.n_tested for one in result.pooled)
    return (
        "Null hypothesis of each line: the corpus was produced without this key; every distinct "
        f"pair of it was scored once.\n{result.n_hits} of {n_tested} tests of single documents are "
        f"discoveries, of which a share of {result.fdr:g} is expected to be false; they are in "
        f"{render.printable(str(result.out))}. A small p speaks against the null, and says nothing "
        "about who wrote the text."
    )


def _report_left_out(result: ScanResult) -> None:
    """Name the keys that a scan does not read."""
    if result.left_out:
        render.write_note(
            f"left out, as a scan does not read their schemes: {', '.join(result.left_out)}; "
            "use `watermark detect` for them"
        )


def _report_broken(result: ScanResult) -> int:
    """Say what was skipped, and return the exit status."""
    if not result.n_broken:
        return render.EXIT_DONE
    for one in result.broken[:_SHOWN_BROKEN]:
        render.write_note(f"{one.file}:{one.offset}: {one.reason}")
    render.write_note(
        f"{result.n_broken} of {result.n_records} records were broken and are not in the result"
    )
    render.write_hints([f"{render.printable(str(result.broken_file))} names all of them"])
    return render.EXIT_SKIPPED
