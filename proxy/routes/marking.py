"""What the generation endpoints share: models, keys, upstreams, counters, clocks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from proxy.errors import NoMarkingKeyError
from proxy.routes.delivery import Delivery
from watermark.errors import KeysConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from proxy.routes.access import Access, Entered
    from proxy.routes.checking import Checker
    from proxy.routes.ingress import Ingress
    from proxy.sampling.keys import KeyHolder
    from proxy.sampling.questions import Path
    from proxy.sampling.serving import ServedModel
    from proxy.telemetry.metrics import Metrics
    from proxy.upstream.continuing import Upstream
    from watermark.keys import KeyRecord
    from watermark.ledger import Ledger
    from watermark.seeding import KeyedUniforms
    from watermark.wire.openai_requests import GenerationRequest


class Serving(Protocol):
    """Has the models in force; one assignment replaces them."""

    @property
    def current(self) -> tuple[Mapping[str, ServedModel], Mapping[str, Upstream]]:
        """The models by name, and how each one's upstream is asked."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Marking:
    """What the endpoints share.

    Attributes:
        serving: The marked models by name, and how their upstreams are asked for continuations.
        keys: The keys in force.
        passes_unmarked: Whether a request that no key marks goes through, rather than not at all.
        trusted: Digests of the callers that are told of the mark, or `*`.
        max_body_bytes: Largest request body.
        access: The accounts' rules and quotas.
        metrics: The counters.
        clock: Monotonic seconds, for budgets.
        now: Seconds since the epoch, for `created` and for whose key marks.
        entropy: Draws 256 fresh random bits.
        ledger: Where it is written what was delivered; None until it is open, or for nowhere.
        passes_unlogged: Whether a request goes through unmarked while the ledger cannot be
            written, rather than not at all.
        ingress: What of a request is the operator's to say.
        refused: Reasons for which a request is refused instead of served unmarked.
        min_temperature: What a lower temperature is raised to; 0 raises none.
        keep_alive_s: Longest silence in a stream before a comment is sent; 0 for none.
        checker: Puts a share of what is delivered through the detector; None for none.
    """

    serving: Serving
    keys: KeyHolder
    passes_unmarked: bool
    trusted: frozenset[str]
    max_body_bytes: int
    access: Access
    ingress: Ingress
    metrics: Metrics
    clock: Callable[[], float]
    now: Callable[[], float]
    entropy: Callable[[], int]
    ledger: Callable[[], Ledger | None] = lambda: None
    passes_unlogged: bool = False
    refused: frozenset[str] = frozenset()
    min_temperature: float = 0.0
    keep_alive_s: float = 0.0
    checker: Checker | None = None

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """The marked models by name, as they are in force now."""
        return self.serving.current[0]

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """How each of them is asked for continuations."""
        return self.serving.current[1]

    def key_of(
        self, served: ServedModel, request: GenerationRequest, entered: Entered, *, account: str
    ) -> KeyedUniforms:
        """Return the key that marks a request at this instant, with the code of who asks.

        Args:
            served: The model.
            request: The request.
            entered: Who asks.
            account: Who asks, as the keys' scopes name it.

        Raises:
            NoMarkingKeyError: None does.
        """
        try:
            return self.keys.current.marking(
                served.unit.unit_id, **self._asked(request, account), code=entered.code
            )
        except KeysConfigError as err:
            raise NoMarkingKeyError from err

    def record_of(
        self, served: ServedModel, request: GenerationRequest, *, account: str
    ) -> KeyRecord | None:
        """Return the record of that key, None where none marks."""
        try:
            return self.keys.current.record(served.unit.unit_id, **self._asked(request, account))
        except KeysConfigError:
            return None

    def delivery(
        self, served: ServedModel, request: GenerationRequest, entered: Entered, *, path: Path
    ) -> Delivery:
        """Return the ledger's entry of an answer, not begun yet."""
        return Delivery(
            self.ledger(),
            served=served,
            request=request,
            path=path,
            account=entered.account,
            passes_unmarked=entered.passes_unlogged(default=self.passes_unlogged),
        )

    def _asked(self, request: GenerationRequest, account: str) -> dict[str, Any]:
        return {
            "model": request.model,
            "route": request.client_dialect.value,
            "account": account,
            "now": datetime.fromtimestamp(self.now(), UTC),
        }
