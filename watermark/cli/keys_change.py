"""`watermark keys rotate` and its like: what changes `KEYS.toml`."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import click

from watermark.cli import render
from watermark.cli.desk import Desk, Time, dry_run_option, keys_option, operator_option
from watermark.cli.keys import file_stem
from watermark.errors import KeyFileError, KeysConfigError
from watermark.keys import DEFAULT_SCOPE, SECRET_BYTES, KeyState, SecretKey
from watermark.keys.commitment import gap_entry
from watermark.keys.disclosure import disclose as make_disclosure
from watermark.keys.disclosure import format_disclosure
from watermark.keys.folder import write_synced
from watermark.keys.keyfile import sync_folder
from watermark.keys.lifecycle import (
    end_key,
    parse_duration,
    pending_predecessor,
    prepare_rotation,
    roll_back,
    rotate_now,
)
from watermark.keys.record import format_time

if TYPE_CHECKING:
    from datetime import datetime

    from watermark.keys.lifecycle import Rotation

_FILE_PREFIX = "file:"
_ROTATE_EPILOG = """\
Examples:

\b
  watermark keys rotate --keys KEYS.toml --period 30d
  watermark keys rotate --keys KEYS.toml --id 2026-12 --at 2026-12-01T00:00:00Z
  watermark keys rotate --keys KEYS.toml --now --compromised 2026-11
"""
scope_option = click.option("--scope", default=DEFAULT_SCOPE, show_default=True, help="Which.")


@click.command(epilog=_ROTATE_EPILOG, short_help="Prepare the next key, or change it at once.")
@keys_option
@scope_option
@click.option("--id", "key_id", default="", help="Name of the new key.  [default: the date]")
@click.option("--at", type=Time(), help="When it takes over.  [default: when the last one ends]")
@click.option("--period", help="How long it marks, such as 30d.  [default: as the last one]")
@click.option("--now", "at_once", is_flag=True, help="It takes over at once.")
@click.option("--compromised", metavar="ID", help="With --now: others may know this key.")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), help="Folder of the new key file."
)
@operator_option
@dry_run_option
def rotate(
    *,
    keys_file: Path,
    scope: str,
    key_id: str,
    at: datetime | None,
    period: str | None,
    at_once: bool,
    compromised: str | None,
    folder: Path | None,
    operator: str | None,
    dry_run: bool,
) -> int:
    """Make the key that comes next: its secret, its record, its commitment, in one edit.

    The last key gets its end, the new one begins there: no instant is without a key, and none
    has two. With --now the new key marks from this instant on.
    """
    if (at_once and (at or period)) or (compromised and not at_once):
        raise click.UsageError("--now goes without --at and --period; --compromised needs --now")
    desk = Desk(keys_file, operator)
    draft = _draft(
        desk,
        scope=scope,
        key_id=key_id,
        at=at,
        period=period,
        at_once=at_once,
        compromised=compromised,
    )
    path = _secret_path(desk, draft, folder)
    text = draft.text.replace(_PLACE, _reference(path, desk.folder))
    if dry_run:
        desk.show(text)
        render.write_note(f"nothing was changed; key {draft.key_id} would mark {_when(draft)}")
        return render.EXIT_DONE
    secret = SecretKey(draft.key_id, secrets.token_bytes(SECRET_BYTES))
    needs_gap = at_once and desk.document.options.require_timestamp
    reason = "compromised" if compromised else "rotated at once"
    desk.apply(
        text,
        detail=f"rotate {draft.before} to {draft.key_id}",
        secrets=[(path, secret)],
        gap=lambda _: [gap_entry(draft.key_id, desk.now, reason)] if needs_gap else (),
    )
    if needs_gap:
        desk.note("gap", draft.key_id, f"marks before its commitment is stamped: {reason}")
    _say_rotated(desk, draft, path, at_once=at_once)
    return render.EXIT_DONE


_PLACE = "file:@@SECRET@@"


def _draft(
    desk: Desk,
    *,
    scope: str,
    key_id: str,
    at: datetime | None,
    period: str | None,
    at_once: bool,
    compromised: str | None,
) -> Rotation:
    """Return the edit, the place of the secret left open."""
    if not at_once:
        return prepare_rotation(
            desk.text,
            desk.known,
            scope=scope,
            now=desk.now,
            reference=_PLACE,
            taken=desk.taken(),
            key_id=key_id,
            at=at,
            period=parse_duration(period) if period else None,
        )
    if compromised:
        found = desk.records_of(compromised)[0]
        scope = found.scope
        if found.state_at(desk.now) is not KeyState.MARKING:
            raise KeysConfigError(
                f"key {compromised!a} does not mark now; set state 'compromised' and "
                "compromised_at in its record, no rotation is needed"
            )
    return rotate_now(
        desk.text,
        desk.known,
        scope=scope,
        now=desk.now,
        reference=_PLACE,
        taken=desk.taken(),
        key_id=key_id,
        compromised=compromised or "",
    )


def _secret_path(desk: Desk, draft: Rotation, folder: Path | None) -> Path:
    """Return where the new key file goes: where the last one lies, unless told otherwise."""
    if folder is None:
        reference = desk.reference_of(draft.before)
        place = reference.removeprefix(_FILE_PREFIX)
        is_file = reference.startswith(_FILE_PREFIX)
        folder = (desk.folder / place).parent if is_file else desk.folder
    return folder.absolute() / f"{file_stem(draft.key_id)}.key"


def _reference(path: Path, folder: Path) -> str:
    """Return the reference to a key file, as TOML escapes it inside a string."""
    base = folder.absolute()
    place = str(path.relative_to(base)) if path.is_relative_to(base) else str(path)
    return _FILE_PREFIX + place.replace("\\", "\\\\").replace('"', '\\"')


def _when(draft: Rotation) -> str:
    stop = draft.fields[0].not_after
    until = "" if stop is None else f" to {format_time(stop)}"
    return f"from {format_time(draft.at)}{until}"


def _say_rotated(desk: Desk, draft: Rotation, path: Path, *, at_once: bool) -> None:
    render.write_note(f"wrote the secret to {path}, readable by you only")
    render.write_note(f"key {draft.key_id} follows {draft.before} and marks {_when(draft)}")
    hints = ["back the key file up: without it, text marked with it can no longer be recognized"]
    if desk.log() is None:
        hints.append("its commitment is not logged; `watermark keys commit --create-log NAME`")
    elif not desk.send_stamps():
        hints.append("the stamp waits; run `watermark keys commit` when the authority answers")
    after = "at once: run `watermark-proxy reload` where files are not watched"
    before = (
        "bring both files to every machine before then; `watermark keys rollback` takes it back"
    )
    render.write_hints([*hints, after if at_once else before])


@click.command(short_help="Take a pending rotation back.")
@keys_option
@scope_option
@operator_option
@dry_run_option
def rollback(*, keys_file: Path, scope: str, operator: str | None, dry_run: bool) -> int:
    """Remove the key that is last in a scope and has not marked yet.

    The key before it gets the end back that it had. The key file stays where it is.
    """
    desk = Desk(keys_file, operator)
    before = pending_predecessor(desk.known, scope)
    former = None
    if before is not None:
        for line in reversed(desk.history().lines):
            values = line.fields or {}
            if (line.key_id, values.get("unit")) != (before.key_id, before.unit):
                continue
            stop = values.get("not_after")
            if stop != (before.not_after and before.not_after.isoformat()):
                former = None if stop is None else Time().convert(stop, None, None)
                break
    edit = roll_back(desk.text, desk.known, scope=scope, now=desk.now, former_stop=former)
    if dry_run:
        desk.show(edit.text)
        render.write_note("nothing was changed")
        return render.EXIT_DONE
    desk.apply(edit.text, detail=f"roll back {edit.key_id}")
    desk.note("removed", edit.key_id, "rolled back before it marked")
    stop = "for ever" if former is None else f"to {format_time(former)}"
    render.write_note(f"key {edit.key_id} is taken back; {edit.before} marks {stop}")
    render.write_hints(["its key file is still there, and its id is not to be used again"])
    return render.EXIT_DONE


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
        desk.show(text)
        render.write_note("nothing was changed")
        return render.EXIT_DONE
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
        desk.show(text)
        render.write_note("nothing was changed")
        return render.EXIT_DONE
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


@click.command(short_help="Delete the secret of a retired key for good.")
@click.argument("key_id", metavar="ID")
@keys_option
@click.option("--yes", is_flag=True, help="Really: nothing brings it back.")
@operator_option
@dry_run_option
def destroy(*, key_id: str, keys_file: Path, yes: bool, operator: str | None, dry_run: bool) -> int:
    """Delete a key file; text marked with the key can never be recognized again.

    The record and the commitment stay.
    """
    desk = Desk(keys_file, operator)
    text = end_key(desk.text, desk.records_of(key_id), KeyState.DESTROYED, desk.now)
    reference = desk.reference_of(key_id)
    if dry_run:
        desk.show(text)
        render.write_note("nothing was changed")
        return render.EXIT_DONE
    if not yes:
        raise click.UsageError(f"this cannot be undone; add --yes to destroy {key_id}")
    desk.apply(text, detail="destroy")
    scheme, _, place = reference.partition(":")
    if scheme in {"file", "age"}:
        path = desk.folder / place
        try:
            path.unlink(missing_ok=True)
        except OSError as err:
            raise KeyFileError(f"cannot delete {path}; delete it by hand") from err
        sync_folder(path)
        render.write_note(f"deleted {path}; key {key_id} is destroyed")
        render.write_hints(["delete its backups too; its commitment stays in the log"])
    else:
        render.write_note(f"key {key_id} is destroyed here")
        render.write_hints([f"delete the secret where it is kept: {scheme}"])
    return render.EXIT_DONE
