"""May this request be marked, and if not, why not.

Every request gets a decision with a reason; a refusal to mark is counted and visible, never
silent.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from watermark.wire.openai_requests import DialectName, GenerationRequest

if TYPE_CHECKING:
    from proxy.config import ModelConfig


MAX_CHOICES: Final = 128  # OpenAI's bound; each is a conversation of its own with the upstream
MAX_STOP_STRINGS: Final = 32  # SGLang's bound; OpenAI takes 4


class Reason(enum.StrEnum):
    """Why a reply is marked or not."""

    MARKED = "marked"
    MODEL_NOT_CONFIGURED = "model-not-configured"
    NO_CAPABLE_PATH = "no-capable-path"
    TEMPERATURE_ZERO = "temperature-zero"
    TOOLS = "tools"
    STRUCTURED_OUTPUT = "structured-output"
    NOT_TEXT = "not-text"
    BATCH_PROMPT = "batch-prompt"
    UNSUPPORTED_PARAMETER = "unsupported-parameter"
    UNREADABLE = "unreadable"
    NO_MARKING_KEY = "no-marking-key"


class Path(enum.StrEnum):
    """How the mark gets in."""

    NONE = "none"
    SPLICE = "splice"
    SELECT = "select"


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one request.

    Attributes:
        reason: Why.
        path: The path that begins; `NONE` where the reply is not marked.
        key_id: The marking key; None where the reply is not marked, or no key is chosen yet.
    """

    reason: Reason
    path: Path = Path.NONE
    key_id: str | None = None

    @property
    def is_marked(self) -> bool:
        """Whether the reply carries a mark."""
        return self.path is not Path.NONE

    def header(self) -> str:
        """Return the value of the disclosure header."""
        if self.is_marked:
            return f"marked; path={self.path}; key={self.key_id}"
        return f"unmarked; reason={self.reason}"


def refusal(request: GenerationRequest) -> Reason | None:
    """Return why a request may not be marked whatever the upstream can, None where it may."""
    body = request.body
    if body.get("tools") or body.get("functions"):
        return Reason.TOOLS
    if "response_format" in request.unknown:
        return Reason.STRUCTURED_OUTPUT
    if request.temperature == 0 or request.top_k == 1:
        return Reason.TEMPERATURE_ZERO
    if request.unknown or request.n > MAX_CHOICES or len(request.stop) > MAX_STOP_STRINGS:
        return Reason.UNSUPPORTED_PARAMETER
    if request.dialect is DialectName.CHAT:
        return Reason.NOT_TEXT if any(m.text is None for m in request.messages) else None
    return None if _is_single(request.prompt) else Reason.BATCH_PROMPT


def strongest_path(request: GenerationRequest, model: ModelConfig) -> Path:
    """Return the strongest path that the upstream allows for this request."""
    able = model.capabilities
    if able.continuation == "none":
        return Path.NONE
    can_bias = able.logit_bias or not _has_bias(request)
    if not can_bias or (request.logprobs or 0) > able.logprobs:
        return Path.NONE
    if model.splice.enabled and able.logprobs > 0 and model.unit == "tokenizer":
        # A truncation over biased raw log-probabilities cannot be redone from a list.
        is_raw = able.logprobs_mode == "raw"
        if not (is_raw and _has_bias(request) and (request.top_k or request.top_p < 1)):
            return Path.SPLICE
    return Path.SELECT if model.select.enabled and able.max_n > 1 else Path.NONE


def _has_bias(request: GenerationRequest) -> bool:
    return bool(request.logit_bias or request.presence_penalty or request.frequency_penalty)


def _is_single(prompt: object) -> bool:
    """Return whether a prompt is one text or one array of token ids."""
    if isinstance(prompt, list):
        return bool(prompt) and all(type(item) is int and item >= 0 for item in prompt)
    return isinstance(prompt, str)
