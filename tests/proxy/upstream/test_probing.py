"""What a probe finds, on servers that can little, much, or say more than they do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import numpy as np
import pytest

from proxy.config import Capabilities, UpstreamConfig
from proxy.errors import UpstreamUnreachableError
from proxy.sampling.candidates import LogprobsMode
from proxy.upstream.client import UpstreamClient
from proxy.upstream.llama_server import LlamaServerUpstream
from proxy.upstream.probing import Findings, Prober
from proxy.upstream.sglang import SglangUpstream
from proxy.upstream.text_prompts import TextUpstream
from proxy.upstream.token_ids import TokenIdUpstream
from tests.support.engine_servers import LlamaServer, SglangServer
from tests.support.toy_model import ToyModel

if TYPE_CHECKING:
    from proxy.upstream.continuing import Upstream

LIKELY = np.array([0.40, 0.24, 0.15, 0.10, 0.08, 0.03])
TABLE = np.stack([np.roll(LIKELY, shift) for shift in range(6)])
Handler = "Callable[[httpx2.Request], httpx2.Response]"


def probe(handle: Any, *, vocab_size: int = 6, forced: Any = None, **declared: Any) -> Findings:
    async def work() -> Findings:
        transport = httpx2.MockTransport(handle)
        async with UpstreamClient(UpstreamConfig(url="http://u"), transport=transport) as client:

            def adapter(able: Capabilities) -> Upstream:
                if able.is_text:
                    return TextUpstream(client, able, None)
                if able.api == "sglang":
                    return SglangUpstream(client, vocab_size)
                if able.api == "llama-server":
                    return LlamaServerUpstream(client, vocab_size, filler=1)
                return TokenIdUpstream(client, LogprobsMode(able.logprobs_mode), vocab_size)

            ticks = iter(range(10_000))
            return await Prober(
                model="m",
                declared=Capabilities(**declared),
                vocab_size=vocab_size,
                forced=forced,
                adapter=adapter,
                headers=[(b"authorization", b"Bearer sk")],
                clock=lambda: float(next(ticks)),
            ).probe()

    return asyncio.run(work())


class GreedySglang(SglangServer):
    """Temperature 0 is greedy, as in the engine; the toy model samples at its own temperature."""

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        return _routed(self, request, super().handle, "/generate")


class GreedyLlama(LlamaServer):
    def handle(self, request: httpx2.Request) -> httpx2.Response:
        return _routed(self, request, super().handle, "/completion")


def _routed(server: Any, request: httpx2.Request, handle: Any, path: str) -> httpx2.Response:
    """Answer at the temperature asked for; paths that the server does not have are 404."""
    if request.url.path not in {path, "/tokenize", "/props", "/v1/models"}:
        return httpx2.Response(404, json={"error": "no"})
    if request.url.path == path:
        body = msgspec.json.decode(request.content)
        asked = body.get("sampling_params", body)
        first = asked if isinstance(asked, dict) else {"temperature": 1.0}
        server.model.parameters = type(server.model.parameters)(
            temperature=first["temperature"] or 1e-3,
            top_p=first.get("top_p", 1.0),
            top_k=max(0, first.get("top_k", 0)),
        )
        server.model._known.clear()
    answer: httpx2.Response = handle(request)
    return answer


def toy(mode: LogprobsMode) -> ToyModel:
    return ToyModel(TABLE, None, np.random.default_rng(0), mode=mode)


def test_sglang_is_found_with_all_that_it_can() -> None:
    found = probe(GreedySglang(toy(LogprobsMode.TEMPERED)).handle)
    able = found.capabilities
    assert (able.api, able.continuation) == ("sglang", "token-ids")
    assert (able.logprobs, able.logprobs_mode) == (6, "tempered")
    assert able.logit_bias
    assert able.chosen_logprobs == 6
    assert able.max_n == 64
    assert "continues: token ids over openai: no" in found.notes[0]
    assert found.speed.round_trip_s > 0


@pytest.mark.parametrize("mode", list(LogprobsMode))
def test_which_distribution_is_listed_is_found(mode: LogprobsMode) -> None:
    """Cut lists that pass for tempered ones would be cut a second time."""
    able = probe(GreedySglang(toy(mode)).handle).capabilities
    assert (able.logprobs, able.logprobs_mode) == (6, mode.value)


def test_lists_of_a_token_that_is_certain_do_not_tell() -> None:
    certain = np.full((6, 6), 1e-5)
    np.fill_diagonal(certain, 1 - 5e-5)
    certain[:, 5] *= 0.5  # two that differ, for a temperature to tell
    certain /= certain.sum(axis=1, keepdims=True)
    model = ToyModel(certain, None, np.random.default_rng(0), mode=LogprobsMode.PROCESSED)
    findings = probe(GreedySglang(model).handle)
    assert findings.capabilities.logprobs == 0
    assert "log-probabilities are: none" in findings.notes


def test_llama_server_is_found_with_its_whole_vocabulary() -> None:
    able = probe(GreedyLlama(toy(LogprobsMode.RAW)).handle).capabilities
    assert (able.api, able.logprobs, able.logprobs_mode) == ("llama-server", 6, "raw")
    assert able.logit_bias
    assert able.chosen_logprobs == 0


STORY = "Once upon a time there was a little dog who lived by the sea"


class Vendor:
    """Continues text, or only seems to: what it says depends on what it is asked."""

    def __init__(
        self,
        *,
        continues: bool,
        ignores_n: bool = False,
        prefix: str = "",
        repeats: bool = False,
    ) -> None:
        self.continues = continues
        self.ignores_n = ignores_n
        self.repeats = repeats
        self.prefix = prefix
        self.drawn = 0
        self.keys: set[str] = set()

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.keys.add(request.headers["authorization"])
        if request.url.path == "/v1/models":
            return httpx2.Response(200, json={"data": []})
        body = msgspec.json.decode(request.content)
        if request.url.path == "/v1/chat/completions":
            return self._chat(body)
        if request.url.path != "/v1/completions" or not isinstance(body["prompt"], str):
            return httpx2.Response(404, json={})
        if self.prefix:
            return httpx2.Response(404, json={})
        given = body["prompt"] if self.continues else STORY[:28]
        return self._answer(body, STORY[len(given) :], "text")

    def _chat(self, body: Any) -> httpx2.Response:
        last = body["messages"][-1]
        if last["role"] != "assistant":
            return self._answer(body, STORY[28:], "message")
        if self.prefix and last.get(self.prefix):
            given = last["content"]
            told = given if self.repeats else ""
            return self._answer(body, STORY[28 + len(given) :], "message", told)
        return httpx2.Response(400, json={"error": "this model does not support prefill"})

    def _answer(self, body: Any, text: str, key: str, told: str = "") -> httpx2.Response:
        said = []
        for _ in range(1 if self.ignores_n else body.get("n", 1)):
            self.drawn += 1
            tail = f" {self.drawn}" if body["temperature"] else ""
            part = told + text[:20] + tail
            said.append(part if key == "text" else {"content": part})
        choices = [{"index": i, key: one, "finish_reason": "length"} for i, one in enumerate(said)]
        return httpx2.Response(200, json={"choices": choices})


@pytest.mark.parametrize(
    ("vendor", "continuation", "max_n"),
    [
        (Vendor(continues=True), "text", 64),
        (Vendor(continues=True, ignores_n=True), "text", 1),
        (Vendor(continues=True, prefix="prefix"), "prefix", 64),
        (Vendor(continues=False), "none", 64),
    ],
)
def test_vendors_of_text(vendor: Vendor, continuation: str, max_n: int) -> None:
    found = probe(vendor.handle, vocab_size=0, parallel=3).capabilities
    assert found.continuation == continuation
    assert found.max_n == max_n
    assert found.parallel == 3
    assert found.prefix == ("prefix" if continuation == "prefix" else found.prefix)
    assert vendor.keys == {"Bearer sk"}


@pytest.mark.parametrize("repeats", [False, True])
def test_whether_a_vendor_repeats_what_it_continues_is_found_and_noted(repeats: bool) -> None:
    vendor = Vendor(continues=True, prefix="prefix", repeats=repeats)
    findings = probe(vendor.handle, vocab_size=0, echo=not repeats)
    assert findings.capabilities.continuation == "prefix"
    assert findings.capabilities.echo is repeats
    assert f"repeats what it continues: {'yes' if repeats else 'no'}" in findings.notes


def test_an_upstream_that_is_not_there_is_an_error() -> None:
    def gone(_request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("no")

    with pytest.raises(UpstreamUnreachableError):
        probe(gone)


class Hosted:
    """Gives whole replies only; takes so many biases, and obeys them or does not."""

    def __init__(self, *, most: int, obeys: bool) -> None:
        self.most = most
        self.obeys = obeys
        self.sizes: list[int] = []

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path != "/v1/chat/completions":
            return httpx2.Response(404, json={})
        body = msgspec.json.decode(request.content)
        if body["messages"][-1]["role"] == "assistant" or body.get("n", 1) > 1:
            return httpx2.Response(400, json={})
        biases = body.get("logit_bias", {})
        self.sizes.append(len(biases))
        if len(biases) > self.most:
            return httpx2.Response(400, json={"error": {"message": "too many"}})
        is_forced = self.obeys and biases.get("3") == 100
        message = {"content": "xxxxxxxx" if is_forced else STORY[28:]}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        return httpx2.Response(200, json={"choices": [choice]})


@pytest.mark.parametrize(
    ("most", "obeys", "found"),
    [(4096, True, 1024), (500, True, 300), (4096, False, 0), (0, True, 0)],
)
def test_biases_are_tried_by_forcing_a_token(most: int, obeys: bool, found: int) -> None:
    hosted = Hosted(most=most, obeys=obeys)
    able = probe(hosted.handle, vocab_size=2000, forced=(3, "x")).capabilities
    assert able.continuation == "none"
    assert able.logit_bias == bool(found)
    assert able.max_bias == (found or 1024)
    assert max(hosted.sizes) == 1024


class Reasoning:
    """A hosted model that lets nobody choose a temperature, nor `max_tokens`, and reasons first."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.bodies: list[Any] = []

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path != "/v1/chat/completions":
            return httpx2.Response(404, json={})
        body = msgspec.json.decode(request.content)
        if body["messages"][-1]["role"] == "assistant" or body.keys() & {*self.refused}:
            return httpx2.Response(400, json={"error": {"message": "Unsupported parameter"}})
        self.bodies.append(body)
        text = "" if body.get("max_completion_tokens", 64) < 64 else STORY[28:]
        said = [f"{text}{' again' * place}" if text else "" for place in range(body.get("n", 1))]
        message = {"role": "assistant", "reasoning_content": "hm"}
        choices = [
            {"index": place, "message": message | {"content": one}, "finish_reason": "stop"}
            for place, one in enumerate(said)
        ]
        return httpx2.Response(200, json={"choices": choices})


@pytest.mark.parametrize(
    ("refused", "said", "max_n"),
    [
        ((), "with temperature and max_tokens", 64),
        (("temperature",), "with max_tokens, without temperature", 64),
        (
            ("temperature", "max_tokens"),
            "with neither temperature nor a bound of length",
            4,
        ),
    ],
)
def test_a_whole_question_says_no_more_than_the_model_takes(
    refused: tuple[str, ...], said: str, max_n: int
) -> None:
    hosted = Reasoning(*refused)
    findings = probe(hosted.handle, vocab_size=2000, forced=(3, "x"))
    able = findings.capabilities
    assert (able.continuation, able.max_n, able.logit_bias) == ("none", max_n, False)
    assert f"answers over openai: {said}" in findings.notes
    whole = [one for one in hosted.bodies if "sentence" in one["messages"][0]["content"]]
    assert whole
    assert not any("top_p" in body for body in whole)
    if "max_tokens" in refused:  # a forced token would never end
        assert not any("logit_bias" in body for body in whole)


def test_a_refusal_of_every_phrasing_is_noted() -> None:
    findings = probe(Reasoning("messages").handle)
    assert any(note.startswith("answers over openai: no (") for note in findings.notes)
    assert findings.capabilities.max_n == 1
