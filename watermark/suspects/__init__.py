"""Other people's models: asked over the network or by their weights, and audited."""

from watermark.suspects.answers import Attempt, Outcome, Prompt, Suspect
from watermark.suspects.api import ApiSuspect
from watermark.suspects.auditing import Audit
from watermark.suspects.callables import CallableSuspect, CollectedSuspect
from watermark.suspects.client import ApiSettings
from watermark.suspects.dialects import Dialect, Sampling
from watermark.suspects.distributions import PromptDistributions
from watermark.suspects.folder import AuditFolder
from watermark.suspects.http_reading import HttpReader
from watermark.suspects.kept import ControlFindings, Findings, Look
from watermark.suspects.opening import begin, log_of, open_audit
from watermark.suspects.planning import Wishes, write_plan
from watermark.suspects.reading import Reader, Reading, ReadText

__all__ = [
    "ApiSettings",
    "ApiSuspect",
    "Attempt",
    "Audit",
    "AuditFolder",
    "CallableSuspect",
    "CollectedSuspect",
    "ControlFindings",
    "Dialect",
    "Findings",
    "HttpReader",
    "Look",
    "Outcome",
    "Prompt",
    "PromptDistributions",
    "ReadText",
    "Reader",
    "Reading",
    "Sampling",
    "Suspect",
    "Wishes",
    "begin",
    "log_of",
    "open_audit",
    "write_plan",
]
