"""`watermark ledger`: make a ledger, seal it, and read what was delivered.

What needs pyarrow is imported where it is used, so that the other commands do without.
"""

from __future__ import annotations

import platform
import secrets
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from watermark.cli import render
from watermark.cli.desk import utc_now
from watermark.errors import LedgerConfigError, LedgerUnavailableError
from watermark.keys import load_keys
from watermark.ledger import (
    Keeps,
    Pseudonyms,
    Vault,
    create_ledger,
    engine_context_key,
    files_in,
    is_live,
    load_settings,
)
from watermark.ledger.vault import VAULT_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from watermark.ledger import LedgerSettings
    from watermark.ledger.reading import VerifiedNode
    from watermark.ledger.store import SegmentStore

ledger_option = click.option(
    "--ledger",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    metavar="LEDGER.toml",
    help="The file that describes the ledger.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
node_option = click.option("--node", help="Of this machine only.  [default: of all]")
keys_file_option = click.option(
    "--keys",
    "keys_file",
    type=click.Path(path_type=Path),
    metavar="KEYS.toml",
    help="Of a ledger that keeps tokens: the keys that marked, to make fingerprints.",
)

_NEW_EPILOG = """\
Examples:

\b
  watermark ledger new --dir /var/lib/output-watermark/ledger --name example.com/ledger
  watermark ledger new --dir ledger --name example.com/ledger --keeps tokens \
    --store s3://bucket/ledger --keys ../keys/KEYS.toml
"""


@click.group()
def ledger() -> None:
    """Keep, check and read what was delivered."""


@ledger.command(epilog=_NEW_EPILOG)
@click.option("--dir", "folder", required=True, type=click.Path(path_type=Path), help="Where to.")
@click.option("--name", required=True, help="Name of the signing key, best a URL without scheme.")
@click.option(
    "--keeps",
    type=click.Choice([one.value for one in Keeps]),
    default=Keeps.CONTEXTS.value,
    show_default=True,
    help="What is kept of each reply.",
)
@click.option("--store", default="segments", show_default=True, help="Where segments go.")
@click.option("--keys", default="", help="The KEYS.toml whose log takes the roots.")
def new(*, folder: Path, name: str, keeps: str, store: str, keys: str) -> int:
    """Make a ledger: write DIR/LEDGER.toml, its secret and its signing key."""
    settings = create_ledger(
        folder / "LEDGER.toml",
        name=name,
        secret=secrets.token_bytes(32),
        seed=secrets.token_bytes(32),
        keeps=Keeps(keeps),
        store=store,
        keys=keys,
    )
    render.write_note(f"made {settings.path}, its secret and its signing key")
    render.write_hints(
        [
            f'name it in the proxy\'s configuration: [ledger] file = "{settings.path}"',
            "back both key files up: without the secret no kept token can be read",
            f"verifier key: {settings.verifier}",
        ]
    )
    return render.EXIT_DONE


@ledger.command()
@ledger_option
@node_option
@click.option("--quiet", is_flag=True, help="Say only what is in the way.")
def seal(*, path: Path, node: str | None, quiet: bool) -> int:
    """Seal closed files into a segment, and send what waits to the store.

    The proxy does this by itself; run it for a machine whose proxy has stopped.
    """
    from watermark.ledger.sealing import Sealer  # noqa: PLC0415

    settings = load_settings(path)
    if not settings.store:
        raise LedgerConfigError(f"{path} names no store; add one to seal")
    if not settings.rows.is_dir():
        render.write_note("nothing was written yet")
        return render.EXIT_DONE
    sealer = Sealer(
        settings,
        node=node or settings.node_or(platform.node()),
        signer=settings.signer(),
        key_log=settings.key_log(),
    )
    done = sealer.run(_now_us())
    if done is None:
        if not quiet:
            render.write_note("another process is sealing")
        return render.EXIT_DONE
    if done.segment is not None and not quiet:
        segment = done.segment
        render.write_note(
            f"sealed segment {segment.number}: {segment.rows} rows, {len(segment.gaps)} gaps"
        )
    if done.problem:
        raise LedgerUnavailableError(f"{done.waiting} segments wait: {done.problem}")
    return render.EXIT_DONE


@ledger.command()
@ledger_option
@json_option
def status(*, path: Path, as_json: bool) -> int:
    """Say what is being written, what waits, and what was sealed last on this machine."""
    settings = load_settings(path)
    facts = _facts(settings)
    if as_json:
        render.write_objects([facts])
    else:
        width = max(map(len, facts))
        render.write_data("".join(f"{name:<{width}}  {value}\n" for name, value in facts.items()))
    return render.EXIT_DONE


@ledger.command()
@ledger_option
@node_option
@click.option("--store", help="Look there instead.")
@click.option("--log", "with_log", is_flag=True, help="Also look for the roots in the log of keys.")
@json_option
def verify(
    *, path: Path, node: str | None, store: str | None, with_log: bool, as_json: bool
) -> int:
    """Hold every segment against its signed header, and every header against the one before."""
    settings = load_settings(path)
    verified = _verified(settings, _store(settings, store), node, with_log=with_log)
    objects = [_described(one) for one in verified]
    if as_json:
        render.write_objects(objects)
    else:
        render.write_data("".join(_line(one) for one in objects))
    if with_log and not all(one.is_logged for one in verified):
        render.write_note("not every root is in the log of keys; `watermark ledger seal` logs them")
        return render.EXIT_ERROR
    return render.EXIT_DONE


@ledger.command()
@ledger_option
@node_option
@click.option("--store", help="Look there instead.")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help=".parquet, .jsonl"
)
@click.option("--tokens", "with_tokens", is_flag=True, help="Decrypt kept tokens into it.")
def export(*, path: Path, node: str | None, store: str | None, out: Path, with_tokens: bool) -> int:
    """Write one row a reply: who, when, by which key, and how it ended; `open` where it did not."""
    from watermark.ledger.arrow import write_tables  # noqa: PLC0415
    from watermark.ledger.reading import (  # noqa: PLC0415
        REPLY_COLUMNS,
        replies_of,
        tables,
        with_plain_tokens,
    )

    settings = load_settings(path)
    place = _store(settings, store)
    verified = _verified(settings, place, node)
    columns = (*REPLY_COLUMNS, "contents") if with_tokens else REPLY_COLUMNS
    replies = replies_of(
        tables(place, verified, columns),
        n_rows=sum(one.rows for one in verified),
        folder=out.parent,
        with_contents=with_tokens,
    )
    if with_tokens:
        vault = _vault(settings)
        replies = (with_plain_tokens(part, vault) for part in replies)
    counts: Counter[str] = Counter()
    n_replies = write_tables(_counted(replies, counts), out)
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    render.write_note(f"wrote {n_replies} replies to {out}: {told or 'none'}")
    return render.EXIT_DONE


@ledger.command()
@ledger_option
@node_option
@click.option("--store", help="Look there instead.")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help=".parquet, .jsonl"
)
@click.option("--key-id", help="Of this key only.")
@keys_file_option
def contexts(
    *,
    path: Path,
    node: str | None,
    store: str | None,
    out: Path,
    key_id: str | None,
    keys_file: Path | None,
) -> int:
    """Write the delivered contexts' fingerprints, and how many conversations hold each.

    It is what a supervised audit of a model filters by; keep it as secret as the key.
    """
    from watermark.ledger.arrow import write_tables  # noqa: PLC0415
    from watermark.ledger.reading import count_contexts, of_key  # noqa: PLC0415

    settings = load_settings(path)
    place = _store(settings, store)
    verified = _verified(settings, place, node)
    rows = _rows(settings, place, verified, keys_file)
    n_bytes = sum(header.n_bytes for one in verified for header in one.kept)
    counted = count_contexts(
        rows if key_id is None else (of_key(part, key_id) for part in rows),
        n_bytes=n_bytes,
        folder=out.parent,
    )
    n_contexts = write_tables(counted, out)
    render.write_note(f"wrote {n_contexts} contexts to {out}")
    return render.EXIT_DONE


@ledger.command()
@click.argument("account")
@ledger_option
def erase(*, account: str, path: Path) -> int:
    """Destroy the data key of ACCOUNT: what was kept of its replies cannot be read any more.

    Run it on every machine of the deployment; each has data keys of its own.
    """
    settings = load_settings(path)
    if settings.keeps is not Keeps.TOKENS and not (path.parent / VAULT_FILE).exists():
        render.write_note("this ledger keeps no tokens, so nothing of a text is to be erased")
        return render.EXIT_DONE
    vault = _vault(settings)
    was_there = vault.erase(Pseudonyms(settings.secret()).of_account(account), _now_us())
    vault.close()
    found = "destroyed the data key of" if was_there else "there is no data key of"
    render.write_note(f"{found} account {account!a} on this machine")
    return render.EXIT_DONE


def _counted(replies: Iterator[Any], counts: Counter[str]) -> Iterator[Any]:
    """Yield tables of replies, and count how they ended."""
    for part in replies:
        counts.update(part["outcome"].to_pylist())
        yield part


def _rows(
    settings: LedgerSettings,
    store: SegmentStore,
    verified: Sequence[VerifiedNode],
    keys_file: Path | None,
) -> Iterator[Any]:
    """Yield tables of rows; with keys, what was kept as tokens becomes fingerprints."""
    from watermark.ledger.reading import (  # noqa: PLC0415
        CONTEXT_COLUMNS,
        TOKEN_COLUMNS,
        tables,
        with_fingerprints,
    )

    if keys_file is None:
        yield from tables(store, verified, CONTEXT_COLUMNS)
        return
    ring, vault = load_keys(keys_file), _vault(settings)
    context_key = engine_context_key(settings.secret())
    for table in tables(store, verified, TOKEN_COLUMNS):
        yield with_fingerprints(table, vault, ring, context_key)
    vault.close()


def _store(settings: LedgerSettings, url: str | None) -> SegmentStore:
    from watermark.ledger.store import SegmentStore  # noqa: PLC0415

    address = url or settings.store
    if not address:
        raise LedgerConfigError(f"{settings.path} names no store; give --store")
    return SegmentStore(address)


def _verified(
    settings: LedgerSettings, store: SegmentStore, node: str | None, *, with_log: bool = False
) -> list[VerifiedNode]:
    """Return the nodes whose chains hold.

    Raises:
        SegmentError: One does not.
        LedgerConfigError: There is no such node, or no log to ask.
    """
    from watermark.ledger.reading import verify_node  # noqa: PLC0415

    logged = None
    if with_log:
        log = settings.key_log()
        if log is None:
            raise LedgerConfigError(
                f"{settings.path} names no KEYS.toml with a log; leave out --log"
            )
        logged = log.read().index
    nodes = store.nodes()
    if node is not None and node not in nodes:
        raise LedgerConfigError(f"no node {node!a} has sealed anything in {store.url}")
    wanted = nodes if node is None else [node]
    return [verify_node(store, one, settings.verifier, logged=logged) for one in wanted]


def _facts(settings: LedgerSettings) -> dict[str, object]:
    names = files_in(settings.rows) if settings.rows.is_dir() else []
    paths = [settings.rows / str(name) for name in names]
    live = sum(map(is_live, paths))
    sealed = sorted(settings.rows.glob("headers/*.header"))
    waiting = sorted(settings.rows.glob("outbox/*.header"))
    last = (waiting or sealed)[-1].stem if waiting or sealed else "0"
    return {
        "ledger": str(settings.path),
        "keeps": settings.keeps.value,
        "store": settings.store or "none",
        "files being written": live,
        "files to be sealed": len(names) - live,
        "bytes not in the store": sum(
            one.stat().st_size for one in settings.rows.rglob("*") if one.is_file()
        ),
        "segments waiting for the store": len(waiting),
        "last segment": int(last),
    }


def _described(one: VerifiedNode) -> dict[str, object]:
    return {
        "node": one.node,
        "segments": len(one.headers),
        "expired": len(one.headers) - len(one.kept),
        "rows": one.rows,
        "begun": one.begins,
        "ended": one.ends,
        "logged": one.is_logged,
        "gaps": [msgspec.to_builtins(gap) for gap in one.gaps],
    }


def _line(facts: dict[str, Any]) -> str:
    gaps = Counter(str(gap["cause"]) for gap in facts["gaps"])
    told = ", ".join(f"{count} {cause}" for cause, count in sorted(gaps.items())) or "none"
    return (
        f"{facts['node']}: {facts['segments']} segments hold ({facts['expired']} expired), "
        f"{facts['begun']} replies begun, {facts['ended']} ended; gaps: {told}\n"
    )


def _vault(settings: LedgerSettings) -> Vault:
    return Vault(settings.path.parent / VAULT_FILE, settings.secret(), secrets.token_bytes)


def _now_us() -> int:
    return int(utc_now().timestamp() * 1e6)
