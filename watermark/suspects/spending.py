"""What an audit has spent, and what it can still afford.

Rule 1: a request goes out only if its dearest end, with every token of the answer, is paid for, so
that a price limit holds whatever comes back. (An empty answer that is asked again within the tries
of one prompt is billed again, beyond that.) Rule 2: where a server says nothing of what it billed,
tokens are estimated, rather too many than too few, and that is counted for the report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from watermark.radioactivity import AuditPlan, Budget
    from watermark.suspects.answers import Prompt
    from watermark.suspects.reading import ToRead
    from watermark.text import Unit

_BYTES_A_TOKEN: Final = 2
"""English has about four, other scripts about three."""


class Billed(Protocol):
    """What was billed for something."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of what was sent."""
        ...

    @property
    def completion_tokens(self) -> int:
        """Tokens of what came back."""
        ...


def estimated_tokens(text: str) -> int:
    """Return more tokens than a text is likely to have (rule 2)."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_A_TOKEN)


def spent_on(budget: Budget, billed: Iterable[Billed]) -> float:
    """Return what all of it cost."""
    rows = [(one.prompt_tokens, one.completion_tokens) for one in billed]
    return budget.spent(sum(one for one, _ in rows), sum(one for _, one in rows))


def affordable(
    plan: AuditPlan, spent: float, prompts: Sequence[Prompt], unit: Unit
) -> list[Prompt]:
    """Return the first prompts that can be asked without passing the price limit (rule 1)."""
    budget, system = plan.budget, len(unit.encode(plan.system))
    found: list[Prompt] = []
    for one in prompts:
        spent += budget.spent(system + len(unit.encode(one.prompt)), budget.max_tokens)
        if budget.price and spent > budget.price:
            break
        found.append(one)
    return found


def readable(budget: Budget, readings: Sequence[Billed], waiting: Sequence[ToRead]) -> list[ToRead]:
    """Return the first passages that can be read without passing the price limit.

    A passage costs its units, or what those before cost on average, where that is more: a server
    that is asked prefix by prefix bills a text many times.
    """
    spent = spent_on(budget, readings)
    mean = spent / max(1, len(readings))
    found: list[ToRead] = []
    for one in waiting:
        spent += max(mean, budget.spent(len(one.cut_text.passage.ids), 1))
        if budget.price and spent > budget.price:
            break
        found.append(one)
    return found
