"""What an audit says in words: the claim, what must be mended first, and what it does not say.

Rule 1: nothing is claimed that the figures beside it do not show. Rule 2: what stands on
somebody's word, and not on a figure, is said to.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from watermark.radioactivity import PromptSource, Weighting
from watermark.suspects.answers import Outcome
from watermark.suspects.callables import COLLECTED
from watermark.suspects.folder import CLEAN_MODEL
from watermark.suspects.shown import is_withheld

if TYPE_CHECKING:
    from watermark.radioactivity import AuditPlan, Dose, Evidence
    from watermark.suspects.folder import RunFacts
    from watermark.suspects.kept import Findings

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
        "student shows less than the share of marked text that it learned from. Its interval is "
        "approximate, and too low where a few answers quote and the others show nothing."
    ),
)


def claim(plan: AuditPlan, findings: Findings) -> str:
    """Return what the result says, in a sentence or two."""
    dose = _shown_dose(findings.evidence)
    if findings.look.is_rejected:
        found = (
            f"{plan.suspect} learned from, quotes, or is, text that carries the keys of this plan."
        )
        if dose is None:
            return f"{found} There are too few scores to show how much."
        interval = (
            f"95% interval {dose.low:.3g} to {dose.high:.3g}"
            if math.isfinite(dose.high)
            else "too few answers for an interval"
        )
        return (
            f"{found} Dose {dose.estimate:.3g} ({interval}) of what the marked text itself shows."
        )
    bound = (
        f"at 95% a dose above {dose.high:.3g} is excluded"
        if dose is not None and math.isfinite(dose.high)
        else "there are too few answers to bound the dose"
    )
    if not findings.evidence.n_scored:
        return f"Nothing was tested: no score counts, and nothing follows for {plan.suspect}."
    return f"The null hypothesis stands: nothing was shown, and {bound}."


def _shown_dose(evidence: Evidence) -> Dose | None:
    return None if is_withheld(evidence) else evidence.dose


def warnings(plan: AuditPlan, findings: Findings) -> list[str]:
    """Return what must be mended or explained before the result is used, a sentence or two each."""
    control = findings.control
    found: list[str] = []
    if not findings.evidence.n_scored:
        found.append(_untested(plan))
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
    if not is_withheld(findings.evidence) and findings.evidence.decoys.contradicts(
        findings.evidence.log_pvalue
    ):
        found.append(
            "The decoy keys contradict the closed form: more of them reach the statistic than its "
            "p-value can explain. Neither p-value, nor the e-value, is to be used."
        )
    return found


def _untested(plan: AuditPlan) -> str:
    if plan.weighting is Weighting.FLAT:
        return (
            "Nothing was tested: no answer holds a context that counts. Answers are empty or too "
            "short, or repeat their prompts."
        )
    return (
        "Nothing was tested: nothing that the suspect said stands at a context that counts as "
        "delivered. It speaks another language or of other things, or the ledger is another "
        "deployment's, or of another secret under the same key id. Plan again with the right one."
    )


def limits(plan: AuditPlan, facts: RunFacts, findings: Findings) -> list[str]:
    """Return what the result does not say, a sentence or two each."""
    return [
        *_ALWAYS,
        *_of_the_answers(findings),
        *_of_the_pvalues(plan, findings),
        *_of_the_plan(plan, findings),
        *_vouched_for(plan, facts, findings),
    ]


def _of_the_answers(findings: Findings) -> list[str]:
    found: list[str] = []
    if not findings.is_complete:
        found.append(
            "Not every prompt of the plan was answered when this was written: the fixed-n p-value "
            "and the ranks among decoys suppose a number of answers fixed beforehand, and count "
            "for nothing here. The e-value holds at any time."
        )
    if is_withheld(findings.evidence):
        found.append(
            "Too few pairs were scored: figures over so few would tell single scores while the "
            "keys are secret, and are withheld."
        )
    if findings.kinds.get(Outcome.OTHER_MODEL):
        found.append("Some answers bore another model's name, and were not scored.")
    return found


def _of_the_pvalues(plan: AuditPlan, findings: Findings) -> list[str]:
    found: list[str] = []
    decoys = findings.evidence.decoys
    if decoys.log_pvalue_floor > math.log(plan.alpha):
        found.append(
            f"{decoys.n_decoys} decoy keys support no p-value below "
            f"{math.exp(decoys.log_pvalue_floor):.2g}: down to there they check the closed form. "
            f"What is smaller, the level {plan.alpha:g} too, rests on the closed form and the "
            "e-value."
        )
    if plan.access.is_open:
        found.append(
            "What is read was made with the keys, so that where a text ends may lean on earlier "
            "scores: the e-value allows for it, the fixed-n p-value and the rank among decoys hold "
            "approximately."
        )
    if plan.weighting is Weighting.ALL_KEYS:
        found.append(
            "Weights come from traffic under the tested keys too: each score keeps its mean, but "
            "no theorem covers their product, and clean suspects were measured at levels of 5% and "
            "1% only. For a proof plan with weights of other keys, or none."
        )
    if plan.weighting is Weighting.OTHER_KEYS:
        found.append(
            "Weights come from traffic under keys that are not tested here. That is exact as far "
            "as those conversations hold no reply under a tested key: what a rotation fell into "
            "belongs to both keys."
        )
    return found


def _of_the_plan(plan: AuditPlan, findings: Findings) -> list[str]:
    found: list[str] = []
    if findings.control is not None and CLEAN_MODEL not in plan.controls:
        found.append("The clean model was not promised by the plan: it was chosen afterwards.")
    if any(one.log_index is None for one in plan.keys):
        found.append("A key of this plan is not committed to in a log, so it may be of any date.")
    found.append(
        f"That marked text itself shows {plan.reference:g} nats a score is the plan's word: every "
        "dose is a multiple of it."
    )
    if not plan.training_cutoff:
        found.append("The suspect's training cut-off is not known to the plan.")
    return found


def _vouched_for(plan: AuditPlan, facts: RunFacts, findings: Findings) -> list[str]:
    """Return what stands on somebody's word."""
    found = [
        (
            (
                "The log shows that the plan was fixed, not that it was run once: that no other "
                "run of it was thrown away, whoever ran it vouches for."
            )
            if facts.is_logged
            else "No log shows that the plan was fixed before the first query, or that it was run "
            "once: whoever ran it vouches for both."
        )
    ]
    if plan.access.is_open:
        found.append(
            "Kept are the units and probabilities that the suspect's lists came to, not the lists: "
            "that they were read aright, whoever ran the audit vouches for."
        )
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
