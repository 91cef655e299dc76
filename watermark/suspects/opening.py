"""An audit's folder with its keys, and the log that holds its plan: how runs and reports begin.

Rule 1: an audit begins once: whether its plan stood in the log before the first prompt went out
is written down then, and never set to more afterwards. Rule 2: it goes on with the suspect whose
answers it holds; before one counts, a wrong address or endpoint can be corrected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from watermark.errors import AuditPlanError, AuditRunError, UnitMismatchError
from watermark.keys import KeysLoader
from watermark.keys.keylog import KeyLog
from watermark.radioactivity.plan import plan_entry
from watermark.suspects.answers import Attempt
from watermark.suspects.auditing import Audit
from watermark.suspects.folder import ANSWERS, CONTROL, RUN, AuditFolder, RunFacts, encode_facts
from watermark.suspects.journal import Journal
from watermark.suspects.planning import check_records
from watermark.suspects.reading import Reading
from watermark.text import WORDS_V1, TokenizerUnit, WordsUnit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from watermark.radioactivity import AuditPlan
    from watermark.text import Unit


def open_audit(path: Path, keys_file: Path, tokenizers: Sequence[Path] = ()) -> Audit:
    """Return an audit with the keys of its plan.

    Args:
        path: Its folder.
        keys_file: The `KEYS.toml` that the plan was made with.
        tokenizers: The tokenizer.json of the keys' unit, where that is one.

    Raises:
        AuditPlanError: The folder or a key is not the one of the plan.
        KeysError: The keys cannot be read.
        UnitError: No tokenizer fits.
    """
    folder = AuditFolder(path)
    every = [one for one in KeysLoader(keys_file).load() if not one.is_foreign]
    records = check_records(folder.plan, every)
    others = [one for one in every if one.unit == records[0].unit]
    return Audit(folder, records, unit_of(records[0].unit, tokenizers), others)


def log_of(keys_file: Path) -> KeyLog | None:
    """Return the log that a `KEYS.toml` names; None where it names none.

    Raises:
        KeysError: The file or the log cannot be read.
    """
    loader = KeysLoader(keys_file)
    loader.load()
    document = loader.document
    if document is None or document.options.log is None:
        return None
    return KeyLog(keys_file.parent, document.options)


def begin(
    folder: AuditFolder,
    log: KeyLog | None,
    asked: str,
    *,
    is_control: bool = False,
    is_exploratory: bool = False,
) -> RunFacts:
    """Hold the plan against the log before anything is sent, and write down how it runs (rule 1).

    Args:
        folder: The audit.
        log: The log of keys; None for none.
        asked: How the suspect is asked, for the report.
        is_control: It is the clean model.
        is_exploratory: Run it although it is not logged; the report says so on every page.

    Raises:
        AuditPlanError: It is not logged, and was not called exploratory.
        AuditRunError: There are answers already, and nothing says how they came about; they are
            another suspect's; or another session is at work.
    """
    with folder.session():
        return _begun(folder, log, asked, is_control=is_control, is_exploratory=is_exploratory)


def _begun(
    folder: AuditFolder,
    log: KeyLog | None,
    asked: str,
    *,
    is_control: bool,
    is_exploratory: bool,
) -> RunFacts:
    known = folder.facts()
    if known is None and (folder.path / ANSWERS).exists():
        raise AuditRunError(
            f"{folder.path} holds answers and no {RUN}, so that nobody knows whether the plan was "
            f"logged before them; restore {RUN}, or plan again"
        )
    entry = plan_entry(folder.digest, folder.plan.suspect)
    logged = log.read().index if log else {}
    check_commitments(folder.plan, logged)
    is_logged = entry in logged and all(
        one.log_index is not None and one.log_index < logged[entry] for one in folder.plan.keys
    )
    if not (known or RunFacts(plan="", is_logged=True)).is_logged:
        is_logged = False
    if not is_logged and not is_exploratory:
        raise AuditPlanError(
            f"plan {folder.digest[:12]} was not in the log before its first query, with its keys "
            "before it: it was edited, or it or a key was never logged; run the plan that was "
            "logged (`watermark keys commit`, then plan), or say --exploratory, which the report "
            "repeats on every page"
        )
    facts = known or RunFacts(plan=folder.digest, is_logged=is_logged)
    if is_logged and log is not None:
        facts = msgspec.structs.replace(
            facts,
            proof=_proof(log, entry),
            key_proofs=tuple(_proof(log, one.commitment.encode()) for one in folder.plan.keys),
            log_verifier=str(log.verifier),
        )
    role = "control" if is_control else "suspect"
    _check_same(folder, role, getattr(facts, role), asked)
    facts = msgspec.structs.replace(facts, **{role: asked})
    folder.write(RUN, encode_facts(facts))
    return facts


def _check_same(folder: AuditFolder, role: str, before: str, asked: str) -> None:
    """Refuse to go on with another suspect: its answers would stand among those of the first.

    Raises:
        AuditRunError: The audit holds answers of another, or asked it in another way (rule 2).
    """
    if before and before != asked and _has_heard(folder, CONTROL if role == "control" else ANSWERS):
        raise AuditRunError(
            f"the audit in {folder.path} began with {role} {before!a}, and goes on with none but "
            f"that; {asked!a} needs a plan of its own (`watermark audit plan` with another --out)"
        )


def _has_heard(folder: AuditFolder, name: str) -> bool:
    """Return whether a journal holds anything that counts.

    Raises:
        AuditRunError: The journal does not hold.
    """
    path = folder.path / name
    if folder.plan.access.is_open:
        return any(one.places for one in Journal(path, folder.digest, Reading).entries)
    return any(one.counts for one in Journal(path, folder.digest, Attempt).entries)


def check_commitments(plan: AuditPlan, logged: Mapping[bytes, int]) -> None:
    """Hold what a plan says of its keys against the log.

    Args:
        plan: The plan.
        logged: Where each entry of the log is.

    Raises:
        AuditPlanError: The log says something else of a key that the plan calls committed to.
    """
    for one in plan.keys:
        found = logged.get(one.commitment.encode())
        if one.log_index is not None and found != one.log_index:
            raise AuditPlanError(
                f"the plan calls key {one.key_id!a} entry {one.log_index} of the log, which has it "
                f"at {found}; give the KEYS.toml and the log that the plan was made with"
            )


def _proof(log: KeyLog, entry: bytes) -> str:
    return log.prove(entry).format().decode("utf-8", "replace")


def unit_of(unit_id: str, tokenizers: Sequence[Path]) -> Unit:
    """Return the unit of a plan's keys.

    Raises:
        TokenizerFileError: A tokenizer cannot be loaded.
        UnitMismatchError: None has the digest that the keys ask for.
    """
    if unit_id == WORDS_V1:
        return WordsUnit()
    for one in map(TokenizerUnit.read, tokenizers):
        if one.unit_id == unit_id:
            return one
    raise UnitMismatchError(
        f"the plan's keys need --tokenizer with the file of {unit_id}, byte for byte"
    )
