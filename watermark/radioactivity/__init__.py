"""Was a third-party model trained on our output? The statistics of it; nothing here asks anyone."""

from watermark.radioactivity.delivered import ContextWeights, Traffic, Weighting
from watermark.radioactivity.design import DEFAULT_ALPHA, FEW_DECOYS, Design
from watermark.radioactivity.dose import Dose, dose
from watermark.radioactivity.evidence import Evidence, KeyEvidence, bet_path, weigh_evidence
from watermark.radioactivity.pairs import Choices, Observation, PairCollector
from watermark.radioactivity.plan import Access, AuditPlan, Budget, PromptSource
from watermark.radioactivity.power import (
    SHARE_SCORED,
    power_of_bet,
    scores_for_bet,
    scores_for_fixed_n,
)
from watermark.radioactivity.view import Passage, Path, View

__all__ = [
    "DEFAULT_ALPHA",
    "FEW_DECOYS",
    "SHARE_SCORED",
    "Access",
    "AuditPlan",
    "Budget",
    "Choices",
    "ContextWeights",
    "Design",
    "Dose",
    "Evidence",
    "KeyEvidence",
    "Observation",
    "PairCollector",
    "Passage",
    "Path",
    "PromptSource",
    "Traffic",
    "View",
    "Weighting",
    "bet_path",
    "dose",
    "power_of_bet",
    "scores_for_bet",
    "scores_for_fixed_n",
    "weigh_evidence",
]
