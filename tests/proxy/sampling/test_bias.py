"""What goes into `logit_bias`, whose it stays, and when nothing does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from proxy.app import serve_model
from proxy.config import BiasConfig, Capabilities, ReplyConfig, parse_config
from proxy.errors import ConfigError
from proxy.sampling.bias import sayable, with_list
from proxy.sampling.costs import Speed, chosen_path, costs_of
from proxy.sampling.questions import Path as MarkPath
from tests.support.servers import byte_tokenizer, key_record, model_config
from watermark.schemes import green_list
from watermark.wire.openai_requests import DialectName, parse_request

if TYPE_CHECKING:
    from pathlib import Path

    from proxy.config import ModelConfig
    from proxy.sampling.serving import ServedModel
    from watermark.keys import KeyRecord

ABLE = Capabilities(continuation="none", logit_bias=True)


def test_a_list_is_added_to_a_clients_own_biases() -> None:
    own = {1: 1.5, 2: -100.0, 3: 99.0, 9: 7.0}
    said = with_list(own, [1, 2, 3, 4, 5, 6], delta=2.0, max_bias=6)["logit_bias"]
    assert said == {"1": 3.5, "2": -100, "3": 100, "9": 7, "4": 2, "5": 2}
    assert json.dumps(said["4"]) == "2"  # some servers take integers only
    assert with_list(own, [4], delta=0.5, max_bias=2)["logit_bias"] == {
        str(token): value for token, value in own.items()
    }


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def served(tokenizer: Path, **fields: Any) -> ServedModel:
    given = {"capabilities": ABLE, "bias": BiasConfig(enabled=True)} | fields
    return serve_model(model_config("m", tokenizer, **given))


def list_key(unit: str, **parameters: int) -> KeyRecord:
    given = {"first_id": 0, "list_size": 64} | parameters
    return replace(
        key_record(unit), scheme="static-green-list", parameters=tuple(sorted(given.items()))
    )


def test_neither_special_tokens_nor_halves_of_characters_are_made_likelier(
    tokenizer: Path,
) -> None:
    model = served(tokenizer)
    table = model.table
    assert table is not None
    record = list_key(model.unit.unit_id, list_size=200)  # past the end of the vocabulary too
    said = sayable(record, table)
    assert 0 < len(said) < len(green_list(record))
    for token in said:
        assert table.content[token].decode()
        assert token not in table.special


@pytest.mark.parametrize(
    ("fields", "asked", "reason"),
    [
        ({}, {}, "marked"),
        ({}, {"min_p": 0.1, "n": 3}, "marked"),
        ({}, {"temperature": 0}, "temperature-zero"),
        ({}, {"tools": [{"type": "function"}]}, "tools"),
        ({}, {"prompt": ["a", "b"]}, "batch-prompt"),
        ({}, {"logit_bias": {str(i): 1 for i in range(1000)}}, "unsupported-parameter"),
        ({"bias": BiasConfig()}, {}, "no-capable-path"),
        ({"capabilities": Capabilities(continuation="none")}, {}, "no-capable-path"),
        # Something stronger works.
        ({"capabilities": Capabilities(continuation="none", logit_bias=True, max_n=4)}, {},
         "no-capable-path"),
        ({"capabilities": Capabilities(continuation="none", logit_bias=True, max_n=4),
          "reply": ReplyConfig(enabled=False)}, {}, "marked"),
    ],
)  # fmt: skip
def test_when_a_list_goes_with_a_request(
    tokenizer: Path, fields: dict[str, Any], asked: dict[str, Any], reason: str
) -> None:
    model = served(tokenizer, **fields)
    body = {"model": "m", "prompt": "?", "max_tokens": 9} | asked
    request = parse_request(DialectName.TEXT, json.dumps(body).encode())
    decision = model.decide(request, list_key(model.unit.unit_id))
    assert decision.reason == reason
    assert decision.path is (MarkPath.BIAS if reason == "marked" else MarkPath.NONE)


def test_a_dialect_without_the_field_goes_unmarked(tokenizer: Path) -> None:
    model = served(tokenizer)
    request = parse_request(DialectName.RESPONSES, b'{"model": "m", "input": "?"}')
    assert model.decide(request, list_key(model.unit.unit_id)).reason == "no-capable-path"


def test_a_key_of_the_copula_never_marks_by_biases(tokenizer: Path) -> None:
    model = served(tokenizer)
    request = parse_request(DialectName.TEXT, b'{"model": "m", "prompt": "?"}')
    assert model.decide(request, key_record(model.unit.unit_id)).reason == "no-capable-path"


def costs(model: ModelConfig) -> list[MarkPath]:
    return [one.path for one in costs_of(model, ["tokenizer"], Speed())]


def test_the_last_resort_is_the_last_and_only_where_it_is_switched_on(tokenizer: Path) -> None:
    on = served(tokenizer).config
    assert costs(on) == [MarkPath.BIAS, MarkPath.NONE]
    assert costs(served(tokenizer, bias=BiasConfig()).config) == [MarkPath.NONE]
    able = Capabilities(continuation="none", logit_bias=True, max_n=4)
    both = served(tokenizer, capabilities=able).config
    assert costs(both) == [MarkPath.REPLY, MarkPath.BIAS, MarkPath.NONE]
    found = costs_of(both, ["tokenizer"], Speed())
    assert chosen_path(found[:-1], both.limits, plain=found[-1]).path is MarkPath.REPLY


CONFIG = """
[upstream]
url = "http://u"
[keys]
file = "KEYS.toml"
[[model]]
name = "m"
tokenizer = "tokenizer.json"
{fields}
[model.bias]
enabled = true
{bias}
[model.capabilities]
continuation = "none"
{able}
"""


@pytest.mark.parametrize(
    ("fields", "bias", "able", "says"),
    [
        ("", "", "", "logit_bias = true"),
        ('unit = "words/v1"', "", "logit_bias = true", 'unit = "tokenizer"'),
        ("", "", "logit_bias = true\nmax_n = 4", "reply marks without"),
        ("", "delta = 0", "logit_bias = true", "delta"),
    ],
)
def test_a_config_that_cannot_mean_it_is_refused(
    tmp_path: Path, fields: str, bias: str, able: str, says: str
) -> None:
    text = CONFIG.format(fields=fields, bias=bias, able=able)
    with pytest.raises(ConfigError, match=says):
        parse_config(text, path=tmp_path / "proxy.toml")


def test_a_probe_may_find_out_what_a_config_leaves_open(tmp_path: Path) -> None:
    text = CONFIG.format(fields="", bias="delta = 1.5", able="probe = true")
    (model,) = parse_config(text, path=tmp_path / "proxy.toml").models
    assert model.bias == BiasConfig(enabled=True, delta=1.5)
