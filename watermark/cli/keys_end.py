"""`watermark keys suspend`, `disclose` and `destroy`: what ends the marking of a key, or a key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from watermark.cli import render
from watermark.cli.desk import Desk, dry_run_option, operator_option
from watermark.cli.keys import file_stem
from watermark.cli.options import keys_option
from watermark.errors import KeyFileError, KeysConfigError
from watermark.keys import KeyState
from watermark.keys.disclosure import disclose as make_disclosure
from watermark.keys.disclosure import format_disclosure
from watermark.keys.folder import write_synced
from watermark.keys.keyfile import sync_folder
from watermark.keys.lifecycle import (
    DESTRUCTION_DELAY,
    complete_destruction,
    end_key,
    parse_duration,
    schedule_destruction,
    take_back_destruction,
)
from watermark.keys.record import (
    format_time,
)

if TYPE_CHECKING:
    from datetime import timedelta

    from watermark.keys import KeyFields

_SHORTEST_DELAY: Final = DESTRUCTION_DELAY / 30
_DESTROY_EPILOG: Final = """\
Examples:

\b
  watermark keys destroy 2024-11 --keys KEYS.toml --dry-run
  watermark keys destroy 2024-11 --keys KEYS.toml
  watermark keys destroy 2024-11 --keys KEYS.toml --restore
  watermark keys destroy 2024-11 --keys KEYS.toml --yes
"""


@click.command(short_help="Stop a key from marking, for the time being.")
@click.argument("key_id", metavar="ID")
@keys_option
@click.option("--resume", is_flag=True, help="Take a suspended key up again.")
@operator_option
@dry_run_option
def suspend(
    *, key_id: str, keys_file: Path, resume: bool, operator: str | None, dry_run: bool
) -> int:
    """Stop a key from marking; its scope goes unmarked until it is taken up again."""
    desk = Desk(keys_file, operator)
    state = KeyState.MARKING if resume else KeyState.SUSPENDED
    text = end_key(desk.text, desk.records_of(key_id), state, desk.now)
    if dry_run:
        return desk.only_shows(text)
    desk.apply(text, detail="resume" if resume else "suspend")
    if resume:
        render.write_note(f"key {key_id} marks again between its dates")
    else:
        render.write_note(f"key {key_id} is suspended; what it marked is not marked now")
        render.write_hints(
            [
                f"`watermark keys suspend {key_id} --resume` takes it up again",
                "`watermark keys rotate --now` puts another key in its place",
            ]
        )
    return render.EXIT_DONE


@click.command(short_help="Make the context subkey of a retired key public.")
@click.argument("key_id", metavar="ID")
@keys_option
@click.option("--output", type=click.Path(path_type=Path), help="File.  [default: ID.context]")
@operator_option
@dry_run_option
def disclose(
    *, key_id: str, keys_file: Path, output: Path | None, operator: str | None, dry_run: bool
) -> int:
    """Write the file with which anyone detects text marked with this key, and nothing more.

    It derives no account, no noise and no other epoch. From then on the key proves things about
    older text only, and never marks.
    """
    desk = Desk(keys_file, operator)
    text = end_key(desk.text, desk.records_of(key_id), KeyState.DISCLOSED, desk.now)
    if dry_run:
        return desk.only_shows(text)
    ring = desk.ring()
    if not ring.by_id(key_id):
        raise KeysConfigError(f"key {key_id!a} is not at hand; bring its key file back first")
    path = output or desk.folder / f"{file_stem(key_id)}.context"
    if path.exists():
        raise KeyFileError(f"{path} exists and is never overwritten; choose another --output")
    desk.apply(text, detail="disclose")
    write_synced(path, format_disclosure(make_disclosure(ring.by_id(key_id)[0].secret)))
    sync_folder(path)
    render.write_note(f"wrote the context subkey of {key_id} to {path}, for everyone to read")
    render.write_hints(
        [
            f'`secret = "context-subkey:{path.name}"` in a disclosed record detects with it',
            f"`watermark keys prove {key_id}` writes the proof that it was fixed beforehand",
        ]
    )
    return render.EXIT_DONE


@click.command(epilog=_DESTROY_EPILOG, short_help="Delete a retired key, after a month of grace.")
@click.argument("key_id", metavar="ID")
@keys_option
@click.option("--after", help="How long it can be restored, 1d or more.  [default: 30d]")
@click.option("--restore", is_flag=True, help="Take it back while that is possible.")
@click.option("--yes", is_flag=True, help="Once its time has come: really delete the secret.")
@operator_option
@dry_run_option
def destroy(
    *,
    key_id: str,
    keys_file: Path,
    after: str | None,
    restore: bool,
    yes: bool,
    operator: str | None,
    dry_run: bool,
) -> int:
    """Plan the end of a key, and delete its secret once the time has come.

    The first call archives the key: it detects no more, and its secret stays where it is. With
    --restore it is what it was before. After 30 days a second call with --yes deletes the secret;
    text marked with it can never be recognized again. The record and the commitment stay.
    """
    if restore and (after or yes):
        raise click.UsageError("--restore goes without --after and --yes")
    desk = Desk(keys_file, operator)
    records = desk.records_of(key_id)
    planned = records[0].destroy_at
    if restore:
        return _restore(desk, records, dry_run=dry_run)
    if planned is None or planned > desk.now:
        delay = DESTRUCTION_DELAY if after is None else parse_duration(after)
        return _schedule(desk, records, delay, dry_run=dry_run)
    if not (yes or dry_run):
        raise click.UsageError(f"this cannot be undone; add --yes to destroy {key_id}")
    return _destroy(desk, records, dry_run=dry_run)


def _schedule(desk: Desk, records: list[KeyFields], delay: timedelta, *, dry_run: bool) -> int:
    if delay < _SHORTEST_DELAY:
        raise KeysConfigError("a key is destroyed after 1d at the soonest; give a longer --after")
    key_id = records[0].key_id
    text, at = schedule_destruction(desk.text, records, now=desk.now, after=delay)
    if dry_run:
        return desk.only_shows(text)
    desk.apply(text, detail=f"to be destroyed at {format_time(at)}")
    render.write_note(f"key {key_id} is archived, and to be destroyed at {format_time(at)}")
    render.write_hints(
        [
            f"`watermark keys destroy {key_id} --restore` takes it back until then",
            f"`watermark keys destroy {key_id} --yes` deletes its secret from then on",
            "no process detects it after the next reload: see whether anyone misses it",
        ]
    )
    return render.EXIT_DONE


def _restore(desk: Desk, records: list[KeyFields], *, dry_run: bool) -> int:
    text = take_back_destruction(desk.text, records, desk.now)
    if dry_run:
        return desk.only_shows(text)
    desk.apply(text, detail="restored")
    state = desk.records_of(records[0].key_id)[0].state_at(desk.now).value
    render.write_note(f"key {records[0].key_id} is restored: its state is {state}")
    return render.EXIT_DONE


def _destroy(desk: Desk, records: list[KeyFields], *, dry_run: bool) -> int:
    key_id = records[0].key_id
    reference = desk.reference_of(key_id)
    text = complete_destruction(desk.text, records)
    if dry_run:
        return desk.only_shows(text, f"nothing was changed; {reference} would be deleted")
    desk.apply(text, detail="destroyed")
    try:
        desk.secrets().remove(reference)
    except KeysConfigError as err:
        render.write_note(f"key {key_id} is destroyed here; {err}")
        render.write_hints([f"delete {reference} by hand, and its backups"])
        return render.EXIT_DONE
    render.write_note(f"deleted {reference}; key {key_id} is destroyed")
    render.write_hints(["delete its backups too; its commitment stays in the log"])
    return render.EXIT_DONE
