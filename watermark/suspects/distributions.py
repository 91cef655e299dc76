"""Ask a model server what it expected at every position of a text.

Any server with OpenAI's text completions will do. vLLM says it in one request (`prompt_logprobs`);
of others each prefix is asked for one token with its list of candidates, many prefixes a request,
which a prefix cache makes bearable.

Rule 1: only the list of candidates is used, never the token that stands in the text: vLLM adds that
one to the list where it is not among the first, and it is dropped again.
Rule 2: the text goes to this server and into no message.
Rule 3: a text that the model cannot read at once is read in windows that overlap by half: at every
position it has seen half a context at least. Where the windows lie follows from the length alone.

Source: OpenAI API reference, Completions; vLLM, `prompt_logprobs` in its extra parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import httpx2
import msgspec
import numpy as np

from watermark.detection.weighted import expected_excess
from watermark.errors import ModelServerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

CANDIDATES: Final = 20
"""Candidates a position: as many as vLLM gives without being told to give more."""
PREFIXES: Final = 64
T = TypeVar("T")
_REFUSED: Final = frozenset({400, 422})


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


class _Candidate(msgspec.Struct):
    logprob: float
    rank: int | None = None


class _Logprobs(msgspec.Struct):
    top_logprobs: list[dict[str, float] | None]


class _Choice(msgspec.Struct):
    index: int = 0
    prompt_logprobs: list[dict[str, _Candidate] | None] | None = None
    logprobs: _Logprobs | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class PromptDistributions:
    """One server and one of its models."""

    __slots__ = ("_client", "_limit", "_model")

    def __init__(self, client: httpx2.Client, model: str | None = None) -> None:
        """Ask which model there is, where none is named.

        Args:
            client: With the server's base URL, ending before `/v1`.
            model: The model's name; None for the first that the server lists.

        Raises:
            ModelServerError: The server cannot be reached, or lists no model.
        """
        self._client = client
        listed = self._listed(is_needed=model is None)
        self._model = listed[0].id if model is None else model
        self._limit = next((one.max_model_len for one in listed if one.id == self._model), None)

    def __repr__(self) -> str:
        """Show the model."""
        return f"<PromptDistributions of {self._model!r}>"

    def excesses(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """Return the mean excess that a mark could have had at every position, in nats.

        Args:
            ids: The text in the tokens of the server's model, shape (n,).

        Returns:
            Shape (n,), each >= 0; 0 at the first position, before which there is nothing.

        Raises:
            ModelServerError: The server cannot be reached, or gives no candidates.
        """
        found = np.zeros(len(ids))
        for start, stop, is_new in windows(len(ids), self._limit):
            lists = self._in_one_request(ids[start:stop])
            if lists is None:
                lists = self._by_prefixes(ids[start:stop])
            seen = [expected_excess(np.exp(one)) for one in lists[is_new - start - 1 :]]
            found[is_new:stop] = seen
        return found

    def _in_one_request(self, ids: Sequence[int]) -> list[NDArray[np.float64]] | None:
        """Return the candidates' logprobs from the second position on; None if not supported."""
        answer = self._complete([list(ids)], {"prompt_logprobs": CANDIDATES})
        if answer is None or answer.choices[0].prompt_logprobs is None:
            return None
        positions = answer.choices[0].prompt_logprobs[1:]
        if len(positions) != len(ids) - 1 or not all(positions):
            raise ModelServerError("the model server skipped positions; ask another one")
        return [
            np.array(
                [
                    candidate.logprob
                    for candidate in (position or {}).values()
                    if candidate.rank is None or candidate.rank <= CANDIDATES
                ]
            )
            for position in positions
        ]

    def _by_prefixes(self, ids: Sequence[int]) -> list[NDArray[np.float64]]:
        lists: list[NDArray[np.float64]] = []
        for first in range(1, len(ids), PREFIXES):
            prefixes = [list(ids[:end]) for end in range(first, min(first + PREFIXES, len(ids)))]
            answer = self._complete(prefixes, {"logprobs": CANDIDATES})
            choices = [] if answer is None else sorted(answer.choices, key=lambda one: one.index)
            tops = [one.logprobs.top_logprobs[:1] for one in choices if one.logprobs is not None]
            if len(tops) != len(prefixes) or not all(top and top[0] for top in tops):
                raise ModelServerError(
                    f"the model server gives no logprobs of {len(ids)} tokens; name one that has "
                    "them in completions, and whose context is long enough"
                )
            lists += [np.array(list((top[0] or {}).values())) for top in tops]
        return lists

    def _complete(self, prompts: list[list[int]], extra: Mapping[str, int]) -> _Completion | None:
        """Return an answer, or None where the server refuses a parameter."""
        body = {"model": self._model, "prompt": prompts, "max_tokens": 1, "temperature": 1, **extra}
        data = self._send("POST", "/v1/completions", msgspec.json.encode(body))
        return None if data is None else _decode(data, _Completion)

    def _listed(self, *, is_needed: bool) -> list[_Model]:
        """Return the server's models; none where the list is not needed and not to be had."""
        try:
            data = self._send("GET", "/v1/models", b"")
            models = [] if data is None else _decode(data, _Models).data
        except ModelServerError:
            if is_needed:
                raise
            return []
        if is_needed and not models:
            raise ModelServerError("the model server lists no model; name one that serves one")
        return models

    def _send(self, method: str, path: str, body: bytes) -> bytes | None:
        """Return what the server says, or None where it refuses the request's form."""
        headers = {"content-type": "application/json"}
        try:
            response = self._client.request(method, path, content=body, headers=headers)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as err:
            raise ModelServerError(
                f"the model server cannot be reached ({type(err).__name__}); correct the URL, "
                "which ends before /v1"
            ) from err
        if response.status_code in _REFUSED and path.endswith("completions"):
            return None
        if response.status_code != httpx2.codes.OK:
            raise ModelServerError(
                f"the model server answered {path} with status {response.status_code}; name a "
                "server with OpenAI's completions"
            )
        return response.content


def windows(n: int, limit: int | None) -> Iterator[tuple[int, int, int]]:
    """Yield where each window of a text starts and ends, and its first position to be taken.

    Args:
        n: Tokens of the text.
        limit: Tokens that the model can hold, with the one that it adds; None where not known.
    """
    size = n if limit is None else min(n, max(2, limit - 1))
    start, taken = 0, 1
    while taken < n:
        stop = min(n, start + size)
        yield start, stop, taken
        start, taken = stop - size // 2, stop


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ModelServerError(
            "the model server's answer is not of OpenAI's form; name a server with its completions"
        ) from None
