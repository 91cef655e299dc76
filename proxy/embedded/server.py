"""The OpenAI-compatible service around one language model.

What the sampling reports mean is said in `sampling`; what requests may hold in `requests`. A text
prompt gets the model's start token, as does a conversation; token ids are taken as they are.
Answers are the model's own; nothing is canned, and no text is logged.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.routing import Route

from proxy.embedded.engine import Engine, Ticket
from proxy.embedded.generation import Generation
from proxy.embedded.http_replies import error_response, json_response, reply
from proxy.embedded.requests import (
    ChatRequest,
    CommonRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
    parse_body,
)
from proxy.embedded.sampling import LogprobsMode
from proxy.embedded.validation import (
    DEFAULT_COMPLETION_TOKENS,
    check_common,
    check_continuation,
    check_ids,
    read_chat_logprobs,
    read_choices,
    read_chosen,
    read_generation,
    read_messages,
    read_prompts,
    read_sampling,
)
from proxy.errors import BadRequestError, ProxyError
from watermark.text import build_token_table
from watermark.wire.openai_answers import (
    AnswerFrame,
    ChatDialect,
    LogprobsWriter,
    TextDialect,
    error_body,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from starlette.requests import Request
    from starlette.responses import Response

    from proxy.embedded.language_model import LanguageModel

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""A token-array prompt takes about 7 bytes a token: two million tokens."""

MAX_WAITING_ROWS: Final = 4096
"""Choices in the queue beyond which requests are refused, so that a flood stays bounded."""


def create_app(
    model: LanguageModel,
    *,
    logprobs_mode: LogprobsMode | str = LogprobsMode.TEMPERED,
    clock: Callable[[], float] = time.time,  # noqa: TID251 - this server's composition root
) -> Starlette:
    """Return the service; its lifespan starts and stops the engine.

    Args:
        model: What `load_model` returned.
        logprobs_mode: "tempered" or "raw" (see `sampling`).
        clock: Seconds since the epoch, for the `created` fields.
    """
    server = EmbeddedServer(model, mode=LogprobsMode(logprobs_mode), clock=clock)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", server.chat, methods=["POST"]),
            Route("/v1/completions", server.complete, methods=["POST"]),
            Route("/v1/models", server.models, methods=["GET"]),
            Route("/tokenize", server.tokenize, methods=["POST"]),
            Route("/detokenize", server.detokenize, methods=["POST"]),
            Route("/health", server.health, methods=["GET"]),
        ],
        middleware=[Middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY_BYTES)],
        exception_handlers={
            ProxyError: _on_our_error,
            HTTPException: _on_http_error,
            Exception: _on_fault,
        },
        lifespan=server.lifespan,
    )


class EmbeddedServer:
    """The endpoints, and the engine behind them."""

    def __init__(
        self, model: LanguageModel, *, mode: LogprobsMode, clock: Callable[[], float]
    ) -> None:
        self.engine = Engine(model)
        self._model = model
        self._mode = mode
        self._clock = clock
        self._table = build_token_table(model.tokenizer, model.vocab_size)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Run the engine while the service runs."""
        app.state.engine = self.engine
        self.engine.start()
        try:
            yield
        finally:
            await self.engine.stop()

    async def chat(self, request: Request) -> Response:
        """Serve POST /v1/chat/completions."""
        body = parse_body(await request.body(), ChatRequest)
        refusal = self._refusal(body)
        if refusal is not None:
            return refusal
        messages = read_messages(body.messages)
        places = {
            "add_generation_prompt": body.add_generation_prompt,
            "continue_final_message": body.continue_final_message,
        }
        check_continuation(messages, **places)
        prompt = self._model.encode_chat(messages, **places)
        limit = body.max_completion_tokens
        ticket, frame = self._prepare(
            body,
            [prompt],
            logprobs=read_chat_logprobs(body),
            max_tokens=body.max_tokens if limit is None else limit,
        )
        return await reply(request, self.engine, ticket, ChatDialect(frame))

    async def complete(self, request: Request) -> Response:
        """Serve POST /v1/completions."""
        body = parse_body(await request.body(), CompletionRequest)
        refusal = self._refusal(body)
        if refusal is not None:
            return refusal
        ticket, frame = self._prepare(
            body,
            read_prompts(body, self._model),
            logprobs=body.logprobs,
            chosen=read_chosen(body, self._model.vocab_size),
            max_tokens=DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens,
        )
        return await reply(request, self.engine, ticket, TextDialect(frame))

    async def models(self, request: Request) -> Response:  # noqa: ARG002 - a handler's form
        """Serve GET /v1/models."""
        entry = {
            "id": self._model.name,
            "object": "model",
            "created": 0,
            "owned_by": "output-watermark",
            "max_model_len": self._model.context_limit,
        }
        return json_response({"object": "list", "data": [entry]})

    async def tokenize(self, request: Request) -> Response:
        """Serve POST /tokenize: the ids of a text or of a rendered conversation."""
        body = parse_body(await request.body(), TokenizeRequest)
        if (body.prompt is None) == (body.messages is None):
            raise BadRequestError("send either prompt or messages", param="prompt")
        if body.messages is not None:
            messages = read_messages(body.messages)
            places = {
                "add_generation_prompt": body.add_generation_prompt,
                "continue_final_message": body.continue_final_message,
            }
            check_continuation(messages, **places)
            ids = self._model.encode_chat(messages, **places)
        else:
            ids = self._model.encode(body.prompt or "", add_special_tokens=body.add_special_tokens)
        answer = {
            "count": len(ids),
            "max_model_len": self._model.context_limit,
            "tokens": ids,
            "token_strs": [self._table.labels[token] for token in ids]
            if body.return_token_strs
            else None,
        }
        return json_response(answer)

    async def detokenize(self, request: Request) -> Response:
        """Serve POST /detokenize: the text of ids, special tokens skipped."""
        body = parse_body(await request.body(), DetokenizeRequest)
        if body.tokens:
            check_ids(body.tokens, self._model.vocab_size, param="tokens")
        return json_response({"prompt": self._model.tokenizer.decode(body.tokens)})

    async def health(self, request: Request) -> Response:  # noqa: ARG002 - a handler's form
        """Serve GET /health."""
        return json_response({})

    def _refusal(self, body: CommonRequest) -> Response | None:
        """Refuse what cannot be served; the statuses that are not 400 are answered here."""
        check_common(body)
        if body.model is not None and body.model != self._model.name:
            message = f"the model is not served here; use {self._model.name}"
            error = error_body(
                message, kind="invalid_request_error", param="model", code="model_not_found"
            )
            return json_response(error, 404)
        if self.engine.waiting_rows > MAX_WAITING_ROWS:
            error = error_body("too many requests are waiting; try again", kind="overloaded_error")
            return json_response(error, 503)
        return None

    def _prepare(
        self,
        body: CommonRequest,
        prompts: Sequence[list[int]],
        *,
        logprobs: int | None,
        max_tokens: int | None,
        chosen: NDArray[np.int64] | None = None,
    ) -> tuple[Ticket, AnswerFrame]:
        n = read_choices(body, len(prompts))
        sampling = read_sampling(body, self._model.vocab_size, logprobs=logprobs)
        if chosen is not None:
            sampling = replace(sampling, chosen_ids=chosen)
        generations = []
        for place, prompt in enumerate(prompts):
            params = read_generation(
                body, self._model, sampling, prompt_tokens=len(prompt), max_tokens=max_tokens
            )
            generations += [
                Generation(
                    prompt, params, choice=place * n + sample, table=self._table, mode=self._mode
                )
                for sample in range(n)
            ]
        options = body.stream_options
        frame = AnswerFrame(
            answer_id=secrets.token_hex(12),
            created=int(self._clock()),
            model=self._model.name,
            prompts=prompts,
            n_choices=len(generations),
            writer=None
            if logprobs is None
            else LogprobsWriter(self._table, as_ids=bool(body.return_tokens_as_token_ids)),
            with_token_ids=bool(body.return_token_ids),
            with_usage=bool(options and options.include_usage),
        )
        return Ticket(generations, prompts=prompts, is_streamed=bool(body.stream)), frame


async def _on_our_error(request: Request, error: Exception) -> Response:  # noqa: ARG001 - a handler's form
    if isinstance(error, ProxyError):
        return error_response(error)
    raise error


async def _on_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    message = f"{request.method} {request.url.path}: {error.detail.lower()}"
    body = error_body(message, kind="invalid_request_error")
    response = json_response(body, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _on_fault(request: Request, error: Exception) -> Response:  # noqa: ARG001 - a handler's form
    body = error_body("an unexpected fault; the server's log has it", kind="server_error")
    return json_response(body, 500)
