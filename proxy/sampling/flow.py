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
    finish: Finish | None = None
    if plan.splice is not None:
        finish = yield from splice(reply, plan.splice, Budget(plan.splice_limits, clock))
    if finish is None:
        finish = yield from select(reply, plan.select, Budget(plan.select_limits, clock))
    if finish is None:
        unmarked = replace(plan.select, candidates=1, chunk_tokens=_UNMARKED_CHUNK, path=Path.NONE)
        finish = yield from select(reply, unmarked, Budget(BudgetLimits(), clock))
    return finish
