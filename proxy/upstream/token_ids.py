"""Continuation by token ids: vLLM's completions endpoint, and the embedded upstream.

The prompt is rendered once by `/tokenize`; every draft is a `/v1/completions` request whose
prompt is the array of all tokens so far, with ids in the answer (`return_token_ids`,
`return_tokens_as_token_ids`), so that nothing is tokenized twice. Log-probabilities of chosen ids
(`logprob_token_ids`) come in place of the likeliest ones, with the sampled token's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from proxy.errors import UpstreamProtocolError
from proxy.sampling.candidates import LogprobsMode
from proxy.sampling.questions import Continuation, Drafted
from proxy.upstream.client import decode_answer
from proxy.upstream.continuing import (
    EngineUpstream,
    TokenId,
    check_vocabulary,
    read_finish,
    token_logprobs,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from proxy.sampling.questions import Draft, TokenLogprobs
    from proxy.upstream.client import UpstreamClient
    from watermark.wire.openai_requests import GenerationRequest

    Pairs = list[tuple[bytes, bytes]]

_ID_LABEL: Final = "token_id:"


class _Logprobs(msgspec.Struct):
    top_logprobs: list[dict[str, float]]


class _Choice(msgspec.Struct):
    index: int
    token_ids: list[TokenId]
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class TokenIdUpstream(EngineUpstream):
    """Asks one upstream for continuations of token ids."""

    def __init__(self, client: UpstreamClient, mode: LogprobsMode, vocab_size: int) -> None:
        """Ask through a client.

        Args:
            client: The pool.
            mode: Which distribution the upstream's log-probabilities are of.
            vocab_size: Tokens that the configured tokenizer has.
        """
        super().__init__(client, vocab_size)
        self._mode = mode

    async def draft(
        self, request: GenerationRequest, prompt: Sequence[int], draft: Draft, headers: Pairs
    ) -> Drafted:
        """Return continuations.

        Raises:
            UpstreamError: The upstream refused, did not answer, or not in form.
        """
        body = self._body(request, prompt, draft)
        data = await self._client.post_json("/v1/completions", body, headers)
        choices = sorted(decode_answer(data, _Completion).choices, key=lambda one: one.index)
        return Drafted(tuple(self._continuation(choice) for choice in choices))

    def _body(
        self, request: GenerationRequest, prompt: Sequence[int], draft: Draft
    ) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": request.model,
            "prompt": [*prompt, *draft.tokens],
            "n": draft.n,
            "max_tokens": draft.max_tokens,
            "return_token_ids": True,
            **self._sampling(request, is_greedy=draft.is_greedy),
        }
        if draft.logprobs:
            body |= {"logprobs": draft.logprobs, "return_tokens_as_token_ids": True}
        if draft.chosen:
            body["logprob_token_ids"] = list(draft.chosen)
        if draft.bias:
            body["logit_bias"] = {str(token): value for token, value in draft.bias.items()}
        if draft.seed is not None:
            body["seed"] = draft.seed
        return body

    def _sampling(self, request: GenerationRequest, *, is_greedy: bool) -> Mapping[str, float]:
        if is_greedy and self._mode is LogprobsMode.RAW:
            return {"temperature": 0.0}
        if is_greedy:  # the lists must still be of the client's temperature
            return {"temperature": request.temperature, "top_k": 1}
        # Said in full: an upstream may have other defaults than the ones that the race knows.
        return {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
        }

    def _continuation(self, choice: _Choice) -> Continuation:
        lists = choice.logprobs.top_logprobs if choice.logprobs else []
        finish = read_finish(choice.finish_reason)
        check_vocabulary(max(choice.token_ids, default=0), self._vocab_size)
        return Continuation(
            tokens=tuple(choice.token_ids),
            finish=finish,
            logprobs=tuple(self._token_logprobs(one) for one in lists),
        )

    def _token_logprobs(self, listed: dict[str, float]) -> TokenLogprobs:
        skip = len(_ID_LABEL)
        try:
            found = token_logprobs((int(label[skip:]), value) for label, value in listed.items())
        except (ValueError, OverflowError):
            raise UpstreamProtocolError(
                "the upstream's log-probabilities do not name tokens by id; it must know "
                "return_tokens_as_token_ids"
            ) from None
        check_vocabulary(int(found.ids.max(initial=0)), self._vocab_size)
        return found
