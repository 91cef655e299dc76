"""What an account's rules and quotas let through, between the reading of a request and its answer.

Without accounts everything is let through, and nothing is counted here.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy.accounts.rules import allowed, unread
from proxy.accounts.watch import LONG_TOKENS
from proxy.errors import AccountsDownError
from watermark.wire.features import Feature

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.accounts.book import Caller
    from proxy.accounts.document import Rules
    from proxy.accounts.usage import Admitted, UsageStore
    from proxy.accounts.watch import Watch
    from proxy.telemetry.metrics import Metrics
    from watermark.wire.openai_requests import GenerationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """A request that was let in.

    Attributes:
        caller: Who asks; None without accounts.
        request: What he asks, as it is allowed; None where it was not read.
        body: Its bytes.
        is_changed: Whether they are other bytes than the client sent.
        admitted: How it was counted; None where nothing is.
    """

    caller: Caller | None
    request: GenerationRequest | None
    body: bytes
    is_changed: bool = False
    admitted: Admitted | None = None

    @property
    def is_marked(self) -> bool:
        """Whether replies to this caller are to be marked."""
        return self.caller is None or self.caller.rules.marking

    @property
    def gets_reasoning(self) -> bool:
        """Whether this caller is shown reasoning traces."""
        return self.caller is None or self.caller.rules.reasoning

    def passes_unlogged(self, *, default: bool) -> bool:
        """Whether he is served unmarked while the ledger cannot be written, rather than refused."""
        rule = None if self.caller is None else self.caller.rules.on_ledger_unavailable
        return default if rule is None else rule == "pass-unmarked"

    @property
    def account(self) -> str | None:
        """The account's name, or a pseudonym; None for nobody known."""
        return (self.caller.name or None) if self.caller is not None else None

    @property
    def code(self) -> str | None:
        """The account whose code goes into the reply, None for no code."""
        return None if self.caller is None else self.caller.code


class Access:
    """The rules and quotas of all accounts, at work."""

    def __init__(
        self,
        usage: UsageStore | None,
        watch: Watch | None,
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        """Count into a store.

        Args:
            usage: The shared counters; None where there are no accounts.
            watch: What is noted of accounts; None where there are none.
            metrics: The counters of the process.
            now: Seconds since the epoch.
        """
        self._metrics = metrics
        self._usage = usage
        self._watch = watch
        self._now = now

    def enter(
        self, caller: Caller | None, request: GenerationRequest | None, body: bytes
    ) -> Entered:
        """Let a request to a generation endpoint in, its temperature raised where it has to be.

        Args:
            caller: Who asks.
            request: What he asks; None where it cannot be read.
            body: Its bytes.

        Raises:
            AccessError: His account may not ask this, or has used up a quota.
            AccountsDownError: The counters cannot be used.
        """
        if caller is None:
            return Entered(caller=None, request=request, body=body)
        changed = None
        if request is None:
            self._refuse_unread(caller.rules, "requests that can be read")
        else:
            request, changed = allowed(caller.rules, request)
        tokens = 0 if request is None else (request.max_tokens or 0) * request.n
        admitted = self._admit(caller, tokens)
        self._note(caller, request)
        return Entered(
            caller=caller,
            request=request,
            body=body if changed is None else changed,
            is_changed=changed is not None,
            admitted=admitted,
        )

    def enter_other(self, caller: Caller | None, *, is_counting: bool = False) -> None:
        """Let a request to any other path in.

        Args:
            caller: Who asks.
            is_counting: Whether the path gives no text, so that no rule is about it.

        Raises:
            AccessError: His account's rules cannot be checked there, or a quota is used up.
            AccountsDownError: The counters cannot be used.
        """
        if caller is not None:
            if not is_counting:
                self._refuse_unread(caller.rules, "requests for text to the paths that are marked")
            self._admit(caller, 0)
            self._note(caller, None)

    def leave(self, entered: Entered, tokens: int) -> None:
        """Count what a marked reply has taken in place of what it might have taken."""
        if self._usage is None or entered.caller is None or entered.admitted is None:
            return
        with contextlib.suppress(AccountsDownError):  # the reply is out; the reserve stays counted
            self._usage.settle(entered.admitted, entered.caller.rules, tokens)

    def decided(self, entered: Entered, reason: str) -> None:
        """Note what was decided of a request."""
        if self._watch is not None and entered.caller is not None:
            self._watch.decided(entered.caller, reason)

    def delivered(self, entered: Entered, replies: list[list[int]], context_width: int) -> None:
        """Note what was delivered, as counts and a keyed sketch."""
        caller = entered.caller
        if caller is None:
            return
        for tokens in replies:
            is_long = len(tokens) >= LONG_TOKENS
            self._metrics.account_served(caller.state, caller.name, len(tokens), is_long=is_long)
            if self._watch is not None:
                self._watch.delivered(caller, tokens, context_width)

    def _note(self, caller: Caller, request: GenerationRequest | None) -> None:
        asks = request is not None and Feature.REASONING in request.features
        self._metrics.account_asked(caller.state, caller.name, asks_for_reasoning=asks)
        if self._watch is not None:
            self._watch.asked(caller, request, now=self._now())

    def _admit(self, caller: Caller, tokens: int) -> Admitted | None:
        if self._usage is None or not caller.name:
            return None
        return self._usage.admit(caller.name, caller.rules, tokens, now=self._now())

    def _refuse_unread(self, rules: Rules, what: str) -> None:
        if rules.restricts_requests:
            raise unread(what)
