"""`watermark trace`: whose account's code is in these files."""

from __future__ import annotations

import os
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from watermark.cli import plots, render
from watermark.cli.detect import (
    check_usage,
    pool,
    read_all,
    select_records,
    units_of,
)
from watermark.cli.detect_output import Body, body_name
from watermark.cli.options import (
    check_share,
    ids_option,
    key_id_option,
    keys_option,
    pooled_option,
    tokenizer_option,
)
from watermark.cli.reading import read_file
from watermark.cli.trace_plot import FORMATS, write_plot
from watermark.errors import AccountsFileError, InputError, KeysConfigError, SchemeParameterError
from watermark.keys import load_keys
from watermark.seeding import check_account
from watermark.tracing import BodyTrace, CodeSums, code_sums, trace_accounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from watermark.errors import WatermarkError
    from watermark.keys import KeyRecord
    from watermark.text import Unit
    from watermark.tracing import AccountTrace

DEFAULT_ALPHA: Final = 1e-3
DEFAULT_TOP: Final = 3

_EPILOG: Final = """\
Examples:

\b
  watermark trace leak.txt --keys KEYS.toml --accounts accounts.toml
  watermark trace corpus/*.txt --keys KEYS.toml --accounts names.txt --pooled --plot ranks.png
  watermark trace corpus/*.txt --keys KEYS.toml --accounts names.txt --json
"""


@dataclass(frozen=True, slots=True)
class _Traced:
    """All accounts held against one body."""

    body: Body
    trace: BodyTrace


@click.command(epilog=_EPILOG, short_help="Find whose account's code is in files.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@keys_option
@click.option(
    "--accounts",
    "accounts_file",
    required=True,
    metavar="FILE",
    help="Who may have been served: accounts.toml, or a name a line.",
)
@key_id_option
@tokenizer_option
@pooled_option
@ids_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each body.")
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw the ranked accounts into a .png, .svg or .pdf (extra `plots`).",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=DEFAULT_TOP,
    show_default=True,
    help="Accounts to show of each body, besides those that are named.",
)
@click.option(
    "--alpha",
    type=float,
    default=DEFAULT_ALPHA,
    show_default=True,
    callback=check_share,
    help="Level at which an account is named, over all tests of the call.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 3 when no account is named.")
def trace(
    *,
    files: tuple[str, ...],
    keys_file: Path,
    accounts_file: str,
    key_ids: tuple[str, ...],
    tokenizers: tuple[Path, ...],
    pooled: bool,
    as_ids: bool,
    as_json: bool,
    plot_file: Path | None,
    top: int,
    alpha: float,
    exit_code: bool,
) -> int:
    """Find which accounts' codes are in every FILE (- for standard input).

    Only keys with an account share are read. For each file and key, the accounts with the
    smallest p-values are shown, under the null that the text was produced without the account's
    code; p family-wise is Holm's over all files, keys and accounts of this call, and is the one
    to quote. Several accounts may be named. It says whose replies are in a text, not who put
    them there. A file that cannot be read is reported, and the others are traced.
    """
    check_usage((*files, accounts_file), tokenizers, as_ids=as_ids)
    if plot_file is not None:
        plots.check(plot_file, formats=FORMATS)
    records = _with_channel(select_records(load_keys(keys_file), key_ids, keys_file), keys_file)
    accounts = read_accounts(accounts_file)
    units = {} if as_ids else units_of(records, tokenizers)
    bodies, errors = read_all(files, as_ids=as_ids)
    if pooled and bodies:
        bodies = [pool(bodies)]
    traced, failed = _trace_all(bodies, records, units, accounts)
    _print(traced, as_json=as_json, alpha=alpha, top=top)
    if plot_file is not None and traced:
        write_plot(plot_file, [(_label(one), one.trace) for one in traced], alpha=alpha)
    errors += failed
    if errors:
        return render.write_errors(errors)
    is_named = any(one.trace.named(alpha=alpha) for one in traced)
    return render.EXIT_NULL_STANDS if exit_code and not is_named else render.EXIT_DONE


def _with_channel(records: Iterable[KeyRecord], keys_file: Path) -> list[KeyRecord]:
    """Return the keys that carry accounts, one after the other.

    Raises:
        KeysConfigError: None does, or of one only the context subkey is left.
    """
    found = [record for record in records if record.account_share_q16]
    if not found:
        raise KeysConfigError(
            f"{keys_file}: no key has an account channel; text marked without account_share_q16 "
            "cannot be traced"
        )
    for record in found:
        if record.secret.is_context_only:
            raise KeysConfigError(
                f"key {record.key_id!a} is a context subkey, which tells no account; trace with "
                "its secret"
            )
    return found


def read_accounts(file: str) -> list[str]:
    """Return the account names of a file: `accounts.toml`, or a name a line, `#` for remarks.

    Raises:
        InputError: The file cannot be read.
        AccountsFileError: It is malformed, empty, or names an account twice.
    """
    data = read_file(file)
    try:
        text = data.decode()
    except UnicodeDecodeError as err:
        raise AccountsFileError(
            f"{file}: not UTF-8 at byte {err.start}; convert the file"
        ) from None
    is_table = file.endswith(".toml")
    names = list(_names_of_table(text, file) if is_table else _names_of_lines(text, file))
    if not names:
        raise AccountsFileError(f"{file}: names no account; write a name a line")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise AccountsFileError(f"{file}: account {twice!a} stands twice; keep it once")
    return names


def _names_of_lines(text: str, file: str) -> Iterable[str]:
    for number, line in enumerate(text.split("\n"), start=1):
        name = line.strip()
        if name and not name.startswith("#"):
            yield _checked(name, f"{file}:{number}")


def _names_of_table(text: str, file: str) -> Iterable[str]:
    try:
        tables = tomllib.loads(text).get("account", [])
    except tomllib.TOMLDecodeError as err:
        raise AccountsFileError(f"{file}: {err}; the file is to be TOML") from err
    if not isinstance(tables, list):
        raise AccountsFileError(f"{file}: account is no list of tables; write [[account]]")
    for number, table in enumerate(tables, start=1):
        name = table.get("name") if isinstance(table, dict) else None
        if not isinstance(name, str):
            raise AccountsFileError(f"{file}: [[account]] number {number} has no name; add one")
        yield _checked(name, file)


def _checked(name: str, where: str) -> str:
    try:
        check_account(name)
    except SchemeParameterError as err:
        raise AccountsFileError(f"{where}: {err}") from err
    return name


def _trace_all(
    bodies: Sequence[Body],
    records: Sequence[KeyRecord],
    units: Mapping[str, Unit],
    accounts: Sequence[str],
) -> tuple[list[_Traced], list[WatermarkError]]:
    """Hold all accounts against every body under every key: one family."""
    read: list[tuple[Body, CodeSums]] = []
    errors: list[WatermarkError] = []
    for record in records:  # the codes of a key are computed once for all bodies
        unit = units.get(record.unit)
        for body in bodies:
            replies = body.ids if unit is None else [unit.encode(text) for text in body.texts]
            try:
                read.append((body, code_sums(record, replies)))
            except InputError as err:
                errors.append(type(err)(f"{body_name(body)}: {err}"))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        traces = trace_accounts([sums for _, sums in read], accounts, over=threads.map)
    return [_Traced(body, one) for (body, _), one in zip(read, traces, strict=True)], errors


def _shown(trace: BodyTrace, *, alpha: float, top: int) -> Sequence[AccountTrace]:
    """Return the accounts that are named, and the first ones besides."""
    return trace.ranked[: max(top, len(trace.named(alpha=alpha)))]


def _print(traced: Sequence[_Traced], *, as_json: bool, alpha: float, top: int) -> None:
    """Print the traces for a program or for a person."""
    if as_json:
        render.write_objects(_fields(one, len(traced), alpha=alpha, top=top) for one in traced)
    elif traced:
        lines = [line for one in traced for line in _lines(one, alpha=alpha, top=top)]
        numbers = ("scored", "z", "log10 p", "log10 p family-wise")
        summary = _summary(traced, alpha=alpha)
        render.write_lines(("file", "key", "account", "named"), numbers, lines, summary)


def _label(one: _Traced) -> str:
    return f"{body_name(one.body)}, {one.trace.key_id}"


def _lines(one: _Traced, *, alpha: float, top: int) -> Iterable[tuple[str, ...]]:
    for account in _shown(one.trace, alpha=alpha, top=top):
        yield (
            body_name(one.body),
            one.trace.key_id,
            account.account,
            "yes" if account.rejects_null(alpha=alpha) else "no",
            str(one.trace.n_scored),
            f"{account.z:.2f}",
            f"{account.log10_pvalue:z.2f}",
            f"{account.log10_pvalue_family:z.2f}",
        )


def _fields(one: _Traced, n_bodies: int, *, alpha: float, top: int) -> dict[str, object]:
    """Return the stable fields of one body."""
    body, trace = one.body, one.trace
    fields: dict[str, object] = {
        "file": body.files[0] if len(body.files) == 1 else None,
        "key_id": trace.key_id,
        "n_tokens": trace.n_tokens,
        "n_scored": trace.n_scored,
        "n_accounts": trace.n_accounts,
        "n_tests": trace.n_accounts * n_bodies,
        "pvalue": "upper bound, given the text's scores",
        "alpha": alpha,
        "named": [account.account for account in trace.named(alpha=alpha)],
        "ranked": [
            {
                "account": account.account,
                "z": account.z,
                "log10_pvalue": account.log10_pvalue,
                "log10_pvalue_family": account.log10_pvalue_family,
            }
            for account in _shown(trace, alpha=alpha, top=top)
        ],
    }
    if len(body.files) > 1:
        fields["files"] = list(body.files)
    return fields


def _summary(traced: Sequence[_Traced], *, alpha: float) -> str:
    """Return the sentence that says what the numbers are, and what they are not."""
    names = {account.account for one in traced for account in one.trace.named(alpha=alpha)}
    n_accounts = traced[0].trace.n_accounts
    tests = n_accounts * len(traced)
    return (
        f"{len(names)} of {n_accounts} accounts named at {alpha:g} family-wise over {tests} "
        "tests. Null hypothesis of each: the text was produced without this account's code. A "
        "small p says that text delivered to the account is in the file, and nothing about who "
        "put it there."
    )
