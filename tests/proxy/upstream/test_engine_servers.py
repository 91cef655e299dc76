"""SGLang's and llama-server's own endpoints: what is asked, how it is read, and the law of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import numpy as np
import pytest

from proxy.config import UpstreamConfig
from proxy.errors import UpstreamProtocolError
from proxy.sampling.budget import Budget, BudgetLimits
from proxy.sampling.candidates import ListReader, LogprobsMode
from proxy.sampling.parameters import SamplingParameters
from proxy.sampling.questions import Draft, Drafted, Finish
from proxy.sampling.splice import SplicePlan, splice
from proxy.upstream.client import UpstreamClient
from proxy.upstream.llama_server import LlamaServerUpstream
from proxy.upstream.sglang import SglangUpstream
from tests.support.drive import drive, law_pvalue, make_reply, no_clock
from tests.support.engine_servers import PROMPT, LlamaServer, SglangServer
from tests.support.toy_model import PLAIN, ToyModel
from watermark.wire.openai_requests import DialectName, GenerationRequest, parse_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxy.upstream.continuing import Upstream

END = 5
LIKELY = np.array([0.40, 0.24, 0.15, 0.10, 0.08, 0.03])
TABLE = np.stack([np.roll(LIKELY, shift) for shift in range(6)])
FILLER = 1
Server = SglangServer | LlamaServer


def chat(**fields: Any) -> GenerationRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]} | fields
    return parse_request(DialectName.CHAT, msgspec.json.encode(body))


class Wire:
    """One adapter over one server, driven from code that does not wait."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._loop = asyncio.new_event_loop()
        transport = httpx2.MockTransport(server.handle)
        self._client = UpstreamClient(UpstreamConfig(url="http://u"), transport=transport)
        vocab_size = server.model.vocab_size
        self.upstream: Upstream = (
            SglangUpstream(self._client, vocab_size)
            if isinstance(server, SglangServer)
            else LlamaServerUpstream(self._client, vocab_size, filler=FILLER)
        )

    def asking(self, request: GenerationRequest) -> Callable[[Draft], Drafted]:
        return lambda draft: self.run(self.upstream.draft(request, PROMPT, draft, []))

    def run(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)

    @contextlib.contextmanager
    def open(self) -> Iterator[Wire]:
        try:
            yield self
        finally:
            self.run(self._client.__aexit__())
            self._loop.close()


def question(**fields: Any) -> Draft:
    given: dict[str, Any] = {"tokens": (1, 2), "n": 1, "max_tokens": 3}
    return Draft(**(given | fields))


def toy(parameters: SamplingParameters = PLAIN, **fields: Any) -> ToyModel:
    return ToyModel(TABLE, END, np.random.default_rng(0), parameters, **fields)


def test_sglang_is_asked_in_full() -> None:
    with Wire(SglangServer(toy())).open() as wire:
        ask = wire.asking(chat(temperature=0.5, top_p=0.9))
        ask(question(n=2, logprobs=3, bias={4: -1.0}))
        ask(question(n=2, seed=7))
        ask(question(logprobs=1, chosen=(0, 3)))
    first, seeded, chosen = wire.server.bodies
    sampling = {
        "max_new_tokens": 3,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    }
    assert first == {
        "input_ids": [*PROMPT, 1, 2],
        "sampling_params": sampling | {"n": 2, "logit_bias": {"4": -1.0}},
        "return_logprob": True,
        "top_logprobs_num": 3,
    }
    assert seeded == {
        "input_ids": [[*PROMPT, 1, 2]] * 2,
        "sampling_params": [sampling | {"sampling_seed": 7}, sampling | {"sampling_seed": 8}],
    }
    assert chosen["token_ids_logprob"] == [0, 3]
    assert chosen["top_logprobs_num"] == 0


@pytest.mark.parametrize("trims", [False, True])
def test_sglang_ends_with_the_token_that_matched(trims: bool) -> None:
    with Wire(SglangServer(toy(), trims=trims)).open() as wire:
        answer = wire.asking(chat())(question(n=30, max_tokens=20, logprobs=2))
    ended = [one for one in answer.continuations if one.finish is Finish.STOP]
    assert ended
    for one in ended:
        assert one.tokens[-1] == END
        assert len(one.logprobs) == len(one.tokens)


def test_prompts_and_limits() -> None:
    with Wire(SglangServer(toy())).open() as sglang, Wire(LlamaServer(toy())).open() as llama:
        for wire in (sglang, llama):
            assert wire.run(wire.upstream.prompt_ids(chat(), [])) == PROMPT
            assert wire.run(wire.upstream.context_limit("m", [])) == 64
    assert llama.server.bodies == [
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"content": "<user>Hi", "add_special": True, "parse_special": True},
    ]


def test_llama_server_is_asked_in_full() -> None:
    with Wire(LlamaServer(toy())).open() as wire:
        ask = wire.asking(chat(temperature=0.5, top_p=0.9))
        ask(question(n=2, bias={4: -1.0}, seed=3))
        ask(question(is_greedy=True, logprobs=6))
    sampled, greedy = wire.server.bodies
    common = {
        "prompt": [*PROMPT, 1, 2],
        "n_predict": 3,
        "return_tokens": True,
        "cache_prompt": True,
        "samplers": ["top_k", "top_p", "temperature"],
    }
    assert sampled == common | {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 0,
        "n_cmpl": 2,
        "logit_bias": [[4, -1.0]],
        "seed": 3,
    }
    assert greedy == common | {"temperature": 0.0, "top_p": 1.0, "top_k": 1, "n_probs": 6}


def test_a_greedy_draft_is_cut_where_a_character_is_unfinished() -> None:
    # After 1, 2 the greedy tokens are 3, 4, 5.
    server = LlamaServer(toy(), unfinished=frozenset({4}))
    with Wire(server).open() as wire:
        (one,) = wire.asking(chat())(question(is_greedy=True, logprobs=6)).continuations
    assert one.tokens == (3,)
    assert one.finish is Finish.LENGTH
    assert one.n_tokens == 3
    assert len(server.bodies) == 1


def test_an_unfinished_first_token_has_its_list_asked_for_again() -> None:
    server = LlamaServer(toy(), unfinished=frozenset({3}))
    with Wire(server).open() as wire:
        (one,) = wire.asking(chat())(question(is_greedy=True, logprobs=6)).continuations
    assert one.tokens == (3,)
    np.testing.assert_allclose(np.exp(one.logprobs[0].logprobs).sum(), 1)
    assert server.bodies[1]["logit_bias"] == [[FILLER, 1e4]]


def test_tokens_that_pad_the_vocabulary_are_left_out() -> None:
    with Wire(LlamaServer(toy(), padding=3)).open() as wire:
        (one,) = wire.asking(chat())(question(is_greedy=True, logprobs=9)).continuations
    assert len(one.logprobs[0]) == 6


LAWS = [
    pytest.param(SglangServer, {}, (3, 2, 0), id="sglang"),
    pytest.param(SglangServer, {"temperature": 1.4}, (2, 2, 2), id="sglang-chosen"),
    pytest.param(SglangServer, {"top_p": 0.8, "temperature": 0.8}, (3, 2, 0), id="sglang-cut"),
    pytest.param(LlamaServer, {"temperature": 1.4, "top_p": 0.7}, (6, 0, 0), id="llama"),
    pytest.param(LlamaServer, {"temperature": 0.7}, (6, 0, 0), id="llama-cooled"),
]


@pytest.mark.parametrize("count", [250, pytest.param(1200, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "parameters", "drawn"), LAWS)
def test_the_law_over_the_wire_is_the_upstreams(
    kind: type[Server], parameters: dict[str, Any], drawn: tuple[int, int, int], count: int
) -> None:
    size, drafts, chosen = drawn
    given = SamplingParameters(max_tokens=3, **parameters)
    is_llama = kind is LlamaServer
    mode = LogprobsMode.RAW if is_llama else LogprobsMode.TEMPERED
    model = toy(given, mode=mode, cuts_first=is_llama)
    server = LlamaServer(model, unfinished=frozenset({2})) if is_llama else SglangServer(model)
    reader = ListReader(parameters=given, mode=mode, size=size, vocab_size=6, cuts_first=is_llama)
    plan = SplicePlan(
        reader=reader, draft_tokens=2, drafts=drafts, end_ids=frozenset({END}), chosen=chosen
    )
    sequences = []
    with Wire(server).open() as wire:
        ask = wire.asking(chat(**parameters))
        for seed in range(count):
            budget = Budget(BudgetLimits(), no_clock)
            sequences.append(
                drive(splice(make_reply(seed, max_tokens=3), plan, budget), ask).sequence
            )
    assert law_pvalue(sequences, model.law(3)) > 1e-4


def broken(answer: Any, path: str) -> Callable[[httpx2.Request], httpx2.Response]:
    def handle(request: httpx2.Request) -> httpx2.Response:
        assert request.url.path == path
        return httpx2.Response(200, json=answer)

    return handle


ABORTED = {"output_ids": [], "meta_info": {"finish_reason": {"type": "abort", "message": "no"}}}
UNLISTED = {"output_ids": [1], "meta_info": {"finish_reason": {"type": "length"}}}
FOREIGN = {"output_ids": [99], "meta_info": {"finish_reason": {"type": "length"}}}


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (ABORTED, "aborted a draft"),
        (UNLISTED, "listed 0 positions of 1"),
        (FOREIGN, "names token 99"),
        ({}, "cannot be read"),
    ],
)
def test_answers_of_sglang_that_are_refused(answer: Any, match: str) -> None:
    server = SglangServer(toy())
    server.handle = broken(answer, "/generate")  # type: ignore[method-assign, assignment]
    with Wire(server).open() as wire, pytest.raises(UpstreamProtocolError, match=match):
        wire.asking(chat())(question(logprobs=2))


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        ({"tokens": [1], "stop_type": "word"}, "stop_type 'word'"),
        ({"tokens": [1], "stop_type": "limit"}, "lists no log-probabilities"),
        ({"tokens": [77], "stop_type": "limit"}, "names token 77"),
        ([], "cannot be read"),
    ],
)
def test_answers_of_llama_server_that_are_refused(answer: Any, match: str) -> None:
    server = LlamaServer(toy())
    server.handle = broken(answer, "/completion")  # type: ignore[method-assign, assignment]
    listed = question(is_greedy=True, logprobs=0 if "word" in match else 6)
    with Wire(server).open() as wire, pytest.raises(UpstreamProtocolError, match=match):
        wire.asking(chat())(listed)
