"""`reply`: an API that continues nothing, through a real proxy; read from delivered text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import openai
import pytest

from proxy.app import create_app
from proxy.config import Capabilities, ModelConfig, ReplyConfig
from tests.support.servers import Backstage, key_record, proxy_config
from watermark.detection import Detector
from watermark.text import WORDS_V1, TokenizerUnit, WordsUnit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.embedded.builtin import BuiltinModel
    from tests.e2e.conftest import Stage

NOW = datetime.now(UTC)
CHAT: dict[str, Any] = {
    "model": "builtin",
    "messages": [{"role": "user", "content": "How is a module found?"}],
    "max_tokens": 60,
}


@pytest.fixture(scope="module")
def urls(stage: Stage, builtin: BuiltinModel) -> Iterator[dict[str, str]]:
    whole = Capabilities(continuation="none", max_n=8)
    one_by_one = Capabilities(continuation="none", max_n=1, parallel=8)
    common: dict[str, Any] = {"name": "builtin", "reply": ReplyConfig(candidates=8)}
    tokenizer = str(builtin.tokenizer_path)
    passing = ReplyConfig(candidates=8, streamed="pass-unmarked")
    models = {
        "words": ModelConfig(capabilities=whole, unit=WORDS_V1, **common),
        "tokens": ModelConfig(capabilities=one_by_one, tokenizer=tokenizer, **common),
        "passing": ModelConfig(capabilities=whole, unit=WORDS_V1, **(common | {"reply": passing})),
    }
    with Backstage().opened() as backstage:
        yield {
            name: backstage.serve(create_app(proxy_config(stage.direct, model), stage.ring))
            for name, model in models.items()
        }


@pytest.mark.parametrize("unit", ["words", "tokens"])
def test_a_corpus_of_replies_shows_its_key(
    urls: dict[str, str], stage: Stage, builtin: BuiltinModel, unit: str
) -> None:
    texts = []
    with httpx2.Client(timeout=60) as http:
        for _ in range(40):
            answer = http.post(f"{urls[unit]}/v1/chat/completions", json=CHAT)
            assert answer.headers["x-watermark"] == "marked; path=reply; key=test"
            texts.append(answer.json()["choices"][0]["message"]["content"])
    cut = WordsUnit() if unit == "words" else TokenizerUnit.read(builtin.tokenizer_path)
    right = Detector(stage.ring.marking(cut.unit_id, now=NOW), cut).detect_pooled(texts)
    wrong = Detector(key_record(cut.unit_id, secret=b"w" * 32), cut).detect_pooled(texts)
    assert right.log10_pvalue < -3
    assert wrong.log10_pvalue > -3


def test_parameters_that_no_continuation_could_honor_go_with_it(urls: dict[str, str]) -> None:
    body = CHAT | {"presence_penalty": 0.5, "frequency_penalty": 0.3, "stop": ["."], "n": 2}
    with openai.OpenAI(base_url=f"{urls['words']}/v1", api_key="sk", max_retries=0) as client:
        answer = client.chat.completions.with_raw_response.create(**body)
    assert answer.headers["x-watermark"].startswith("marked; path=reply")
    choices = answer.parse().choices
    assert len(choices) == 2
    assert all("." not in (choice.message.content or "") for choice in choices)


def test_a_seed_repeats_the_choice(urls: dict[str, str]) -> None:
    for name in ("words", "tokens"):
        texts = {
            httpx2.post(
                f"{urls[name]}/v1/chat/completions", json=CHAT | {"seed": 4}, timeout=60
            ).json()["choices"][0]["message"]["content"]
            for _ in range(3)
        }
        assert len(texts) == 1


@pytest.mark.parametrize("endpoint", ["chat/completions", "completions"])
def test_a_stream_is_buffered_or_passed_by_config(urls: dict[str, str], endpoint: str) -> None:
    body: dict[str, Any] = {"model": "builtin", "max_tokens": 30, "stream": True}
    body |= {"messages": CHAT["messages"]} if "chat" in endpoint else {"prompt": "The parser"}
    for name, header in (
        ("words", "marked; path=reply; key=test"),
        ("passing", "unmarked; reason=streamed"),
    ):
        answer = httpx2.post(f"{urls[name]}/v1/{endpoint}", json=body, timeout=60)
        assert answer.headers["x-watermark"] == header
        *events, done = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        assert done == "[DONE]"
        choices = [msgspec.json.decode(event)["choices"][0] for event in events]
        assert choices[-1]["finish_reason"] in ("stop", "length")


def test_log_probabilities_are_the_upstreams_own(urls: dict[str, str]) -> None:
    body = CHAT | {"logprobs": True, "top_logprobs": 2}
    answer = httpx2.post(f"{urls['words']}/v1/chat/completions", json=body, timeout=60)
    assert answer.headers["x-watermark"] == "marked; path=reply; key=test"
    (choice,) = answer.json()["choices"]
    listed = choice["logprobs"]["content"]
    data = b"".join(bytes(one["bytes"]) for one in listed if one["bytes"] is not None)
    assert data.decode() == choice["message"]["content"]
    assert all(len(one["top_logprobs"]) >= 2 for one in listed)
