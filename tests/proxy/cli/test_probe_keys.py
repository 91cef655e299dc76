"""`probe` takes a unit in which keys mark the model now, by the rule of what is then served."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from proxy.cli.probe import with_probes
from proxy.config import Capabilities, KeysConfig
from tests.support.asgi import scenario
from tests.support.fake_upstream import LETTER_A, FakeUpstream, honest
from tests.support.servers import byte_tokenizer, model_config, proxy_config
from watermark.keys import (
    KEYS_HEADER,
    KeyState,
    SecretKey,
    format_record,
    load_keys,
    write_key_file,
)
from watermark.text import WORDS_V1, TokenizerUnit

if TYPE_CHECKING:
    from pathlib import Path

    from proxy.config import ModelConfig
    from watermark.keys import KeyRing

ELSEWHERE = '\n[[scope]]\nname = "elsewhere"\nmodels = ["other"]\n'
HERE = '\n[[scope]]\nname = "here"\nmodels = ["m"]\nroutes = ["/v1/completions"]\n'


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def keys_file(folder: Path, *records: dict[str, Any], more: str = "") -> Path:
    written = []
    for place, fields in enumerate(records):
        name = f"k{place}"
        write_key_file(folder / f"{name}.key", SecretKey(name, name.encode().ljust(32, b".")))
        written.append(format_record(key_id=name, secret=f"{name}.key", **fields))
    path = folder / "KEYS.toml"
    path.write_text(KEYS_HEADER + "".join(written) + more)
    return path


def varied(asked: Any, answer: dict[str, Any]) -> dict[str, Any]:
    """Let the choices of a request differ."""
    for choice in answer["choices"][1:]:
        choice["token_ids"] = [LETTER_A + 1] * asked["max_tokens"]
    return answer


def probed(tokenizer: Path, keys: Path, ring: KeyRing | None = None) -> tuple[ModelConfig, str]:
    said: list[str] = []
    found: list[ModelConfig] = []

    async def work() -> None:
        async with FakeUpstream(honest(varied)).serving() as upstream:
            model = model_config("m", tokenizer, capabilities=Capabilities(probe=True))
            config = proxy_config(upstream.url, model)
            config = msgspec.structs.replace(config, keys=KeysConfig(file=str(keys)))
            done = await asyncio.to_thread(with_probes, config, said.append, ring=ring)
            found.extend(done.models)

    scenario(work)
    return found[0], said[0]


def test_a_key_that_only_detects_offers_no_unit(tokenizer: Path, tmp_path: Path) -> None:
    tokens = TokenizerUnit.read(tokenizer).unit_id
    path = keys_file(tmp_path, {"unit": tokens, "state": KeyState.DETECT}, {"unit": WORDS_V1})
    model, said = probed(tokenizer, path)
    assert model.unit == WORDS_V1
    assert said.startswith("probed m: path select,")
    assert not model.splice.enabled


def test_a_key_of_another_models_scope_offers_no_unit(tokenizer: Path, tmp_path: Path) -> None:
    tokens = TokenizerUnit.read(tokenizer).unit_id
    records = ({"unit": tokens, "scope": "elsewhere"}, {"unit": WORDS_V1})
    model, _ = probed(tokenizer, keys_file(tmp_path, *records, more=ELSEWHERE))
    assert model.unit == WORDS_V1


def test_a_unit_that_marks_in_one_of_its_scopes_only_is_not_offered(
    tokenizer: Path, tmp_path: Path
) -> None:
    """With it the proxy would not start: requests on other routes would go unmarked."""
    tokens = TokenizerUnit.read(tokenizer).unit_id
    records = (
        {"unit": tokens, "scope": "here"},
        {"unit": WORDS_V1, "scope": "here"},
        {"unit": WORDS_V1},
    )
    model, _ = probed(tokenizer, keys_file(tmp_path, *records, more=HERE))
    assert model.unit == WORDS_V1


def test_a_key_that_marks_is_taken_and_the_strongest_path(tokenizer: Path, tmp_path: Path) -> None:
    tokens = TokenizerUnit.read(tokenizer).unit_id
    model, said = probed(tokenizer, keys_file(tmp_path, {"unit": WORDS_V1}, {"unit": tokens}))
    assert model.unit == "tokenizer"
    assert said.startswith("probed m: path splice,")


def test_the_keys_in_force_count_and_not_a_file_that_was_not_taken(
    tokenizer: Path, tmp_path: Path
) -> None:
    path = keys_file(tmp_path, {"unit": WORDS_V1})
    ring = load_keys(path)
    path.write_text("no keys")
    assert probed(tokenizer, path, ring)[0].unit == WORDS_V1
    assert probed(tokenizer, path)[0].unit == "tokenizer"  # its own: a key may come
