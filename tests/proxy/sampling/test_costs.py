"""What paths cost, by hand; and which one the limits leave."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from proxy.config import (
    Capabilities,
    ModelConfig,
    NativeConfig,
    PathLimitsConfig,
    PricesConfig,
    ReasoningConfig,
    ReplyConfig,
    SelectConfig,
    SpliceConfig,
)
from proxy.sampling.costs import PathCost, Speed, chosen_path, costs_of
from proxy.sampling.questions import Path

SPEED = Speed(round_trip_s=0.1, token_s=0.01, agreement=0.5)


def make_model(**able: Any) -> ModelConfig:
    given: dict[str, Any] = {"logprobs": 20, "max_n": 8}
    return ModelConfig(
        name="m",
        capabilities=Capabilities(**(given | able)),
        splice=SpliceConfig(draft_tokens=2, drafts=0),
        select=SelectConfig(chunk_tokens=10, candidates=4),
        reply=ReplyConfig(candidates=6),
    )


def by_path(costs: list[PathCost]) -> dict[str, PathCost]:
    return {f"{one.path} {one.unit}".strip(): one for one in costs}


def test_costs_are_those_of_the_arithmetic() -> None:
    costs = by_path(costs_of(make_model(), ["tokenizer", "words/v1"], SPEED))
    assert list(costs) == [
        "splice tokenizer",
        "select tokenizer",
        "select words/v1",
        "reply tokenizer",
        "reply words/v1",
        "none",
    ]
    plain, select, splice = costs["none"], costs["select tokenizer"], costs["splice tokenizer"]
    assert plain.multiple == 1
    assert plain.seconds == pytest.approx(0.1 + 5.0)
    # 50 rounds of 4 x 10 tokens; the reply so far is 245 tokens on average
    assert (select.rounds, select.generated) == (50, 2000)
    assert select.read == 50 * 1245
    assert select.multiple == pytest.approx((50 * 1245 + 2000) / 1500)
    assert select.seconds == pytest.approx(50 * 0.19)
    assert select.first_byte_s == pytest.approx(0.19)
    # two tokens a draft, agreement one half: 1.5 tokens a request
    assert splice.rounds == pytest.approx(500 / 1.5)
    assert splice.generated == pytest.approx(2 * 500 / 1.5)


def test_what_is_switched_off_or_cannot_be_served_is_no_path() -> None:
    model = make_model()
    off = msgspec.structs.replace(model, splice=SpliceConfig(enabled=False))
    units = ["tokenizer", "words/v1"]
    assert [one.path for one in costs_of(off, ["tokenizer"], SPEED)] == ["select", "reply", "none"]
    off = msgspec.structs.replace(off, select=SelectConfig(enabled=False))
    assert {one.path for one in costs_of(off, units, SPEED)} == {"reply", "none"}
    off = msgspec.structs.replace(off, reply=ReplyConfig(enabled=False))
    assert {one.path for one in costs_of(off, units, SPEED)} == {"none"}
    reasoning = msgspec.structs.replace(
        make_model(continuation="prefix"), reasoning=ReasoningConfig()
    )
    assert {one.path for one in costs_of(reasoning, units, SPEED)} == {"reply", "none"}
    single = make_model(max_n=1)
    assert {one.path for one in costs_of(single, units, SPEED)} == {"splice", "none"}


@pytest.mark.parametrize(
    ("able", "drafts", "length", "n"),
    [
        ({}, 2, 2, 2),
        ({}, 0, 2, 1),
        ({"logit_bias": True}, 0, 2, 1),
        ({"max_n": 1}, 2, 2, 1),
        ({"continuation": "text"}, 2, 5, 2),  # the rest of a character
        ({"api": "llama-server"}, 2, 2, 1),  # greedy: its lists hold everything
        ({"api": "llama-server", "continuation": "prefix"}, 2, 5, 2),
    ],
)
def test_splice_costs_what_it_asks(able: dict[str, Any], drafts: int, length: int, n: int) -> None:
    splice = SpliceConfig(draft_tokens=2, drafts=drafts)
    model = msgspec.structs.replace(make_model(**able), splice=splice)
    found = by_path(costs_of(model, ["tokenizer"], SPEED))["splice tokenizer"]
    assert found.rounds == pytest.approx(500 / 1.5)
    assert found.generated == pytest.approx(length * n * 500 / 1.5)
    assert found.first_byte_s == pytest.approx(0.1 + (length - 1) * 0.01)


def test_requests_side_by_side_read_the_prompt_each() -> None:
    model = make_model(continuation="none", max_n=2, parallel=4, logprobs=0)
    costs = by_path(costs_of(model, ["words/v1"], SPEED))
    assert list(costs) == ["reply words/v1", "none"]
    reply = costs["reply words/v1"]
    assert (reply.read, reply.generated, reply.rounds) == (3000, 3000, 1)
    assert reply.first_byte_s == reply.seconds


def test_an_engine_costs_nothing_more() -> None:
    model = make_model()
    native = ModelConfig(
        name="m", capabilities=model.capabilities, native=NativeConfig(engine="vllm")
    )
    first = costs_of(native, ["tokenizer"], SPEED)[0]
    assert (first.path, first.multiple) == (Path.NATIVE, 1)


@pytest.mark.parametrize(
    ("limits", "path"),
    [
        ({}, "splice"),
        ({"tokens": 100}, "select"),
        ({"rounds": 60}, "select"),
        ({"tokens": 10}, "reply"),
        ({"tokens": 2}, "none"),
        ({"seconds": 4.5}, "select"),
        ({"seconds": 1.0, "rounds": 400}, "reply"),
        ({"rounds": 1}, "reply"),
    ],
)
def test_the_strongest_path_within_the_limits(limits: dict[str, Any], path: str) -> None:
    costs = costs_of(make_model(), ["tokenizer"], SPEED)
    chosen = chosen_path(costs[:-1], PathLimitsConfig(**limits), plain=costs[-1])
    assert chosen.path == path


def test_money_counts_what_was_read_before_by_its_own_price() -> None:
    select = by_path(costs_of(make_model(), ["tokenizer"], SPEED))["select tokenizer"]
    full = PricesConfig(input=1.0, output=10.0)
    cached = PricesConfig(input=1.0, cached_input=0.1, output=10.0)
    assert select.money(full) == pytest.approx((62_250 + 20_000) / 1e6)
    assert select.money(cached) == pytest.approx((1000 + 6125 + 20_000) / 1e6)
