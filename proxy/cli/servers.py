"""Servers that this process runs, and the embedded upstream as a child process."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
import uvicorn

from proxy.errors import ConfigError, EmbeddedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from starlette.types import ASGIApp

    from proxy.config import EmbeddedConfig, ProxyConfig

_OTHER_FILES: Final = 1024  # listeners, ledger, keys, clients that wait
_POLL_SECONDS: Final = 0.01
_STOP_SECONDS: Final = 10.0
_DRAIN_SECONDS: Final = 5  # for answers under way when a server is told to stop
_KEEP_ALIVE_SECONDS: Final = 75  # longer than clients keep idle connections (nginx: 75 s)


class EmbeddedReady(msgspec.Struct, frozen=True, kw_only=True):
    """What the embedded upstream says when it is ready, as one line of JSON.

    Attributes:
        url: Its base.
        model: The model's name.
        tokenizer: Path of its `tokenizer.json`.
        unit: The unit that keys for it name.
        end_tokens: Tokens that end a reply, as the tokenizer spells them.
    """

    url: str
    model: str
    tokenizer: str
    unit: str
    end_tokens: list[str]


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket and its address."""

    socket: socket.socket
    url: str


def listen(host: str, port: int) -> Listener:
    """Bind a socket; port 0 takes a free one.

    Raises:
        ConfigError: The address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, so that asyncio switches off the waiting for acknowledgements (Nagle).
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen()  # whoever is told the address may connect at once, and waits
    except OSError as err:
        bound.close()
        message = f"cannot listen on {host}:{port}: {err.strerror}; choose another host or port"
        raise ConfigError(message) from err
    shown = f"[{host}]" if family == socket.AF_INET6 else host
    return Listener(bound, f"http://{shown}:{bound.getsockname()[1]}")


def open_enough_files(connections: int) -> None:
    """Raise the bound on open files, as far as the system lets a process: a stream takes two.

    Args:
        connections: Those to the upstream, open at a time.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + _OTHER_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def uvicorn_server(app: ASGIApp) -> uvicorn.Server:
    """Return a server that logs warnings only: no paths, no callers."""
    return uvicorn.Server(_server_config(app))


def _server_config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="on",
        server_header=False,
        date_header=False,  # the upstream's passes through, and must not stand there twice
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )


class _GuestServer(uvicorn.Server):
    """A server in somebody else's event loop, whose signals are not its own to take."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


@contextlib.asynccontextmanager
async def running(app: ASGIApp, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve an application in this event loop; yield its base URL.

    Raises:
        ConfigError: The address cannot be bound, or the application did not start.
    """
    listener = listen(host, port)
    server = _GuestServer(_server_config(app))
    task = asyncio.ensure_future(server.serve(sockets=[listener.socket]))
    try:
        while not server.started:
            if task.done():
                raise ConfigError("the server stopped while starting; see the log above")
            await asyncio.sleep(_POLL_SECONDS)
        yield listener.url
    finally:
        server.should_exit = True
        await task
        listener.socket.close()


@contextlib.contextmanager
def embedded_upstream(config: EmbeddedConfig, *, cache_dir: Path) -> Iterator[EmbeddedReady]:
    """Run the embedded upstream as a child process, which ends with this one.

    Raises:
        EmbeddedError: It did not start; its own message is on standard error.
    """
    command = [sys.executable, "-m", "proxy", "upstream", "--until-stdin-closes"]
    command += ["--model", config.model, "--host", config.host, "--port", str(config.port)]
    command += ["--cache-dir", str(cache_dir)]
    command += ["--trust-remote-code"] if config.trust_remote_code else []
    child = subprocess.Popen(  # noqa: S603 - our own command, no shell
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        try:
            line = child.stdout.readline() if child.stdout else b""
            if not line:
                raise EmbeddedError("the embedded upstream did not start; its message is above")
            yield msgspec.json.decode(line, type=EmbeddedReady)
        finally:
            if child.stdin:
                child.stdin.close()
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()


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
