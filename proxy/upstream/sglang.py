"""Continuation by token ids over SGLang's own `/generate`.

One request draws n continuations of the ids so far. Its log-probabilities are those after biases
and temperature, of the likeliest tokens and, beside them, of chosen ones. A batch that is greedy
throughout reports them without the temperature, so drafts are sampled here, never greedy
(`Capabilities.drafts_greedily`).

A choice that was stopped by a token ends with it, or, where the engine trims its answers, names it
as `matched`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from proxy.errors import UpstreamProtocolError
from proxy.sampling.questions import Continuation, Drafted, Finish
from proxy.upstream.client import decode_answer
from proxy.upstream.continuing import (
    EngineUpstream,
    TokenId,
    check_vocabulary,
    read_finish,
    token_logprobs,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.sampling.questions import Draft, TokenLogprobs
    from watermark.wire.openai_requests import GenerationRequest

    Pairs = list[tuple[bytes, bytes]]

_Listed: TypeAlias = tuple[float, TokenId, str | None]


class _Finish(msgspec.Struct):
    type: str
    matched: int | str | list[int] | None = None
    message: str = ""


class _Meta(msgspec.Struct):
    finish_reason: _Finish
    prompt_tokens: int | None = None
    output_token_logprobs: list[_Listed] = []
    output_top_logprobs: list[list[_Listed] | None] = []
    output_token_ids_logprobs: list[list[_Listed] | None] = []


class _Choice(msgspec.Struct):
    output_ids: list[TokenId]
    meta_info: _Meta


class SglangUpstream(EngineUpstream):
    """Asks one SGLang server for continuations of token ids."""

    async def draft(
        self, request: GenerationRequest, prompt: Sequence[int], draft: Draft, headers: Pairs
    ) -> Drafted:
        """Return continuations.

        Raises:
            UpstreamError: The upstream refused, did not answer, or not in form.
        """
        body = _body(request, prompt, draft)
        data = await self._client.post_json("/generate", body, headers)
        choices = [decode_answer(data, _Choice)] if draft.n == 1 else []
        choices = choices or decode_answer(data, list[_Choice])
        return Drafted(
            tuple(self._continuation(choice, draft) for choice in choices),
            prompt_tokens=choices[0].meta_info.prompt_tokens if choices else None,
        )

    def _continuation(self, choice: _Choice, draft: Draft) -> Continuation:
        meta, tokens = choice.meta_info, list(choice.output_ids)
        if meta.finish_reason.type == "abort":
            raise UpstreamProtocolError(
                f"the upstream aborted a draft ({meta.finish_reason.message}); see its log"
            )
        finish = read_finish(meta.finish_reason.type)
        matched = meta.finish_reason.matched
        if finish is Finish.STOP and isinstance(matched, int) and tokens[-1:] != [matched]:
            tokens.append(matched)
        check_vocabulary(max(tokens, default=0), self._vocab_size)
        lists = self._lists(meta, draft, len(tokens)) if draft.logprobs else ()
        return Continuation(tokens=tuple(tokens), finish=finish, logprobs=lists)

    def _lists(self, meta: _Meta, draft: Draft, count: int) -> tuple[TokenLogprobs, ...]:
        """Return one list a token: the likeliest or the chosen ones, and the one that was drawn."""
        listed = meta.output_token_ids_logprobs if draft.chosen else meta.output_top_logprobs
        drawn = meta.output_token_logprobs
        if not count == len(listed) == len(drawn):
            raise UpstreamProtocolError(
                f"the upstream listed {len(listed)} positions of {count} tokens; check the "
                "model's logprobs capability"
            )
        lists = tuple(
            token_logprobs((token, value) for value, token, _ in [*(top or ()), own])
            for top, own in zip(listed, drawn, strict=True)
        )
        for one in lists:
            check_vocabulary(int(one.ids.max(initial=0)), self._vocab_size)
        return lists


def _body(request: GenerationRequest, prompt: Sequence[int], draft: Draft) -> dict[str, Any]:
    sampling: dict[str, Any] = {
        "max_new_tokens": draft.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k or -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    }
    if draft.bias:
        sampling["logit_bias"] = {str(token): value for token, value in draft.bias.items()}
    body: dict[str, Any] = _drawn([*prompt, *draft.tokens], sampling, draft)
    if draft.logprobs:
        body |= {"return_logprob": True, "top_logprobs_num": draft.logprobs}
    if draft.chosen:
        body |= {"top_logprobs_num": 0, "token_ids_logprob": list(draft.chosen)}
    return body


def _drawn(ids: list[int], sampling: dict[str, Any], draft: Draft) -> dict[str, Any]:
    """Return what is asked to be drawn.

    Choices of one request share its seed, and would be one text; with seeds they are a batch.
    """
    if draft.seed is None:
        return {"input_ids": ids, "sampling_params": sampling | {"n": draft.n}}
    seeded = [sampling | {"sampling_seed": draft.seed + place} for place in range(draft.n)]
    if draft.n == 1:
        return {"input_ids": ids, "sampling_params": seeded[0]}
    return {"input_ids": [ids] * draft.n, "sampling_params": seeded}
