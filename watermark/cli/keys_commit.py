"""`watermark keys commit`, `prove` and `verify`: that a key was fixed before it was used."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from watermark.cli import render
from watermark.cli.desk import Desk, operator_option
from watermark.cli.keys import file_stem
from watermark.cli.options import keys_option
from watermark.errors import CommitmentError, KeysConfigError, LogError
from watermark.keys.commitment import beacon_entry, root_of_entry
from watermark.keys.disclosure import parse_disclosure
from watermark.keys.editing import add_table
from watermark.keys.folder import locked, write_synced
from watermark.keys.keyfile import parse_key_file, read_private_file
from watermark.keys.keylog import create_log, entry_of
from watermark.keys.stamps import verify_stamp
from watermark.log import NoteVerifier, TlogProof, verify_tlog_proof

_COMMIT_EPILOG = """\
Examples:

\b
  watermark keys commit --keys KEYS.toml --create-log example.com/watermark-keys
  watermark keys commit --keys KEYS.toml
  watermark keys commit --keys KEYS.toml --operator-secret op.key --id 2027-01 --beacon "drand 12"
"""


@click.command(epilog=_COMMIT_EPILOG, short_help="Log what fixes every key.")
@keys_option
@click.option("--create-log", metavar="NAME", help="Make the log first, under this name.")
@click.option(
    "--operator-secret",
    type=click.Path(path_type=Path),
    help="Commit to a share of this key file, for a key that is made later with --beacon.",
)
@click.option("--id", "key_id", help="With --operator-secret: the key that is made later.")
@click.option("--beacon", help="With --operator-secret: which value will go into it.")
@operator_option
def commit(
    *,
    keys_file: Path,
    create_log: str | None,
    operator_secret: Path | None,
    key_id: str | None,
    beacon: str | None,
    operator: str | None,
) -> int:
    """Append the commitment of every key to the log, and ask for the stamps that wait.

    What is logged already is not logged again.
    """
    if bool(operator_secret) != bool(key_id) or bool(key_id) != bool(beacon):
        raise click.UsageError("--operator-secret, --id and --beacon go together")
    desk = Desk(keys_file, operator)
    if create_log:
        _create(desk, create_log)
    log = desk.log()
    if log is None:
        raise CommitmentError(
            f"{keys_file} names no log; `watermark keys commit --create-log NAME` makes one"
        )
    ring = desk.ring()
    entries = [entry_of(record) for record in ring if record.secret.is_epoch_secret]
    if operator_secret and key_id and beacon:
        data = read_private_file(operator_secret, limit=1024)
        secret = parse_key_file(data, path=operator_secret)
        entries = [beacon_entry(secret, key_id, beacon)]
    with locked(desk.folder):
        known = log.read().index
        checkpoint = log.append(entries)
        added = [entry for entry in entries if entry not in known]
        desk.record(ring, "commit")
    n_new = checkpoint.size if create_log else len(added)  # all that is in a new log is new
    render.write_note(f"logged {n_new} new commitments; the log has {checkpoint.size} entries")
    desk.send_stamps()
    render.write_hints(
        ["publish the folder of the log, so that others have seen it before the keys are used"]
    )
    return render.EXIT_DONE


def _create(desk: Desk, name: str) -> None:
    """Make a log, and name it in the file."""
    if desk.document.options.log is not None:
        raise KeysConfigError(f"{desk.path} names a log already; leave out --create-log")
    table = create_log(desk.folder, name, secrets.token_bytes(32))
    desk.apply(add_table(desk.text, table), detail="create log", commits=True)
    render.write_note(f"made log {name} in {desk.folder / 'log'}, signed by {desk.folder}/log.key")


@click.command(short_help="Write the proof that a key was committed to.")
@click.argument("key_id", metavar="ID")
@keys_option
@click.option("--unit", help="Which record, where the key has several.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Where to.  [default: here]")
def prove(*, key_id: str, keys_file: Path, unit: str | None, folder: Path | None) -> int:
    """Write ID.commitment (the log entry) and ID.tlog-proof (that the log holds it).

    The proof is of a checkpoint that is stamped, where there is one, and carries the stamp.
    """
    desk = Desk(keys_file)
    records = [one for one in desk.ring().by_id(key_id) if unit in {None, one.unit}]
    if len(records) != 1:
        raise KeysConfigError(f"{len(records)} records fit; give ID, and --unit where several do")
    log = desk.log()
    if log is None:
        raise CommitmentError(f"{keys_file} names no log; nothing is committed")
    entry = entry_of(records[0])
    proof = log.prove(entry)
    folder = folder or Path()
    for suffix, data in (("commitment", entry), ("tlog-proof", proof.format())):
        path = folder / f"{file_stem(key_id)}.{suffix}"
        write_synced(path, data)
        render.write_note(f"wrote {path}")
    stamped = "with a time stamp" if proof.extra else "without a time stamp"
    render.write_note(f"entry {proof.index} of log {log.verifier.name}, {stamped}")
    render.write_hints([f"verifier key: {log.verifier}"])
    return render.EXIT_DONE


@click.command(short_help="Check a proof, with no one to ask.")
@click.argument("commitment", type=click.Path(path_type=Path))
@click.argument("proof", type=click.Path(path_type=Path))
@click.option("--verifier", required=True, help="The log's public key, name+id+base64.")
@click.option(
    "--disclosed", type=click.Path(path_type=Path), help="A disclosed subkey that it must open."
)
@click.option(
    "--roots", type=click.Path(path_type=Path), help="Certificates of time-stamp authorities, PEM."
)
def verify(
    *, commitment: Path, proof: Path, verifier: str, disclosed: Path | None, roots: Path | None
) -> int:
    """Check that COMMITMENT is in the log by PROOF, stamped, and opened by a disclosed subkey."""
    entry, data = _read(commitment), _read(proof)
    try:
        key = NoteVerifier.parse(verifier)
        parsed = TlogProof.parse(data)
        shown = verify_tlog_proof(parsed, entry, key.name, [key])
    except LogError as err:
        raise CommitmentError(f"{proof}: {err}; ask for the proof again") from err
    root = root_of_entry(entry)
    lines = [f"entry {shown.inclusion.index} of log {key.name} is this commitment"]
    if roots is not None:
        stamp = verify_stamp(_read(roots), shown.checkpoint, parsed.extra)
        lines.append(f"stamped at {stamp.time.isoformat()}")
    if disclosed is not None:
        disclosure = parse_disclosure(_read(disclosed), path=disclosed)
        disclosure.verify(root)
        lines.append(f"the context subkey of {disclosure.key.key_id} is the committed one")
    render.write_data("".join(f"{line}\n" for line in lines))
    return render.EXIT_DONE


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise CommitmentError(f"cannot read {path}; correct the path") from err
