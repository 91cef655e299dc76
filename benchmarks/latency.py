"""What each path adds to the first byte and to every token, over the unmarked upstream.

    python -m benchmarks.latency [--requests 40] [--tokens 64]

The built-in model in a process of its own; a proxy a path in this one, and one that passes
everything through. *Over text* is a path that continues the text of a conversation; the others
continue token ids. Requests are streamed and take turns, so that the machine's noise meets every
path. `native` is served by the same model behind a relay that takes the engine's switch off: what
is measured is the proxy, not an engine's sampler.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx2
import msgspec
import numpy as np
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from benchmarks.story import print_table
from proxy.app import create_app
from proxy.cli.servers import embedded_upstream, running
from proxy.config import (
    BiasConfig,
    Capabilities,
    DisclosureConfig,
    EmbeddedConfig,
    KeysConfig,
    ModelConfig,
    NativeConfig,
    ProxyConfig,
    ReplyConfig,
    SelectConfig,
    SelftestConfig,
    SpliceConfig,
    UpstreamConfig,
)
from watermark.keys import KeyRecord, KeyRing, SecretKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from proxy.cli.servers import EmbeddedReady

OVER_TEXT = ", over text"
PATHS = (
    *("direct", "passed", "native", "bias", "splice", "select", "reply"),
    *(f"{path}{OVER_TEXT}" for path in ("splice", "select")),
)
SCHEMES = {"native": "sglang-native", "bias": "static-green-list"}


@dataclass
class Times:
    """Milliseconds of one path's requests."""

    first: list[float] = field(default_factory=list)
    token: list[float] = field(default_factory=list)


def model_of(way: str, ready: EmbeddedReady) -> ModelConfig:
    """Return how a path is configured."""
    path = way.removesuffix(OVER_TEXT)
    is_whole = path in ("reply", "bias", "native")
    continuation: Literal["prefix", "token-ids"]
    continuation = "prefix" if way.endswith(OVER_TEXT) else "token-ids"
    return ModelConfig(
        name=ready.model,
        tokenizer=ready.tokenizer,
        end_tokens=ready.end_tokens,
        capabilities=Capabilities(
            continuation="none" if is_whole else continuation,
            logprobs=0 if is_whole else 100,
            logprobs_mode="tempered",
            logit_bias=True,
            max_n=8,
        ),
        native=NativeConfig(engine="sglang" if path == "native" else "none"),
        bias=BiasConfig(enabled=path == "bias"),
        splice=SpliceConfig(enabled=path == "splice", logprobs=100, draft_tokens=4, drafts=2),
        select=SelectConfig(enabled=path == "select", chunk_tokens=8, candidates=8),
        reply=ReplyConfig(enabled=path == "reply", candidates=4),
    )


def config_of(path: str, ready: EmbeddedReady, url: str) -> ProxyConfig:
    """Return a proxy's configuration; `passed` marks no model."""
    return ProxyConfig(
        upstream=UpstreamConfig(url=url),
        keys=KeysConfig(file="KEYS.toml"),
        disclosure=DisclosureConfig(callers=["*"]),
        selftest=SelftestConfig(share=0),
        models=[] if path == "passed" else [model_of(path, ready)],
    )


def relay(client: httpx2.AsyncClient) -> Starlette:
    """Return a server that passes chats on without the engine's switch."""

    async def chat(request: Request) -> StreamingResponse:
        body = msgspec.json.decode(await request.body())
        body.pop("watermark", None)

        async def parts() -> AsyncIterator[bytes]:
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                async for part in answer.aiter_raw():
                    yield part

        return StreamingResponse(parts(), media_type="text/event-stream")

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


async def ask(client: httpx2.AsyncClient, body: dict[str, Any], path: str) -> tuple[float, float]:
    """Return milliseconds to the first text, and of each token after it."""
    start = time.perf_counter()
    first = 0.0
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200, (path, await answer.aread())
        if path not in ("direct", "passed"):
            assert f"path={path.removesuffix(OVER_TEXT)}" in answer.headers["x-watermark"], (
                answer.headers
            )
        async for part in answer.aiter_raw():
            if not first and b'"content":"' in part.replace(b'"content":""', b""):
                first = time.perf_counter()
    last = time.perf_counter()
    return (first - start) * 1e3, (last - first) * 1e3 / (body["max_tokens"] - 1)


async def measure(ready: EmbeddedReady, args: argparse.Namespace) -> dict[str, Times]:
    """Return every path's times."""
    secret = SecretKey("bench", np.random.default_rng(1).bytes(32))
    own = KeyRecord(key_id="bench", unit=ready.unit, secret=secret)
    end = [str(token) for token in args.end_ids]
    body = {
        "model": ready.model,
        "messages": [{"role": "user", "content": "How is a module found?"}],
        "max_tokens": args.tokens,
        "stream": True,
        "logit_bias": dict.fromkeys(end, -100),
    }
    times = {path: Times() for path in PATHS}
    async with contextlib.AsyncExitStack() as stack:
        urls = {"direct": ready.url}
        behind = httpx2.AsyncClient(base_url=ready.url, timeout=60)
        await stack.enter_async_context(behind)
        relayed = await stack.enter_async_context(running(relay(behind)))
        for path in PATHS[1:]:
            url = relayed if path == "native" else ready.url
            record = replace(own, scheme=SCHEMES.get(path, own.scheme))
            app = create_app(config_of(path, ready, url), KeyRing((record,)))
            urls[path] = await stack.enter_async_context(running(app))
        clients = {
            path: await stack.enter_async_context(httpx2.AsyncClient(base_url=url, timeout=120))
            for path, url in urls.items()
        }
        for number in range(-1, args.requests):
            for path, client in clients.items():
                first, token = await ask(client, body, path)
                if number >= 0:  # the first request of each opens connections
                    times[path].first.append(first)
                    times[path].token.append(token)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--cache-dir", type=Path, help="where the built-in model is kept")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = args.cache_dir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with embedded_upstream(EmbeddedConfig(port=0), cache_dir=folder) as ready:
            args.end_ids = _end_ids(ready)
            times = asyncio.run(measure(ready, args))
    base = times["direct"]
    first, token = float(np.median(base.first)), float(np.median(base.token))
    print_table(
        f"Built-in model, {args.requests} requests a path, {args.tokens} tokens; medians, ms",
        ("path", "first byte", "p90", "extra", "a token", "extra", "as a ratio"),
        [
            (
                path,
                float(np.median(one.first)),
                float(np.quantile(one.first, 0.9)),
                float(np.median(one.first)) - first,
                float(np.median(one.token)),
                float(np.median(one.token)) - token,
                float(np.median(one.token)) / token,
            )
            for path, one in times.items()
        ],
    )


def _end_ids(ready: EmbeddedReady) -> list[int]:
    """Return the ids of the tokens that end a reply, which are banned."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(ready.tokenizer)
    return [int(tokenizer.token_to_id(token) or 0) for token in ready.end_tokens]


if __name__ == "__main__":
    main()
