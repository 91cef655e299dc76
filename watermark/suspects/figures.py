"""The figures of an audit, as they stand in `result.json`: the same for everyone who computes them.

What they may tell of the scores, `shown` decides; what they mean, `statements` says.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from watermark.radioactivity import Weighting
from watermark.suspects.folder import RunFacts, encode_facts
from watermark.suspects.shown import evidence_fields, rounded
from watermark.suspects.statements import claim, limits, warnings

if TYPE_CHECKING:
    from watermark.radioactivity import AuditPlan
    from watermark.suspects.kept import ControlFindings, Findings

RESULT_FORM: Final = "output-watermark-audit-result/v1"


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
        "validity": _validity(plan),
        "spent": rounded(look.spent),
        "kinds": findings.kinds,
        "suspect": evidence_fields(evidence, alpha=plan.alpha),
        "controls": {
            "undelivered": _undelivered_fields(plan, findings),
            "clean_model": _control_fields(plan, findings.control),
        },
        "warnings": warnings(plan, findings),
        "claim": claim(plan, findings),
        "limits": limits(plan, facts, findings),
    }


def _undelivered_fields(plan: AuditPlan, findings: Findings) -> dict[str, Any] | None:
    if findings.undelivered is None:
        return None
    is_part = plan.weighting is Weighting.FLAT or plan.floor > 0  # of what the suspect is tested on
    within = findings.evidence if is_part else None
    return evidence_fields(findings.undelivered, alpha=plan.alpha, within=within)


def _control_fields(plan: AuditPlan, control: ControlFindings | None) -> dict[str, Any] | None:
    if control is None:
        return None
    facts = {"kinds": control.kinds, "n_waiting": control.n_waiting, "answers": control.last}
    fields = evidence_fields(control.evidence, alpha=plan.alpha, n_apart=control.n_apart)
    return fields | facts


def encode_result(fields: dict[str, Any]) -> bytes:
    """Return the one form of a result."""
    return msgspec.json.format(msgspec.json.encode(fields, order="sorted"), indent=1) + b"\n"


def _validity(plan: AuditPlan) -> str:
    if plan.weighting is Weighting.ALL_KEYS:
        return "measured"
    return "exact" if not plan.access.is_open else "e-value exact, p-values approximate"
