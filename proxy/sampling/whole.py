"""`reply`: whole replies only. Draw n of them and deliver one.

The race is that of `select`, over replies from their first unit to their last: given all n, each
wins with probability 1/n, so that what is delivered has the upstream's own law. Nothing is
continued, so the client's own parameters go upstream as they are, those that the proxy does not
know among them. In one text the mark is weak, about what log n nats over its length are; in a
corpus it adds up.

Source: `watermark.schemes.trie_race`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.sampling.ask import ask
from proxy.sampling.questions import UNBOUNDED, Draft
from proxy.sampling.select import deliver

if TYPE_CHECKING:
    from proxy.sampling.budget import Budget
    from proxy.sampling.questions import Flow
    from proxy.sampling.reply import Reply
    from proxy.sampling.select import SelectPlan


def choose_whole(reply: Reply, plan: SelectPlan, budget: Budget) -> Flow:
    """Choose one of several whole replies; return why it ended.

    Args:
        reply: An empty reply.
        plan: How many are drawn, and how they are read; its chunks have no bound.
        budget: What it costs is counted here.

    Raises:
        UpstreamProtocolError: The upstream's replies break its promises.
    """
    question = Draft(
        tokens=(),
        n=plan.candidates,
        max_tokens=plan.parameters.max_tokens or UNBOUNDED,
        bias=plan.parameters.logit_bias,
        seed=reply.upstream_seed(),
        path=plan.path,
        is_whole=True,
    )
    continuations = yield from ask(reply, question, budget, plan.end_ids)
    winner, chosen = deliver(reply, plan, continuations)
    yield from chosen
    return winner.finish
