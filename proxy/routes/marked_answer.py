"""One marked answer: from its first question to the upstream to its last byte to the client."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from proxy.errors import (
    LedgerDownError,
    NoMarkingKeyError,
    ProxyError,
    UpstreamProtocolError,
    failure_of,
)
from proxy.routes.answering import merge, pieces_of
from proxy.routes.event_stream import EventStream
from proxy.routes.exchange import DISCLOSURE_HEADER, Exchange
from proxy.sampling.choice import spell
from proxy.sampling.eligibility import Decision, Reason
from proxy.sampling.flow import mark
from proxy.sampling.keys import marks_alike
from proxy.upstream.headers import asked_with, with_bearer
from watermark.errors import (
    LedgerUnavailableError,
    SchemeParameterError,
)
from watermark.wire.answers import answer_dialect
from watermark.wire.failures import failure_event
from watermark.wire.openai_answers import AnswerFrame, LogprobsWriter
from watermark.wire.reasoning import trace_filter
from watermark.wire.usage import Usage, usage_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from proxy.routes.access import Entered
    from proxy.routes.marking import Marking
    from proxy.sampling.questions import Draft, Drafted
    from proxy.sampling.reply import Reply
    from proxy.sampling.serving import ServedModel
    from watermark.seeding import KeyedUniforms
    from watermark.wire.openai_answers import Dialect, Piece
    from watermark.wire.openai_requests import GenerationRequest
    from watermark.wire.reasoning import TraceFilter


def disclosure(decision: Decision) -> list[tuple[bytes, bytes]]:
    """Return the header that tells a decision."""
    return [(DISCLOSURE_HEADER, decision.header().encode())]


class _OtherKeyError(Exception):
    """Another key marks than when the reply was prepared; nothing was chosen yet."""


class UnmarkedError(Exception):
    """A reply that was to be marked cannot be; nothing was sent."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class MarkedAnswer:
    """One marked answer: asks the upstream, writes to the client.

    Attributes:
        served: The model.
        decision: What happens to the request, and by which key.
        entered: The request as it was let in, and who asks.

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
        entered: Entered,
    ) -> None:
        """Prepare to answer one request."""
        self.entered = entered
        self._marking = marking
        self.served = served
        self._request = request
        self.decision = decision
        self._exchange = exchange
        self._is_told = exchange.is_from(marking.trusted)
        self._keyed: KeyedUniforms | None = None
        self._has_begun = False
        self._upstream = marking.upstreams[request.model]
        self._headers = with_bearer(asked_with(exchange.upstream_headers))
        keep_alive_s = marking.keep_alive_s if request.is_streamed else 0.0
        self._stream = EventStream(exchange, lambda: self._extra, keep_alive_s=keep_alive_s)
        self._prompt: list[int] = []
        self._prompt_tokens = 0
        self._replies: list[Reply] = []
        self._is_whole = False
        self._withheld: TraceFilter | None = None
        self._texts: dict[tuple[int, bool], list[str]] = {}
        self._delivery = marking.delivery(served, request, entered, path=decision.path)

    def take_key(self) -> KeyedUniforms:
        """Return the key that marks now, and prepare to mark with it.

        Raises:
            NoMarkingKeyError: None does.
            UnmarkedError: The reply ends before its mark could begin.
        """
        keyed = self._marking.key_of(
            self.served,
            self._request,
            self.entered,
            account=self.entered.account or self._exchange.account,
        )
        if self.served.is_too_short(self._request, keyed.record):
            raise UnmarkedError(Reason.TOO_SHORT)
        self._keyed = keyed
        self.decision = replace(self.decision, key_id=keyed.record.key_id)
        return keyed

    async def send(self) -> None:
        """Answer; errors become the client's, in its dialect.

        Raises:
            UnmarkedError: The prompt leaves no room: the upstream's own refusal is the clearest.
            NoMarkingKeyError: The key went before the first token was chosen; nothing was sent.
        """
        try:
            async with self._stream.kept_alive():
                await self._send()
        except (NoMarkingKeyError, UnmarkedError):
            if not self._exchange.is_started:
                raise
            await self._fail(NoMarkingKeyError())  # too late to go through unmarked
        except ProxyError as error:
            await self._fail(error)
        except SchemeParameterError as error:
            # What the upstream listed is no distribution that could be raced.
            failure = UpstreamProtocolError(f"the upstream's answer cannot be marked: {error}")
            await self._fail(failure)
        finally:
            self._count()
            self._delivery.end(self._replies, is_whole=self._is_whole)
            self._offer()

    async def _fail(self, error: ProxyError) -> None:
        self._marking.metrics.failed(error)
        if self._exchange.is_started:
            # The reply stays without an end: none is invented.
            number = self._stream.n_events
            dialect = self._request.client_dialect
            event = failure_event(dialect, failure_of(error), sequence_number=number)
            await self._hand([event], more=False)
        else:
            await self._exchange.refuse(error)

    def _count(self) -> None:
        """Count the tokens chosen, by the path that chose them, and by whose they are."""
        access, replies = self._marking.access, [reply.tokens for reply in self._replies]
        access.leave(self.entered, sum(map(len, replies)))
        if self._keyed is not None:
            access.delivered(self.entered, replies, self._keyed.record.context_width)
        for reply in self._replies:
            for path, tokens in reply.by_path.items():
                self._marking.metrics.delivered(self._request.model, path, tokens)

    def _offer(self) -> None:
        """Have what was delivered checked for its mark."""
        checker = self._marking.checker
        if checker is None or self._keyed is None or not self._texts:
            return
        checker.offer(
            self.served,
            self._keyed.record,
            self.decision.path,
            ["".join(texts) for texts in self._texts.values()],
            [one.text or "" for one in self._request.messages if one.role == "assistant"],
        )

    def _handed(self, data: bytes, pieces: Sequence[Piece]) -> None:
        """Take note of bytes that the transport has taken, and of the text in them."""
        marked = [piece for piece in pieces if self.served.marks(piece)]
        self._delivery.handed(data, marked)
        if self._marking.checker is not None:
            for piece in marked:
                place = (piece.choice, piece.is_reasoning)
                self._texts.setdefault(place, []).append(piece.text)

    async def _send(self) -> None:
        self._prompt = await self._upstream.prompt_ids(self._request, self._headers)
        self._prompt_tokens = len(self._prompt)
        while True:
            try:
                await self._answer_under(self.take_key())
            except _OtherKeyError:
                self._delivery.end(self._replies, is_whole=False)
                continue
            except LedgerUnavailableError as err:
                raise self._without_ledger() from err
            return

    def _without_ledger(self) -> Exception:
        """Return what becomes of an answer that cannot be in the ledger."""
        if self._delivery.passes_unmarked and not self._exchange.is_started:
            return UnmarkedError(Reason.LEDGER_DOWN)
        return LedgerDownError()

    async def _answer_under(self, keyed: KeyedUniforms) -> None:
        frame = AnswerFrame(
            answer_id=uuid.uuid4().hex,
            created=int(self._marking.now()),
            model=self._request.model,
            prompts=[self._prompt],
            n_choices=self._request.n,
            writer=self._writer(),
            with_token_ids=self._request.wants_token_ids and not self._hides_reasoning,
            with_usage=self._request.wants_usage,
            asked=self._request.client_body,
            reasoning_field=self._reasoning_field,
        )
        async with contextlib.aclosing(await self._batches(keyed)) as batches:
            if self._request.is_streamed:
                await self._events(frame, batches)
            else:
                await self._whole(frame, batches)

    async def _batches(self, keyed: KeyedUniforms) -> AsyncGenerator[tuple[Piece, ...]]:
        """Return the pieces of all choices, in the order in which they become certain."""
        limit = await self._upstream.context_limit(self._request.model, self._headers)
        room = None if limit is None else limit - len(self._prompt)
        if room is not None and room < 1:
            raise UnmarkedError(Reason.CONTEXT_FULL)
        served, request = self.served, self._request
        plan = served.plan(request, room=room)
        # Long conversations take a while to cut into units; others are served meanwhile.
        self._replies = await asyncio.to_thread(
            served.replies, request, plan, keyed, self._marking.entropy, self._prompt
        )
        return merge(
            [
                pieces_of(
                    spell(
                        mark(reply, plan, self._marking.clock),
                        served.speller(
                            request,
                            self._prompt,
                            choice,
                            hides_reasoning=self._hides_reasoning,
                        ),
                    ),
                    self._ask,
                )
                for choice, reply in enumerate(self._replies)
            ]
        )

    async def _ask(self, draft: Draft) -> Drafted:
        self._delivery.check(self._replies)
        if self._keyed is not None:
            self._delivery.begin(self._keyed)  # written while the upstream works
        answer = await self._upstream.draft(self._request, self._prompt, draft, self._headers)
        self._marking.metrics.drafted(
            self._request.model, draft.path, answer.n_tokens, requests=answer.requests
        )
        if not self._has_begun:
            self._prompt_tokens = self._prompt_tokens or answer.prompt_tokens or 0
            self._begin()
        await self._delivery.durable()
        return answer

    def _begin(self) -> None:
        """Hold the reply to the key that marks now; its first token is chosen next."""
        prepared, keyed = self._keyed, self.take_key()
        if prepared is None or not marks_alike(prepared.record, keyed.record):
            raise _OtherKeyError
        self._has_begun = True

    @property
    def _extra(self) -> list[tuple[bytes, bytes]]:
        if not self._is_told:
            return []
        # Until the first token is chosen another key may yet come to mark.
        is_certain = self._has_begun
        return disclosure(self.decision if is_certain else replace(self.decision, key_id=None))

    @property
    def _reasoning_field(self) -> str | None:
        """Where a chat's reasoning goes; None where the model gives none."""
        reasoning = self.served.config.reasoning
        return None if reasoning is None or self.served.tags is None else reasoning.field

    @property
    def _hides_reasoning(self) -> bool:
        """Whether the account gets no reasoning of a model that gives some."""
        return self.served.tags is not None and not self.entered.gets_reasoning

    def _writer(self) -> LogprobsWriter | None:
        is_asked = self._request.logprobs is not None and not self._hides_reasoning
        if not is_asked or self.served.table is None:
            return None
        return LogprobsWriter(self.served.table, as_ids=self._request.labels_as_ids)

    def _shown(self, data: bytes) -> bytes:
        """Return an event, or the whole body, as this client may see it."""
        if self._withheld is None:
            return data
        shown = self._withheld.feed(data)
        return shown if self._request.is_streamed else self._withheld.finish()

    def _dialect(self, frame: AnswerFrame, said: Sequence[Piece]) -> Dialect:
        """Return the writer of an answer, once it is known what the upstream gave of it.

        An account without reasoning gets none: what the proxy tells apart is never written
        (`Speller`), and what an upstream wrote, in whatever field, is taken out of the bytes.
        """
        origin = next((piece.origin for piece in said if piece.origin is not None), None)
        if origin is not None and not self.entered.gets_reasoning:
            is_streamed = self._request.is_streamed
            self._withheld = trace_filter(self._request.client_dialect, is_streamed=is_streamed)
        return answer_dialect(self._request.client_dialect, replace(frame, origin=origin))

    async def _whole(self, frame: AnswerFrame, batches: AsyncIterator[tuple[Piece, ...]]) -> None:
        choices: list[list[Piece]] = [[] for _ in range(self._request.n)]
        async for pieces in batches:
            choices[pieces[0].choice].extend(pieces)
        said = [piece for pieces in choices for piece in pieces]
        dialect = self._dialect(frame, said)
        body = self._shown(msgspec.json.encode(dialect.whole(choices, self._usage(said))))
        await self._exchange.answer(
            200, body, [(b"content-type", b"application/json"), *self._extra]
        )
        self._handed(body, [piece for choice in choices for piece in choice])
        self._is_whole = True

    async def _events(self, frame: AnswerFrame, batches: AsyncIterator[tuple[Piece, ...]]) -> None:
        said: list[Piece] = []
        dialect: Dialect | None = None
        async for pieces in batches:
            if dialect is None:  # the upstream works: it is safe to say 200
                dialect = self._dialect(frame, pieces)
                await self._write(dialect, dialect.opening(self._usage([])))
            said += [replace(piece, text="", report=None) for piece in pieces]
            await self._write(dialect, dialect.chunk(pieces[0].choice, pieces), pieces)
        dialect = dialect or self._dialect(frame, said)
        closing = [dialect.encode(event) for event in dialect.closing(self._usage(said))]
        await self._hand([*closing, dialect.END], more=False)
        self._is_whole = True

    async def _write(
        self, dialect: Dialect, events: list[dict[str, object]], pieces: Sequence[Piece] = ()
    ) -> None:
        await self._hand([dialect.encode(event) for event in events], pieces)

    async def _hand(
        self, events: list[bytes], pieces: Sequence[Piece] = (), *, more: bool = True
    ) -> None:
        """Write events of a stream, and take note of them once the transport has them."""
        shown = [self._shown(event) for event in events]
        self._handed(await self._stream.write(shown, more=more), pieces)

    def _usage(self, said: Sequence[Piece]) -> Usage:
        reasoning = sum(piece.n_tokens for piece in said if piece.is_reasoning)
        counted = Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=sum(piece.n_tokens for piece in said),
            reasoning_tokens=None if self.served.tags is None else reasoning,
        )
        origins = [piece.origin for piece in said if piece.origin is not None]
        return usage_of(origins, counted) if origins else counted
