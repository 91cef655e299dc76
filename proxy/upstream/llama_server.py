"""Continuation by token ids over llama-server's own `/completion`.

A greedy draft lists the whole vocabulary at every position (`n_probs`), raw: the proxy knows the
distribution exactly, and what was drawn does not matter to it. The server's chain cuts by top-k
and top-p first and divides by the temperature last; so does the proxy (`ListReader`).

A position whose token leaves a character unfinished has no list in the answer. A greedy draft is
the same on every call, so it is cut there; where its very first position has none, the list is
asked for again with another token forced, which raw lists do not show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from proxy.errors import UpstreamProtocolError
from proxy.sampling.questions import Continuation, Drafted, Finish
from proxy.upstream.client import decode_answer
from proxy.upstream.continuing import TokenId, check_vocabulary, token_logprobs
from watermark.wire.openai_requests import DialectName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.sampling.questions import Draft, TokenLogprobs
    from proxy.upstream.client import UpstreamClient
    from watermark.wire.openai_requests import GenerationRequest

    Pairs = list[tuple[bytes, bytes]]

_FORCE: Final = 1e4  # above any logit; the server takes biases as they are
_FINISHES: Final = {"eos": Finish.STOP, "limit": Finish.LENGTH}


class _Entry(msgspec.Struct):
    id: TokenId
    logprob: float | None = None
    top_logprobs: list[_Entry] = []


class _Choice(msgspec.Struct):
    tokens: list[TokenId]
    stop_type: str
    index: int = 0
    tokens_evaluated: int | None = None
    completion_probabilities: list[_Entry] = []


class _Prompt(msgspec.Struct):
    prompt: str


class _Tokens(msgspec.Struct):
    tokens: list[TokenId]


class _Settings(msgspec.Struct):
    n_ctx: int | None = None


class _Props(msgspec.Struct):
    default_generation_settings: _Settings


class LlamaServerUpstream:
    """Asks one llama-server for continuations of token ids."""

    def __init__(self, client: UpstreamClient, vocab_size: int, *, filler: int) -> None:
        """Ask through a client.

        Args:
            client: The pool.
            vocab_size: Tokens that the configured tokenizer has.
            filler: A token of whole characters, to be forced where any will do.
        """
        self._client = client
        self._vocab_size = vocab_size
        self._filler = filler
        self._limit: int | None = None

    async def context_limit(self, model: str, headers: Pairs) -> int | None:  # noqa: ARG002 - it serves one
        """Return how many tokens a slot's context holds, None where it is not told.

        Raises:
            UpstreamError: The upstream did not answer, or not in form.
        """
        if self._limit is None:
            data = await self._client.get_json("/props", headers)
            self._limit = decode_answer(data, _Props).default_generation_settings.n_ctx
        return self._limit

    async def prompt_ids(self, request: GenerationRequest, headers: Pairs) -> list[int]:
        """Return the ids of the request's prompt, as the upstream would read it.

        Raises:
            UpstreamError: The upstream refused, did not answer, or not in form.
        """
        if isinstance(request.prompt, list):
            return list(request.prompt)
        text = request.prompt
        if request.dialect is DialectName.CHAT:
            names = ("messages", "add_generation_prompt", "continue_final_message")
            body = {name: request.body[name] for name in names if name in request.body}
            data = await self._client.post_json("/apply-template", body, headers)
            text = decode_answer(data, _Prompt).prompt
        asked = {"content": text, "add_special": True, "parse_special": True}
        data = await self._client.post_json("/tokenize", asked, headers)
        return decode_answer(data, _Tokens).tokens

    async def draft(
        self, request: GenerationRequest, prompt: Sequence[int], draft: Draft, headers: Pairs
    ) -> Drafted:
        """Return continuations.

        Raises:
            UpstreamError: The upstream refused, did not answer, or not in form.
        """
        body = _body(request, prompt, draft)
        choices = await self._ask(body, draft.n, headers)
        for choice in choices:
            check_vocabulary(max(choice.tokens, default=0), self._vocab_size)
        if not draft.logprobs:
            return Drafted(tuple(_plain(choice) for choice in choices))
        listed = [self._lists(choice) for choice in choices]
        if not all(listed):
            listed = [[await self._first_list(body, headers)] for _ in choices]
        return Drafted(
            tuple(_cut(one, lists) for one, lists in zip(choices, listed, strict=True)),
            prompt_tokens=choices[0].tokens_evaluated if choices else None,
        )

    async def _ask(self, body: dict[str, Any], n: int, headers: Pairs) -> list[_Choice]:
        data = await self._client.post_json("/completion", body, headers)
        if n == 1:
            return [decode_answer(data, _Choice)]
        return sorted(decode_answer(data, list[_Choice]), key=lambda one: one.index)

    async def _first_list(self, body: dict[str, Any], headers: Pairs) -> TokenLogprobs:
        """Return the list at the next position, whatever the model would say there."""
        forced = body | {"n_predict": 1, "logit_bias": [[self._filler, _FORCE]]}
        (choice,) = await self._ask(forced, 1, headers)
        lists = self._lists(choice)
        if not lists:
            raise UpstreamProtocolError(
                "the upstream lists no log-probabilities; set the model's logprobs capability to 0"
            )
        return lists[0]

    def _lists(self, choice: _Choice) -> list[TokenLogprobs]:
        """Return the lists of the first tokens, as far as each of them has one.

        An engine may pad its vocabulary: what the tokenizer does not know is never drawn.
        """
        lists = []
        for token, entry in zip(choice.tokens, choice.completion_probabilities, strict=False):
            if entry.id != token:
                break
            lists.append(
                token_logprobs(
                    (one.id, -float("inf") if one.logprob is None else one.logprob)
                    for one in entry.top_logprobs
                    if one.id < self._vocab_size
                )
            )
        return lists


def _body(request: GenerationRequest, prompt: Sequence[int], draft: Draft) -> dict[str, Any]:
    body: dict[str, Any] = {
        "prompt": [*prompt, *draft.tokens],
        "n_predict": draft.max_tokens,
        "return_tokens": True,
        "cache_prompt": True,
        # Said in full: the server's own defaults cut by min-p and top-k.
        "samplers": ["top_k", "top_p", "temperature"],
        "temperature": 0.0 if draft.is_greedy else request.temperature,
        "top_p": 1.0 if draft.is_greedy else request.top_p,
        "top_k": 1 if draft.is_greedy else request.top_k,
    }
    optional = {
        "n_cmpl": draft.n if draft.n > 1 else None,
        "n_probs": draft.logprobs or None,
        "logit_bias": [[token, value] for token, value in draft.bias.items()] or None,
        "seed": draft.seed,
    }
    return body | {name: value for name, value in optional.items() if value is not None}


def _finish(choice: _Choice) -> Finish:
    try:
        return _FINISHES[choice.stop_type]
    except KeyError:
        raise UpstreamProtocolError(
            f"the upstream ended a draft with stop_type {choice.stop_type!r}; only eos and limit "
            "are known"
        ) from None


def _plain(choice: _Choice) -> Continuation:
    return Continuation(tokens=tuple(choice.tokens), finish=_finish(choice))


def _cut(choice: _Choice, lists: Sequence[TokenLogprobs]) -> Continuation:
    """Return the tokens that have lists; those behind them were generated for nothing."""
    count = len(lists)
    is_whole = count == len(choice.tokens)
    return Continuation(
        tokens=tuple(choice.tokens[:count]),
        finish=_finish(choice) if is_whole else Finish.LENGTH,
        logprobs=tuple(lists),
        generated=len(choice.tokens),
    )
