"""Every byte that the command line writes, and what each error class means for its caller."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from watermark.errors import (
    AccountsFileError,
    AuditDesignError,
    AuditError,
    AuditPlanError,
    AuditRunError,
    CommitmentError,
    ConcurrentEditError,
    CorpusError,
    InputError,
    KeyFileError,
    KeyFilePermissionError,
    KeyHistoryError,
    KeysConfigError,
    KeysError,
    LedgerConfigError,
    LedgerError,
    LedgerFileError,
    LedgerUnavailableError,
    LogError,
    LogForkError,
    LogFormatError,
    LogRangeError,
    LogStorageError,
    LogVerificationError,
    ModelServerError,
    ScanJournalError,
    SchemeParameterError,
    SecretSourceError,
    SegmentError,
    SuspectError,
    TextEncodingError,
    TextTooShortError,
    TimestampError,
    TokenIdError,
    TokenizerFileError,
    UnitError,
    UnitMismatchError,
    VectorsError,
    WatermarkError,
    WireError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

EXIT_DONE: Final = 0
EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2
EXIT_NULL_STANDS: Final = 3
EXIT_SKIPPED: Final = 4
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count

_PREFIX: Final = "watermark: "
_UNBOUNDED: Final = 1 << 20  # columns: a table is never folded, a terminal may do it


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an error class means at the edge.

    Attributes:
        exit_code: Exit status of the process.
        hint: What helps beyond the remedy that the message names; empty where nothing does.
    """

    exit_code: int
    hint: str = ""


OUTCOMES: Final[Mapping[type[WatermarkError], Outcome]] = MappingProxyType(
    {
        WatermarkError: Outcome(EXIT_ERROR),
        InputError: Outcome(EXIT_ERROR),
        TextEncodingError: Outcome(
            EXIT_ERROR, "`iconv -f LATIN1 -t UTF-8 FILE` converts a file, where it is Latin-1"
        ),
        TextTooShortError: Outcome(
            EXIT_ERROR, "--pooled tests several short files as one body of evidence"
        ),
        TokenIdError: Outcome(
            EXIT_ERROR, "a file for --ids looks like [314, 15, 926], or has one such array a line"
        ),
        AccountsFileError: Outcome(EXIT_ERROR, "the form is in watermark/spec/accounts.md"),
        VectorsError: Outcome(
            EXIT_ERROR, "the form is in watermark/spec/seeding.md, section Test vectors"
        ),
        KeysError: Outcome(EXIT_ERROR, "the rules for key ids are in watermark/spec/key-file.md"),
        KeyFileError: Outcome(EXIT_ERROR, "the form is in watermark/spec/key-file.md"),
        KeyFilePermissionError: Outcome(
            EXIT_ERROR, "`ls -l` on the key file shows who can read it"
        ),
        SecretSourceError: Outcome(
            EXIT_ERROR, "the kinds of reference are in watermark/spec/key-file.md, section Secrets"
        ),
        KeysConfigError: Outcome(EXIT_ERROR, "the form is in watermark/spec/key-file.md"),
        ConcurrentEditError: Outcome(EXIT_ERROR, "nothing was changed; run the command again"),
        KeyHistoryError: Outcome(EXIT_ERROR, "the form is in watermark/spec/key-file.md"),
        CommitmentError: Outcome(EXIT_ERROR, "the form is in watermark/spec/commitment.md"),
        TimestampError: Outcome(EXIT_ERROR, "`watermark keys commit` asks for a stamp again"),
        CorpusError: Outcome(EXIT_ERROR),
        ScanJournalError: Outcome(EXIT_ERROR, "the journal is described in watermark/spec/scan.md"),
        UnitError: Outcome(EXIT_ERROR, "the units are in watermark/spec/seeding.md"),
        TokenizerFileError: Outcome(
            EXIT_ERROR, "the file is the tokenizer.json in the folder of the model"
        ),
        UnitMismatchError: Outcome(
            EXIT_ERROR,
            "`sha256sum FILE` gives a file's digest; --key-id leaves out other keys",
        ),
        SchemeParameterError: Outcome(
            EXIT_ERROR, "the ranges are in watermark/spec/key-file.md, section KEYS.toml"
        ),
        AuditError: Outcome(EXIT_ERROR),
        AuditDesignError: Outcome(EXIT_ERROR, "`watermark audit plan --help` explains the numbers"),
        AuditPlanError: Outcome(EXIT_ERROR, "the form is in watermark/spec/audit.md"),
        AuditRunError: Outcome(EXIT_ERROR, "the form is in watermark/spec/audit.md, section Runs"),
        SuspectError: Outcome(
            EXIT_ERROR, "what was answered so far is kept; the same command goes on from there"
        ),
        ModelServerError: Outcome(
            EXIT_ERROR, "`curl URL/v1/models` shows whether the server answers"
        ),
        WireError: Outcome(EXIT_ERROR),
        LedgerError: Outcome(EXIT_ERROR, "the forms are in watermark/spec/ledger.md"),
        LedgerConfigError: Outcome(
            EXIT_ERROR, "the form is in watermark/spec/ledger.md, section LEDGER.toml"
        ),
        LedgerUnavailableError: Outcome(EXIT_ERROR),
        LedgerFileError: Outcome(
            EXIT_ERROR, "a file that a worker writes is read once it is sealed, or the worker ends"
        ),
        SegmentError: Outcome(
            EXIT_ERROR, "`watermark ledger verify` names every segment that does not hold"
        ),
        # No command raises those of the log yet; their messages name the remedy.
        LogError: Outcome(EXIT_ERROR),
        LogFormatError: Outcome(EXIT_ERROR),
        LogStorageError: Outcome(EXIT_ERROR),
        LogRangeError: Outcome(EXIT_ERROR),
        LogVerificationError: Outcome(EXIT_ERROR),
        LogForkError: Outcome(EXIT_ERROR),
    }
)


def write_data(text: str) -> None:
    """Write to standard output, in UTF-8 wherever that leads."""
    click.echo(text.encode(), nl=False)


def write_objects(objects: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON object a line to standard output."""
    write_data("".join(json.dumps(fields) + "\n" for fields in objects))


def write_note(message: str) -> None:
    """Say something on standard error."""
    click.echo(_PREFIX + printable(message), err=True)


def write_hints(hints: Iterable[str]) -> None:
    """Give each hint once on standard error, set off by a blank line."""
    kept = [text for text in dict.fromkeys(hints) if text]
    if kept:
        click.echo(err=True)
    for text in kept:
        write_note(f"hint: {text}")


def write_errors(errors: Sequence[WatermarkError]) -> int:
    """Report errors on standard error, then what helps, and return the exit status."""
    outcomes = [outcome_of(err) for err in errors]
    for message in dict.fromkeys(str(err) for err in errors):
        write_note(message)
    write_hints(outcome.hint for outcome in outcomes)
    return max((outcome.exit_code for outcome in outcomes), default=EXIT_DONE)


def outcome_of(err: WatermarkError) -> Outcome:
    """Return the row of the nearest class that has one."""
    return next(OUTCOMES[kind] for kind in type(err).__mro__ if kind in OUTCOMES)


def write_lines(
    names: Sequence[str], numbers: Sequence[str], lines: Sequence[Sequence[str]], summary: str
) -> None:
    """Write a table, and below it what it says.

    Args:
        names: Headings of the columns of text, which come first.
        numbers: Headings of the columns of numbers.
        lines: One cell a column.
        summary: A sentence or two.
    """
    is_terminal = sys.stdout.isatty()
    table = Table(
        box=box.SIMPLE_HEAD if is_terminal else None,
        header_style="bold",
        padding=(0, 2, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(*(Text(printable(cell)) for cell in line))
    page = _render(table, is_terminal=is_terminal).splitlines()
    write_data("".join(f"{line.rstrip()}\n" for line in (*page, "", summary)))


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of somebody's text.

    Attributes:
        text: Its characters, of any kind.
        style: How a terminal shows it, in rich's words; empty for plain.
        before: What stands before it where there are no colors.
        after: What stands behind it where there are no colors.
    """

    text: str
    style: str = ""
    before: str = ""
    after: str = ""


def write_styled(pieces: Iterable[Piece]) -> None:
    """Write a text, in colors on a terminal, with brackets elsewhere; it can act on nothing."""
    console = Console(file=io.StringIO(), force_terminal=sys.stdout.isatty())
    is_colored = console.is_terminal and not console.no_color
    if not is_colored:
        plain = (f"{one.before}{_lines_printable(one.text)}{one.after}" for one in pieces)
        write_data("".join(plain) + "\n")
        return
    page = io.StringIO()
    console = Console(file=page, force_terminal=True, width=_UNBOUNDED)
    parts = [(_lines_printable(one.text), one.style) for one in pieces]
    console.print(Text.assemble(*parts), soft_wrap=True)
    write_data(page.getvalue())


def _lines_printable(text: str) -> str:
    """Return text of several lines with everything else escaped that a terminal would act on."""
    return "\n".join(map(printable, text.split("\n")))


def printable(text: str) -> str:
    """Return `text` with everything escaped that a terminal would act on."""
    return text if text.isprintable() else ascii(text)[1:-1]


def _render(table: Table, *, is_terminal: bool) -> str:
    """Return the table as text: bold headings for a terminal, plain characters elsewhere."""
    page = io.StringIO()
    console = Console(file=page, force_terminal=is_terminal, width=_UNBOUNDED)
    if console.no_color:  # rich would still write bold
        console = Console(file=page, color_system=None, width=_UNBOUNDED)
    console.print(table, soft_wrap=True)
    return page.getvalue()
