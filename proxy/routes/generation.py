"""The generation endpoints: decide, then mark or pass through."""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from proxy.errors import NoMarkingKeyError, ProxyError
from proxy.routes.answering import merge, pieces_of
from proxy.routes.exchange import (
    DISCLOSURE_HEADER,
    EVERYBODY,
    ClientGoneError,
    Exchange,
    wire_error,
)
from proxy.sampling.choice import spell
from proxy.sampling.eligibility import Decision, Reason
from proxy.sampling.flow import mark
from proxy.sampling.keys import marks_alike
from proxy.upstream.headers import asked_with
from watermark.errors import KeysConfigError, WireError
from watermark.text import TextAssembler
from watermark.wire.openai_answers import (
    AnswerFrame,
    LogprobsWriter,
    Usage,
    answer_dialect,
)
from watermark.wire.openai_requests import DialectName, GenerationRequest, parse_request
from watermark.wire.sse import CONTENT_TYPE, DONE, json_event

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

    from starlette.types import Receive, Scope, Send

    from proxy.routes.passthrough import Passthrough
    from proxy.sampling.keys import KeyHolder
    from proxy.sampling.questions import Draft, Drafted
    from proxy.sampling.serving import ServedModel
    from proxy.telemetry.metrics import Metrics
    from proxy.upstream.token_ids import TokenIdUpstream
    from watermark.seeding import KeyedUniforms
    from watermark.wire.openai_answers import Dialect, Piece

_STREAM_HEADERS: Final = [(b"content-type", CONTENT_TYPE), (b"cache-control", b"no-cache")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marking:
    """What the endpoints share.

    Attributes:
        models: The marked models by name.
        keys: The keys in force.
        passes_unmarked: Whether a request that no key marks goes through, rather than not at all.
        upstreams: How each of them is asked for continuations.
        trusted: Digests of the callers that are told of the mark, or `*`.
        max_body_bytes: Largest request body.
        metrics: The counters.
        clock: Monotonic seconds, for budgets.
        now: Seconds since the epoch, for `created` and for whose key marks.
        entropy: Draws 256 fresh random bits.
    """

    models: Mapping[str, ServedModel]
    keys: KeyHolder
    passes_unmarked: bool
    upstreams: Mapping[str, TokenIdUpstream]
    trusted: frozenset[str]
    max_body_bytes: int
    metrics: Metrics
    clock: Callable[[], float]
    now: Callable[[], float]
    entropy: Callable[[], int]

    def key_of(self, served: ServedModel, request: GenerationRequest) -> KeyedUniforms:
        """Return the key that marks a request at this instant.

        Raises:
            NoMarkingKeyError: None does.
        """
        try:
            return self.keys.current.marking(
                served.unit.unit_id,
                model=request.model,
                route=request.dialect.value,
                now=datetime.fromtimestamp(self.now(), UTC),
            )
        except KeysConfigError as err:
            raise NoMarkingKeyError from err


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
            await exchange.refuse(error)
            return
        request, served, decision = self._decide(body)
        name = None if served is None else served.config.name
        if request is None or served is None or not decision.is_marked:
            self._count(name, decision)
            extra = self._disclosure(exchange, decision)
            await self._passthrough.forward(exchange, body=body, extra=extra)
            return
        answer = MarkedAnswer(
            marking=self._marking,
            served=served,
            request=request,
            decision=decision,
            exchange=exchange,
            is_told=self._is_told(exchange),
        )
        try:
            answer.take_key()
            self._count(name, decision)
            await exchange.while_connected(answer.send())
        except ClientGoneError:
            return
        except NoMarkingKeyError as error:
            await self._without_key(exchange, body, name, error)
        except ContextFullError:
            await self._passthrough.forward(exchange, body=body)

    def _count(self, model: str | None, decision: Decision) -> None:
        self._marking.metrics.decided(model, reason=decision.reason, path=decision.path)

    async def _without_key(
        self, exchange: Exchange, body: bytes, model: str | None, error: NoMarkingKeyError
    ) -> None:
        """Refuse a request that no key marks, or let it through, as the operator says."""
        decision = Decision(Reason.NO_MARKING_KEY)
        self._count(model, decision)
        if self._marking.passes_unmarked:
            extra = self._disclosure(exchange, decision)
            await self._passthrough.forward(exchange, body=body, extra=extra)
        else:
            self._marking.metrics.failed(error)
            await exchange.refuse(error)

    def _decide(self, body: bytes) -> tuple[GenerationRequest | None, ServedModel | None, Decision]:
        try:
            request = parse_request(self._dialect, body)
        except WireError:
            # The upstream knows best how to refuse what is no request.
            return None, None, Decision(Reason.UNREADABLE)
        served = self._marking.models.get(request.model)
        if served is None:
            return request, None, Decision(Reason.MODEL_NOT_CONFIGURED)
        return request, served, served.decide(request)

    def _is_told(self, exchange: Exchange) -> bool:
        trusted = self._marking.trusted
        return EVERYBODY in trusted or exchange.caller_digest() in trusted

    def _disclosure(self, exchange: Exchange, decision: Decision) -> list[tuple[bytes, bytes]]:
        return disclosure(decision) if self._is_told(exchange) else []


def disclosure(decision: Decision) -> list[tuple[bytes, bytes]]:
    """Return the header that tells a decision."""
    return [(DISCLOSURE_HEADER, decision.header().encode())]


class _OtherKeyError(Exception):
    """Another key marks than when the reply was prepared; nothing was chosen yet."""


class ContextFullError(Exception):
    """The prompt leaves no room for a reply; the upstream's own refusal is the clearest."""


class MarkedAnswer:
    """One marked answer: asks the upstream, writes to the client.

    A reply belongs to the key that marks when its first token is chosen, which is when the first
    draft has come. Where that is another key than when the draft was asked for, the reply is
    prepared again, under it.
    """

    def __init__(
        self,
        *,
        marking: Marking,
        served: ServedModel,
        request: GenerationRequest,
        decision: Decision,
        exchange: Exchange,
        is_told: bool,
    ) -> None:
        """Prepare to answer one request."""
        self._marking = marking
        self._served = served
        self._request = request
        self._decision = decision
        self._path = str(decision.path)
        self._exchange = exchange
        self._is_told = is_told
        self._keyed: KeyedUniforms | None = None
        self._has_begun = False
        self._upstream = marking.upstreams[request.model]
        self._headers = asked_with(exchange.headers)
        self._prompt: list[int] = []

    def take_key(self) -> KeyedUniforms:
        """Return the key that marks now, and prepare to mark with it.

        Raises:
            NoMarkingKeyError: None does.
        """
        self._keyed = self._marking.key_of(self._served, self._request)
        return self._keyed

    async def send(self) -> None:
        """Answer; errors become the client's, in its dialect.

        Raises:
            ContextFullError: The prompt leaves no room; nothing was sent.
            NoMarkingKeyError: The key went before the first token was chosen; nothing was sent.
        """
        try:
            await self._send()
        except NoMarkingKeyError:
            raise
        except ProxyError as error:
            self._marking.metrics.failed(error)
            if self._exchange.is_started:
                # The reply stays without an end: no finish reason and no [DONE] are invented.
                await self._exchange.write(json_event(wire_error(error)), more=False)
            else:
                await self._exchange.refuse(error)

    async def _send(self) -> None:
        self._prompt = await self._upstream.prompt_ids(self._request, self._headers)
        while True:
            try:
                await self._answer_under(self.take_key())
            except _OtherKeyError:
                continue
            return

    async def _answer_under(self, keyed: KeyedUniforms) -> None:
        frame = AnswerFrame(
            answer_id=uuid.uuid4().hex,
            created=int(self._marking.now()),
            model=self._request.model,
            prompts=[self._prompt],
            n_choices=self._request.n,
            writer=self._writer(),
            with_token_ids=self._request.wants_token_ids,
            with_usage=self._request.wants_usage,
        )
        dialect = answer_dialect(self._request.dialect, frame)
        async with contextlib.aclosing(await self._batches(keyed)) as batches:
            if self._request.is_streamed:
                await self._stream(dialect, batches)
            else:
                await self._whole(dialect, batches)

    async def _batches(self, keyed: KeyedUniforms) -> AsyncGenerator[tuple[Piece, ...]]:
        """Return the pieces of all choices, in the order in which they become certain."""
        limit = await self._upstream.context_limit(self._request.model, self._headers)
        room = None if limit is None else limit - len(self._prompt)
        if room is not None and room < 1:
            raise ContextFullError
        served, request = self._served, self._request
        plan = served.plan(request, room=room)
        replies = served.replies(request, plan, keyed, self._marking.entropy)
        return merge(
            [
                pieces_of(
                    spell(
                        mark(reply, plan, self._marking.clock),
                        TextAssembler(served.table, self._prompt, request.stop),
                        choice=choice,
                        end_ids=served.end_ids,
                        logprobs=request.logprobs,
                    ),
                    self._ask,
                )
                for choice, reply in enumerate(replies)
            ]
        )

    async def _ask(self, draft: Draft) -> Drafted:
        answer = await self._upstream.draft(self._request, self._prompt, draft, self._headers)
        self._marking.metrics.drafted(self._request.model, self._path, answer.n_tokens)
        if not self._has_begun:
            self._begin()
        return answer

    def _begin(self) -> None:
        """Hold the reply to the key that marks now; its first token is chosen next."""
        prepared, keyed = self._keyed, self.take_key()
        if prepared is None or not marks_alike(prepared.record, keyed.record):
            raise _OtherKeyError
        self._has_begun = True
        self._decision = replace(self._decision, key_id=keyed.record.key_id)

    @property
    def _extra(self) -> list[tuple[bytes, bytes]]:
        return disclosure(self._decision) if self._is_told else []

    def _writer(self) -> LogprobsWriter | None:
        if self._request.logprobs is None:
            return None
        return LogprobsWriter(self._served.table, as_ids=self._request.labels_as_ids)

    async def _whole(self, dialect: Dialect, batches: AsyncIterator[tuple[Piece, ...]]) -> None:
        choices: list[list[Piece]] = [[] for _ in range(self._request.n)]
        async for pieces in batches:
            choices[pieces[0].choice].extend(pieces)
        usage = self._usage(sum(map(len, choices)))
        body = msgspec.json.encode(dialect.whole(choices, usage))
        await self._exchange.answer(
            200, body, [(b"content-type", b"application/json"), *self._extra]
        )

    async def _stream(self, dialect: Dialect, batches: AsyncIterator[tuple[Piece, ...]]) -> None:
        count = 0
        async for pieces in batches:
            if not self._exchange.is_started:  # the upstream works: it is safe to say 200
                await self._exchange.start(200, [*_STREAM_HEADERS, *self._extra])
                await self._write(dialect.opening())
            count += len(pieces)
            await self._write([dialect.chunk(pieces[0].choice, pieces)])
        await self._write(dialect.closing(self._usage(count)))
        await self._exchange.write(DONE, more=False)

    async def _write(self, chunks: list[dict[str, object]]) -> None:
        if chunks:
            await self._exchange.write(b"".join(map(json_event, chunks)))

    def _usage(self, completion_tokens: int) -> Usage:
        self._marking.metrics.delivered(self._request.model, self._path, completion_tokens)
        return Usage(prompt_tokens=len(self._prompt), completion_tokens=completion_tokens)
