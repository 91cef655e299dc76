"""Making the folder of an audit: what is fixed, what it will take, and whether it can succeed.

Rule 1: everything that the plan names is in its folder before the plan is. Rule 2: what cannot
succeed is refused, with what would.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from watermark.errors import AuditPlanError, CommitmentError, KeysError
from watermark.keys.keylog import entry_of
from watermark.keys.record import BEGINNING, format_time
from watermark.radioactivity import (
    Access,
    AuditPlan,
    Budget,
    PromptSource,
    Weighting,
)
from watermark.radioactivity.forecasting import forecast
from watermark.radioactivity.plan import (
    DeliveredFile,
    Forecast,
    PlanFile,
    PlanKey,
    TokensField,
    encode_plan,
    plan_digest,
    suspect_tag,
)
from watermark.radioactivity.scoring import check_keys
from watermark.stats import decoys_for, share_of
from watermark.suspects.folder import (
    CLEAN_MODEL,
    PLAN,
    PROMPTS,
    pack_rows,
    pack_traffic,
    write_file,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from watermark.keys import KeyRecord
    from watermark.keys.keylog import KeyLog
    from watermark.radioactivity import Traffic
    from watermark.suspects.answers import Prompt
    from watermark.suspects.reading import ReadText
    from watermark.text import Unit

DEFAULT_REFERENCE: Final = 0.8
"""Mean excess of marked text, in nats a score, where nobody measured it: a story model at
temperature 0.7 (`benchmarks/effect.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What an audit is to be.

    Attributes:
        suspect: How reports call the suspect.
        model: The name it is asked by.
        answers_as: The name that its answers bear, where `AuditPlan.model` does not say it.
        access: What it lets one see.
        alpha: Level.
        effect: Supposed mean excess of a score, in standard deviations.
        share_scored: Supposed share of generated units that are scored.
        reference: Mean excess of the marked text itself.
        n_decoys: Decoy keys of the whole audit; 0 for as many as the level asks for.
        weighting: Whose traffic weighs.
        full_at: As `ContextWeights` has it.
        floor: Likewise.
        budget: What it may take.
        system: A system prompt.
        temperature: Of answers; None leaves it to the suspect.
        max_tokens_as: The field by which a server is told the length of an answer.
        prompt_source: Where prompts come from.
        prompt_seed: By which rows were drawn.
        prompt_origin: The file of prompts they were drawn from; None where it was none.
        training_cutoff: When the suspect stopped learning; None for unknown.
        has_control: Whether a clean model will be asked the same.
    """

    suspect: str
    model: str = ""
    answers_as: str = ""
    access: Access = Access.CLOSED
    alpha: float
    effect: float
    share_scored: float
    reference: float = DEFAULT_REFERENCE
    n_decoys: int = 0
    weighting: Weighting = Weighting.FLAT
    full_at: int = 16
    floor: float = 0.0
    budget: Budget
    system: str = ""
    temperature: float | None = 1.0
    max_tokens_as: TokensField = TokensField.MAX_TOKENS
    prompt_source: PromptSource = PromptSource.SEEDS
    prompt_seed: str = ""
    prompt_origin: PlanFile | None = None
    training_cutoff: datetime | None = None
    has_control: bool = False


def write_plan(
    folder: Path,
    wishes: Wishes,
    records: Sequence[KeyRecord],
    *,
    rows: Sequence[Prompt] | Sequence[ReadText],
    traffic: Sequence[Traffic],
    unit: Unit,
    now: datetime,
    log: KeyLog | None = None,
) -> tuple[AuditPlan, str]:
    """Write the folder of an audit, and return its plan with the digest.

    Args:
        folder: Where to; it may exist, and may hold no plan.
        wishes: What the audit is to be.
        records: Its keys.
        rows: Prompts or passages, drawn already.
        traffic: What was delivered.
        unit: How text is cut.
        now: When the plan is made.
        log: The log of keys, which says what is committed to; None for none.

    Raises:
        AuditPlanError: There is a plan already, or this one cannot succeed.
        AuditDesignError: The keys do not belong together.
        CommitmentError: The log cannot be used.
    """
    if (folder / PLAN).exists():
        raise AuditPlanError(f"{folder} holds a plan already; give another folder")
    suspect_tag(wishes.suspect)
    check_keys(records)
    _check_marked(records, now, wishes.training_cutoff)
    _check_repeats(wishes, rows)
    _check_traffic(wishes, records, traffic)
    _check_control(wishes)
    sent = sum(len(unit.encode(_sent(one))) for one in rows)
    expected = forecast(
        wishes.budget,
        effect=wishes.effect,
        alpha=wishes.alpha,
        share_scored=wishes.share_scored,
        prompt_tokens=len(unit.encode(wishes.system)) + -(-sent // max(1, len(rows))),
        is_open=wishes.access.is_open,
        n_units=sum(len(unit.encode(_text(one))) for one in rows),
        n_keys=len(records),
        has_control=wishes.has_control,
    )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    delivered = tuple(_write_traffic(folder, i, one) for i, one in enumerate(traffic))
    data = pack_rows(rows)
    write_file(folder / PROMPTS, data)
    prompts = PlanFile(name=PROMPTS, sha256=_digest(data), rows=len(rows))
    logged = log.read().index if log else {}
    plan_keys = tuple(_plan_key(one, logged) for one in records)
    plan = _plan_of(wishes, plan_keys, prompts, delivered=delivered, expected=expected, now=now)
    encoded = encode_plan(plan)
    write_file(folder / PLAN, encoded)
    return plan, plan_digest(encoded)


def _plan_of(
    wishes: Wishes,
    keys: tuple[PlanKey, ...],
    prompts: PlanFile,
    *,
    delivered: tuple[DeliveredFile, ...],
    expected: Forecast,
    now: datetime,
) -> AuditPlan:
    is_partial = delivered and not wishes.access.is_open  # what is read was delivered, all of it
    controls = ["decoys", *(["undelivered"] if is_partial else [])]
    return AuditPlan(
        suspect=wishes.suspect,
        model=wishes.model,
        answers_as=wishes.answers_as,
        access=wishes.access,
        training_cutoff=format_time(wishes.training_cutoff) if wishes.training_cutoff else "",
        created=format_time(now),
        keys=keys,
        weighting=wishes.weighting,
        full_at=wishes.full_at,
        floor=wishes.floor,
        delivered=delivered,
        prompt_source=wishes.prompt_source,
        prompt_seed=wishes.prompt_seed,
        prompt_origin=wishes.prompt_origin,
        prompts=prompts,
        system=wishes.system,
        temperature=wishes.temperature,
        max_tokens_as=wishes.max_tokens_as,
        alpha=wishes.alpha,
        share=share_of(expected.effect),
        n_decoys=wishes.n_decoys or decoys_for(wishes.alpha),
        reference=wishes.reference,
        budget=wishes.budget,
        controls=(*controls, *([CLEAN_MODEL] if wishes.has_control else [])),
        forecast=expected,
    )


def check_records(plan: AuditPlan, records: Sequence[KeyRecord]) -> list[KeyRecord]:
    """Return the plan's keys among some, as the plan has them.

    Raises:
        AuditPlanError: One is missing, or another key of that name.
    """
    found = []
    for one in plan.keys:
        fitting = [r for r in records if (r.key_id, r.unit) == (one.key_id, one.unit)]
        if not fitting:
            raise AuditPlanError(f"key {one.key_id!a} of the plan is not at hand; give its file")
        same = ("context_width", "scheme", "rho", "account_share_q16")
        is_same = all(getattr(fitting[0], name) == getattr(one, name) for name in same)
        if not is_same or (one.commitment and _entry(fitting[0]) != one.commitment.encode()):
            raise AuditPlanError(
                f"key {one.key_id!a} is another one than the plan's; give the key that the plan "
                "was made with"
            )
        found.append(fitting[0])
    return found


def _text(one: Prompt | ReadText) -> str:
    text: str = getattr(one, "prompt", "") or getattr(one, "text", "")
    return text


def _sent(one: Prompt | ReadText) -> str:
    """Return a text with the turns before it, which are sent too."""
    return "\n".join((*getattr(one, "before", ()), _text(one)))


def can_have_marked(record: KeyRecord, now: datetime, cutoff: datetime | None) -> bool:
    """Return whether a suspect can have learned from what a key marked.

    Args:
        record: The key.
        now: When that is asked.
        cutoff: When the suspect stopped learning; None for unknown.
    """
    return record.start <= now and (cutoff is None or record.start < cutoff)


def _check_marked(records: Sequence[KeyRecord], now: datetime, cutoff: datetime | None) -> None:
    """Refuse keys that cannot be in the suspect: they would only dilute those that can.

    Raises:
        AuditPlanError: There is one.
    """
    late = [one for one in records if not can_have_marked(one, now, cutoff)]
    if not late:
        return
    first = min(late, key=lambda one: one.start)
    is_future = first.start > now
    before = "now" if cutoff is None or is_future else "the suspect's training cut-off"
    when = now if cutoff is None or is_future else cutoff
    what = (
        f"key {first.key_id!a} marks from {format_time(first.start)} on, not before {before}, "
        f"{format_time(when)}"
    )
    if len(late) == len(records):
        raise AuditPlanError(
            f"this cannot succeed: no key marked before {before}: {what}; audit a model that was "
            "trained later"
        )
    raise AuditPlanError(f"{what}; leave it out (--key-id names the others)")


def _check_repeats(wishes: Wishes, rows: Sequence[Prompt] | Sequence[ReadText]) -> None:
    """Refuse prompts that are asked again at temperature 0: the same answer scores nothing more.

    Raises:
        AuditPlanError: There are some.
    """
    n_distinct = len({_text(one) for one in rows})
    if wishes.temperature == 0 and not wishes.access.is_open and n_distinct < len(rows):
        raise AuditPlanError(
            f"at temperature 0 a prompt that is asked again has the same answer, and only "
            f"{n_distinct} of {len(rows)} prompts differ; plan {n_distinct} requests, or give more "
            "prompts, or another --temperature"
        )


def _check_traffic(
    wishes: Wishes, records: Sequence[KeyRecord], traffic: Sequence[Traffic]
) -> None:
    """Refuse weights by traffic of which there is none."""
    if wishes.weighting is Weighting.FLAT:
        return
    tested = [one.key_id for one in records]
    if not any(
        len(one.fingerprints) for one in traffic if wishes.weighting.takes(one.key_id, tested)
    ):
        of_whom = " under keys that are not tested" * (wishes.weighting is Weighting.OTHER_KEYS)
        raise AuditPlanError(
            f"weights {wishes.weighting.value!r} need what was delivered{of_whom}, and there is "
            "nothing; give --ledger-contexts or --delivered, test fewer keys (--key-id), or give "
            "--weights flat"
        )


def _check_control(wishes: Wishes) -> None:
    if wishes.has_control and wishes.access.is_open:
        raise AuditPlanError(
            "a clean model is asked beside a closed audit only; leave --control out, and read the "
            "clean model in an audit of its own"
        )


def _entry(record: KeyRecord) -> bytes:
    """Return the log entry that commits to a key; empty where it can have none."""
    try:
        return entry_of(record)
    except (KeysError, CommitmentError):
        return b""


def _plan_key(record: KeyRecord, logged: Mapping[bytes, int]) -> PlanKey:
    """Return a key as the log has it: what is in no log is not committed to."""
    entry = _entry(record)
    return PlanKey(
        key_id=record.key_id,
        unit=record.unit,
        context_width=record.context_width,
        scheme=record.scheme,
        rho=record.rho,
        account_share_q16=record.account_share_q16,
        commitment=entry.decode(),
        log_index=logged.get(entry),
        marked_from="" if record.start == BEGINNING else format_time(record.start),
    )


def _write_traffic(folder: Path, index: int, one: Traffic) -> DeliveredFile:
    name, data = f"delivered-{index}.bin", pack_traffic(one)
    write_file(folder / name, data)
    return DeliveredFile(
        name=name,
        sha256=_digest(data),
        rows=len(one.fingerprints),
        key_id=one.key_id,
        is_keyed=one.context_key is not None,
        context_key=(one.context_key or b"").hex() if one.is_engines else "",
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
