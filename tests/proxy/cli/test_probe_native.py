"""`probe` on an engine that is said to mark: relied on where its mark was read, and only there."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from proxy.cli.probe import with_probes
from proxy.config import Capabilities, KeysConfig, NativeConfig
from tests.support.asgi import scenario
from tests.support.fake_upstream import FakeUpstream, Turn, honest
from tests.support.native import URL, deaf, own_key, say
from tests.support.servers import byte_tokenizer, model_config, proxy_config
from watermark.keys import KEYS_HEADER, SecretKey, format_record, write_key_file
from watermark.text import TokenizerUnit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from proxy.config import ModelConfig


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def keys_file(folder: Path, unit: TokenizerUnit, *, scope: str = "default", more: str = "") -> Path:
    write_key_file(folder / "test.key", SecretKey("test", b"k" * 32))
    record = format_record(
        key_id="test",
        unit=unit.unit_id,
        secret="test.key",  # noqa: S106 - a path
        scheme="sglang-native",
        scope=scope,
    )
    path = folder / "KEYS.toml"
    path.write_text(KEYS_HEADER + record + more)
    return path


def probed(
    tokenizer: Path, keys: Path, speak: Callable[[Any], str], asked: list[Any]
) -> tuple[ModelConfig, list[str]]:
    found: list[ModelConfig] = []
    said: list[str] = []

    async def behave(turn: Turn) -> None:
        if turn.request.target == URL.encode():
            asked.append(json.loads(turn.request.body))
            await turn.answer({"choices": [{"message": {"content": speak(None)}}]})
        else:
            await honest()(turn)

    async def work() -> None:
        async with FakeUpstream(behave).serving() as upstream:
            model = model_config(
                "m",
                tokenizer,
                capabilities=Capabilities(probe=True),
                native=NativeConfig(engine="sglang"),
            )
            config = proxy_config(upstream.url, model)
            config = msgspec.structs.replace(config, keys=KeysConfig(file=str(keys)))
            found.extend((await asyncio.to_thread(with_probes, config, said.append)).models)

    scenario(work)
    return found[0], said


def test_an_engine_that_marks_is_relied_on(tokenizer: Path, tmp_path: Path) -> None:
    unit, asked = TokenizerUnit.read(tokenizer), list[Any]()
    keys = keys_file(tmp_path, unit)
    model, said = probed(tokenizer, keys, say(own_key(unit.unit_id), unit), asked)
    assert said[0].startswith("probed m: path native, 1.00x")
    assert model.native.enabled
    (question,) = asked  # once
    assert question["watermark"]["enabled"]


def test_a_key_of_any_of_the_models_scopes_is_the_engines(tokenizer: Path, tmp_path: Path) -> None:
    unit, asked = TokenizerUnit.read(tokenizer), list[Any]()
    write_key_file(tmp_path / "rest.key", SecretKey("rest", b"r" * 32))
    rest = format_record(key_id="rest", unit=unit.unit_id, secret="rest.key")  # noqa: S106 - a path
    more = rest + '\n[[scope]]\nname = "texts"\nroutes = ["/v1/completions"]\n'
    keys = keys_file(tmp_path, unit, scope="texts", more=more)
    _, said = probed(tokenizer, keys, say(own_key(unit.unit_id), unit), asked)
    assert said[0].startswith("probed m: path native, 1.00x")
    assert len(asked) == 1


def test_an_engine_that_ignores_its_switch_is_not(tokenizer: Path, tmp_path: Path) -> None:
    unit, asked = TokenizerUnit.read(tokenizer), list[Any]()
    model, said = probed(tokenizer, keys_file(tmp_path, unit), deaf(unit), asked)
    assert not model.native.enabled
    assert said[0].startswith("probed m: path splice")
    assert model.splice.enabled
    assert len(asked) == 1


def test_without_a_key_of_the_engines_nothing_is_asked(tokenizer: Path, tmp_path: Path) -> None:
    unit, asked = TokenizerUnit.read(tokenizer), list[Any]()
    model, said = probed(tokenizer, tmp_path / "none.toml", deaf(unit), asked)
    assert model.native.enabled  # a key may come
    assert said[0].startswith("probed m: path splice")
    assert asked == []
