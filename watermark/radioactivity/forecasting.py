"""What an audit can expect of itself, before the first query: power, requests, price and days.

Rule 1: what cannot succeed is refused, with what would.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from watermark.errors import AuditPlanError
from watermark.radioactivity.design import SPREAD
from watermark.radioactivity.plan import Forecast
from watermark.radioactivity.power import power_of_bet, scores_for_bet

if TYPE_CHECKING:
    from watermark.radioactivity.plan import Budget

_MINUTES_A_DAY: Final = 24 * 60
_PARTS: Final = len(SPREAD)  # of the capital; one is on the supposed share


def forecast(
    budget: Budget,
    *,
    effect: float,
    alpha: float,
    share_scored: float,
    prompt_tokens: int,
    is_open: bool,
    n_units: int = 0,
    n_keys: int = 1,
    has_control: bool = False,
) -> Forecast:
    """Return what an audit can expect.

    Every pair is scored under every key, and each text was marked under one of them: so many times
    the scores have so small a part of the excess each.

    Args:
        budget: What it may take.
        effect: Supposed mean excess of a score, in standard deviations, > 0, under the key that
            marked.
        alpha: Level.
        share_scored: Supposed share of generated units that are scored.
        prompt_tokens: Tokens of an average prompt, for the price.
        is_open: Whether delivered text is read, of which every new context is scored.
        n_units: Units of all passages, where it is.
        n_keys: Keys that are tested together.
        has_control: Whether a clean model is asked as often as the suspect.

    Raises:
        AuditPlanError: It cannot succeed; the message says what would.
    """
    if budget.price and not (budget.price_in or budget.price_out):
        raise AuditPlanError(
            f"a price limit of {budget.price:g} never holds where tokens cost nothing; give "
            "--price-in and --price-out, or no --price"
        )
    generated = n_units if is_open else budget.requests * budget.max_tokens
    expected, effect = int(share_scored * generated * n_keys), effect / n_keys
    needed = scores_for_bet(effect, alpha=alpha, power=0.9, n_parts=_PARTS)
    power = power_of_bet(expected, effect, alpha=alpha, n_parts=_PARTS)
    out = 0 if is_open else budget.max_tokens
    requests = budget.requests * (2 if has_control else 1)
    price = requests * budget.spent(prompt_tokens, out)
    rate = budget.requests_per_minute
    found = Forecast(
        effect=effect,
        share_scored=share_scored,
        power=round(power, 4),
        scores_needed=needed,
        scores_expected=expected,
        requests=requests,
        price=round(price, 4),
        days=round(requests / rate / _MINUTES_A_DAY, 4) if rate else 0.0,
        is_least=is_open,
    )
    _check_power(found, budget, alpha, is_open=is_open)
    if budget.price and price > budget.price:
        raise AuditPlanError(
            f"{requests} requests cost {price:.2f}, more than the {budget.price:.2f} that "
            "may be spent; raise --price, or plan fewer requests"
        )
    return found


def _check_power(found: Forecast, budget: Budget, alpha: float, *, is_open: bool) -> None:
    """Refuse what cannot succeed, and say what would."""
    if found.power >= 0.5:  # noqa: PLR2004 - as likely as not
        return
    per_request = max(1.0, found.scores_expected / budget.requests)
    what = ("passages", "more delivered text") if is_open else ("requests", "open access")
    smallest = found.effect * math.sqrt(found.scores_needed / max(1, found.scores_expected))
    raise AuditPlanError(
        f"this cannot succeed: {budget.requests} {what[0]} give about {found.scores_expected} "
        f"scores, which reject at alpha {alpha:g} with a chance of {found.power:.3f} if the effect "
        f"is {found.effect:g}; {math.ceil(found.scores_needed / per_request)} {what[0]} would do, "
        f"or an effect of {smallest:.3g}, or {what[1]}, or a larger alpha"
    )
