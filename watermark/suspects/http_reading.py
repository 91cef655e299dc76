"""Reading mode over HTTP: any server with OpenAI's completions and `logprobs`.

Each prefix is asked for one token with its list of candidates, many prefixes a request, which a
prefix cache makes bearable. Prefixes go as text: the suspect's tokenizer is its own business.

Source: OpenAI API reference, Completions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import httpx2
import msgspec

from watermark.errors import SuspectError
from watermark.suspects.dialects import Dialect, headers_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.suspects.reading import Candidates

_PREFIXES: Final = 32
_LISTED: Final = 20
_TRIES: Final = 3


class _Logprobs(msgspec.Struct):
    top_logprobs: list[dict[str, float] | None]


class _Choice(msgspec.Struct):
    index: int = 0
    logprobs: _Logprobs | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class HttpReader:
    """One model of one server.

    Args:
        url: The server's base, ending before `/v1`.
        model: The model's name.
        api_key: Empty for none.
        transport: What carries requests; None for the network.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str = "",
        transport: httpx2.BaseTransport | None = None,
        timeout_s: float = 120.0,
    ) -> None:
        headers = headers_of(Dialect.COMPLETIONS, api_key)
        self._client = httpx2.Client(
            base_url=url, headers=headers, timeout=timeout_s, transport=transport
        )
        self._model = model

    def next_tokens(self, text: str, places: Sequence[int]) -> list[Candidates | None]:
        """Return what may come after the first characters of a text (see `reading.Reader`).

        Raises:
            SuspectError: The server cannot be reached, or gives no candidates.
        """
        found: list[Candidates | None] = []
        for first in range(0, len(places), _PREFIXES):
            # A space at the end would be a token of its own, and the next word another one.
            prefixes = [text[:place].rstrip(" ") for place in places[first : first + _PREFIXES]]
            found += self._ask(prefixes)
        return found

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def _ask(self, prefixes: list[str]) -> list[Candidates | None]:
        body = {
            "model": self._model,
            "prompt": prefixes,
            "max_tokens": 1,
            "temperature": 1,
            "logprobs": _LISTED,
        }
        choices = sorted(self._send(msgspec.json.encode(body)), key=lambda one: one.index)
        if len(choices) != len(prefixes):
            raise SuspectError("the suspect answered another number of prefixes than were asked")
        return [_candidates(one) for one in choices]

    def _send(self, body: bytes) -> list[_Choice]:
        reason = ""
        for _ in range(_TRIES):
            try:
                response = self._client.post("/v1/completions", content=body)
            except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as err:
                reason = type(err).__name__
                continue
            if response.status_code != httpx2.codes.OK:
                reason = f"status {response.status_code}"
                continue
            try:
                return msgspec.json.decode(response.content, type=_Completion).choices
            except (msgspec.DecodeError, UnicodeDecodeError):
                reason = "an answer that is not of OpenAI's form"
        raise SuspectError(
            f"the suspect gives no distributions ({reason}); it must have completions with "
            "logprobs, or audit it closed"
        )


def _candidates(choice: _Choice) -> Candidates | None:
    top = choice.logprobs.top_logprobs[:1] if choice.logprobs else []
    if not top or not top[0]:
        return None
    return [(text, math.exp(min(0.0, value))) for text, value in top[0].items()]
