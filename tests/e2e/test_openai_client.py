"""The `openai` package, unchanged, against the proxy and against the model itself.

Usage and finish reasons have to mean what they mean without the proxy; contents differ, because
two draws differ.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.embedded.builtin import BuiltinModel
    from tests.e2e.conftest import Stage

PATHS = ("splice-greedy", "splice-sampled", "select", "select-words")
MESSAGES: Any = [{"role": "user", "content": "Explain how a module is found and loaded."}]


def client_of(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="sk-test", max_retries=0, timeout=30)


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def clients(stage: Stage) -> Iterator[dict[str, openai.OpenAI]]:
    urls = stage.proxies | {"direct": stage.direct}
    opened = {name: client_of(url) for name, url in urls.items()}
    yield opened
    for client in opened.values():
        client.close()


@pytest.fixture
def client(clients: dict[str, openai.OpenAI], path: str) -> openai.OpenAI:
    return clients[path]


@pytest.fixture
def direct(clients: dict[str, openai.OpenAI]) -> openai.OpenAI:
    return clients["direct"]


@pytest.fixture(scope="module")
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=30) as client:
        yield client


@pytest.fixture
def no_end(builtin: BuiltinModel) -> dict[str, int]:
    """A bias against the end token, so that a reply has the length asked for."""
    return {str(token): -100 for token in builtin.end_ids}


def shape(value: Any, at: str = "") -> set[str]:
    """The paths of a JSON value with their types; entries of a list share their path."""
    if isinstance(value, dict):
        parts = [shape(item, f"{at}.{key}") for key, item in value.items()]
    elif isinstance(value, list):
        parts = [shape(item, f"{at}[]") for item in value]
    else:
        return {f"{at}: {type(value).__name__}"}
    return set().union({f"{at}: {type(value).__name__}"}, *parts)


def test_chat(client: openai.OpenAI, no_end: dict[str, int]) -> None:
    answer = client.chat.completions.create(
        model="builtin", messages=MESSAGES, max_tokens=20, logit_bias=no_end
    )
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 20
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 20


def test_completion_continues_the_prompt_with_sixteen_tokens(
    client: openai.OpenAI, direct: openai.OpenAI, no_end: dict[str, int]
) -> None:
    asked: Any = {"model": "builtin", "prompt": "The parser reads", "logit_bias": no_end}
    answer, plain = client.completions.create(**asked), direct.completions.create(**asked)
    assert answer.usage is not None
    assert plain.usage is not None
    assert answer.usage.completion_tokens == plain.usage.completion_tokens == 16
    assert answer.usage.prompt_tokens == plain.usage.prompt_tokens
    assert answer.choices[0].finish_reason == plain.choices[0].finish_reason == "length"


def test_streams_give_what_whole_answers_give(
    client: openai.OpenAI, no_end: dict[str, int]
) -> None:
    asked: Any = {
        "model": "builtin",
        "messages": MESSAGES,
        "max_tokens": 24,
        "seed": 11,
        "logit_bias": no_end,
    }
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert [reason for reason in reasons if reason] == ["length"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_completion_stream(client: openai.OpenAI, no_end: dict[str, int]) -> None:
    asked: Any = {"model": "builtin", "prompt": "A class", "seed": 3, "logit_bias": no_end}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "length"


def test_asynchronous_clients(stage: Stage) -> None:
    async def main() -> None:
        for url in stage.proxies.values():
            async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-test") as client:
                answer = await client.chat.completions.create(
                    model="builtin", messages=MESSAGES, max_tokens=12, seed=5
                )
                stream = await client.chat.completions.create(
                    model="builtin", messages=MESSAGES, max_tokens=12, seed=5, stream=True
                )
                text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
                assert text == answer.choices[0].message.content
                line = await client.completions.create(
                    model="builtin", prompt="A", seed=1, stream=True
                )
                assert [chunk.choices[0].finish_reason async for chunk in line][-1]

    asyncio.run(main())


def test_seed_repeats_and_its_absence_does_not(client: openai.OpenAI) -> None:
    def text(**fields: Any) -> str:
        answer = client.completions.create(
            model="builtin", prompt="The function", max_tokens=16, **fields
        )
        return str(answer.choices[0].text)

    assert text(seed=7) == text(seed=7)
    assert text(seed=7) != text(seed=8)
    assert text() != text()


def test_three_choices_are_three_draws(client: openai.OpenAI, no_end: dict[str, int]) -> None:
    answer = client.chat.completions.create(
        model="builtin", messages=MESSAGES, max_tokens=16, n=3, seed=2, logit_bias=no_end
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 48
    parts: dict[int, str] = {}
    for chunk in client.chat.completions.create(
        model="builtin",
        messages=MESSAGES,
        max_tokens=16,
        n=3,
        seed=2,
        logit_bias=no_end,
        stream=True,
    ):
        for choice in chunk.choices:
            parts[choice.index] = parts.get(choice.index, "") + (choice.delta.content or "")
    assert [parts[place] for place in range(3)] == [
        choice.message.content for choice in answer.choices
    ]


def test_stop_strings_cut_wherever_they_lie(client: openai.OpenAI, no_end: dict[str, int]) -> None:
    """A seeded reply is asked for again with stop strings from every part of it."""
    asked: Any = {
        "model": "builtin",
        "prompt": "The parser",
        "max_tokens": 16,
        "logit_bias": no_end,
        "temperature": 0.7,
    }
    for seed in range(2):
        text = client.completions.create(**asked, seed=seed).choices[0].text
        for start in (1, len(text) // 2):
            stop = text[start : start + 3]
            answer = client.completions.create(**asked, seed=seed, stop=[stop, "zq"])
            (choice,) = answer.choices
            assert choice.text == text[: text.index(stop)]
            assert choice.finish_reason == "stop"
            assert answer.usage is not None
            assert answer.usage.completion_tokens <= 16


def test_a_common_letter_stops_early(client: openai.OpenAI) -> None:
    for _ in range(2):
        answer = client.completions.create(
            model="builtin", prompt="The parser", max_tokens=200, stop=["e", "th"]
        )
        assert answer.choices[0].finish_reason == "stop"
        assert "e" not in answer.choices[0].text
        stream = client.completions.create(
            model="builtin", prompt="The parser", max_tokens=200, stop=["e", "th"], stream=True
        )
        chunks = list(stream)
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert not {"e", "th"} & set("".join(chunk.choices[0].text for chunk in chunks))


def test_banned_tokens_never_come(client: openai.OpenAI, builtin: BuiltinModel) -> None:
    banned = [
        token
        for token in range(builtin.vocab_size)
        if "e" in (builtin.tokenizer.decode([token]) or "")
    ][:1000]
    answer = client.completions.create(
        model="builtin",
        prompt="The",
        max_tokens=40,
        logit_bias={str(token): -100 for token in banned},
        extra_body={"return_token_ids": True},
    )
    ids = set(answer.choices[0].to_dict()["token_ids"])  # type: ignore[call-overload]
    assert ids
    assert not ids & set(banned)


def test_logprobs_are_those_of_a_direct_call(
    client: openai.OpenAI, direct: openai.OpenAI, no_end: dict[str, int]
) -> None:
    asked: Any = {
        "model": "builtin",
        "temperature": 0.8,
        "logit_bias": no_end,
        "logprobs": 3,
        "extra_body": {"return_token_ids": True, "return_tokens_as_token_ids": True},
    }
    answer = client.completions.create(**asked, prompt="The parser", max_tokens=12)
    choice: Any = answer.choices[0].to_dict()
    prompt = choice["prompt_token_ids"]
    for place, token in enumerate(choice["token_ids"]):
        again = direct.completions.create(
            **asked, prompt=[*prompt, *choice["token_ids"][:place]], max_tokens=1
        )
        plain: Any = again.choices[0].to_dict()["logprobs"]
        listed = choice["logprobs"]["top_logprobs"][place]
        value = choice["logprobs"]["token_logprobs"][place]
        assert listed[f"token_id:{token}"] == pytest.approx(value, abs=1e-9)
        assert 3 <= len(listed) <= 4
        for label, expected in plain["top_logprobs"][0].items():
            if label in listed:
                assert listed[label] == pytest.approx(expected, abs=1e-5)
        assert len(set(listed) & set(plain["top_logprobs"][0])) >= 3


def test_chat_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="builtin", messages=MESSAGES, max_tokens=8, logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert answer.usage is not None
    entries = logprobs.content or []
    assert len(entries) == answer.usage.completion_tokens
    assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in entries)


def test_models_pass_through(client: openai.OpenAI, direct: openai.OpenAI) -> None:
    assert [one.to_dict() for one in client.models.list()] == [
        one.to_dict() for one in direct.models.list()
    ]


BAD = [
    {"model": "nobody"},
    {"model": None},
    {"temperature": -1},
    {"temperature": 1000},
    {"temperature": "warm"},
    {"top_p": 0},
    {"top_p": 1.5},
    {"top_k": -3},
    {"n": 0},
    {"n": 5000},
    {"max_tokens": 0},
    {"presence_penalty": 3},
    {"frequency_penalty": -9},
    {"logit_bias": {"x": 1}},
    {"logit_bias": {"+5": 1}},
    {"logit_bias": {"99999": 1}},
    {"logit_bias": {"5": 200}},
    {"stop": ""},
    {"stop": ["a"] * 40},
    {"stream_options": {"include_usage": True}},
    {"messages": []},
    {"messages": "hi"},
    {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
    {"top_logprobs": 3},
    {"logprobs": True, "top_logprobs": 5000},
    {"unheard_of": 1},
    {"tools": [{"type": "function"}]},
    {"continue_final_message": True},
]


@pytest.mark.parametrize("fields", BAD, ids=repr)
def test_refusals_are_the_upstreams_own(
    stage: Stage, http: httpx2.Client, fields: dict[str, Any]
) -> None:
    body = {"model": "builtin", "messages": MESSAGES, "max_tokens": 4} | fields
    plain = http.post(f"{stage.direct}/v1/chat/completions", json=body)
    for name in ("splice-greedy", "select"):
        passed = http.post(f"{stage.proxies[name]}/v1/chat/completions", json=body)
        assert passed.status_code == plain.status_code
        if plain.status_code != 200:
            assert passed.content == plain.content
            assert passed.headers["content-type"] == plain.headers["content-type"]


@pytest.mark.parametrize(
    "prompt", [[], [True, 1], [-7], [99999], [[1], [-99999]], {"a": 1}, [1.5]], ids=repr
)
def test_bad_prompts_are_refused_by_the_upstream(
    stage: Stage, http: httpx2.Client, prompt: Any
) -> None:
    body = {"model": "builtin", "prompt": prompt}
    plain = http.post(f"{stage.direct}/v1/completions", json=body)
    passed = http.post(f"{stage.proxies['select']}/v1/completions", json=body)
    assert plain.status_code == passed.status_code == 400
    assert passed.content == plain.content


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("chat/completions", {"messages": MESSAGES}),
    ("chat/completions", {"messages": MESSAGES, "n": 2, "logprobs": True, "top_logprobs": 2}),
    ("chat/completions", {"messages": MESSAGES, "logprobs": True, "return_token_ids": True}),
    ("completions", {"prompt": "The"}),
    ("completions", {"prompt": "The", "n": 2, "logprobs": 2, "return_token_ids": True}),
    ("completions", {"prompt": [5, 6, 7], "logprobs": 1, "return_tokens_as_token_ids": True}),
]


def comparable(value: Any) -> Any:
    """Leave out what differs rightly.

    What the upstream had cached is not known of a reply that took several requests; and tokens
    that are keys of a completion's top_logprobs are not alike in two replies.
    """
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if key != "prompt_tokens_details"}
    if "text_offset" in value:
        kept["top_logprobs"] = [list(one.values()) for one in value["top_logprobs"]]
    return {key: comparable(item) for key, item in kept.items()}


@pytest.mark.parametrize("place", range(len(REQUESTS)))
@pytest.mark.parametrize("path", ["splice-greedy", "select"])
def test_answers_and_chunks_have_the_upstreams_shape(
    stage: Stage, http: httpx2.Client, path: str, place: int, no_end: dict[str, int]
) -> None:
    endpoint, fields = REQUESTS[place]
    body = {"model": "builtin", "max_tokens": 12, "logit_bias": no_end} | fields
    # How many tokens a chunk holds is a matter of timing: a short reply may come as one.
    unfinished = {"[].choices[].finish_reason: NoneType"}
    streamed = body | {"stream": True, "stream_options": {"include_usage": True}}

    def shapes(url: str) -> Any:
        whole = http.post(f"{url}/v1/{endpoint}", json=body)
        stream = http.post(f"{url}/v1/{endpoint}", json=streamed)
        *events, done, rest = stream.text.split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        chunks = [json.loads(event.removeprefix("data: ")) for event in events]
        types = [one.headers["content-type"] for one in (whole, stream)]
        return types, shape(comparable(whole.json())), shape(comparable(chunks)) - unfinished

    assert shapes(stage.proxies[path]) == shapes(stage.direct)
