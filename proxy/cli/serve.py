"""`watermark-proxy serve`: the proxy, with an embedded upstream where the config has one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from proxy.accounts.watch import Watch
from proxy.app import create_app, keyed_models
from proxy.cli.accounts_setup import set_up_accounts
from proxy.cli.first_key import marking_ring
from proxy.cli.ledgers import LedgerOpener, ledger_opener
from proxy.cli.models_reloading import ModelsReloader
from proxy.cli.probe import with_probes
from proxy.cli.reloading import Reloader, load_ring, utc_now
from proxy.cli.servers import (
    embedded_upstream,
    listen,
    open_enough_files,
    uvicorn_server,
    with_embedded,
)
from proxy.cli.supervisor import Supervisor
from proxy.cli.watching import InTurn, watching
from proxy.config import ProxyConfig, load_config
from proxy.sampling.keys import KeyHolder
from proxy.sampling.models import KeyedNow, ModelHolder
from proxy.telemetry.metrics import Metrics
from watermark.keys import KeysLoader
from watermark.keys.hardening import forbid_dumps
from watermark.keys.reports import (
    WorkerReport,
    remove_stale_reports,
    withdraw_report,
    workers_folder,
    write_report,
)
from watermark.text import WORDS_V1, TokenizerUnit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from socket import socket

    from proxy.cli.accounts_setup import AccountsSetup
    from proxy.cli.servers import EmbeddedReady
    from proxy.cli.watching import Watched

SWITCH_SECONDS: Final = 0.0005  # requests and a reload wait for each other no longer
_BACKLOG: Final = 2048  # as uvicorn


def run_serve(path: Path) -> None:
    """Serve until interrupted.

    Raises:
        WatermarkError: The configuration, a key or a tokenizer cannot be used.
    """
    forbid_dumps()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until somebody is there to hear it
    logging.basicConfig(format="watermark-proxy: %(levelname)s: %(message)s", level=logging.WARNING)
    logging.getLogger("proxy").setLevel(logging.INFO)
    config = load_config(path)
    open_enough_files(config.upstream.max_connections)
    ready: EmbeddedReady | None = None
    with contextlib.ExitStack() as stack:
        if config.embedded is not None:
            say(f"starting the embedded upstream ({config.embedded.model})")
            ready = stack.enter_context(
                embedded_upstream(config.embedded, cache_dir=Path(config.state) / "cache")
            )
            config = with_embedded(config, ready)
        load = functools.partial(_load_again, path, ready)
        serving = prepare(with_probes(config, say), declared=config, load=load)
        config = serving.config
        for warning in bias_warnings(config):
            say(warning)
        listener = listen(config.server.host, config.server.port)
        shared = f", {config.server.workers} workers" if config.server.workers > 1 else ""
        say(
            f"listening on {listener.url}, marking {_names(config)}, "
            f"upstream {config.upstream.url}{shared}"
        )
        if config.server.workers == 1:
            serving.work(listener.socket)
            return
        listener.socket.listen(_BACKLOG)
        Supervisor(
            count=config.server.workers,
            work=lambda: serving.work(listener.socket, is_alone=False),
            reloader=serving.watched(),
            holder=serving.holder,
            folder=serving.folder,
        ).run()


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What is ready to serve, before there is a process or an event loop for it.

    Attributes:
        config: The configuration.
        loader: Reads the keys.
        holder: Holds them.
        models: Holds the models.
        load: Reads the configuration again.
        folder: Where workers report.
        ledger: Opens the ledger in a process that serves; None for no ledger.
        accounts: Who may call; None for everybody.
    """

    config: ProxyConfig
    loader: KeysLoader
    holder: KeyHolder
    models: ModelHolder
    load: Callable[[], ProxyConfig]
    folder: Path
    ledger: LedgerOpener | None = None
    accounts: AccountsSetup | None = None

    def watched(self) -> Watched:
        """Return what the process reads again that starts workers, and writes their log lines."""
        watched: list[Watched] = [self.models_reloader(is_quiet=False)]
        if self.accounts is not None:
            watched.append(self.accounts.reloader(metrics=None, is_quiet=False))
        return InTurn(*watched, self.reloader(is_quiet=False))

    def models_reloader(self, *, is_quiet: bool) -> ModelsReloader:
        """Return the watch over the models, for this process."""
        return ModelsReloader(
            self.load, self.models, self.holder, config=self.config, is_quiet=is_quiet
        )

    def reloader(self, *, metrics: Metrics | None = None, is_quiet: bool) -> Reloader:
        """Return the watch over the keys, for this process."""
        report = self.report if metrics is not None else _nothing
        return Reloader(
            self.loader,
            self.holder,
            KeyedNow(self.models),
            metrics=metrics,
            report=report,
            is_quiet=is_quiet,
        )

    def report(self) -> None:
        """Say which keys this process has."""
        held = self.holder.current
        report = WorkerReport(
            pid=os.getpid(),
            generation=held.generation,
            loaded_at=held.loaded_at.isoformat().replace("+00:00", "Z"),
            error=self.holder.error
            or self.models.error
            or (self.accounts.holder.error if self.accounts else ""),
        )
        write_report(self.folder, report)

    def _sealing(self, metrics: Metrics) -> contextlib.AbstractAsyncContextManager[None]:
        return contextlib.nullcontext() if self.ledger is None else self.ledger.sealing(metrics)

    def work(self, bound: socket, *, is_alone: bool = True) -> None:
        """Serve on a socket until told to stop.

        Args:
            bound: The socket.
            is_alone: Whether no supervisor writes the log lines about keys.
        """
        metrics = Metrics()
        keys = self.reloader(metrics=metrics, is_quiet=not is_alone)
        accounts = self.accounts
        # The models first: the keys' reload is what is reported, and a probe is waited for.
        models = self.models_reloader(is_quiet=not is_alone)
        watched: list[Watched] = [InTurn(models, keys)]
        if accounts is not None:
            watched.append(accounts.reloader(metrics=metrics, is_quiet=not is_alone))
        watch = None if accounts is None else Watch(accounts.digest_key)

        @contextlib.asynccontextmanager
        async def beside() -> AsyncIterator[None]:
            async with contextlib.AsyncExitStack() as stack:
                if accounts is not None and watch is not None:
                    await stack.enter_async_context(accounts.noting(watch, metrics))
                await stack.enter_async_context(watching(*watched))
                await stack.enter_async_context(self._sealing(metrics))
                self.report()
                try:
                    yield
                finally:
                    withdraw_report(self.folder, os.getpid())

        app = create_app(
            msgspec.structs.replace(self.config, models=list(self.models.current)),
            self.holder,
            models=self.models,
            metrics=metrics,
            accounts=None if accounts is None else accounts.holder,
            watch=watch,
            beside=beside,
            open_ledger=None if self.ledger is None else self.ledger.open,
        )
        gc.collect()
        gc.freeze()  # thousands of keys are not walked through again and again
        sys.setswitchinterval(SWITCH_SECONDS)
        server = uvicorn_server(app)
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=[bound]))


def _load_again(path: Path, ready: EmbeddedReady | None) -> ProxyConfig:
    config = load_config(path)
    return config if ready is None else with_embedded(config, ready)


def prepare(
    config: ProxyConfig,
    *,
    declared: ProxyConfig | None = None,
    load: Callable[[], ProxyConfig] | None = None,
) -> Serving:
    """Read and check everything that can be checked before serving.

    Args:
        config: The configuration, probed.
        declared: As it was read, before its probes; None where there were none.
        load: Reads it again; None for never another.

    Raises:
        WatermarkError: The configuration, a key or a tokenizer cannot be used.
    """
    models = keyed_models(config)
    if config.keys.create_if_missing:
        _first_keys(config)
    loader, now = KeysLoader(Path(config.keys.file)), utc_now()
    holder = KeyHolder(load_ring(loader, models, now=now), now=now)
    folder = workers_folder(config.state)
    folder.mkdir(parents=True, exist_ok=True)
    remove_stale_reports(folder)
    return Serving(
        config=config,
        loader=loader,
        holder=holder,
        models=ModelHolder(config.models, models, declared=(declared or config).models),
        load=load or (lambda: declared or config),
        folder=folder,
        ledger=None if config.ledger is None else ledger_opener(config.ledger, say),
        accounts=set_up_accounts(config),
    )


def bias_warnings(config: ProxyConfig) -> list[str]:
    """Return what the last resort costs, for each model that is marked by it."""
    return [
        f"WARNING: model {model.name} is marked by biases (delta {model.bias.delta:g}): replies "
        "CHANGE, for every client, under every key; whoever counts words has the list after a few "
        "hundred replies, and can remove or forge the mark; what is detected is no evidence. It "
        "needs a key of scheme static-green-list; rotate it often, and prefer any other path"
        for model in config.models
        if model.bias.enabled
    ]


def say(message: str) -> None:
    """Print one line for people."""
    click.echo(f"watermark-proxy: {message}", err=True)


def _first_keys(config: ProxyConfig) -> None:
    """Make a key for each unit that none marks."""
    path = Path(config.keys.file)
    for model in config.models:
        if model.unit == WORDS_V1:
            marking_ring(path, WORDS_V1, say)
        elif model.tokenizer:
            marking_ring(path, TokenizerUnit.read(Path(model.tokenizer)).unit_id, say)


def _nothing() -> None:
    """Report to nobody."""


def _names(config: ProxyConfig) -> str:
    return ", ".join(model.name for model in config.models) or "nothing"
