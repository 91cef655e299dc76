"""The generation endpoints: decide, then mark or pass through."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from proxy.accounts.rules import with_temperature
from proxy.errors import (
    AccessError,
    AccountsDownError,
    BadRequestError,
    BodyTooLargeError,
    NoMarkingKeyError,
    ProxyError,
    UnmarkableError,
)
from proxy.routes.exchange import (
    ClientGoneError,
    Exchange,
)
from proxy.routes.marked_answer import MarkedAnswer, UnmarkedError, disclosure
from proxy.routes.native_answer import NativeAnswer
from proxy.routes.packing import check_charset, kinds_of
from proxy.sampling.eligibility import Decision, Reason
from proxy.sampling.native import switch_off
from proxy.sampling.questions import Path
from watermark.errors import WireError
from watermark.wire.json_fields import with_fields
from watermark.wire.openai_requests import DialectName, GenerationRequest, parse_request

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from proxy.routes.access import Entered
    from proxy.routes.marking import Marking
    from proxy.routes.passthrough import Passthrough
    from proxy.sampling.serving import ServedModel
    from watermark.keys import KeyRecord


class GenerationEndpoint:
    """An ASGI application for one generation endpoint."""

    def __init__(self, dialect: DialectName, marking: Marking, passthrough: Passthrough) -> None:
        """Serve one dialect."""
        self._dialect = dialect
        self._marking = marking
        self._passthrough = passthrough

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        exchange = Exchange(scope, receive, send)
        try:
            body = await exchange.body(self._marking.max_body_bytes)
        except ClientGoneError:
            return
        except ProxyError as error:
            is_large = isinstance(error, BodyTooLargeError)
            reason = Reason.TOO_LARGE if is_large else Reason.UNREADABLE
            self._marking.metrics.decided(None, reason=reason)
            await exchange.refuse(error)
            return
        try:
            entered = self._enter(exchange, body)
        except (BadRequestError, AccessError, AccountsDownError) as error:
            self._marking.metrics.refused(error)
            await exchange.refuse(error)
            return
        await self._serve(exchange, entered)

    def _enter(self, exchange: Exchange, body: bytes) -> Entered:
        """Let a request in, as the operator's and the account's rules have it.

        Raises:
            BadRequestError: A field is not the client's to set.
            AccessError: His account may not ask this, or has used up a quota.
            AccountsDownError: The counters cannot be used.
        """
        check_charset(exchange.headers)
        self._marking.ingress.check_form(kinds_of(exchange.headers), body)
        admitted = self._marking.ingress.admit(body)
        request = self._read(admitted)
        raised = None if request is None else self._raised(request)
        if raised is not None:
            admitted, request = raised, self._read(raised)
        entered = self._marking.access.enter(exchange.caller, request, admitted)
        is_other = admitted is not body or exchange.is_unpacked
        return replace(entered, is_changed=entered.is_changed or is_other)

    def _raised(self, request: GenerationRequest) -> bytes | None:
        """Return the body of a request too cold to be marked, raised as the operator allows."""
        served = self._marking.models.get(request.model)
        if served is None or served.decide(request).reason is not Reason.TEMPERATURE_ZERO:
            return None
        raised = with_temperature(request, self._marking.min_temperature)
        if raised is not None:
            self._marking.metrics.owned("temperature", "raise")
        return raised

    async def _serve(self, exchange: Exchange, entered: Entered) -> None:
        """Answer a request that is let in."""
        body = entered.body
        request, served, record, decision = self._decide(exchange, entered)
        if request is None or served is None or not decision.is_marked:
            await self._pass(exchange, body, served, decision, entered)
            return
        if record is not None and decision.path in (Path.NATIVE, Path.BIAS):
            passing = NativeAnswer(
                marking=self._marking,
                served=served,
                request=request,
                record=record,
                decision=decision,
                exchange=exchange,
                entered=entered,
            )
            await self._mark_upstream(passing, exchange, entered, served)
            return
        answer = MarkedAnswer(
            marking=self._marking,
            served=served,
            request=request,
            decision=decision,
            exchange=exchange,
            entered=entered,
        )
        try:
            await self._mark(answer, exchange)
        except UnmarkedError as unmarked:
            await self._pass(exchange, body, served, Decision(unmarked.reason), entered)
        except NoMarkingKeyError as error:
            await self._without_key(exchange, served, error, entered)

    async def _mark_upstream(
        self, answer: NativeAnswer, exchange: Exchange, entered: Entered, served: ServedModel
    ) -> None:
        """Have the upstream mark what it passes back."""
        try:
            await answer.send(self._passthrough)
        except UnmarkedError as unmarked:
            await self._pass(exchange, entered.body, served, Decision(unmarked.reason), entered)
        except ProxyError as error:
            self._marking.metrics.failed(error)
            await exchange.refuse(error)
        else:
            self._count(served, answer.decision, entered)

    async def _mark(self, answer: MarkedAnswer, exchange: Exchange) -> None:
        """Send a marked answer and count it, unless it turns out that it cannot be one."""
        answer.take_key()
        is_sent = True
        try:
            await exchange.while_connected(answer.send())
        except ClientGoneError:
            pass
        except (UnmarkedError, NoMarkingKeyError):
            is_sent = False
            raise
        finally:
            if is_sent:
                self._count(answer.served, answer.decision, answer.entered)

    async def _pass(
        self,
        exchange: Exchange,
        body: bytes,
        served: ServedModel | None,
        decision: Decision,
        entered: Entered,
    ) -> None:
        """Let a request through unmarked, unless the operator serves none for this reason."""
        self._count(served, decision, entered)
        if decision.reason in self._marking.refused:
            error = UnmarkableError(decision.reason)
            self._marking.metrics.refused(error)
            await exchange.refuse(error)
            return
        is_told = exchange.is_from(self._marking.trusted)
        extra = disclosure(decision) if is_told else []
        changes = {}
        if served is not None and entered.request is not None:
            changes = switch_off(served.config.native.engine)
        await self._passthrough.forward(
            exchange,
            body=with_fields(body, changes),
            is_changed=entered.is_changed or bool(changes),
            extra=extra,
        )

    async def _without_key(
        self, exchange: Exchange, served: ServedModel, error: NoMarkingKeyError, entered: Entered
    ) -> None:
        """Refuse a request that no key marks, or let it through, as the operator says."""
        decision = Decision(Reason.NO_MARKING_KEY)
        if self._marking.passes_unmarked:
            await self._pass(exchange, entered.body, served, decision, entered)
        else:
            self._count(served, decision, entered)
            self._marking.metrics.failed(error)
            await exchange.refuse(error)

    def _count(self, served: ServedModel | None, decision: Decision, entered: Entered) -> None:
        self._marking.access.decided(entered, decision.reason)
        self._marking.metrics.decided(
            None if served is None else served.config.name,
            reason=decision.reason,
            path=decision.path,
            key_id=decision.key_id,
        )

    def _read(self, body: bytes) -> GenerationRequest | None:
        """Return what is asked, None where the upstream knows best how to refuse it."""
        try:
            request = parse_request(self._dialect, body)
        except WireError:
            return None
        served = self._marking.models.get(request.model)
        return request if served is None else served.with_defaults(request)

    def _decide(
        self, exchange: Exchange, entered: Entered
    ) -> tuple[GenerationRequest | None, ServedModel | None, KeyRecord | None, Decision]:
        if entered.request is None:
            return None, None, None, Decision(Reason.UNREADABLE)
        served = self._marking.models.get(entered.request.model)
        if served is None:
            return entered.request, None, None, Decision(Reason.MODEL_NOT_CONFIGURED)
        request = served.with_defaults(entered.request)
        account = entered.account or exchange.account
        record = self._marking.record_of(served, request, account=account)
        decision = served.decide(request, record)
        if decision.is_marked and not entered.is_marked:
            decision = Decision(Reason.ACCOUNT_UNMARKED)
        return request, served, record, decision
