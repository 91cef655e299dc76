"""`watermark-proxy upstream`: the embedded language model as a server of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click
import msgspec

from proxy.cli.servers import EmbeddedReady, listen, uvicorn_server
from proxy.embedded.models import load_model
from proxy.embedded.server import create_app
from watermark.text import tokenizer_unit_id

if TYPE_CHECKING:
    from pathlib import Path
    from socket import socket

    import uvicorn

    from proxy.embedded.language_model import LanguageModel

_STDIN_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamOptions:
    """What the command line asks for."""

    model: str
    host: str
    port: int
    trust_remote_code: bool
    logprobs_mode: str
    until_stdin_closes: bool
    cache_dir: Path


def run_upstream(options: UpstreamOptions) -> None:
    """Serve until interrupted.

    Raises:
        EmbeddedError: The model cannot be loaded.
        ConfigError: The address cannot be bound.
    """
    model = load_model(
        options.model, cache_dir=options.cache_dir, trust_remote_code=options.trust_remote_code
    )
    listener = listen(options.host, options.port)
    server = uvicorn_server(create_app(model, logprobs_mode=options.logprobs_mode))
    ready = _ready(model, listener.url)
    click.echo(msgspec.json.encode(ready).decode())
    sys.stdout.flush()
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(_serve(server, listener.socket, until_stdin_closes=options.until_stdin_closes))


async def _serve(server: uvicorn.Server, bound: socket, *, until_stdin_closes: bool) -> None:
    if until_stdin_closes:
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin.fileno(), _stop_at_end, server, loop)
    await server.serve(sockets=[bound])


def _stop_at_end(server: uvicorn.Server, loop: asyncio.AbstractEventLoop) -> None:
    if not os.read(sys.stdin.fileno(), _STDIN_BYTES):
        loop.remove_reader(sys.stdin.fileno())
        server.should_exit = True


def _ready(model: LanguageModel, url: str) -> EmbeddedReady:
    return EmbeddedReady(
        url=url,
        model=model.name,
        tokenizer=str(model.tokenizer_path.resolve()),
        unit=tokenizer_unit_id(model.tokenizer_path.read_bytes()),
        end_tokens=[str(model.tokenizer.id_to_token(token)) for token in sorted(model.end_ids)],
    )
