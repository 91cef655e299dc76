"""May this request be marked, and if not, why not.

Every request gets a decision with a reason; a refusal to mark is counted and visible, never
silent.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proxy.sampling.questions import Path
from watermark.wire.features import REASONING_FIELDS, TEMPLATE, Feature
from watermark.wire.openai_requests import DialectName, GenerationRequest

if TYPE_CHECKING:
    from collections.abc import Container

    from proxy.config import Capabilities, ModelConfig


MIN_TEMPERATURE: Final = 0.01  # engines draw greedily below (vLLM), or lift it to this
MAX_CHOICES: Final = 128  # OpenAI's bound; each is a conversation of its own with the upstream
MAX_STOP_STRINGS: Final = 32  # SGLang's bound; OpenAI takes 4


class Reason(enum.StrEnum):
    """Why a reply is marked or not."""

    MARKED = "marked"
    MODEL_NOT_CONFIGURED = "model-not-configured"
    NO_CAPABLE_PATH = "no-capable-path"
    STREAMED = "streamed"
    TEMPERATURE_ZERO = "temperature-zero"
    TOO_SHORT = "too-short"
    CONTEXT_FULL = "context-full"
    TOOLS = "tools"
    STRUCTURED_OUTPUT = "structured-output"
    REASONING = "reasoning"
    STORED = "stored"
    NOT_TEXT = "not-text"
    BATCH_PROMPT = "batch-prompt"
    UNSUPPORTED_PARAMETER = "unsupported-parameter"
    UNREADABLE = "unreadable"
    OTHER_PATH = "other-path"
    TOO_LARGE = "too-large"
    NO_MARKING_KEY = "no-marking-key"
    LEDGER_DOWN = "ledger-down"
    ACCOUNT_UNMARKED = "account-unmarked"


_UNMARKED_FEATURES: Final = {
    Feature.TOOLS: Reason.TOOLS,
    Feature.STRUCTURED_OUTPUT: Reason.STRUCTURED_OUTPUT,
    Feature.REASONING: Reason.REASONING,
    Feature.STORED: Reason.STORED,
}


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
            key = "" if self.key_id is None else f"; key={self.key_id}"
            return f"marked; path={self.path}{key}"
        return f"unmarked; reason={self.reason}"


def refusal(request: GenerationRequest, *, reasons: bool = False) -> Reason | None:
    """Return why a request may not be marked whatever the upstream can, None where it may.

    Args:
        request: The request.
        reasons: Whether reasoning is understood as this request asks for it.
    """
    for feature, reason in _UNMARKED_FEATURES.items():
        if feature in request.features and not (reasons and feature is Feature.REASONING):
            return reason
    if request.temperature < MIN_TEMPERATURE or request.top_k == 1:
        return Reason.TEMPERATURE_ZERO
    if _is_unsupported(request, known={TEMPLATE} if reasons else set()):
        return Reason.UNSUPPORTED_PARAMETER
    if request.dialect is DialectName.CHAT:
        return Reason.NOT_TEXT if any(m.text is None for m in request.messages) else None
    return None if _is_single(request.prompt) else Reason.BATCH_PROMPT


def asks_by_template(request: GenerationRequest) -> bool:
    """Return whether whether to reason is said to the chat template, and nowhere else."""
    asked = request.client_body.get(TEMPLATE)
    others = request.client_body.keys() & REASONING_FIELDS
    is_chat = request.client_dialect is DialectName.CHAT
    return is_chat and isinstance(asked, dict) and not others


def _is_unsupported(request: GenerationRequest, *, known: Container[str]) -> bool:
    if any(name not in known for name in request.unknown):
        return True
    if request.n > MAX_CHOICES or len(request.stop) > MAX_STOP_STRINGS:
        return True
    # Negative penalties, as biases, grow with the reply past the largest bias that there is.
    return min(request.presence_penalty, request.frequency_penalty) < 0


def strongest_path(request: GenerationRequest, model: ModelConfig) -> Path:
    """Return the strongest path that the upstream allows for this request."""
    able = model.capabilities
    continues = _continues(request, able)
    fits = {
        Path.SPLICE: continues and _is_raceable(request, able),
        Path.SELECT: continues,
        Path.REPLY: request.dialect is DialectName.CHAT or isinstance(request.prompt, str),
    }
    return next((path for path in map(Path, model.paths) if fits[path]), Path.NONE)


def _continues(request: GenerationRequest, able: Capabilities) -> bool:
    """Return whether replies to a request can be continued with all that it asks for."""
    if able.continuation == "none" or (able.is_text and not _fits_text(request, able)):
        return False
    if _has_bias(request) and not (able.logit_bias and _most_biases(request) <= able.max_bias):
        return False
    if request.logprobs is None:
        return True
    # llama-server lists nothing where a sampled token leaves a character unfinished.
    return able.api != "llama-server" and max(1, request.logprobs) <= able.logprobs


def _is_raceable(request: GenerationRequest, able: Capabilities) -> bool:
    """Return whether lists tell what a request's sampler would draw from.

    A truncation over biased raw log-probabilities cannot be redone from a list; from the whole
    vocabulary it can.
    """
    is_cut = bool(request.top_k) or request.top_p < 1
    is_partial = able.logprobs_mode == "raw" and not able.lists_everything
    return not (is_partial and _has_bias(request) and is_cut)


def _fits_text(request: GenerationRequest, able: Capabilities) -> bool:
    """Return whether a request can be served by continuing text.

    Text tells no token ids to report or to penalize, and a text prompt is no conversation.
    """
    if request.logprobs is not None or request.wants_token_ids:
        return False
    if request.presence_penalty or request.frequency_penalty:
        return False
    if request.dialect is DialectName.CHAT:
        return able.continuation == "prefix"
    return isinstance(request.prompt, str)


def _has_bias(request: GenerationRequest) -> bool:
    return bool(request.logit_bias or request.presence_penalty or request.frequency_penalty)


def _most_biases(request: GenerationRequest) -> float:
    """Return how many tokens may have a bias by the end of the reply."""
    count = float(len(request.logit_bias))
    if request.presence_penalty or request.frequency_penalty:
        count += math.inf if request.max_tokens is None else request.max_tokens
    return count


def _is_single(prompt: object) -> bool:
    """Return whether a prompt is one text or one array of token ids."""
    if isinstance(prompt, list):
        return bool(prompt) and all(type(item) is int and item >= 0 for item in prompt)
    return isinstance(prompt, str)
