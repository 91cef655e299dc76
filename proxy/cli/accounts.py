"""`watermark-proxy accounts`: who may call, edited in one step; and what was seen of them."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Never

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.accounts.book import KeyDigests, load_book
from proxy.accounts.document import Document, parse_accounts, read_text
from proxy.accounts.editing import set_closed, set_state
from proxy.accounts.suspects import rank_suspects
from proxy.accounts.watch_store import WatchStore
from proxy.cli.accounts_setup import gateway_of, read_digest_key, store_path
from proxy.config import load_config
from proxy.errors import ConfigError
from watermark.errors import AccountsFileError
from watermark.keys.folder import digest_of, locked, replace_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.accounts.document import State
    from proxy.accounts.suspects import Suspect
    from proxy.accounts.watch_store import Record
    from proxy.config import AccountsConfig, ProxyConfig

_DAY_S: Final = 86_400
_SHOWN: Final = 20
_config = click.option(
    "--config", "path", type=click.Path(path_type=Path), required=True, help="The proxy's file."
)


@click.group()
def accounts() -> None:
    r"""List accounts, change their state, and look at what was seen of them.

    A running proxy takes a change within a second, in every worker.

    \b
    Examples:
      watermark-proxy accounts list --config proxy.toml
      watermark-proxy accounts ban acme --config proxy.toml
      watermark-proxy accounts suspects --config proxy.toml
      watermark-proxy accounts case acme --config proxy.toml --out case-acme
    """


def _load(path: Path) -> tuple[ProxyConfig, AccountsConfig]:
    config = load_config(path)
    if config.accounts is None:
        raise ConfigError(f'{path} has no [accounts]; add it, with file = "accounts.toml"')
    return config, config.accounts


@accounts.command("list")
@_config
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def list_accounts(*, path: Path, as_json: bool) -> None:
    """Print every account with its state, what is special about it, and what it has used."""
    config, place = _load(path)
    document = parse_accounts(read_text(Path(place.file)), path=Path(place.file))
    records = _records(config)
    if as_json:
        for entry in document.accounts:
            fields = msgspec.to_builtins(entry)
            fields["requests"], fields["tokens"] = _used(records.get(entry.name))
            _write(msgspec.json.encode(fields).decode() + "\n")
        return
    lines = [
        (entry.name, entry.state, *map(str, _used(records.get(entry.name))))
        for entry in document.accounts
    ]
    unknown = sorted(records.keys() - {entry.name for entry in document.accounts})
    lines += [(name, "unknown", *map(str, _used(records[name]))) for name in unknown]
    _table(("account", "state", "requests", "tokens"), lines, n_names=2)
    _write(_door(document) + "\n")


def _used(record: Record | None) -> tuple[int, int]:
    return (0, 0) if record is None else (record.requests, record.tokens)


def _door(document: Document) -> str:
    policy = "served under a pseudonym" if document.unknown.policy == "serve" else "refused"
    door = "; the door is closed to new ones" if document.closed else ""
    return f"unknown callers are {policy}{door}"


@accounts.command()
@_config
def check(*, path: Path) -> None:
    """Do what a reload does; fails with file and line where it would be refused."""
    config, place = _load(path)
    digests = KeyDigests(read_digest_key(place, Path(config.state)))
    book = load_book(Path(place.file), digests, gateway_of(place))
    click.echo(f"{place.file}: {len(book.document.accounts)} accounts")


@accounts.command()
@_config
def digest(*, path: Path) -> None:
    """Read a caller's key from standard input, and print its digest for `keys`."""
    config, place = _load(path)
    key = sys.stdin.buffer.read().strip()
    if not key:
        raise ConfigError("no key on standard input; pipe it in, so that no shell keeps it")
    click.echo(KeyDigests(read_digest_key(place, Path(config.state))).of(key))


def _state_command(name: str, state: State, what: str) -> Callable[..., None]:
    @accounts.command(name, help=f"{what} A comment in the file stays where it is.")
    @click.argument("account")
    @_config
    @click.option("--dry-run", is_flag=True, help="Check the edit, and change nothing.")
    def command(*, account: str, path: Path, dry_run: bool) -> None:
        _, place = _load(path)
        _edit(Path(place.file), lambda text: set_state(text, account, state), dry_run=dry_run)
        click.echo(f"watermark-proxy: {account} is {state}{' (not written)' * dry_run}", err=True)

    return command


for _name, _state, _what in (
    ("suspend", "suspended", "Refuse an account for the time being; its streams end."),
    ("ban", "banned", "Refuse an account; its streams end."),
    ("activate", "active", "Serve an account again."),
    ("watch", "watched", "Serve an account, and count it by name in the metrics."),
):
    _state_command(_name, _state, _what)  # type: ignore[arg-type]


def _door_command(name: str, what: str, *, is_closed: bool) -> None:
    @accounts.command(name, help=what)
    @_config
    def command(*, path: Path) -> None:
        _, place = _load(path)
        _edit(Path(place.file), lambda text: set_closed(text, is_closed=is_closed), dry_run=False)
        state = "closed to callers who were not served before" if is_closed else "open"
        click.echo(f"watermark-proxy: the door is {state}", err=True)


_door_command("close", "Serve no caller who has not been served before.", is_closed=True)
_door_command("open", "Serve new callers again, as `unknown.policy` says.", is_closed=False)


def _edit(path: Path, change: Callable[[str], str], *, dry_run: bool) -> None:
    """Replace the file's text by another, which is checked first."""
    with locked(path.parent):
        text = read_text(path)
        try:
            changed = change(text)
        except AccountsFileError as err:
            raise AccountsFileError(f"{path}: {err}") from err
        parse_accounts(changed, path=path)
        if not dry_run:
            replace_text(path, changed, expected=digest_of(text))


@accounts.command()
@_config
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--top", type=click.IntRange(1), default=_SHOWN, show_default=True)
def suspects(*, path: Path, as_json: bool, top: int) -> None:
    """Rank accounts and clusters by what looks like a harvest, with the reasons.

    It informs, and judges nobody. Only counts and keyed digests are kept, no text.
    """
    config, _ = _load(path)
    ranked = rank_suspects(_records(config))[:top]
    if as_json:
        for one in ranked:
            _write(_as_json(one) + "\n")
        return
    lines = [
        (
            one.name,
            "; ".join(one.reasons) or "nothing stands out",
            str(one.features.requests),
            str(one.features.tokens),
        )
        for one in ranked
    ]
    _table(("account or cluster", "what stands out", "requests", "tokens"), lines, n_names=2)


@accounts.command()
@click.argument("name", metavar="ID")
@_config
@click.option("--out", type=click.Path(path_type=Path), help="Folder to make.  [default: case-ID]")
def case(*, name: str, path: Path, out: Path | None) -> None:
    """Collect what is known of one account or cluster (ID) in a new folder."""
    config, place = _load(path)
    records = _records(config)
    found = next((one for one in rank_suspects(records) if one.name == name), None)
    if found is None:
        _unknown(name)
    document = parse_accounts(read_text(Path(place.file)), path=Path(place.file))
    folder = out or Path(f"case-{name}")
    try:
        folder.mkdir(mode=0o700)
        (folder / "summary.json").write_text(_as_json(found) + "\n", encoding="utf-8")
        (folder / "days.csv").write_text(_days(found, records), encoding="utf-8")
        (folder / "accounts.json").write_text(_entries(found, document), encoding="utf-8")
        (folder / "traits.csv").write_text(_traits(found, records), encoding="utf-8")
        (folder / "README.txt").write_text(_CASE, encoding="utf-8")
    except OSError as err:
        raise ConfigError(f"{folder}: {(err.strerror or str(err)).lower()}; choose --out") from err
    click.echo(str(folder))


_CASE: Final = """\
What the proxy has seen of an account or cluster: counts and keyed digests, no text.

summary.json   shares, what stands out, and what joins a cluster
days.csv       requests, marked replies and their tokens, by account and UTC day
accounts.json  the records in accounts.toml, without references to secrets
traits.csv     keyed digests of keys, prompt beginnings and ends, system prompts, with counts

None of it says who trained on what. `watermark trace` finds the account's code in a text or data
set, with a p-value.
"""


def _unknown(name: str) -> Never:
    raise ConfigError(
        f"nothing is known of {name!a}; `watermark-proxy accounts suspects` names accounts and "
        "clusters, and a cluster changes its name with its members"
    )


def _records(config: ProxyConfig) -> dict[str, Record]:
    with contextlib.closing(WatchStore(store_path(config))) as store:
        return store.records()


def _as_json(one: Suspect) -> str:
    fields = msgspec.to_builtins(one)
    if math.isnan(one.features.regularity):
        fields["features"]["regularity"] = None
    return msgspec.json.encode(fields).decode()


def _days(found: Suspect, records: dict[str, Record]) -> str:
    rows = [
        (name, datetime.fromtimestamp(day * _DAY_S, UTC).date().isoformat(), *counts)
        for name in found.accounts
        for day, counts in sorted(records[name].days.items())
    ]
    return _csv(("account", "day", "requests", "replies", "tokens"), rows)


def _traits(found: Suspect, records: dict[str, Record]) -> str:
    rows = [
        (name, kind, digest, count)
        for name in found.accounts
        for kind, digests in sorted(records[name].traits.items())
        for digest, count in sorted(digests.items(), key=lambda item: -item[1])
    ]
    return _csv(("account", "kind", "digest", "count"), rows)


def _entries(found: Suspect, document: Document) -> str:
    entries = []
    for entry in document.accounts:
        if entry.name in found.accounts:
            fields = msgspec.to_builtins(entry)
            fields.pop("upstream_key")
            entries.append(fields)
    return msgspec.json.format(msgspec.json.encode(entries)).decode() + "\n"


def _csv(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return page.getvalue()


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], *, n_names: int) -> None:
    is_terminal = sys.stdout.isatty()
    table = Table(box=box.SIMPLE_HEAD if is_terminal else None, show_edge=False, pad_edge=False)
    for place, name in enumerate(head):
        table.add_column(name, justify="left" if place < n_names else "right", no_wrap=True)
    for line in lines:
        table.add_row(*(Text(cell if cell.isprintable() else ascii(cell)) for cell in line))
    page = io.StringIO()
    Console(file=page, force_terminal=is_terminal, width=1 << 20).print(table, soft_wrap=True)
    _write("".join(f"{line.rstrip()}\n" for line in page.getvalue().splitlines()))


def _write(text: str) -> None:
    click.echo(text.encode(), nl=False)
