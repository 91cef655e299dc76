"""One answer that the upstream marks (`native`, `bias`): passed through, with what has it do so.

The bytes go to the client as they come. What they say is read beside them, for the ledger and for
the self-test: an engine that ignores its switch answers as if nothing were wrong.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from proxy.errors import LedgerDownError
from proxy.routes.delivery import Delivery
from proxy.routes.heard import Heard
from proxy.routes.marked_answer import UnmarkedError, disclosure
from proxy.sampling.eligibility import Decision, Reason
from proxy.sampling.questions import Path
from proxy.sampling.reply import Reply, contexts_of
from watermark.errors import LedgerUnavailableError
from watermark.seeding import KeyedUniforms
from watermark.wire.json_fields import with_fields

if TYPE_CHECKING:
    from proxy.routes.access import Entered
    from proxy.routes.exchange import Exchange
    from proxy.routes.marking import Marking
    from proxy.routes.passthrough import Passthrough
    from proxy.sampling.serving import ServedModel
    from watermark.keys import KeyRecord
    from watermark.wire.openai_requests import GenerationRequest


class NativeAnswer:
    """One answer that the upstream marks.

    Attributes:
        decision: What happens to the request, and by which key.
    """

    def __init__(
        self,
        *,
        marking: Marking,
        served: ServedModel,
        request: GenerationRequest,
        record: KeyRecord,
        decision: Decision,
        exchange: Exchange,
        entered: Entered,
    ) -> None:
        """Prepare to answer one request."""
        self.decision = replace(decision, key_id=record.key_id)
        self._marking = marking
        self._served = served
        self._request = request
        self._record = record
        self._exchange = exchange
        self._entered = entered
        self._heard = Heard(request.client_dialect, is_streamed=request.is_streamed)
        self._passes_unlogged = entered.passes_unlogged(default=marking.passes_unlogged)
        self._delivery = Delivery(
            marking.ledger(),
            served=served,
            request=request,
            path=decision.path,
            account=entered.account,
            passes_unmarked=self._passes_unlogged,
        )

    async def send(self, passthrough: Passthrough) -> None:
        """Answer.

        Raises:
            UnmarkedError: The ledger cannot be written, and the reply may pass without it.
            LedgerDownError: It cannot, and it may not.
            BadRequestError: The client sets what is not his to set.
        """
        switch = self._switch
        await self._begin()
        is_whole = False
        try:
            is_whole = await passthrough.forward(
                self._exchange,
                body=with_fields(self._entered.body, switch),
                is_changed=True,
                extra=self._extra,
                heard=self._hear,
            )
        finally:
            self._delivery.handed(b"", self._heard.finish())
            if self._marking.ledger() is not None:
                replies = [self._reply() for _ in self._heard.texts]
                self._delivery.end(replies, is_whole=is_whole)
        if is_whole:
            self._settle()

    @property
    def _switch(self) -> dict[str, Any]:
        own = self._marking.ingress.own_bias if self.decision.path is Path.BIAS else _none
        return self._served.fields_for(self._request, self._record, own(self._request))

    @property
    def _extra(self) -> list[tuple[bytes, bytes]]:
        is_told = self._exchange.is_from(self._marking.trusted)
        return disclosure(self.decision) if is_told else []

    async def _begin(self) -> None:
        """Have the beginning on the disk before the engine can mark anything."""
        if self._marking.ledger() is None:
            return
        try:
            self._delivery.begin(KeyedUniforms(self._record))
            await self._delivery.durable()
        except LedgerUnavailableError as err:
            if self._passes_unlogged:
                raise UnmarkedError(Reason.LEDGER_DOWN) from err
            raise LedgerDownError from err

    def _hear(self, data: bytes) -> None:
        self._delivery.handed(data, self._heard.feed(data))

    def _reply(self) -> Reply:
        """Return a choice as the ledger sees it: text, after the assistant's earlier turns."""
        turns = map(self._served.unit.encode, self._earlier)
        return Reply(
            KeyedUniforms(self._record),
            np.random.Generator(np.random.PCG64(0)),  # nothing is drawn: the engine has chosen
            max_tokens=None,
            earlier=contexts_of(turns, self._record.context_width),
            is_text=True,
        )

    @property
    def _earlier(self) -> list[str]:
        return [one.text or "" for one in self._request.messages if one.role == "assistant"]

    def _settle(self) -> None:
        """Count what was said, by whose it is, and have it checked for the mark."""
        marking, texts = self._marking, list(self._heard.texts.values())
        replies = [self._served.unit.encode(text).tolist() for text in texts]
        tokens = self._heard.completion_tokens or sum(map(len, replies))
        marking.metrics.delivered(self._request.model, self.decision.path, tokens)
        marking.access.leave(self._entered, tokens)
        marking.access.delivered(self._entered, replies, self._record.context_width)
        if marking.checker is not None and texts:
            path = self.decision.path
            marking.checker.offer(self._served, self._record, path, texts, self._earlier)


def _none(_request: GenerationRequest) -> dict[int, float]:
    """Return no biases: they carry no mark here."""
    return {}


def can_be_logged(record: KeyRecord) -> bool:
    """Return whether the ledger can keep fingerprints under a key: they need an epoch's secret."""
    return not record.is_foreign
