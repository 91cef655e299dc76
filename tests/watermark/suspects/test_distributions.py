"""What a server expected, in both ways of asking; what is no answer is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watermark.detection.weighted import expected_excess
from watermark.errors import ModelServerError
from watermark.suspects import PromptDistributions
from watermark.suspects.distributions import windows

FLAT, SURE = {"a": math.log(0.5), "b": math.log(0.5)}, {"a": 0.0}


def server(completions: Any, *, models: Any = None) -> httpx2.Client:
    """Return a client of a server that answers with a function of the request."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/models":
            listed = {"data": [{"id": "m"}]} if models is None else models
            return httpx2.Response(200, json=listed)
        code, body = completions(json.loads(request.content))
        return httpx2.Response(code, json=body)

    return httpx2.Client(base_url="http://server", transport=httpx2.MockTransport(answer))


def by_prefixes(body: dict[str, Any]) -> tuple[int, Any]:
    """Answer as a server that knows logprobs and refuses vLLM's parameter."""
    assert body["model"] == "m"
    if "prompt_logprobs" in body:
        return 400, {"error": "unknown"}
    choices = [
        {"index": i, "logprobs": {"top_logprobs": [FLAT if len(prompt) % 2 else SURE]}}
        for i, prompt in enumerate(body["prompt"])
    ]
    return 200, {"choices": choices[::-1]}


def in_one(body: dict[str, Any]) -> tuple[int, Any]:
    """Answer as vLLM does, with the text's own token beyond the first twenty."""
    (prompt,) = body["prompt"]
    flat = {
        "7": {"logprob": math.log(0.5), "rank": 1},
        "8": {"logprob": math.log(0.5), "rank": 2},
        "9": {"logprob": -30.0, "rank": 4000},
    }
    sure = {"7": {"logprob": 0.0, "rank": 1}}
    places = [flat if i % 2 else sure for i in range(1, len(prompt))]
    return 200, {"choices": [{"index": 0, "prompt_logprobs": [None, *places]}]}


@pytest.mark.parametrize("answer", [by_prefixes, in_one])
@pytest.mark.parametrize("n", [2, 3, 200])
def test_both_ways_of_asking_give_the_same(answer: Any, n: int) -> None:
    found = PromptDistributions(server(answer)).excesses(list(range(n)))
    flat = expected_excess(np.array([0.5, 0.5]))
    expected = [0.0, *(flat if i % 2 else 0.0 for i in range(1, n))]
    assert found.tolist() == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 300), st.none() | st.integers(1, 60))
def test_windows_take_every_position_once_with_half_a_context_before_it(
    n: int, limit: int | None
) -> None:
    found = list(windows(n, limit))
    taken = [at for start, stop, first in found for at in range(first, stop)]
    assert taken == list(range(1, n))
    for start, stop, first in found:
        size = stop - start
        assert limit is None or size <= max(2, limit - 1)
        assert start < first
        assert start == 0 or first - start >= max(1, (max(2, limit or 0) - 1) // 2)


@pytest.mark.parametrize("answer", [by_prefixes, in_one])
@pytest.mark.parametrize("model", [None, "m"])
def test_a_text_beyond_the_models_context_is_read_in_windows(
    answer: Any, model: str | None
) -> None:
    longest = 0

    def within(body: dict[str, Any]) -> tuple[int, Any]:
        nonlocal longest
        longest = max(longest, *map(len, body["prompt"]))
        return (400, {}) if longest > 31 else answer(body)

    listed = {"data": [{"id": "m", "max_model_len": 32}]}
    found = PromptDistributions(server(within, models=listed), model).excesses(list(range(100)))
    assert (len(found), found[0]) == (100, 0.0)
    assert 25 <= longest <= 31
    assert np.count_nonzero(found) == pytest.approx(50, abs=4)
    short = PromptDistributions(server(within), "m")
    with pytest.raises(ModelServerError, match=r"no logprobs of 100 tokens.*long enough"):
        short.excesses(list(range(100)))


def test_texts_without_a_second_token_ask_nothing() -> None:
    def never(_: Any) -> tuple[int, Any]:
        raise AssertionError

    assert PromptDistributions(server(never)).excesses([5]).tolist() == [0.0]
    assert PromptDistributions(server(never)).excesses([]).tolist() == []


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        (lambda _: (200, {"choices": [{"index": 0}]}), "gives no logprobs"),
        (lambda _: (200, {"wrong": 1}), "not of OpenAI's form"),
        (lambda _: (500, {}), "status 500"),
        (lambda _: (400, {}), "gives no logprobs"),
        (lambda _: (200, {"choices": [{"prompt_logprobs": [None]}]}), "skipped positions"),
    ],
)
def test_what_is_no_answer_is_refused(answer: Any, remedy: str) -> None:
    with pytest.raises(ModelServerError, match=remedy):
        PromptDistributions(server(answer)).excesses([1, 2, 3])


def test_a_server_without_a_model_or_without_an_address_is_refused() -> None:
    with pytest.raises(ModelServerError, match="lists no model"):
        PromptDistributions(server(by_prefixes, models={"data": []}))
    with pytest.raises(ModelServerError, match="cannot be reached"):
        PromptDistributions(httpx2.Client(base_url="nonsense"))
    assert repr(PromptDistributions(server(by_prefixes), "x")) == "<PromptDistributions of 'x'>"
