"""`watermark keys rotate` and `rollback`: which key comes after which."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from watermark.cli import render
from watermark.cli.desk import Desk, Time, dry_run_option, operator_option
from watermark.cli.keys import file_stem
from watermark.cli.keys_recipe import engine_recipe
from watermark.cli.options import keys_option
from watermark.errors import KeysConfigError
from watermark.keys import DEFAULT_SCOPE, SECRET_BYTES, KeyState, SecretKey
from watermark.keys.commitment import gap_entry
from watermark.keys.lifecycle import (
    NewKey,
    parse_duration,
    pending_predecessor,
    prepare_rotation,
    roll_back,
    rotate_now,
)
from watermark.keys.placing import place_beside, place_in
from watermark.keys.record import (
    format_time,
)

if TYPE_CHECKING:
    from datetime import datetime

    from watermark.keys.lifecycle import Rotation

_ROTATE_EPILOG: Final = """\
Examples:

\b
  watermark keys rotate --keys KEYS.toml --period 30d
  watermark keys rotate --keys KEYS.toml --id 2026-12 --at 2026-12-01T00:00:00Z
  watermark keys rotate --keys KEYS.toml --to age:keys --recipient age1...
  watermark keys rotate --keys KEYS.toml --now --compromised 2026-11
"""
scope_option = click.option("--scope", default=DEFAULT_SCOPE, show_default=True, help="Which.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What was asked for: which key comes, when, and where its secret goes."""

    scope: str
    key_id: str
    at: datetime | None
    period: str | None
    at_once: bool
    compromised: str
    folder: Path | None
    to: str
    secret: str
    recipients: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.at_once and (self.at or self.period):
            raise click.UsageError("--now goes without --at and --period")
        if self.compromised and not self.at_once:
            raise click.UsageError("--compromised needs --now")
        if sum(map(bool, (self.folder, self.to, self.secret))) > 1:
            raise click.UsageError("--dir, --to and --secret exclude each other; give one of them")


@click.command(epilog=_ROTATE_EPILOG, short_help="Prepare the next key, or change it at once.")
@keys_option
@scope_option
@click.option("--id", "key_id", default="", help="Name of the new key.  [default: the date]")
@click.option("--at", type=Time(), help="When it takes over.  [default: when the last one ends]")
@click.option("--period", help="How long it marks, such as 30d.  [default: as the last one]")
@click.option("--now", "at_once", is_flag=True, help="It takes over at once.")
@click.option(
    "--compromised", default="", metavar="ID", help="With --now: others may know this key."
)
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), help="Write a key file into this folder."
)
@click.option(
    "--to",
    default="",
    metavar="PLACE",
    help="Where its secret goes: file:FOLDER, age:FOLDER, vault:MOUNT/FOLDER#FIELD or "
    "vault-transit:MOUNT/KEY#FOLDER.  [default: beside the last one]",
)
@click.option(
    "--recipient",
    "recipients",
    multiple=True,
    help="Of an age file: who can open it; several times.  [default: [age] recipients, identity]",
)
@click.option(
    "--secret", default="", metavar="REFERENCE", help="Take a secret that lies there already."
)
@operator_option
@dry_run_option
def rotate(*, keys_file: Path, operator: str | None, dry_run: bool, **asked: object) -> int:
    """Make the key that comes next: its secret, its record, its commitment, in one edit.

    The last key gets its end, the new one begins there: no instant is without a key, and none
    has two. With --now the new key marks from this instant on. Of a scope whose key an engine
    holds, it prints how to restart the engines, and changes nothing.
    """
    order = _Asked(**asked)  # type: ignore[arg-type]  # click has the types
    desk = Desk(keys_file, operator)
    recipe = engine_recipe(desk.known, order.scope)
    if recipe:
        render.write_data(recipe)
        render.write_note("nothing was changed; an engine's key is rotated by restarting engines")
        return render.EXIT_ERROR
    draft = _draft(desk, order)
    if dry_run:
        where = draft.reference
        note = f"nothing was changed; key {draft.key_id} would mark {_when(draft)}, from {where}"
        return desk.only_shows(draft.text, note)
    made = [] if order.secret else [SecretKey(draft.key_id, secrets.token_bytes(SECRET_BYTES))]
    needs_gap = order.at_once and desk.document.options.require_timestamp
    reason = "compromised" if order.compromised else "rotated at once"
    desk.apply(
        draft.text,
        detail=f"rotate {draft.before} to {draft.key_id}",
        secrets=[(draft.reference, key) for key in made],
        recipients=order.recipients,
        commits=True,
        gap=lambda _: [gap_entry(draft.key_id, desk.now, reason)] if needs_gap else (),
    )
    if needs_gap:
        desk.note("gap", draft.key_id, f"marks before its commitment is stamped: {reason}")
    _say_rotated(desk, draft, order)
    return render.EXIT_DONE


def _draft(desk: Desk, asked: _Asked) -> Rotation:
    """Return the edit."""
    scope = asked.scope
    if asked.compromised:
        found = desk.records_of(asked.compromised)[0]
        scope = found.scope
        if found.state_at(desk.now) is not KeyState.MARKING:
            raise KeysConfigError(
                f"key {asked.compromised!a} does not mark now; set state 'compromised' and "
                "compromised_at in its record, no rotation is needed"
            )

    def place(key_id: str, before: str) -> str:
        return _place(desk, asked, key_id, before)

    new = NewKey(scope=scope, taken=desk.taken(), place=place, key_id=asked.key_id)
    if asked.at_once:
        return rotate_now(desk.file(), new, compromised=asked.compromised)
    period = parse_duration(asked.period) if asked.period else None
    return prepare_rotation(desk.file(), new, at=asked.at, period=period)


def _place(desk: Desk, asked: _Asked, key_id: str, before: str) -> str:
    """Return where the secret of the new key goes."""
    stem = file_stem(key_id)
    if asked.secret:
        return asked.secret
    if asked.folder is not None:
        folder, base = asked.folder.absolute(), desk.folder.absolute()
        inside = folder.relative_to(base) if folder.is_relative_to(base) else folder
        return place_in(f"file:{inside}", stem)
    return place_in(asked.to, stem) if asked.to else place_beside(desk.reference_of(before), stem)


def _when(draft: Rotation) -> str:
    stop = draft.fields[0].not_after
    until = "" if stop is None else f" to {format_time(stop)}"
    return f"from {format_time(draft.at)}{until}"


def _say_rotated(desk: Desk, draft: Rotation, asked: _Asked) -> None:
    done = "took" if asked.secret else "wrote"
    render.write_note(f"{done} the secret {'from' if asked.secret else 'to'} {draft.reference}")
    render.write_note(f"key {draft.key_id} follows {draft.before} and marks {_when(draft)}")
    hints = ["back the secret up: without it, text marked with it can no longer be recognized"]
    if desk.log() is None:
        hints.append("its commitment is not logged; `watermark keys commit --create-log NAME`")
    elif not desk.send_stamps():
        hints.append("the stamp waits; run `watermark keys commit` when the authority answers")
    after = "at once: run `watermark-proxy reload` where files are not watched"
    before = (
        "bring KEYS.toml and the secret to every machine before then; `watermark keys rollback` "
        "takes it back"
    )
    render.write_hints([*hints, after if asked.at_once else before])


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
    edit = roll_back(desk.file(), scope, former_stop=former)
    if dry_run:
        return desk.only_shows(edit.text)
    desk.apply(edit.text, detail=f"roll back {edit.key_id}")
    desk.note("removed", edit.key_id, "rolled back before it marked")
    stop = "for ever" if former is None else f"to {format_time(former)}"
    render.write_note(f"key {edit.key_id} is taken back; {edit.before} marks {stop}")
    render.write_hints(["its secret is still there, and its id is not to be used again"])
    return render.EXIT_DONE
