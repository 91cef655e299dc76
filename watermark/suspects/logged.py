"""Every plan for a suspect, as a log of keys holds it: listed by reports, checked by replays.

Rule 1: a list of plans is worth what the log that it was read from is worth. So the log's signed
checkpoint stands beside it, and whoever has the log reads the list again, up to that size. Rule 2:
what is stored without a log at hand is checked as far as it goes, and is said to be no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from watermark.errors import AuditRunError, LogError
from watermark.keys.folder import FolderStorage
from watermark.log import LogReader, NoteVerifier, TlogProof, open_checkpoint, verify_tlog_proof
from watermark.radioactivity.plan import plan_entry, read_entry, suspect_tag

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from watermark.keys.keylog import KeyLog
    from watermark.suspects.folder import AuditFolder, RunFacts


class ListedPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One plan for the suspect.

    Attributes:
        plan: Its digest.
        log_index: Which entry of the log it is; None where the log does not hold it.
        is_this: Whether it is the plan of the audit.
    """

    plan: str
    log_index: int | None
    is_this: bool


class ReadLog(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The log that a list was read from (rule 1).

    Attributes:
        verifier: Its public key.
        size: Entries that it had.
        checkpoint: What it had signed of them, the whole note.
        n_other_plans: Plans for other suspects among them.
    """

    verifier: str
    size: int
    checkpoint: str
    n_other_plans: int


class PlanList(msgspec.Struct, frozen=True, kw_only=True):
    """What `result.json` holds of it.

    Attributes:
        plans: Every plan for the suspect, in the order of the log.
        log: The log; None where the keys have none.
    """

    plans: tuple[ListedPlan, ...]
    log: ReadLog | None

    def fields(self) -> dict[str, Any]:
        """Return it as it stands in `result.json`."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def list_plans(folder: AuditFolder, log: KeyLog | None) -> PlanList:
    """Return every plan for a suspect that a log holds, and this one.

    Raises:
        CommitmentError: The log cannot be used.
    """
    if log is None:
        return PlanList(plans=_with_this(folder, []), log=None)
    return _listed(folder, log.read().reader, log.verifier)


def stored_plans(
    folder: AuditFolder, facts: RunFacts, result: dict[str, Any], verifier: str | None
) -> PlanList:
    """Return the list that a result holds, checked as far as it can be without a log (rule 2).

    Args:
        folder: The audit.
        facts: Under which conditions it ran.
        result: What `result.json` holds.
        verifier: The log's public key that one trusts; None for that of the run.

    Raises:
        AuditRunError: It is malformed, or contradicts plan, proof or checkpoint.
    """
    stored = {name: result.get(name) for name in PlanList.__struct_fields__}
    try:
        found = msgspec.convert(stored, PlanList)
    except msgspec.ValidationError:
        raise _changed(folder, "is malformed") from None
    own = [one for one in found.plans if one.is_this]
    if [one.plan for one in own] != [folder.digest]:
        raise _changed(folder, "does not name this plan once")
    if facts.is_logged and own[0].log_index != _proved_index(folder, facts, verifier):
        raise _changed(folder, "has this plan at another entry than the proof")
    _check_order(folder, found)
    if found.log is not None:
        _check_checkpoint(folder, found.log, verifier or facts.log_verifier)
    elif facts.is_logged:
        raise _changed(folder, "names no log, though the plan was logged")
    return found


def plans_since(folder: AuditFolder, found: PlanList, log_folder: Path, verifier: str) -> int:
    """Hold a list against the log itself, and return how many plans for the suspect came since.

    Args:
        folder: The audit.
        found: Its list.
        log_folder: Where the log's files lie.
        verifier: The log's public key.

    Raises:
        AuditRunError: The list was read from none, or the log, up to the size that it had then,
            holds another.
    """
    if found.log is None:
        raise AuditRunError("the list of plans was read from no log; replay without --log")
    key = NoteVerifier.parse(verifier)
    try:
        reader = LogReader.open(FolderStorage(log_folder), key.name, [key])
        before = open_checkpoint(found.log.checkpoint.encode(), key.name, [key])
        reader.prove_consistency(before.checkpoint)
        again = _listed(folder, reader, key, before.size)
        now = _listed(folder, reader, key)
    except LogError as err:
        raise AuditRunError(f"log {log_folder} does not bear the list of plans out: {err}") from err
    if (again.plans, again.log and again.log.n_other_plans) != (
        found.plans,
        found.log.n_other_plans,
    ):
        raise _changed(folder, f"is not what the log's first {before.size} entries hold")
    return len(now.plans) - len(again.plans)


def shown_index(proof: str, entry: bytes, key: NoteVerifier) -> int:
    """Return which entry of a log a proof shows.

    Raises:
        LogError: It shows none.
    """
    shown = verify_tlog_proof(TlogProof.parse(proof.encode()), entry, key.name, [key])
    return shown.inclusion.index


def _listed(
    folder: AuditFolder, reader: LogReader, key: NoteVerifier, size: int | None = None
) -> PlanList:
    """Return what the first entries of a log say; each entry counts where it first stands."""
    size = reader.checkpoint.size if size is None else size
    entries = [entry for _, entry in zip(range(size), reader.entries(), strict=False)]
    first = {entry: index for index, entry in reversed(list(enumerate(entries)))}
    tag = suspect_tag(folder.plan.suspect)
    known = [(read_entry(entry), index) for entry, index in first.items()]
    plans = sorted((index, one) for one, index in known if one is not None)
    ours = [
        ListedPlan(plan=digest, log_index=index, is_this=digest == folder.digest)
        for index, (digest, its) in plans
        if its == tag
    ]
    log = ReadLog(
        verifier=str(key),
        size=size,
        checkpoint=reader.checkpoint.note.decode("utf-8", "replace"),
        n_other_plans=len(plans) - len(ours),
    )
    return PlanList(plans=_with_this(folder, ours), log=log)


def _with_this(folder: AuditFolder, plans: Iterable[ListedPlan]) -> tuple[ListedPlan, ...]:
    found = tuple(plans)
    if any(one.is_this for one in found):
        return found
    return (*found, ListedPlan(plan=folder.digest, log_index=None, is_this=True))


def _proved_index(folder: AuditFolder, facts: RunFacts, verifier: str | None) -> int:
    try:
        key = NoteVerifier.parse(verifier or facts.log_verifier)
        return shown_index(facts.proof, plan_entry(folder.digest, folder.plan.suspect), key)
    except LogError as err:
        raise AuditRunError(f"the proof that the plan was logged does not hold: {err}") from err


def _check_order(folder: AuditFolder, found: PlanList) -> None:
    """Refuse places that a log cannot have given; this plan alone, as the last, may have none."""
    is_loose = found.plans[-1].is_this and found.plans[-1].log_index is None
    listed = found.plans[:-1] if is_loose else found.plans
    size = found.log.size if found.log is not None else 0
    places = [one.log_index for one in listed]
    held = [place for place in places if place is not None and 0 <= place < size]
    if held != places or held != sorted(set(held)):
        raise _changed(folder, "names places that the log did not have")


def _check_checkpoint(folder: AuditFolder, log: ReadLog, verifier: str) -> None:
    try:
        key = NoteVerifier.parse(verifier or log.verifier)
        size = open_checkpoint(log.checkpoint.encode(), key.name, [key]).size
    except LogError as err:
        raise AuditRunError(
            f"the checkpoint beside the list of plans does not hold: {err}"
        ) from err
    if size != log.size or str(key) != log.verifier:
        raise _changed(folder, "stands beside another log's checkpoint")


def _changed(folder: AuditFolder, what: str) -> AuditRunError:
    return AuditRunError(
        f"the list of plans in {folder.path} {what}; it was changed: ask for the folder again"
    )
