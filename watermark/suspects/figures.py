"""The figures of an audit, as they stand in `result.json`: the same for everyone who computes them.

What they may tell of the scores, `shown` decides.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Final

import msgspec

from watermark.radioactivity import PromptSource, Weighting
from watermark.suspects.answers import Outcome
from watermark.suspects.callables import COLLECTED
from watermark.suspects.folder import CLEAN_MODEL, RunFacts, encode_facts
from watermark.suspects.shown import evidence_fields, rounded

if TYPE_CHECKING:
    from watermark.radioactivity import AuditPlan
    from watermark.suspects.kept import ControlFindings, Findings

RESULT_FORM: Final = "output-watermark-audit-result/v1"


_ALWAYS: Final = (
    (
        "It says that the suspect carries the keys, not who put marked text into its training: a "
        "third party can train on text that others published."
    ),
    (
        "Where the suspect can search the web or a store of documents, what it quotes carries the "
        "keys without any training."
    ),
    (
        "A paraphrase of the training text that aims at the mark removes it: a null that stands "
        "proves no innocence."
    ),
    (
        "The dose is measured against marked text under its key, not against training data; a "
        "student shows less than the share of marked text that it learned from."
    ),
)


def figures(plan: AuditPlan, digest: str, facts: RunFacts, findings: Findings) -> dict[str, Any]:
    """Return what an audit says, for `result.json`.

    Args:
        plan: The plan.
        digest: Its digest.
        facts: Under which conditions it ran.
        findings: What was found.
    """
    evidence, look = findings.evidence, findings.look
    return {
        "form": RESULT_FORM,
        "plan": digest,
        "answers": findings.last,
        "run": hashlib.sha256(encode_facts(facts)).hexdigest(),
        "is_exploratory": not facts.is_logged,
        "asked": facts.suspect,
        "hypothesis": plan.hypothesis,
        "alpha": plan.alpha,
        "is_rejected": look.is_rejected,
        "is_complete": findings.is_complete,
        "validity": _validity(plan.weighting),
        "spent": rounded(look.spent),
        "kinds": findings.kinds,
        "suspect": evidence_fields(evidence),
        "controls": {
            "undelivered": None
            if findings.undelivered is None
            else evidence_fields(findings.undelivered),
            "clean_model": None if findings.control is None else _control_fields(findings.control),
        },
        "warnings": warnings(plan, findings),
        "claim": claim(plan, findings),
        "limits": limits(plan, facts, findings),
    }


def _control_fields(control: ControlFindings) -> dict[str, Any]:
    facts = {"kinds": control.kinds, "n_waiting": control.n_waiting, "answers": control.last}
    return evidence_fields(control.evidence) | facts


def encode_result(fields: dict[str, Any]) -> bytes:
    """Return the one form of a result."""
    return msgspec.json.format(msgspec.json.encode(fields, order="sorted"), indent=1) + b"\n"


def claim(plan: AuditPlan, findings: Findings) -> str:
    """Return what the result says, in a sentence or two."""
    dose = findings.evidence.dose
    if findings.look.is_rejected:
        interval = (
            f"95% interval {dose.low:.3g} to {dose.high:.3g}"
            if math.isfinite(dose.high)
            else "too few answers for an interval"
        )
        return (
            f"{plan.suspect} learned from, quotes, or is, text that carries the keys of this plan. "
            f"Dose {dose.estimate:.3g} ({interval}) of what the marked text itself shows."
        )
    bound = (
        f"at 95% a dose above {dose.high:.3g} is excluded"
        if math.isfinite(dose.high)
        else "there are too few answers to bound the dose"
    )
    return f"The null hypothesis stands: nothing was shown, and {bound}."


def warnings(plan: AuditPlan, findings: Findings) -> list[str]:
    """Return what must be mended or explained before the result is used, a sentence or two each."""
    control = findings.control
    found: list[str] = []
    if control is None and CLEAN_MODEL in plan.controls:
        found.append(
            "The plan promises a clean model as a control, and none was asked: nothing shows what "
            "this audit says of a model that never saw the text. `watermark audit run "
            "--as-control` asks one."
        )
    if control is not None and control.n_waiting:
        found.append(
            f"The clean model has not answered {control.n_waiting} of the prompts that the suspect "
            "has had, so that the two cannot be compared. `watermark audit run --as-control` goes "
            "on."
        )
    if control is not None and control.evidence.rejects_null(alpha=plan.alpha):
        found.append(
            "The clean model rejects the null hypothesis too: it is not clean, or this audit is at "
            "fault. Explain that first."
        )
    return found


def limits(plan: AuditPlan, facts: RunFacts, findings: Findings) -> list[str]:
    """Return what the result does not say, a sentence each."""
    found = list(_ALWAYS)
    if not findings.is_complete:
        found.append(
            "Not every prompt of the plan was answered when this was written: the fixed-n p-value "
            "and the ranks among decoys suppose a number of answers fixed beforehand, and count "
            "for nothing here. The e-value holds at any time."
        )
    if findings.look.is_unheard:
        found.append(
            "Nothing that the suspect said stands at a context that was delivered, so that nothing "
            "was tested: it speaks another language or of other things, or the ledger is another "
            "deployment's."
        )
    if plan.weighting is Weighting.ALL_KEYS:
        found.append(
            "Weights come from traffic under the tested keys too: each score keeps its mean, and "
            "clean suspects were measured to reject no more often than alpha; for a proof plan "
            "with weights of other keys, or none."
        )
    if findings.control is not None and CLEAN_MODEL not in plan.controls:
        found.append("The clean model was not promised by the plan: it was chosen afterwards.")
    found += _vouched_for(plan, facts, findings)
    if any(one.log_index is None for one in plan.keys):
        found.append("A key of this plan is not committed to in a log, so it may be of any date.")
    if not plan.training_cutoff:
        found.append("The suspect's training cut-off is not known to the plan.")
    if findings.kinds.get(Outcome.OTHER_MODEL):
        found.append("Some answers bore another model's name, and were not scored.")
    return found


def _vouched_for(plan: AuditPlan, facts: RunFacts, findings: Findings) -> list[str]:
    """Return what stands on somebody's word."""
    found: list[str] = []
    if plan.prompt_source is PromptSource.GIVEN and plan.prompt_origin is not None:
        found.append(
            f"The prompts are of a file {plan.prompt_origin.name!a}, SHA-256 "
            f"{plan.prompt_origin.sha256}. They were fixed before the first query, and all they "
            "hold is taken out of the test; that they were not chosen by the key, whoever gave "
            "the file vouches for."
        )
    if COLLECTED in {facts.suspect, facts.control}:
        found.append(
            "Answers come from a file that somebody collected. They bear this plan's digest; that "
            "they were asked for after it was logged, of the model that is named, and that none "
            "was left out or chosen among several, whoever collected them vouches for."
        )
    if findings.kinds.get("tokens-estimated"):
        found.append(
            "The suspect did not say what it billed for some answers: what was spent is partly an "
            "estimate, of a token for every two bytes."
        )
    return found


def _validity(weighting: Weighting) -> str:
    return "measured" if weighting is Weighting.ALL_KEYS else "exact"
