"""`watermark audit report` and `replay`: what an audit says, and that anyone gets the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from watermark.cli import render
from watermark.cli.audit_page import audit_page
from watermark.cli.options import keys_option, tokenizer_option
from watermark.errors import AuditRunError, LogError
from watermark.keys import KeyRecord, KeyState
from watermark.keys.commitment import key_entry, root_of_entry
from watermark.keys.disclosure import parse_disclosure
from watermark.keys.record import BEGINNING
from watermark.log import NoteVerifier
from watermark.radioactivity.plan import plan_entry
from watermark.suspects.auditing import Audit
from watermark.suspects.figures import encode_result, figures
from watermark.suspects.folder import REPORT, RESULT, AuditFolder, RunFacts
from watermark.suspects.logged import PlanList, list_plans, plans_since, shown_index, stored_plans
from watermark.suspects.opening import check_commitments, log_of, open_audit, unit_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.keys.disclosure import Disclosure
    from watermark.radioactivity.plan import PlanKey
    from watermark.suspects.kept import Findings


@click.command(short_help="Say what an audit found.")
@click.argument("path", metavar="RUN", type=click.Path(path_type=Path))
@keys_option
@tokenizer_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def report(*, path: Path, keys_file: Path, tokenizers: tuple[Path, ...], as_json: bool) -> int:
    """Write result.json and report.html into RUN, and print what they say.

    At any time: the e-value is valid whenever one looks. Every plan for the suspect that the log
    of keys holds is named.
    """
    audit = open_audit(path, keys_file, tokenizers)
    log = log_of(keys_file)
    check_commitments(audit.plan, log.read().index if log else {})
    findings = audit.findings()
    result = _figures(audit, findings) | list_plans(audit.folder, log).fields()
    data = encode_result(result)
    audit.folder.write(RESULT, data)
    audit.folder.write(REPORT, audit_page(audit.plan, msgspec.json.decode(data)).encode())
    if as_json:
        render.write_data(data.decode())
    else:
        _print(result)
    _warn(result)
    for name in findings.cut_off:
        render.write_note(
            f"{name} ends in the middle of a line, which does not count: a run writes it, or was "
            "killed; report again when it is done"
        )
    render.write_note(f"wrote {audit.folder.path / RESULT} and {audit.folder.path / REPORT}")
    return render.EXIT_DONE


@click.command(short_help="Recompute an audit from what it stored.")
@click.argument("path", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--subkey",
    "subkeys",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A disclosed context subkey; one for every key of the plan and of its ledger.",
)
@tokenizer_option
@click.option("--verifier", help="The log's public key that you trust.  [default: that of the run]")
@click.option(
    "--log",
    "log_folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The log's files: read the list of plans again, and hold it against the result's.",
)
def replay(
    *,
    path: Path,
    subkeys: tuple[Path, ...],
    tokenizers: tuple[Path, ...],
    verifier: str | None,
    log_folder: Path | None,
) -> int:
    """Recompute every figure of RUN offline, and hold it against result.json.

    Needs the folder and disclosed context subkeys; asks no one. Any changed byte of plan, prompts,
    delivered contexts, answers, `run.json`, result or report fails, save in the list of the
    suspect's plans: that comes from the log of keys, and only with --log another list fails too.
    """
    folder = AuditFolder(path)
    records, others = _disclosed(folder, subkeys)
    audit = Audit(folder, records, unit_of(records[0].unit, tokenizers), others)
    facts = _facts(folder)
    lines = [_proof_line(folder, facts, verifier)]
    stored = folder.read_result()
    result = _decoded(stored, folder)
    audit.check_whole()
    plans = stored_plans(folder, facts, result, verifier)
    lines.append(_plans_line(folder, plans, log_folder, verifier or facts.log_verifier))
    again = encode_result(_figures(audit, audit.findings()) | plans.fields())
    if again != stored:
        raise AuditRunError(
            f"{folder.path / RESULT} does not follow from plan, answers and subkey: something was "
            "changed; ask for the folder again"
        )
    if folder.read_report() != audit_page(folder.plan, result).encode():
        raise AuditRunError(
            f"{folder.path / REPORT} does not follow from {RESULT}; ask for the folder again"
        )
    lines.append(f"every figure of plan {folder.digest[:12]} was recomputed and is the same")
    render.write_data("".join(f"{line}\n" for line in lines))
    _print(result)
    _warn(result)
    return render.EXIT_DONE


def _figures(audit: Audit, findings: Findings) -> dict[str, Any]:
    return figures(audit.plan, audit.folder.digest, _facts(audit.folder), findings)


def _warn(result: dict[str, Any]) -> None:
    for one in result["warnings"]:
        render.write_note(f"warning: {one.removesuffix('.')}")


def _facts(folder: AuditFolder) -> RunFacts:
    facts = folder.facts()
    if facts is None:
        raise AuditRunError(f"{folder.path} was not run; `watermark audit run` does it")
    return facts


def _decoded(data: bytes, folder: AuditFolder) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise AuditRunError(f"{folder.path / RESULT} was changed; ask for it again") from None


def _plans_line(
    folder: AuditFolder, plans: PlanList, log_folder: Path | None, verifier: str
) -> str:
    """Return what the list of plans was held against.

    Raises:
        AuditRunError: The log holds another.
    """
    if plans.log is None:
        return "the report was made without a log, so that nobody knows of other plans"
    told = f"{len(plans.plans)} of the suspect's plans among {plans.log.size} entries"
    if log_folder is None:
        return (
            f"the list of plans ({told}) was held against no log; whoever has the log's files "
            "gives --log"
        )
    since = plans_since(folder, plans, log_folder, verifier or plans.log.verifier)
    return f"the log bears the list of plans out ({told}); since then it has had {since} more"


def _disclosed(
    folder: AuditFolder, subkeys: Sequence[Path]
) -> tuple[list[KeyRecord], list[KeyRecord]]:
    """Return the plan's keys from disclosed subkeys, and further ones for traffic.

    Raises:
        AuditRunError: One is missing.
        CommitmentError: A subkey is not the one that was committed to.
    """
    given: dict[str, Disclosure] = {}
    for path in subkeys:
        try:
            one = parse_disclosure(path.read_bytes(), path=path)
        except OSError as err:
            raise AuditRunError(f"cannot read {path}; correct the path") from err
        given[one.key.key_id] = one
    records = []
    for key in folder.plan.keys:
        if key.key_id not in given:
            raise AuditRunError(
                f"the subkey of key {key.key_id!a} is missing; `watermark keys disclose` writes it"
            )
        records.append(_record(key, given.pop(key.key_id)))
    first = folder.plan.keys[0]
    others = [
        _record(msgspec.structs.replace(first, key_id=name, commitment=""), one)
        for name, one in given.items()
    ]
    return records, others


def _record(key: PlanKey, disclosure: Disclosure) -> KeyRecord:
    if key.commitment:
        disclosure.verify(root_of_entry(key.commitment.encode()))
    record = KeyRecord(
        key_id=key.key_id,
        unit=key.unit,
        context_width=key.context_width,
        scheme=key.scheme,
        rho=key.rho,
        account_share_q16=key.account_share_q16,
        state=KeyState.DISCLOSED,
        disclosed_at=BEGINNING,
        secret=disclosure.key,
    )
    entry = key.commitment.encode()
    if entry and key_entry(record, root_of_entry(entry)) != entry:
        raise AuditRunError(
            f"the plan says something else of key {key.key_id!a} than its commitment; the plan "
            "was changed"
        )
    return record


def _proof_line(folder: AuditFolder, facts: RunFacts, verifier: str | None) -> str:
    """Return what the log's proof shows.

    Raises:
        AuditRunError: It does not hold.
    """
    if not facts.is_logged:
        return "exploratory: the plan was not in a log before the first query"
    entry = plan_entry(folder.digest, folder.plan.suspect)
    keys = folder.plan.keys
    try:
        key = NoteVerifier.parse(verifier or facts.log_verifier)
        index = shown_index(facts.proof, entry, key)
        found = [
            shown_index(proof, one.commitment.encode(), key)
            for proof, one in zip(facts.key_proofs, keys, strict=False)
        ]
    except LogError as err:
        raise AuditRunError(
            f"the proof that plan and keys were logged does not hold: {err}"
        ) from err
    if found != [one.log_index for one in keys] or max(found, default=index) >= index:
        raise AuditRunError(
            "the proofs do not show that the plan's keys were logged before it, at the entries "
            "that it names; ask for the folder again"
        )
    return f"the plan is entry {index} of log {key.name}, its keys are entries before"


def _print(result: dict[str, Any]) -> None:
    suspect = result["suspect"]
    controls = result["controls"]
    rows = [("suspect", suspect)]
    rows += [(name.replace("_", " "), one) for name, one in controls.items() if one is not None]
    lines = [
        (name, str(one["n_answers"]), str(one["n_scored"]), *_cells(one)) for name, one in rows
    ]
    numbers = ("answers", "scored", "effect", "log10 e", "log10 p fixed n", "decoys", "closed form")
    is_exploratory = "EXPLORATORY: not planned in a log beforehand. " * result["is_exploratory"]
    render.write_lines(("",), numbers, lines, f"{is_exploratory}{result['claim']}")


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    if one["is_withheld"]:
        return ("withheld",) * 5
    decoys = one["decoys"]
    is_smallest = decoys["n_reached"] == 0
    return (
        f"{one['effect']:.4f}",
        f"{one['log10_evalue_peak']:z.2f}",
        f"{one['log10_pvalue_fixed_n']:z.2f}",
        f"{decoys['log10_pvalue']:z.2f}{', the smallest' * is_smallest} of {decoys['n']}",
        "contradict" if decoys["contradict_closed_form"] else "agree",
    )
