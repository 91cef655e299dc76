"""Models that are read again: probed where they have changed, and only then."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import pytest

from proxy.app import create_app, keyed_models
from proxy.cli.models_reloading import ModelsReloader
from proxy.cli.probe import with_probes
from proxy.cli.reloading import utc_now
from proxy.cli.servers import running
from proxy.config import Capabilities, ProxyConfig, SpliceConfig, UpstreamConfig
from proxy.errors import ConfigError
from proxy.sampling.keys import KeyHolder
from proxy.sampling.models import KeyedNow, ModelHolder
from tests.support.asgi import scenario
from tests.support.fake_upstream import FakeUpstream, Turn, honest
from tests.support.servers import (
    byte_tokenizer,
    eventually,
    key_ring,
    model_config,
    proxy_config,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

URL = "/v1/chat/completions"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 12}
PROBED = Capabilities(probe=True)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@dataclass
class On:
    """A proxy whose configuration may be edited."""

    client: httpx2.AsyncClient
    upstream: FakeUpstream
    config: ProxyConfig
    models: ModelHolder
    keys: KeyHolder
    reloaders: list[ModelsReloader] = field(default_factory=list)

    def worker(self) -> ModelsReloader:
        """Return the watch of a process of its own."""
        now = self.models
        holder = ModelHolder(now.current, now.keyed, declared=now.declared)
        return ModelsReloader(lambda: self.config, holder, self.keys, config=self.config)

    def edit(self, **fields: Any) -> None:
        (model, *others) = self.config.models
        changed = msgspec.structs.replace(model, **fields)
        self.config = msgspec.structs.replace(self.config, models=[changed, *others])

    async def reload(
        self, reloader: ModelsReloader | None = None, *, is_asked: bool = True
    ) -> None:
        await asyncio.to_thread((reloader or self.reloaders[0]).step, is_asked=is_asked)

    async def path(self) -> str:
        header: str = (await self.client.post(URL, json=CHAT)).headers["x-watermark"]
        return header.partition("path=")[2].partition(";")[0]

    def n_asked(self) -> int:
        return len(self.upstream.requests)


@contextlib.asynccontextmanager
async def serving(tokenizer: Path, state: Path, **model: Any) -> AsyncIterator[On]:
    async with FakeUpstream(honest()).serving() as upstream:
        declared = proxy_config(
            upstream.url, model_config("m", tokenizer, **model), model_config("other", tokenizer),
            state=str(state),
        )  # fmt: skip
        config = await asyncio.to_thread(with_probes, declared, lambda _line: None)
        keys = KeyHolder(key_ring(tokenizer), now=utc_now())
        models = ModelHolder(config.models, keyed_models(config), declared=declared.models)
        app = create_app(config, keys, models=models)
        async with (
            running(app) as url,
            httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as client,
        ):
            on = On(client, upstream, declared, models, keys)
            reloader = ModelsReloader(lambda: on.config, models, keys, config=declared)
            on.reloaders.append(reloader)
            yield on


def test_what_has_changed_comes_into_force_when_somebody_asks(
    tokenizer: Path, tmp_path: Path
) -> None:
    async def work() -> None:
        async with serving(tokenizer, tmp_path) as on:
            assert await on.path() == "splice"
            on.edit(splice=SpliceConfig(enabled=False))
            await on.reload(is_asked=False)
            assert await on.path() == "splice"
            await on.reload()
            assert await on.path() == "select"
            assert on.models.error == ""

    scenario(work)


def test_a_reply_under_way_keeps_the_model_that_it_began_with(
    tokenizer: Path, tmp_path: Path
) -> None:
    drafts: list[Any] = []
    gate = asyncio.Event()

    async def behave(turn: Turn) -> None:
        if turn.request.target == b"/v1/completions":
            drafts.append(turn.request.json())
            if len(drafts) == 1:
                await gate.wait()
        await honest()(turn)

    async def work() -> None:
        async with serving(tokenizer, tmp_path) as on:
            on.upstream.behave = behave
            begun = asyncio.ensure_future(on.path())
            await eventually(lambda: drafts)
            on.edit(splice=SpliceConfig(enabled=False))
            await on.reload()
            gate.set()
            assert await begun == "splice"
            assert all("logprobs" in one for one in drafts)  # to its end, as it began

    scenario(work)


def test_a_probe_is_made_where_something_has_changed_and_only_then(
    tokenizer: Path, tmp_path: Path
) -> None:
    async def work() -> None:
        async with serving(tokenizer, tmp_path, capabilities=PROBED) as on:
            assert await on.path() == "splice"
            before, others = on.n_asked(), on.worker()
            await on.reload()
            assert on.n_asked() == before  # nothing has changed
            on.edit(capabilities=Capabilities(probe=True, max_bias=7))
            await on.reload()
            asked = on.n_asked()
            assert asked > before
            (model, other) = on.models.current
            assert model.capabilities.logprobs > 0
            assert (model.capabilities.max_bias, model.capabilities.probe) == (7, False)
            # Another process of this machine hears of it, and takes what was found.
            await on.reload(others, is_asked=False)
            assert on.n_asked() == asked
            assert others._holder.current == (model, other)
            assert await on.path() == "splice"
            asked, late = on.n_asked(), on.worker()  # a worker that is started again
            await on.reload(late)
            assert on.n_asked() == asked

    scenario(work)


def test_until_a_probe_has_ended_and_after_one_that_failed_nothing_changes(
    tokenizer: Path, tmp_path: Path
) -> None:
    gate = asyncio.Event()

    async def slow_then_gone(turn: Turn) -> None:
        if turn.request.target == b"/v1/models":
            await honest()(turn)
        elif b'"max_tokens":8,' in turn.request.body:  # a question of the probe
            await gate.wait()
            turn.cut()
        else:
            await honest()(turn)

    async def work() -> None:
        async with serving(tokenizer, tmp_path, capabilities=PROBED) as on:
            on.upstream.behave = slow_then_gone
            changed = Capabilities(probe=True, parallel=2)
            on.edit(capabilities=changed, splice=SpliceConfig(enabled=False))
            begun = asyncio.ensure_future(on.reload())
            for _ in range(3):
                assert await on.path() == "splice"
                assert not begun.done()
            gate.set()
            await begun
            assert "no answer from the upstream" in on.models.error
            assert await on.path() == "splice"
            on.upstream.behave = honest()
            await on.reload()
            assert on.models.error == ""
            assert await on.path() != "splice"

    scenario(work)


def test_what_cannot_be_served_is_refused_with_its_reason(tokenizer: Path, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tokenizer, tmp_path) as on:
            good = on.config
            elsewhere = UpstreamConfig(url="http://127.0.0.1:1")
            for change, said in (
                ({"upstream": elsewhere}, "start the proxy again"),
                ({"models": [msgspec.structs.replace(good.models[0], end_tokens=["<x>"])]}, "<x>"),
            ):
                on.config = msgspec.structs.replace(good, **change)
                await on.reload()
                assert said in on.models.error
                assert await on.path() == "splice"
            on.config = good
            await on.reload()
            assert on.models.error == ""

            def unreadable() -> ProxyConfig:
                raise ConfigError("proxy.toml:3: no\nsuch field")

            on.reloaders[0]._load = unreadable
            await on.reload()
            assert on.models.error == "proxy.toml:3: no such field"

    scenario(work)


def test_a_model_that_is_gone_passes_and_its_keys_are_asked_no_more(
    tokenizer: Path, tmp_path: Path
) -> None:
    async def work() -> None:
        async with serving(tokenizer, tmp_path) as on:
            asked = KeyedNow(on.models)
            assert [one.name for one in asked] == ["m", "other"]
            on.config = msgspec.structs.replace(on.config, models=on.config.models[1:])
            await on.reload()
            assert [one.name for one in asked] == ["other"]
            on.upstream.behave = lambda turn: turn.answer({"choices": []})
            assert await on.path() == ""

    scenario(work)
