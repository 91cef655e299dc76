"""The paths in their order: what one path's budget leaves, the next one takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from proxy.sampling.budget import Budget, BudgetLimits
from proxy.sampling.questions import Path
from proxy.sampling.select import SelectPlan, select
from proxy.sampling.splice import SplicePlan, splice
from proxy.sampling.whole import choose_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.sampling.questions import Finish, Flow
    from proxy.sampling.reply import Reply

_UNMARKED_CHUNK: Final = 32  # tokens a request once all budgets are spent


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkPlan:
    """The paths of one request.

    Attributes:
        splice: None where the upstream or the request does not allow it.
        splice_limits: What splice may cost.
        select: The parameters of select; also how unmarked text is asked for.
        select_limits: What select may cost; 0 requests switch it off.
        whole: The parameters of reply, which is then the only path.
    """

    splice: SplicePlan | None
    splice_limits: BudgetLimits
    select: SelectPlan
    select_limits: BudgetLimits
    whole: SelectPlan | None = None


def mark(reply: Reply, plan: MarkPlan, clock: Callable[[], float]) -> Flow:
    """Choose a reply's tokens by the strongest path, then by what its budget leaves.

    The last resort, once every budget is spent, is the upstream's own text: a race with a single
    candidate, which marks nothing.

    Args:
        reply: An empty reply.
        plan: The paths.
        clock: Seconds on a clock that never goes back.

    Raises:
        UpstreamProtocolError: The upstream breaks its promises.
    """
    if plan.whole is not None:
        return (yield from choose_whole(reply, plan.whole, Budget(BudgetLimits(), clock)))
    unmarked = replace(plan.select, candidates=1, chunk_tokens=_UNMARKED_CHUNK, path=Path.NONE)
    free = Budget(BudgetLimits(), clock)
    selecting = Budget(plan.select_limits, clock)
    paths: list[Callable[[], Flow]] = [
        lambda: select(reply, plan.select, selecting),
        lambda: select(reply, unmarked, free),
    ]
    if (spliced := plan.splice) is not None:
        splicing = Budget(plan.splice_limits, clock)
        paths.insert(0, lambda: splice(reply, spliced, splicing))
    finish: Finish | None = None
    while finish is None:
        if reply.is_silent:
            finish = yield from paths[-1]()
            continue
        finish = yield from paths[0]()
        if finish is None and not reply.is_silent:  # its budget is spent
            del paths[0]
    return finish
