"""Counters in Prometheus' form.

Labels come from closed sets (reasons, paths, configured models, scopes of the keys), so neither a
caller nor a text can make a new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from proxy.telemetry.harvest import HarvestCollector
from proxy.telemetry.ledger import LedgerCollector

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from proxy.telemetry.selftest import Series, Verdict
    from watermark.ledger import State, WriterStats

WATCHED: Final = "watched"  # the operator lists these accounts, so their names are a closed set
OTHER_MODEL: Final = "other"
MAX_SCOPES: Final = 1000  # listed with their key's end; those that end first


class Metrics:
    """The counters of one proxy process."""

    def __init__(self) -> None:
        """Start every counter at zero, in a registry of its own."""
        self._registry = CollectorRegistry()
        self._decisions = Counter(
            "watermark_decisions",
            "Requests by decision",
            ("model", "reason", "path", "key"),
            registry=self._registry,
        )
        self._tokens = Counter(
            "watermark_delivered_tokens",
            "Tokens delivered in marked replies",
            ("model", "path"),
            registry=self._registry,
        )
        self._drafts = Counter(
            "watermark_upstream_drafts",
            "Upstream requests made to mark",
            ("model", "path"),
            registry=self._registry,
        )
        self._drafted = Counter(
            "watermark_drafted_tokens",
            "Tokens that the upstream generated to mark",
            ("model", "path"),
            registry=self._registry,
        )
        self._failures = Counter(
            "watermark_failures",
            "Requests that ended in an error of ours",
            ("kind",),
            registry=self._registry,
        )

        self._owned = Counter(
            "watermark_ingress_fields",
            "Fields of requests that are the operator's, by the rule that was applied",
            ("field", "rule"),
            registry=self._registry,
        )
        self._questions = Counter(
            "watermark_detection_questions",
            "Questions about texts, by how they were answered",
            ("outcome",),
            registry=self._registry,
        )
        self._refusals = Counter(
            "watermark_refusals",
            "Requests that an account's state, rules or quota refused, and streams ended by them",
            ("reason",),
            registry=self._registry,
        )
        self._accounts_success = Gauge(
            "watermark_accounts_last_reload_success",
            "Whether the accounts were taken when they were last read: 1 or 0",
            registry=self._registry,
        )
        labels = ("state", "account")
        self._account_requests = Counter(
            "watermark_account_requests",
            "Requests of accounts that were let in",
            labels,
            registry=self._registry,
        )
        self._account_reasoning = Counter(
            "watermark_account_reasoning_requests",
            "Those that asked for reasoning traces",
            labels,
            registry=self._registry,
        )
        self._account_tokens = Counter(
            "watermark_account_tokens",
            "Tokens of marked replies to accounts",
            labels,
            registry=self._registry,
        )
        self._account_long = Counter(
            "watermark_account_long_replies",
            "Long ones among the marked replies to accounts",
            labels,
            registry=self._registry,
        )

        self._reload_success = Gauge(
            "watermark_config_last_reload_success",
            "Whether the keys were taken when they were last read: 1 or 0",
            registry=self._registry,
        )
        self._reload_failures = Counter(
            "watermark_config_reload_failures",
            "Reloads of the keys that were refused",
            registry=self._registry,
        )
        self._reload_seconds = Gauge(
            "watermark_config_last_reload_duration_seconds",
            "How long the last reload of the keys took",
            registry=self._registry,
        )
        self._expires = Gauge(
            "watermark_key_expires_in_seconds",
            "Time until the last key of a scope runs out; below zero since it has",
            ("scope",),
            registry=self._registry,
        )
        self._generation = Gauge(
            "watermark_keys_generation_info",
            "The keys in force; equal where processes hold the same",
            ("generation",),
            registry=self._registry,
        )

        series = ("scope", "path", "model")
        self._checked = Counter(
            "watermark_selftest_replies",
            "Delivered replies that the detector was given",
            series,
            registry=self._registry,
        )
        self._effect = Gauge(
            "watermark_selftest_effect",
            "Effect a scored position of the last replies that were checked",
            series,
            registry=self._registry,
        )
        self._baseline = Gauge(
            "watermark_selftest_baseline",
            "What that effect is held against",
            series,
            registry=self._registry,
        )
        self._alarm = Gauge(
            "watermark_selftest_alarm",
            "1 where the effect has fallen below half its baseline: the mark is gone",
            series,
            registry=self._registry,
        )

        self._ledger = LedgerCollector()
        self._registry.register(self._ledger)
        self._harvest = HarvestCollector()
        self._registry.register(self._harvest)

    def ledger_is(self, state: State, stats: WriterStats, *, n_open: int) -> None:
        """Say what the ledger has written; it counts for itself."""
        self._ledger.take(state, stats, n_open=n_open)

    def ledger_sealed(self, *, is_done: bool) -> None:
        """Say whether the ledger was sealed when that was last tried."""
        self._ledger.sealed(is_done=is_done)

    def checked(self, series: Series, replies: int) -> None:
        """Count replies that went through the detector."""
        self._checked.labels(*series).inc(replies)

    def effect_is(self, series: Series, verdict: Verdict) -> None:
        """Say how strong the mark is; two digits, so that no single reply shows."""
        self._effect.labels(*series).set(round(verdict.effect, 2))
        self._baseline.labels(*series).set(round(verdict.baseline, 2))
        self._alarm.labels(*series).set(verdict.is_alarm)

    def keys_loaded(self, generation: str, *, seconds: float = 0.0) -> None:
        """Say which keys are in force, and how long it took to load them."""
        self._generation.clear()
        self._generation.labels(generation).set(1)
        self._reload_success.set(1)
        self._reload_seconds.set(seconds)

    def keys_refused(self) -> None:
        """Count keys that were refused."""
        self._reload_success.set(0)
        self._reload_failures.inc()

    def keys_expire(self, seconds: Mapping[str, float]) -> None:
        """Say when the last key of each scope runs out."""
        self._expires.clear()
        for scope, left in sorted(seconds.items(), key=lambda item: item[1])[:MAX_SCOPES]:
            self._expires.labels(scope).set(left)

    def decided(
        self, model: str | None, *, reason: str, path: str = "none", key_id: str | None = None
    ) -> None:
        """Count a decision; None for a model that is not configured."""
        self._decisions.labels(model or OTHER_MODEL, reason, path, key_id or "").inc()

    def delivered(self, model: str, path: str, tokens: int) -> None:
        """Count tokens that left in a marked reply."""
        self._tokens.labels(model, path).inc(tokens)

    def drafted(self, model: str, path: str, tokens: int, *, requests: int = 1) -> None:
        """Count upstream requests and what they generated."""
        self._drafts.labels(model, path).inc(requests)
        self._drafted.labels(model, path).inc(tokens)

    def failed(self, error: Exception) -> None:
        """Count a failure by its class."""
        self._failures.labels(type(error).__name__).inc()

    def owned(self, field: str, rule: str) -> None:
        """Count a field that a client may not set, by what became of it."""
        self._owned.labels(field, rule).inc()

    def asked(self, outcome: str) -> None:
        """Count a question about a text by its outcome."""
        self._questions.labels(outcome).inc()

    def refused(self, error: Exception) -> None:
        """Count a refusal by its reason, or by its class where it has none."""
        self._refusals.labels(getattr(error, "reason", type(error).__name__)).inc()

    def account_asked(self, state: str, account: str, *, asks_for_reasoning: bool) -> None:
        """Count a request that was let in; an account's name only where it is watched."""
        self._account_requests.labels(state, account if state == WATCHED else "").inc()
        if asks_for_reasoning:
            self._account_reasoning.labels(state, account if state == WATCHED else "").inc()

    def account_served(self, state: str, account: str, tokens: int, *, is_long: bool) -> None:
        """Count a marked reply; an account's name only where it is watched."""
        self._account_tokens.labels(state, account if state == WATCHED else "").inc(tokens)
        if is_long:
            self._account_long.labels(state, account if state == WATCHED else "").inc()

    def harvest_ranked(self, ranking: Sequence[tuple[str, Mapping[str, float]]]) -> None:
        """Show the accounts and clusters that look most like a harvest."""
        self._harvest.take(ranking)

    def accounts_read(self, *, is_taken: bool) -> None:
        """Say whether the accounts were taken when they were last read."""
        self._accounts_success.set(is_taken)

    def exposition(self) -> bytes:
        """Return all counters in Prometheus' text form."""
        return generate_latest(self._registry)
