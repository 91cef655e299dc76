"""Upstreams that continue text only: the `openai` package through a real proxy.

The model behind is told no token ids and tells none; the detector reads what the client got.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import openai
import pytest

from proxy.app import create_app
from proxy.config import Capabilities, ModelConfig, ReplyConfig, SelectConfig, SpliceConfig
from proxy.embedded.server import create_app as create_model_app
from tests.support.servers import SELECT_ONLY, Backstage, key_record, key_ring, proxy_config
from watermark.detection import Detector
from watermark.text import WORDS_V1, TokenizerUnit, WordsUnit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.embedded.builtin import BuiltinModel

MESSAGES: Any = [{"role": "user", "content": "Explain how a module is found and loaded."}]
PROMPT = "The parser reads"
SPLICE = SpliceConfig(logprobs=100, drafts=2)


def able(**fields: Any) -> Capabilities:
    """What the embedded upstream can do when nobody asks it for ids."""
    given: dict[str, Any] = {
        "continuation": "prefix",
        "logprobs": 4096,
        "logprobs_mode": "tempered",
        "max_n": 64,
    }
    return Capabilities(**(given | {"logit_bias": True} | fields))


def configurations(builtin: BuiltinModel) -> dict[str, ModelConfig]:
    tokenizer = str(builtin.tokenizer_path)
    select = SelectConfig(chunk_tokens=4, candidates=8)
    common: dict[str, Any] = {
        "name": "builtin",
        "select": select,
        "reply": ReplyConfig(enabled=False),  # what it can do hides what the others cannot
    }
    words = common | {"unit": WORDS_V1, "capabilities": able(logprobs=0)}  # and no tokenizer
    return {
        "splice": ModelConfig(tokenizer=tokenizer, capabilities=able(), splice=SPLICE, **common),
        "select": ModelConfig(
            tokenizer=tokenizer, capabilities=able(), splice=SELECT_ONLY, **common
        ),
        "select-words": ModelConfig(**words),
        "text": ModelConfig(**(words | {"capabilities": able(continuation="text", logprobs=0)})),
    }


@pytest.fixture(scope="module")
def urls(builtin: BuiltinModel) -> Iterator[dict[str, str]]:
    ring = key_ring(builtin.tokenizer_path)
    with Backstage().opened() as backstage:
        direct = backstage.serve(create_model_app(builtin))
        yield {"direct": direct} | {
            name: backstage.serve(create_app(proxy_config(direct, model), ring))
            for name, model in configurations(builtin).items()
        }


@pytest.fixture(scope="module")
def clients(urls: dict[str, str]) -> Iterator[dict[str, openai.OpenAI]]:
    opened = {
        name: openai.OpenAI(base_url=f"{url}/v1", api_key="sk", max_retries=0, timeout=60)
        for name, url in urls.items()
    }
    yield opened
    for client in opened.values():
        client.close()


@pytest.fixture(params=["splice", "select", "select-words"])
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(clients: dict[str, openai.OpenAI], path: str) -> openai.OpenAI:
    return clients[path]


@pytest.fixture
def no_end(builtin: BuiltinModel) -> dict[str, int]:
    return {str(token): -100 for token in builtin.end_ids}


def log10_pvalue(builtin: BuiltinModel, path: str, text: str) -> float:
    if path == "select-words":
        detector = Detector(key_record(WORDS_V1), WordsUnit())
    else:
        unit = TokenizerUnit.read(builtin.tokenizer_path)
        detector = Detector(key_record(unit.unit_id), unit)
    return detector.detect(text).log10_pvalue


def test_completions_carry_the_mark(
    client: openai.OpenAI, path: str, builtin: BuiltinModel, no_end: dict[str, int]
) -> None:
    answer = client.completions.with_raw_response.create(
        model="builtin", prompt=PROMPT, max_tokens=160, logit_bias=no_end
    )
    assert answer.headers["x-watermark"].startswith(f"marked; path={path[:6]}")
    completion = answer.parse()
    assert log10_pvalue(builtin, path, completion.choices[0].text) < -3
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 160


def test_streamed_chats_carry_the_mark(
    client: openai.OpenAI, path: str, builtin: BuiltinModel, no_end: dict[str, int]
) -> None:
    stream = client.chat.completions.create(
        model="builtin",
        messages=MESSAGES,
        max_tokens=160,
        logit_bias=no_end,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert log10_pvalue(builtin, path, text) < -3
    finishes = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert [one for one in finishes if one] == ["length"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 160


def test_prompt_tokens_are_the_upstreams(
    client: openai.OpenAI, clients: dict[str, openai.OpenAI]
) -> None:
    counts = set()
    for one in (client, clients["direct"]):
        chat = one.chat.completions.create(model="builtin", messages=MESSAGES, max_tokens=12)
        assert chat.usage is not None
        counts.add(chat.usage.prompt_tokens)
    assert len(counts) == 1


def test_a_reply_that_ends_by_itself(client: openai.OpenAI, builtin: BuiltinModel) -> None:
    towards = {str(token): 4 for token in builtin.end_ids}
    answer = client.completions.create(
        model="builtin", prompt=PROMPT, max_tokens=400, logit_bias=towards, n=8
    )
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        assert "endoftext" not in choice.text


def test_stop_strings_cut_the_text(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="builtin", prompt=PROMPT, max_tokens=120, stop=["e"], n=4
    )
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        assert "e" not in choice.text


def test_a_seed_repeats(client: openai.OpenAI) -> None:
    texts = {
        client.completions.create(model="builtin", prompt=PROMPT, max_tokens=40, seed=7)
        .choices[0]
        .text
        for _ in range(2)
    }
    assert len(texts) == 1


def test_a_conversation_that_the_client_began_goes_on(
    urls: dict[str, str], path: str, no_end: dict[str, int]
) -> None:
    body = {
        "model": "builtin",
        "messages": [*MESSAGES, {"role": "assistant", "content": "A module is"}],
        "continue_final_message": True,
        "add_generation_prompt": False,
        "max_tokens": 30,
        "logit_bias": no_end,
    }
    answer = httpx2.post(f"{urls[path]}/v1/chat/completions", json=body, timeout=60)
    assert answer.headers["x-watermark"].startswith("marked")
    text = msgspec.json.decode(answer.content)["choices"][0]["message"]["content"]
    assert text
    assert "A module is" not in text


def reason(url: str, route: str, **body: Any) -> str:
    given = {"model": "builtin", "max_tokens": 20} | body
    answer = httpx2.post(f"{url}/v1/{route}", json=given, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-watermark"])


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": [1, 2, 3]},
        {"prompt": PROMPT, "logprobs": 1},
        {"prompt": PROMPT, "return_token_ids": True},
        {"prompt": PROMPT, "presence_penalty": 0.5},
    ],
)
def test_what_text_cannot_say_passes_unmarked(urls: dict[str, str], body: dict[str, Any]) -> None:
    assert reason(urls["splice"], "completions", **body) == "unmarked; reason=no-capable-path"


def test_a_text_prompt_is_no_conversation(urls: dict[str, str]) -> None:
    assert reason(urls["text"], "completions", prompt=PROMPT).startswith("marked; path=select")
    told = reason(urls["text"], "chat/completions", messages=MESSAGES)
    assert told == "unmarked; reason=no-capable-path"
