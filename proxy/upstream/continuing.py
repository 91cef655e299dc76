"""What all ways of asking for continuations share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias

import msgspec
import numpy as np

from proxy.errors import UpstreamProtocolError, UpstreamStatusError
from proxy.sampling.questions import Continuation, Finish, TextPiece, TokenLogprobs
from proxy.upstream.client import decode_answer
from watermark.wire.features import TEMPLATE
from watermark.wire.openai_requests import DialectName

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from proxy.sampling.questions import Draft, Drafted
    from proxy.upstream.client import UpstreamClient
    from watermark.wire.openai_requests import GenerationRequest

    Pairs = list[tuple[bytes, bytes]]

TokenId: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFE)]


class Upstream(Protocol):
    """Asks one model API for continuations; every method raises `UpstreamError`."""

    async def context_limit(self, model: str, headers: Pairs) -> int | None:
        """Return how many tokens a model's context holds, None where it cannot be known now."""
        ...

    async def prompt_ids(self, request: GenerationRequest, headers: Pairs) -> list[int]:
        """Return the ids of the request's prompt; none where the upstream continues text."""
        ...

    async def draft(
        self, request: GenerationRequest, prompt: Sequence[int], draft: Draft, headers: Pairs
    ) -> Drafted:
        """Return continuations."""
        ...


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


class ContextLimits:
    """How many tokens the contexts of an upstream's models hold, asked once."""

    def __init__(self, client: UpstreamClient) -> None:
        """Ask through a client."""
        self._client = client
        self._known: dict[str, int | None] = {}

    async def of(self, model: str, headers: Pairs) -> int | None:
        """Return a model's limit, None where it is not told.

        Raises:
            UpstreamError: The upstream did not answer, or not in form.
        """
        if model not in self._known:
            try:
                data = await self._client.get_json("/v1/models", headers)
            except UpstreamStatusError:  # this caller may not ask; another may
                return None
            self._known[model] = None
            entries = decode_answer(data, _Models).data
            self._known |= {entry.id: entry.max_model_len for entry in entries}
        return self._known[model]

    def known(self, model: str) -> int | None:
        """Return a model's limit as far as it was told before."""
        return self._known.get(model)


class _Tokens(msgspec.Struct):
    tokens: list[TokenId]


class EngineUpstream:
    """What vLLM and SGLang serve alike: the length of a model's context, and a prompt's ids."""

    def __init__(self, client: UpstreamClient, vocab_size: int) -> None:
        """Ask through a client.

        Args:
            client: The pool.
            vocab_size: Tokens that the configured tokenizer has.
        """
        self._client = client
        self._vocab_size = vocab_size
        self._limits = ContextLimits(client)

    async def context_limit(self, model: str, headers: Pairs) -> int | None:
        """Return how many tokens a model's context holds, None where it is not told.

        Raises:
            UpstreamError: The upstream did not answer, or not in form.
        """
        return await self._limits.of(model, headers)

    async def prompt_ids(self, request: GenerationRequest, headers: Pairs) -> list[int]:
        """Return the ids of the request's prompt, as the upstream reads it (`/tokenize`).

        Raises:
            UpstreamError: The upstream refused, did not answer, or not in form.
        """
        if isinstance(request.prompt, list):
            return list(request.prompt)
        body: dict[str, Any] = {"model": request.model}
        if request.dialect is DialectName.CHAT:
            names = ("messages", "add_generation_prompt", "continue_final_message", TEMPLATE)
            body |= {name: request.body[name] for name in names if name in request.body}
        else:
            body |= {"prompt": request.prompt, "add_special_tokens": True}
        return decode_answer(
            await self._client.post_json("/tokenize", body, headers), _Tokens
        ).tokens


def token_logprobs(pairs: Iterable[tuple[int, float]]) -> TokenLogprobs:
    """Return a list of ids and log-probabilities, each id once."""
    listed = dict(pairs)
    return TokenLogprobs(
        np.fromiter(listed, np.uint32, len(listed)),
        np.fromiter(listed.values(), np.float64, len(listed)),
    )


def check_vocabulary(largest: int, vocab_size: int) -> None:
    """Refuse a token that the configured tokenizer does not have.

    Raises:
        UpstreamProtocolError: It is none of its tokens.
    """
    if largest >= vocab_size:
        raise UpstreamProtocolError(
            f"the upstream names token {largest}, and the model's tokenizer ends at "
            f"{vocab_size - 1}; check that tokenizer is the upstream's own"
        )


def text_continuation(text: str, finish: Finish, count: int) -> Continuation:
    """Return a continuation of text without ids.

    Args:
        text: What is new.
        finish: How it ended.
        count: Tokens that it took, the end included.
    """
    return Continuation(
        tokens=(),
        finish=finish,
        pieces=(TextPiece(text, count - (finish is Finish.STOP)),),
        generated=count,
    )


def read_finish(reason: str | None) -> Finish:
    """Return why a draft ended.

    Raises:
        UpstreamProtocolError: For a reason that no draft may have.
    """
    known = (Finish.STOP, Finish.LENGTH)
    if reason not in known:
        raise UpstreamProtocolError(
            f"the upstream ended a draft with finish_reason {reason!r}; only "
            f"{', '.join(known)} are known"
        )
    return Finish(reason)
