"""SGLang and llama-server as their answers look, with a toy model behind them.

The shapes are those of SGLang 0.5.23 (`io_struct.py`, `tokenizer_manager.py`,
`schedule_batch.py`) and of llama.cpp 0c1e570 (`server-task.cpp`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec

from proxy.sampling.questions import Continuation, Draft, Finish, TokenLogprobs

if TYPE_CHECKING:
    from tests.support.toy_model import ToyModel

PROMPT = [4, 4]


@dataclass
class SglangServer:
    """POST /generate and /tokenize."""

    model: ToyModel
    trims: bool = False
    bodies: list[Any] = field(default_factory=list)

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/models":
            return httpx2.Response(200, json={"data": [{"id": "m", "max_model_len": 64}]})
        body = msgspec.json.decode(request.content)
        self.bodies.append(body)
        if request.url.path == "/tokenize":
            return httpx2.Response(200, json={"tokens": PROMPT, "count": 2, "max_model_len": 64})
        ids, sampling = body["input_ids"], body["sampling_params"]
        if isinstance(sampling, dict):
            choices = self._choices(ids, sampling, body)
            return httpx2.Response(200, json=choices[0] if len(choices) == 1 else choices)
        pairs = zip(ids, sampling, strict=True)
        batch = [each for one, said in pairs for each in self._choices(one, said, body)]
        return httpx2.Response(200, json=batch)

    def _choices(self, ids: list[int], sampling: Any, body: Any) -> list[dict[str, Any]]:
        question = Draft(
            tokens=tuple(ids[len(PROMPT) :]),
            n=sampling.get("n", 1),
            max_tokens=sampling["max_new_tokens"],
            logprobs=body.get("top_logprobs_num", 0),
            chosen=tuple(body.get("token_ids_logprob", ())),
            bias={int(token): value for token, value in sampling.get("logit_bias", {}).items()},
            seed=sampling.get("sampling_seed"),
        )
        if question.chosen:
            question = replace(question, logprobs=1)
        return [
            self._choice(ids, one, question) for one in self.model.answer(question).continuations
        ]

    def _choice(self, ids: list[int], one: Continuation, question: Draft) -> dict[str, Any]:
        is_ended = one.finish is Finish.STOP
        meta: dict[str, Any] = {
            "id": "a",
            "finish_reason": {"type": "stop", "matched": one.tokens[-1]}
            if is_ended
            else {"type": "length", "length": len(one.tokens)},
            "prompt_tokens": len(ids),
            "completion_tokens": len(one.tokens),
        }
        if one.logprobs:
            pairs = list(zip(one.logprobs, one.tokens, strict=True))
            meta["output_token_logprobs"] = [[of.of(token), token, None] for of, token in pairs]
            lists = [_triples(of, token, question) for of, token in pairs]
            name = "output_token_ids_logprobs" if question.chosen else "output_top_logprobs"
            meta[name] = lists
        tokens = one.tokens[:-1] if is_ended and self.trims else one.tokens
        return {"text": "", "output_ids": list(tokens), "meta_info": meta}


def _triples(listed: TokenLogprobs, sampled: int, question: Draft) -> list[list[Any]]:
    """Return a list as the engine has it: the sampled token is in it only by right."""
    size = len(question.chosen) or question.logprobs
    kept = listed.without(sampled) if len(listed) > size else listed
    pairs = zip(kept.ids.tolist(), kept.logprobs.tolist(), strict=True)
    return [[value, token, None] for token, value in pairs]


@dataclass
class LlamaServer:
    """POST /completion, /tokenize and /apply-template, GET /props."""

    model: ToyModel
    unfinished: frozenset[int] = frozenset()
    padding: int = 0
    bodies: list[Any] = field(default_factory=list)

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/props":
            return httpx2.Response(200, json={"default_generation_settings": {"n_ctx": 64}})
        body = msgspec.json.decode(request.content)
        self.bodies.append(body)
        if request.url.path == "/apply-template":
            return httpx2.Response(200, json={"prompt": "<user>" + body["messages"][0]["content"]})
        if request.url.path == "/tokenize":
            return httpx2.Response(200, json={"tokens": PROMPT})
        bias = {token: min(value, 100.0) for token, value in body.get("logit_bias", [])}
        question = Draft(
            tokens=tuple(body["prompt"][len(PROMPT) :]),
            n=body.get("n_cmpl", 1),
            max_tokens=body["n_predict"],
            is_greedy=body["temperature"] == 0 and body["top_k"] == 1,
            logprobs=body.get("n_probs", 0),
            bias=bias,
            seed=body.get("seed"),
        )
        answers = self.model.answer(question).continuations
        choices = [self._choice(place, one) for place, one in enumerate(answers)]
        return httpx2.Response(200, json=choices[0] if question.n == 1 else choices)

    def _choice(self, place: int, one: Continuation) -> dict[str, Any]:
        entries = [
            _entry(token, listed, self.padding)
            for token, listed in zip(one.tokens, one.logprobs, strict=False)
            if token not in self.unfinished
        ]
        return {
            "index": place,
            "content": "",
            "tokens": list(one.tokens),
            "stop": True,
            "stop_type": "eos" if one.finish is Finish.STOP else "limit",
            "tokens_predicted": len(one.tokens),
            "tokens_evaluated": 2,
            **({"completion_probabilities": entries} if entries else {}),
        }


def _entry(token: int, listed: TokenLogprobs, padding: int) -> dict[str, Any]:
    pairs = list(zip(listed.ids.tolist(), listed.logprobs.tolist(), strict=True))
    pairs += [(max(listed.ids.tolist()) + 1 + one, -80.0) for one in range(padding)]
    top = [
        {
            "id": one,
            "token": "x",
            "bytes": [120],
            "logprob": None if value == -float("inf") else value,
        }
        for one, value in pairs
    ]
    return {"id": token, "token": "x", "bytes": [120], "logprob": -1.0, "top_logprobs": top}
