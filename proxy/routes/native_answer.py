"""One answer that the upstream marks (`native`, `bias`): passed through, with what has it do so.

The bytes go to the client as they come. What they say is read beside them, for the ledger and for
the self-test: an engine that ignores its switch answers as if nothing were wrong.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from proxy.errors import LedgerDownError
from proxy.routes.delivery import PassedText
from proxy.routes.heard import Heard
from proxy.routes.marked_answer import UnmarkedError, disclosure
from proxy.sampling.eligibility import Decision, Reason
from proxy.sampling.questions import Path
from proxy.sampling.reply import contexts_of
from watermark.errors import LedgerUnavailableError
from watermark.ledger import width_of
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
        self._heard = Heard(request.client_dialect)
        self._delivery = marking.delivery(served, request, entered, path=decision.path)

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
            self._delivery.end(self._passed(), is_whole=is_whole)
            self._settle()

    @property
    def _switch(self) -> dict[str, Any]:
        is_biased = self.decision.path is Path.BIAS
        own = self._marking.ingress.own_bias(self._request) if is_biased else {}
        return self._served.fields_for(self._request, self._record, own)

    @property
    def _extra(self) -> list[tuple[bytes, bytes]]:
        is_told = self._exchange.is_from(self._marking.trusted)
        return disclosure(self.decision) if is_told else []

    async def _begin(self) -> None:
        """Have the beginning on the disk before the engine can mark anything."""
        try:
            await self._delivery.begin_durably(self._record)
        except LedgerUnavailableError as err:
            if self._delivery.passes_unmarked:
                raise UnmarkedError(Reason.LEDGER_DOWN) from err
            raise LedgerDownError from err

    def _hear(self, data: bytes) -> None:
        self._delivery.handed(data, self._heard.feed(data))

    def _passed(self) -> list[PassedText]:
        """Return each text as the ledger sees it: after the assistant's earlier turns."""
        turns = map(self._served.unit.encode, self._earlier)
        one = PassedText(contexts_of(turns, width_of(self._record)))
        return [one] * len(self._heard.texts)

    @property
    def _earlier(self) -> list[str]:
        return [one.text or "" for one in self._request.messages if one.role == "assistant"]

    def _settle(self) -> None:
        """Count what was said, by whose it is, and have it checked for the mark."""
        marking, texts = self._marking, self._heard.texts
        replies = [self._served.unit.encode(text).tolist() for text in texts]
        tokens = self._heard.completion_tokens or sum(map(len, replies))
        marking.metrics.delivered(self._request.model, self.decision.path, tokens)
        marking.access.leave(self._entered, tokens)
        marking.access.delivered(self._entered, replies, width_of(self._record))
        if marking.checker is not None and texts:
            path = self.decision.path
            marking.checker.offer(self._served, self._record, path, texts, self._earlier)
