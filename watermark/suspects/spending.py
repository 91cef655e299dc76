"""What an audit has spent, and what it can still afford.

Rule 1: a request goes out only if its dearest end, with every token of the answer, is paid for, so
that a price limit holds whatever comes back. (An empty answer that is asked again within the tries
of one prompt is billed again, beyond that.) Where the server is told no `max_tokens`, nothing but
4 MiB bounds an answer: the longest so far, and never less than the plan's `max_tokens`, stands for
the next ones, of which at most eight go out before the books are read again. Rule 2: where a server
says nothing of what it billed, tokens are estimated, rather too many than too few, and that is
counted for the report. Rule 3: suspect and clean model share one budget; where the plan promises
the clean model, a prompt goes to the suspect only if it can go to both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from watermark.radioactivity.plan import TokensField

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from watermark.radioactivity import AuditPlan, Budget
    from watermark.suspects.answers import Attempt, Prompt
    from watermark.suspects.reading import ToRead
    from watermark.text import Unit

BYTES_A_TOKEN: Final = 2
"""English has about four, other scripts about three."""
_UNTOLD: Final = 8
"""Prompts at a time where no `max_tokens` is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Who has been paid, and who has been promised something (rule 3).

    Attributes:
        asked: Attempts of whom is to be asked.
        others: Attempts of the other one, suspect or clean model.
        promised: Prompts that the suspect has had, and the promised clean model has not answered.
        is_doubled: Whether what is asked now is promised to the clean model too.
    """

    asked: Sequence[Attempt]
    others: Sequence[Attempt] = ()
    promised: Sequence[Prompt] = ()
    is_doubled: bool = False


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
    return -(-len(text.encode("utf-8", "replace")) // BYTES_A_TOKEN)


def spent_on(budget: Budget, billed: Iterable[Billed]) -> float:
    """Return what all of it cost."""
    rows = [(one.prompt_tokens, one.completion_tokens) for one in billed]
    return budget.spent(sum(one for one, _ in rows), sum(one for _, one in rows))


def affordable(
    plan: AuditPlan, books: Books, prompts: Sequence[Prompt], unit: Unit
) -> list[Prompt]:
    """Return the first prompts that can be asked without passing the price limit (rule 1)."""
    budget, most_said = plan.budget, plan.budget.max_tokens
    if plan.max_tokens_as is TokensField.NONE:
        prompts = prompts[:_UNTOLD]
        most_said = max([most_said, *(one.completion_tokens // one.tries for one in books.asked)])
    system = len(unit.encode(plan.system))

    def dearest(one: Prompt) -> float:
        return budget.spent(system + len(unit.encode(one.prompt)), most_said)

    spent = spent_on(budget, (*books.asked, *books.others)) + sum(map(dearest, books.promised))
    found: list[Prompt] = []
    for one in prompts:
        spent += dearest(one) * (1 + books.is_doubled)
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
