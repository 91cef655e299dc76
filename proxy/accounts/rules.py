"""What an account may ask for.

Rule 1: a request that cannot be read is not allowed where something has to be read in it.
Rule 2: a temperature is raised, as the operator says; everything else is refused, not changed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from proxy.errors import AccessError
from watermark.wire.features import Feature
from watermark.wire.openai_requests import GenerationRequest, parse_request

if TYPE_CHECKING:
    from proxy.accounts.document import Rules


def check_request(rules: Rules, request: GenerationRequest) -> None:
    """Refuse what an account may not ask for.

    Raises:
        AccessError: It asks for it; the message names the field.
    """
    if rules.models is not None and request.model not in rules.models:
        raise _forbidden("this account may not use this model; ask for another", "model")
    if not rules.logprobs and request.logprobs is not None:
        raise _forbidden("this account gets no log-probabilities; leave logprobs out", "logprobs")
    if rules.max_n is not None and _choices(request) > rules.max_n:
        raise _forbidden(f"this account gets at most {rules.max_n} choices; lower n", "n")
    if not rules.reasoning and Feature.REASONING in request.features:
        raise _forbidden("this account gets no reasoning traces; do not ask for them", "reasoning")
    if rules.min_temperature and request.top_k == 1:
        raise _forbidden("this account may not sample greedily; raise top_k", "top_k")


def _choices(request: GenerationRequest) -> int:
    """Return how many completions a request makes the upstream draw."""
    best_of = request.body.get("best_of")
    prompts = request.body.get("prompt")
    is_batch = isinstance(prompts, list) and any(isinstance(one, str | list) for one in prompts)
    count = max(request.n, best_of if isinstance(best_of, int) else 1)
    return count * (len(prompts) if is_batch and isinstance(prompts, list) else 1)


def with_temperature(request: GenerationRequest, lowest: float) -> bytes | None:
    """Return the body of a request whose temperature is raised, None where it is high enough.

    Args:
        request: The request, what it leaves unsaid filled in.
        lowest: What a lower temperature is raised to.
    """
    if request.temperature >= lowest:
        return None
    # The standard encoder: a seed may be longer than 64 bits.
    return json.dumps({**request.client_body, "temperature": lowest}).encode()


def allowed(rules: Rules, request: GenerationRequest) -> tuple[GenerationRequest, bytes | None]:
    """Return a request as an account may ask it, and its body where that has changed.

    Raises:
        AccessError: The account may not ask for it.
    """
    check_request(rules, request)
    body = with_temperature(request, rules.min_temperature)
    return (request, None) if body is None else (parse_request(request.client_dialect, body), body)


def _forbidden(message: str, param: str) -> AccessError:
    return AccessError(message, reason="rule", param=param)


def unread(what: str) -> AccessError:
    """Return the refusal of a request in which the account's rules cannot be checked."""
    return AccessError(
        f"this account may only send {what}, so that its limits can be checked", reason="rule"
    )
