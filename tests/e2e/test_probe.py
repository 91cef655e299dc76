"""`watermark-proxy probe` against a real model, and a proxy that starts with what it found."""

from __future__ import annotations

import asyncio
import json
import tomllib
from typing import TYPE_CHECKING

import httpx2
import msgspec
import pytest
from click.testing import CliRunner

from proxy.app import create_app
from proxy.cli.main import cli
from proxy.cli.probe import with_probes
from proxy.cli.servers import running
from proxy.config import DisclosureConfig, load_config
from proxy.errors import ConfigError, UpstreamUnreachableError
from tests.support.servers import key_record
from watermark.keys import KeyRing
from watermark.text import TokenizerUnit

if TYPE_CHECKING:
    from pathlib import Path

    from proxy.embedded.builtin import BuiltinModel
    from tests.e2e.conftest import Stage

CONFIG = """
[upstream]
url = "{url}"
[keys]
file = "KEYS.toml"
[[model]]
name = "builtin"
tokenizer = "{tokenizer}"
end_tokens = {ends}
prices = {{ input = 1.0, output = 2.0 }}
limits = {{ {limits} }}
[model.capabilities]
probe = true
"""


def write(folder: Path, url: str, builtin: BuiltinModel, limits: str = "") -> Path:
    ends = [builtin.tokenizer.id_to_token(token) for token in builtin.end_ids]
    path = folder / "proxy.toml"
    path.write_text(
        CONFIG.format(
            url=url, tokenizer=builtin.tokenizer_path, ends=json.dumps(ends), limits=limits
        )
    )
    return path


def test_the_table_says_what_was_found(stage: Stage, builtin: BuiltinModel, tmp_path: Path) -> None:
    path = write(tmp_path, stage.direct, builtin)
    done = CliRunner().invoke(cli, ["probe", "--config", str(path), "--json"])
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)
    able = found["capabilities"]
    assert (able["continuation"], able["api"]) == ("token-ids", "openai")
    assert able["logprobs"] == builtin.vocab_size
    assert able["logprobs_mode"] == "tempered"
    assert able["logit_bias"]
    assert able["chosen_logprobs"] == 128
    assert able["max_n"] == 64
    assert found["chosen"] == "splice"
    paths = {one["path"]: one for one in found["paths"]}
    assert set(paths) == {"splice", "select", "reply", "none"}
    assert paths["none"]["tokens"] == 1
    assert paths["select"]["tokens"] > 10
    assert paths["select"]["money"] > paths["none"]["money"]
    table = CliRunner().invoke(cli, ["probe", "--config", str(path)])
    assert "[model.capabilities]" in table.stdout
    assert "splice *" in table.stdout
    printed = tomllib.loads(table.stdout.partition("\n\n")[2].partition("\n\n")[0])
    declared = {name: value for name, value in able.items() if value is not None}
    assert printed["model"]["capabilities"] | {"probe": False} == declared
    assert printed["model"]["capabilities"]["max_bias"] == able["max_bias"]


def test_a_proxy_starts_with_the_strongest_path_within_its_limits(
    stage: Stage, builtin: BuiltinModel, tmp_path: Path
) -> None:
    said: list[str] = []
    path = write(tmp_path, stage.direct, builtin, limits="rounds = 70")
    config = with_probes(load_config(path), said.append)
    (model,) = config.models
    assert not model.capabilities.probe
    assert not model.splice.enabled
    assert model.select.enabled
    assert said[0].startswith("probed builtin: path select,")


def test_a_model_of_one_round_is_asked_for_whole_replies_and_marked(
    stage: Stage, builtin: BuiltinModel, tmp_path: Path
) -> None:
    said: list[str] = []
    path = write(tmp_path, stage.direct, builtin, limits="rounds = 1")
    config = with_probes(load_config(path), said.append)
    assert said[0].startswith("probed builtin: path reply,")
    config = msgspec.structs.replace(config, disclosure=DisclosureConfig(callers=["*"]))
    ring = KeyRing((key_record(TokenizerUnit.read(builtin.tokenizer_path).unit_id),))

    async def work() -> None:
        app = create_app(config, ring)
        async with running(app) as url, httpx2.AsyncClient(base_url=url, timeout=60) as client:
            messages = [{"role": "user", "content": "Tell me of a dog."}]
            asked = {"model": "builtin", "messages": messages, "max_tokens": 20}
            answer = await client.post("/v1/chat/completions", json=asked)
            assert answer.headers["x-watermark"] == "marked; path=reply; key=test"
            assert answer.json()["choices"][0]["message"]["content"]

    asyncio.run(work())


def test_what_cannot_be_probed_is_an_error_with_its_remedy(
    stage: Stage, builtin: BuiltinModel, tmp_path: Path
) -> None:
    gone = load_config(write(tmp_path, "http://127.0.0.1:9", builtin))
    with pytest.raises(UpstreamUnreachableError, match=r"check that it runs"):
        with_probes(gone, lambda _: None)
    path = write(tmp_path, stage.direct, builtin)
    text = path.read_text().replace("[keys]", 'key_file = "missing"\n[keys]')
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"cannot read upstream.key_file"):
        with_probes(load_config(path), lambda _: None)
