"""The generation endpoints: decide, then mark or pass through."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from proxy.errors import ProxyError, UpstreamProtocolError
from proxy.routes.answering import merge, pieces_of
from proxy.routes.exchange import (
    DISCLOSURE_HEADER,
    ClientGoneError,
    Exchange,
    wire_error,
)
from proxy.sampling.choice import spell
from proxy.sampling.eligibility import Decision, Reason
from proxy.sampling.flow import mark
from proxy.upstream.headers import asked_with
from watermark.errors import SchemeParameterError, WireError
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
    from proxy.sampling.questions import Draft, Drafted
    from proxy.sampling.reply import Reply
    from proxy.sampling.serving import ServedModel
    from proxy.telemetry.metrics import Metrics
    from proxy.upstream.token_ids import TokenIdUpstream
    from watermark.wire.openai_answers import Dialect, Piece

_STREAM_HEADERS: Final = [(b"content-type", CONTENT_TYPE), (b"cache-control", b"no-cache")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marking:
    """What the endpoints share.

    Attributes:
        models: The marked models by name.
        upstreams: How each of them is asked for continuations.
        trusted: Digests of the callers that are told of the mark, or `*`.
        max_body_bytes: Largest request body.
        metrics: The counters.
        clock: Monotonic seconds, for budgets.
        now: Seconds since the epoch, for `created`.
        entropy: Draws 256 fresh random bits.
    """

    models: Mapping[str, ServedModel]
    upstreams: Mapping[str, TokenIdUpstream]
    trusted: frozenset[str]
    max_body_bytes: int
    metrics: Metrics
    clock: Callable[[], float]
    now: Callable[[], float]
    entropy: Callable[[], int]


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
            self._marking.metrics.decided(None, reason=Reason.TOO_LARGE)
            await exchange.refuse(error)
            return
        request, served, decision = self._decide(body)
        extra = self._disclosure(exchange, decision)
        if request is None or served is None or not decision.is_marked:
            self._count(served, decision)
            await self._passthrough.forward(exchange, body=body, extra=extra)
            return
        answer = MarkedAnswer(
            marking=self._marking,
            served=served,
            request=request,
            exchange=exchange,
            extra=extra,
        )
        try:
            await exchange.while_connected(answer.send())
        except ContextFullError:
            decision = Decision(Reason.CONTEXT_FULL)
            extra = self._disclosure(exchange, decision)
            await self._passthrough.forward(exchange, body=body, extra=extra)
        except ClientGoneError:
            pass
        finally:
            self._count(served, decision)

    def _count(self, served: ServedModel | None, decision: Decision) -> None:
        self._marking.metrics.decided(
            None if served is None else served.config.name,
            reason=decision.reason,
            path=decision.path,
            key_id=decision.key_id,
        )

    def _decide(self, body: bytes) -> tuple[GenerationRequest | None, ServedModel | None, Decision]:
        try:
            request = parse_request(self._dialect, body)
        except WireError:
            # The upstream knows best how to refuse what is no request.
            return None, None, Decision(Reason.UNREADABLE)
        served = self._marking.models.get(request.model)
        if served is None:
            return request, None, Decision(Reason.MODEL_NOT_CONFIGURED)
        request = served.with_defaults(request)
        return request, served, served.decide(request)

    def _disclosure(self, exchange: Exchange, decision: Decision) -> list[tuple[bytes, bytes]]:
        if exchange.is_from(self._marking.trusted):
            return [(DISCLOSURE_HEADER, decision.header().encode())]
        return []


class ContextFullError(Exception):
    """The prompt leaves no room for a reply; the upstream's own refusal is the clearest."""


class MarkedAnswer:
    """One marked answer: asks the upstream, writes to the client."""

    def __init__(
        self,
        *,
        marking: Marking,
        served: ServedModel,
        request: GenerationRequest,
        exchange: Exchange,
        extra: list[tuple[bytes, bytes]],
    ) -> None:
        """Prepare to answer one request."""
        self._marking = marking
        self._served = served
        self._request = request
        self._exchange = exchange
        self._extra = extra
        self._upstream = marking.upstreams[request.model]
        self._headers = asked_with(exchange.headers)
        self._prompt: list[int] = []
        self._replies: list[Reply] = []

    async def send(self) -> None:
        """Answer; errors become the client's, in its dialect.

        Raises:
            ContextFullError: The prompt leaves no room; nothing was sent.
        """
        try:
            await self._send()
        except ProxyError as error:
            await self._fail(error)
        except SchemeParameterError as error:
            # What the upstream listed is no distribution that could be raced.
            failure = UpstreamProtocolError(f"the upstream's answer cannot be marked: {error}")
            await self._fail(failure)
        finally:
            self._count()

    async def _fail(self, error: ProxyError) -> None:
        self._marking.metrics.failed(error)
        if self._exchange.is_started:
            # The reply stays without an end: no finish reason and no [DONE] are invented.
            await self._exchange.write(json_event(wire_error(error)), more=False)
        else:
            await self._exchange.refuse(error)

    def _count(self) -> None:
        """Count the tokens chosen, by the path that chose them."""
        for reply in self._replies:
            for path, tokens in reply.by_path.items():
                self._marking.metrics.delivered(self._request.model, path, tokens)

    async def _send(self) -> None:
        self._prompt = await self._upstream.prompt_ids(self._request, self._headers)
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
        async with contextlib.aclosing(await self._batches()) as batches:
            if self._request.is_streamed:
                await self._stream(dialect, batches)
            else:
                await self._whole(dialect, batches)

    async def _batches(self) -> AsyncGenerator[tuple[Piece, ...]]:
        """Return the pieces of all choices, in the order in which they become certain."""
        limit = await self._upstream.context_limit(self._request.model, self._headers)
        room = None if limit is None else limit - len(self._prompt)
        if room is not None and room < 1:
            raise ContextFullError
        served, request = self._served, self._request
        plan = served.plan(request, room=room)
        # Long conversations take a while to cut into units; others are served meanwhile.
        self._replies = await asyncio.to_thread(
            served.replies, request, plan, self._marking.entropy
        )
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
                for choice, reply in enumerate(self._replies)
            ]
        )

    async def _ask(self, draft: Draft) -> Drafted:
        answer = await self._upstream.draft(self._request, self._prompt, draft, self._headers)
        self._marking.metrics.drafted(self._request.model, draft.path, answer.n_tokens)
        return answer

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
        return Usage(prompt_tokens=len(self._prompt), completion_tokens=completion_tokens)
