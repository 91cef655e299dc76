"""`watermark audit plan`: everything about an audit, fixed before the first query."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from watermark.cli import render
from watermark.cli.audit_ledger import read_contexts
from watermark.cli.desk import Desk, Time
from watermark.cli.detect import select_records, units_of
from watermark.cli.options import check_share, key_id_option, keys_option, tokenizer_option
from watermark.errors import AuditPlanError
from watermark.keys.folder import locked
from watermark.radioactivity import (
    DEFAULT_ALPHA,
    SHARE_SCORED,
    Access,
    Budget,
    PromptSource,
    Weighting,
)
from watermark.radioactivity.plan import PlanFile, TokensField, plan_entry
from watermark.suspects.conversations import (
    agreeing_accounts,
    first_turns,
    origin_of,
    passages,
    prefixes,
    read_conversations,
    repeated,
    seed_prompts,
    traffic_of,
)
from watermark.suspects.planning import DEFAULT_REFERENCE, Wishes, can_have_marked, write_plan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from watermark.keys import KeyRecord, KeyRing
    from watermark.radioactivity import AuditPlan
    from watermark.suspects.answers import Prompt
    from watermark.suspects.conversations import Conversation
    from watermark.suspects.reading import ReadText
    from watermark.text import Unit

DEFAULT_EFFECT: Final = 0.05

_EPILOG: Final = """\
Examples:

\b
  watermark audit plan -o audit --keys KEYS.toml --suspect "Example 7B" --model example-7b \\
    --prompts seeds/probe-prompts.jsonl --requests 200
  watermark audit plan -o audit --keys KEYS.toml --suspect "Example 7B" \\
    --ledger-contexts contexts.parquet --weights all-keys --requests 500 --rate 60
  watermark audit plan -o audit --keys KEYS.toml --suspect "Example 7B" \\
    --access open-argmax --delivered delivered.jsonl --requests 300
"""


class Temperature(click.ParamType[float | None]):
    """A temperature, >= 0, or `none`."""

    name = "float|none"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        """Return the number, None for `none`."""
        if value == "none":
            return None
        try:
            found = float(str(value))
        except ValueError:
            found = -1.0
        if not 0 <= found < math.inf:
            self.fail(f"{value!a} is no temperature; write a number from 0 on, or none", param, ctx)
        return found


@click.group()
def audit() -> None:
    """Find out whether a model was trained on marked text: plan, run, report, replay."""


@audit.command(epilog=_EPILOG, short_help="Fix an audit before its first query.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@keys_option
@key_id_option
@tokenizer_option
@click.option("--suspect", required=True, help="How reports call the suspect.")
@click.option("--model", default="", help="The name it is asked by, and answers by.")
@click.option("--answers-as", default="", help="The name it answers by, where that is another.")
@click.option(
    "--access",
    type=click.Choice([one.value for one in Access]),
    default=Access.CLOSED.value,
    show_default=True,
    help="Its answers, or its next token along delivered text.",
)
@click.option("--training-cutoff", type=Time(), help="When the suspect stopped learning.")
@click.option(
    "--prompts",
    "prompts_file",
    type=click.Path(path_type=Path),
    help="JSONL with id and prompt, such as seeds/probe-prompts.jsonl.",
)
@click.option(
    "--delivered", type=click.Path(path_type=Path), help="JSONL of delivered conversations."
)
@click.option(
    "--ledger-contexts",
    type=click.Path(path_type=Path),
    help="What `watermark ledger contexts` wrote: .parquet or .jsonl.",
)
@click.option(
    "--ledger",
    type=click.Path(path_type=Path),
    metavar="LEDGER.toml",
    help="That ledger, where some of it was marked by an engine with its own key.",
)
@click.option(
    "--accounts",
    type=click.Path(path_type=Path),
    help="accounts.toml: first prompts of accounts with audit_prompts are sent, of --delivered.",
)
@click.option(
    "--prefix-units",
    type=click.IntRange(1),
    help="Send beginnings of delivered replies of those accounts instead, so long in units.",
)
@click.option("--seed", default="1", show_default=True, help="Draws prompts or passages.")
@click.option(
    "--weights",
    type=click.Choice([one.value for one in Weighting if one is not Weighting.UNDELIVERED]),
    default=Weighting.FLAT.value,
    show_default=True,
    help="Whose traffic weighs a context; other-keys (none that is tested) keeps p exact.",
)
@click.option(
    "--full-at",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Conversations at which a context counts fully; 1 makes a filter.",
)
@click.option("--requests", type=click.IntRange(1), required=True, help="Prompts or passages.")
@click.option(
    "--max-tokens", type=click.IntRange(1), default=400, show_default=True, help="Of an answer."
)
@click.option(
    "--max-tokens-as",
    type=click.Choice([one.value for one in TokensField]),
    default=TokensField.MAX_TOKENS.value,
    show_default=True,
    help="The field that says so to a server; none for one that takes neither.",
)
@click.option(
    "--temperature",
    type=Temperature(),
    default="1",
    show_default=True,
    help="Of answers; none for a server that does not take it.",
)
@click.option("--system", default="", help="A system prompt.")
@click.option("--alpha", type=float, default=DEFAULT_ALPHA, show_default=True, callback=check_share)
@click.option(
    "--decoys",
    type=click.IntRange(1),
    help="Decoy keys; by default 3 / alpha, as far as their work stays below 1e11 pairs.",
)
@click.option(
    "--effect",
    type=click.FloatRange(0, min_open=True),
    default=DEFAULT_EFFECT,
    show_default=True,
    help="Supposed excess of a score, in standard deviations, under the key that marked.",
)
@click.option(
    "--share-scored",
    type=click.FloatRange(0, 1, min_open=True),
    default=SHARE_SCORED,
    show_default=True,
    help="Supposed share of generated units that are scored.",
)
@click.option(
    "--reference",
    type=click.FloatRange(0, min_open=True),
    default=DEFAULT_REFERENCE,
    show_default=True,
    help="Excess of the marked text itself, in nats a score: a dose of 1.",
)
@click.option("--rate", type=click.FloatRange(0), default=0.0, help="Requests a minute, at most.")
@click.option("--price", type=click.FloatRange(0), default=0.0, help="To spend, at most.")
@click.option("--price-in", type=click.FloatRange(0), default=0.0, help="Of 1e6 prompt tokens.")
@click.option("--price-out", type=click.FloatRange(0), default=0.0, help="Of 1e6 answer tokens.")
@click.option("--control", is_flag=True, help="A clean model will be asked the same.")
@click.option("--no-log", is_flag=True, help="Do not log it: its run is exploratory.")
def plan(
    *,
    out: Path,
    keys_file: Path,
    key_ids: tuple[str, ...],
    tokenizers: tuple[Path, ...],
    suspect: str,
    model: str,
    answers_as: str,
    access: str,
    training_cutoff: datetime | None,
    prompts_file: Path | None,
    delivered: Path | None,
    ledger_contexts: Path | None,
    ledger: Path | None,
    accounts: Path | None,
    prefix_units: int | None,
    seed: str,
    weights: str,
    full_at: int,
    requests: int,
    max_tokens: int,
    max_tokens_as: str,
    temperature: float | None,
    system: str,
    alpha: float,
    decoys: int | None,
    effect: float,
    share_scored: float,
    reference: float,
    rate: float,
    price: float,
    price_in: float,
    price_out: float,
    control: bool,
    no_log: bool,
) -> int:
    """Write a folder that fixes an audit, and its plan's digest into the log of keys.

    Computes what the audit will take and how likely it is to succeed, and refuses one that cannot.
    Nothing is sent to anyone. `watermark audit run` executes the plan.
    """
    desk = Desk(keys_file)
    ring = desk.ring()
    records = _records(desk, ring, key_ids, training_cutoff)
    unit = _unit(records, tokenizers)
    conversations = read_conversations(delivered) if delivered else []
    known = {one.key_id for one in ring}
    traffic = traffic_of(conversations, unit, records[0].context_width, known)
    if ledger_contexts is not None:
        first = records[0]
        traffic += read_contexts(ledger_contexts, ring, first.unit, first.context_width, ledger)
    kind = Access(access)
    if prefix_units is not None and (accounts is None or kind.is_open):
        raise click.UsageError("--prefix-units goes with --accounts, and with closed access")
    source, origin, rows = _rows(
        kind, conversations, prompts_file, accounts=accounts, count=requests, seed=seed
    )
    if prefix_units is not None and accounts is not None:
        source, origin = PromptSource.PREFIXES, None
        begun = prefixes(
            conversations,
            agreeing_accounts(accounts),
            unit,
            n_units=prefix_units,
            count=requests,
            seed=seed,
        )
        rows = repeated(begun, requests)
    wishes = Wishes(
        suspect=suspect,
        model=model,
        answers_as=answers_as,
        access=kind,
        alpha=alpha,
        effect=effect,
        share_scored=share_scored,
        n_decoys=decoys or 0,
        reference=reference,
        weighting=Weighting(weights),
        full_at=full_at,
        budget=Budget(
            requests=len(rows),
            max_tokens=max_tokens,
            price=price,
            price_in=price_in,
            price_out=price_out,
            requests_per_minute=rate,
        ),
        system=system,
        temperature=temperature,
        max_tokens_as=TokensField(max_tokens_as),
        prompt_source=source,
        prompt_seed=seed,
        prompt_origin=origin,
        training_cutoff=training_cutoff,
        has_control=control,
    )
    made, digest = write_plan(
        out,
        wishes,
        records,
        rows=rows,
        traffic=traffic,
        unit=unit,
        now=desk.now,
        log=desk.log(),
    )
    _say(out, made, digest)
    if no_log or desk.log() is None:
        render.write_note("not logged: a run of this plan is exploratory, and its report says so")
        return render.EXIT_DONE
    _log(desk, made, digest)
    return render.EXIT_DONE


def _records(
    desk: Desk, ring: KeyRing, key_ids: tuple[str, ...], cutoff: datetime | None
) -> Sequence[KeyRecord]:
    """Return the keys that are named; of all, those that an audit can test."""
    found = select_records(ring, key_ids, desk.path)
    if key_ids:
        return found
    able = [one for one in found if one.is_copula] or found
    return [one for one in able if can_have_marked(one, desk.now, cutoff)] or able


def _unit(records: Sequence[KeyRecord], tokenizers: tuple[Path, ...]) -> Unit:
    units = units_of(records, tokenizers)
    if len(units) != 1:
        raise AuditPlanError(
            f"the keys have {len(units)} units; an audit tests keys of one, so choose with --key-id"
        )
    return next(iter(units.values()))


def _rows(
    access: Access,
    conversations: Sequence[Conversation],
    prompts_file: Path | None,
    *,
    accounts: Path | None,
    count: int,
    seed: str,
) -> tuple[PromptSource, PlanFile | None, list[Prompt] | list[ReadText]]:
    """Return why what will be sent is free of the key, the file it is of, and what it is."""
    if access.is_open:
        return PromptSource.PASSAGES, None, passages(conversations, count=count, seed=seed)
    if accounts is not None:
        agreed = agreeing_accounts(accounts)
        turns = first_turns(conversations, agreed, count=count, seed=seed)
        return PromptSource.FIRST_TURNS, None, repeated(turns, count)
    if prompts_file is None:
        raise AuditPlanError(
            "nothing to ask; give --prompts, such as seeds/probe-prompts.jsonl, or --accounts "
            "with --delivered"
        )
    source, origin = origin_of(prompts_file)
    drawn = seed_prompts(prompts_file, count=count, seed=seed)
    return source, origin, repeated(drawn, count)


def _log(desk: Desk, made: AuditPlan, digest: str) -> None:
    log = desk.log()
    if log is None:
        return
    with locked(desk.folder):
        log.append([plan_entry(digest, made.suspect)])
    render.write_note(f"logged plan {digest[:12]} in {log.verifier.name}")
    desk.send_stamps()


def _say(out: Path, made: AuditPlan, digest: str) -> None:
    found = made.forecast
    least = "at least " * found.is_least
    lines = [
        ("plan", digest),
        ("keys", ", ".join(one.key_id for one in made.keys)),
        ("prompts", f"{made.prompts.rows} from {made.prompt_source.value}"),
        ("weights", made.weighting.value),
        ("supposed effect", f"{found.effect:g}"),
        ("scores needed, expected", f"{found.scores_needed}, {found.scores_expected}"),
        ("power", f"{found.power:.3f} at alpha {made.alpha:g}"),
        ("requests", f"{least}{found.requests}"),
        ("price", f"{least}{found.price:.2f}"),
        ("days at the rate limit", f"{least}{found.days:.2f}"),
    ]
    width = max(len(name) for name, _ in lines)
    render.write_data("".join(f"{name:<{width}}  {render.printable(v)}\n" for name, v in lines))
    if found.is_least:
        render.write_note(
            "a server that can neither echo a text nor give prompt_logprobs is asked prefix by "
            "prefix: 32 positions a request, and each bills all the text before it"
        )
    render.write_note(f"wrote {out}; the folder is as secret as the keys and the prompts in it")
