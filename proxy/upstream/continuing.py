"""What all ways of asking for continuations share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from proxy.errors import UpstreamProtocolError, UpstreamStatusError
from proxy.sampling.questions import Finish
from proxy.upstream.client import decode_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.sampling.questions import Draft, Drafted
    from proxy.upstream.client import UpstreamClient
    from watermark.wire.openai_requests import GenerationRequest

    Pairs = list[tuple[bytes, bytes]]


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


def read_finish(reason: str | None) -> Finish:
    """Return why a draft ended.

    Raises:
        UpstreamProtocolError: For a reason that no draft may have.
    """
    try:
        return Finish(reason or "")
    except ValueError:
        raise UpstreamProtocolError(
            f"the upstream ended a draft with finish_reason {reason!r}; only stop and length are "
            "known"
        ) from None
