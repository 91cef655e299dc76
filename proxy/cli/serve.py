"""`watermark-proxy serve`: the proxy, with an embedded upstream where the config has one."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from proxy.app import create_app
from proxy.cli.first_key import marking_ring
from proxy.cli.servers import EmbeddedReady, embedded_upstream, listen, uvicorn_server
from proxy.config import ProxyConfig, load_config
from watermark.keys import load_keys
from watermark.text import WORDS_V1, TokenizerUnit

if TYPE_CHECKING:
    from watermark.keys import KeyRing


def run_serve(path: Path) -> None:
    """Serve until interrupted.

    Raises:
        WatermarkError: The configuration, a key or a tokenizer cannot be used.
    """
    config = load_config(path)
    with contextlib.ExitStack() as stack:
        if config.embedded is not None:
            say(f"starting the embedded upstream ({config.embedded.model})")
            ready = stack.enter_context(
                embedded_upstream(config.embedded, cache_dir=Path(config.state) / "cache")
            )
            config = with_embedded(config, ready)
        app = create_app(config, _ring(config))
        listener = listen(config.server.host, config.server.port)
        say(
            f"listening on {listener.url}, marking {_names(config)}, upstream {config.upstream.url}"
        )
        uvicorn_server(app).run(sockets=[listener.socket])


def say(message: str) -> None:
    """Print one line for people."""
    click.echo(f"watermark-proxy: {message}", err=True)


def with_embedded(config: ProxyConfig, ready: EmbeddedReady) -> ProxyConfig:
    """Return the configuration with what only the running embedded upstream knows."""
    models = [
        msgspec.structs.replace(
            model,
            tokenizer=model.tokenizer or ready.tokenizer,
            end_tokens=model.end_tokens or ready.end_tokens,
        )
        if model.name == ready.model
        else model
        for model in config.models
    ]
    upstream = msgspec.structs.replace(config.upstream, url=ready.url)
    return msgspec.structs.replace(config, models=models, upstream=upstream)


def _ring(config: ProxyConfig) -> KeyRing:
    path = Path(config.keys.file)
    if not config.keys.create_if_missing:
        return load_keys(path)
    ring = None
    for model in config.models:
        if model.unit == WORDS_V1:
            ring = marking_ring(path, WORDS_V1, say)
        elif model.tokenizer:
            ring = marking_ring(path, TokenizerUnit.read(Path(model.tokenizer)).unit_id, say)
    return ring or load_keys(path)


def _names(config: ProxyConfig) -> str:
    return ", ".join(model.name for model in config.models) or "nothing"
