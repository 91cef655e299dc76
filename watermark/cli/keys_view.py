"""`watermark keys list`, `status`, `check` and `plan`: what changes nothing."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from watermark.cli import render
from watermark.cli.desk import Desk, operator_option
from watermark.cli.options import keys_option
from watermark.errors import InputError, KeysError, SchemeParameterError
from watermark.keys import load_keys
from watermark.keys.lifecycle import parse_duration
from watermark.keys.record import (
    BEGINNING,
    END,
    format_time,
)
from watermark.keys.reports import read_reports, workers_folder

if TYPE_CHECKING:
    from datetime import datetime

    from watermark.keys import KeyFields, KeyRing

_HOUR = 3600.0
_SHOWN_UNIT = len("tokenizer:sha256:") + 8
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")


@click.command("list", short_help="Name every key, what it is and since when.")
@keys_option
@json_option
def list_keys(*, keys_file: Path, as_json: bool) -> int:
    """Print one line for each record."""
    desk = Desk(keys_file)
    fields = [_describe(one, desk.now) for one in desk.known]
    _write(fields, as_json=as_json)
    return render.EXIT_DONE


@click.command(short_help="Say what marks now, for how long, and which process has it.")
@keys_option
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="State folder of a running proxy: say which keys each of its workers has.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="proxy.toml",
    help="Its configuration, in the place of --state.",
)
@json_option
def status(*, keys_file: Path, state: Path | None, config: Path | None, as_json: bool) -> int:
    """Print what marks in each scope, the hours until the next change, and the generation.

    Processes that show the same generation hold the same keys.
    """
    if state is not None and config is not None:
        raise click.UsageError("--state and --config exclude each other; give one of them")
    desk = Desk(keys_file)
    folder = _state_of(config) if config is not None else state
    try:
        ring = desk.ring()
    except KeysError:  # what the workers have meanwhile is what one wants to know
        _write_workers(None if folder is None else _workers(folder, ""), folder)
        raise
    workers = None if folder is None else _workers(folder, ring.generation)
    change = ring.next_change(desk.now)
    hours = None if change is None else (change - desk.now).total_seconds() / _HOUR
    rows = [
        {**_describe(one, desk.now), "hours_left": _hours(one.stop, desk.now)}
        for one in ring
        if one.claims and one.start <= desk.now < one.stop
    ]
    if as_json:
        fields: dict[str, object] = {
            "generation": ring.generation,
            "next_change": None if change is None else format_time(change),
            "hours_to_next_change": hours,
            "marking": rows,
            "running_out": [expiry.key_id for expiry in ring.running_out(desk.now)],
            "uncommitted": sorted({key_id for key_id, _ in ring.uncommitted}),
        }
        render.write_objects([fields if workers is None else {**fields, "workers": workers}])
    else:
        _write(rows, as_json=False)
        until = "none" if hours is None else f"in {hours:.1f} h"
        render.write_data(f"generation {ring.generation}; next change: {until}\n")
        _write_workers(workers, folder)
    warn(desk, ring)
    return render.EXIT_DONE


@click.command(short_help="Check the file and everything that it names.")
@keys_option
@click.option("--record", is_flag=True, help="Add what was edited by hand to the history.")
@operator_option
def check(*, keys_file: Path, record: bool, operator: str | None) -> int:
    """Do everything that a reload does, and exit with 1 where it would be refused."""
    desk = Desk(keys_file, operator)
    ring = load_keys(keys_file, now=desk.now)
    news = len(desk.history().news(ring))
    if record:
        desk.record(ring, "edited by hand")
    scopes = len(ring.scopes) + 1
    render.write_data(
        f"{len(ring)} records, {scopes} scope{'s' * (scopes > 1)}, generation {ring.generation}\n"
    )
    warn(desk, ring)
    if news and not record:
        render.write_hints(
            [f"{news} records are not in the history as they stand; --record adds them"]
        )
    return render.EXIT_DONE


@click.command(short_help="Say what rotating costs an audit.")
@click.option("--period", required=True, help="How long one key marks, such as 30d.")
@click.option(
    "--training-window", required=True, help="How long a student gathers text, such as 365d."
)
@json_option
def plan(*, period: str, training_window: str, as_json: bool) -> int:
    """Print how many keys fall into a training window, and what they cost in tokens."""
    from watermark.stats import rotation_price  # noqa: PLC0415 - what is urgent does not wait for it

    try:
        price = rotation_price(parse_duration(period), parse_duration(training_window))
    except SchemeParameterError as err:
        raise click.UsageError(str(err)) from err
    if as_json:
        render.write_objects(
            [
                {
                    "n_keys": price.n_keys,
                    "pooled_factor": price.pooled_factor,
                    "single_factor": price.single_factor,
                }
            ]
        )
        return render.EXIT_DONE
    render.write_data(
        f"{price.n_keys:.1f} keys mark in a window of {training_window}\n"
        f"an audit that tests them together needs {price.pooled_factor:.1f} times the tokens, "
        f"one that tests each alone up to {price.single_factor:.0f} times\n"
    )
    render.write_hints(
        [
            "a key that is stolen or imitated does harm for its period only: weigh the two",
            "benchmarks/rotation_price.py is the simulation behind the factors",
        ]
    )
    return render.EXIT_DONE


def warn(desk: Desk, ring: KeyRing) -> None:
    """Say what runs out, and what may not mark."""
    for expiry in ring.running_out(desk.now):
        left = (expiry.at - desk.now).total_seconds() / _HOUR
        render.write_note(
            f"warning: key {expiry.key_id} of scope {expiry.scope} runs out in {left:.1f} h and "
            "has no successor; run `watermark keys rotate`"
        )
    for one in ring.retired:
        if one.destroy_at is not None:
            step = "--restore` takes it back" if one.destroy_at > desk.now else "--yes` deletes it"
            render.write_note(
                f"warning: the secret of key {one.key_id} is to be deleted from "
                f"{format_time(one.destroy_at)} on; `watermark keys destroy {one.key_id} {step}"
            )
    stamped = " and stamped" * desk.document.options.require_timestamp
    for key_id in sorted({key_id for key_id, _ in ring.uncommitted}):
        render.write_note(
            f"warning: key {key_id} may not mark before its commitment is logged{stamped}; "
            "run `watermark keys commit`"
        )


def _state_of(config: Path) -> Path:
    """Return the state folder that a proxy's configuration names, and nothing else of it."""
    try:
        table = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise InputError(f"cannot read configuration {config}: {err}; correct --config") from err
    state = table.get("state", ".")
    if not isinstance(state, str):
        raise InputError(f"{config}: `state` is no path; write the folder as a string")
    return config.parent / state


def _workers(state: Path, generation: str) -> list[dict[str, object]]:
    """Return what the workers of a proxy say of their keys, held against the file's generation."""
    reports = (report for _, report in read_reports(workers_folder(state)).values())
    return [
        {**msgspec.structs.asdict(report), "is_current": report.generation == generation}
        for report in sorted(reports, key=lambda report: report.pid)
    ]


def _write_workers(workers: list[dict[str, object]] | None, state: Path | None) -> None:
    """Say which worker has which keys, and why it goes on with others."""
    if workers == []:
        render.write_note(f"warning: no worker reports in {state}; is the proxy running there?")
    for worker in workers or ():
        shown = "as the file" if worker["is_current"] else "not as the file"
        cells = [f"worker {worker['pid']}", worker["generation"], shown, worker["loaded_at"]]
        render.write_data(render.printable("  ".join(map(str, cells))) + "\n")
        if worker["error"]:
            render.write_note(f"warning: worker {worker['pid']} keeps its keys: {worker['error']}")
    if any(not worker["is_current"] for worker in workers or ()):
        render.write_hints(["`watermark-proxy reload --config proxy.toml` loads the file now"])


def _describe(one: KeyFields, now: datetime) -> dict[str, object]:
    return {
        "key_id": one.key_id,
        "scope": one.scope,
        "unit": one.unit,
        "state": one.state_at(now).value,
        "from": None if one.start == BEGINNING else format_time(one.start),
        "to": None if one.stop == END else format_time(one.stop),
    }


def _hours(stop: datetime, now: datetime) -> float | None:
    return None if stop == END else round((stop - now).total_seconds() / _HOUR, 2)


def _write(rows: list[dict[str, object]], *, as_json: bool) -> None:
    """Print rows for a program or for a person."""
    if as_json:
        render.write_objects(rows)
        return
    for row in rows:
        unit = str(row["unit"])[:_SHOWN_UNIT]
        window = f"{row['from'] or '...'} to {row['to'] or '...'}"
        cells = [str(row["key_id"]), str(row["state"]), str(row["scope"]), unit, window]
        if row.get("hours_left") is not None:
            cells.append(f"{row['hours_left']} h left")
        render.write_data(render.printable("  ".join(cells)) + "\n")
