"""The composition root: configuration, keys, client and clocks become one ASGI application."""

from __future__ import annotations

import contextlib
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount, Route

from proxy.accounts.usage import FILE_NAME, UsageStore
from proxy.errors import ConfigError
from proxy.middleware.gate import Gate
from proxy.routes.access import Access
from proxy.routes.book import Book
from proxy.routes.checking import Checker
from proxy.routes.detection import DetectionEndpoint, DetectionService, QueryBook
from proxy.routes.generation import GenerationEndpoint
from proxy.routes.ingress import Ingress
from proxy.routes.marking import Marking
from proxy.routes.operations import Operations
from proxy.routes.passthrough import Everything, Passthrough
from proxy.sampling.candidates import LogprobsMode
from proxy.sampling.keys import KeyedModel, KeyHolder, check_ring
from proxy.sampling.native import switch_off
from proxy.sampling.reasoning import Tags
from proxy.sampling.serving import ServedModel
from proxy.sampling.spelling import Spelling
from proxy.telemetry.metrics import Metrics
from proxy.upstream.anthropic_messages import MessagesUpstream
from proxy.upstream.client import UpstreamClient
from proxy.upstream.llama_server import LlamaServerUpstream
from proxy.upstream.parallel import ParallelUpstream
from proxy.upstream.sglang import SglangUpstream
from proxy.upstream.text_prompts import TextUpstream
from proxy.upstream.token_ids import TokenIdUpstream
from watermark.keys import KeyRing
from watermark.text import WORDS_V1, TokenizerUnit, WordsUnit, build_token_table
from watermark.wire.openai_requests import DialectName

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    import httpx2

    from proxy.accounts.book import AccountHolder
    from proxy.accounts.watch import Watch
    from proxy.config import ModelConfig, ProxyConfig
    from proxy.sampling.models import ModelHolder
    from proxy.upstream.continuing import Upstream
    from watermark.ledger import Ledger
    from watermark.text import Unit


def serve_model(config: ModelConfig) -> ServedModel:
    """Join a model's configuration with its tokenizer.

    Args:
        config: What the operator says of the model.

    Raises:
        ConfigError: The tokenizer lacks an end token, or is not named.
        TokenizerFileError: The tokenizer cannot be read.
    """
    if not config.needs_tokenizer:
        return ServedModel(
            config=config,
            unit=WordsUnit(),
            tokenizer=WORDS_V1,
            table=None,
            end_ids=frozenset(),
            vocab_size=0,
        )
    if config.tokenizer is None:
        raise ConfigError(f'model {config.name!r} needs tokenizer = "tokenizer.json"')
    tokens = TokenizerUnit.read(Path(config.tokenizer))
    table = build_token_table(tokens.tokenizer, tokens.vocab_size)
    is_text = config.capabilities.is_text
    return ServedModel(
        config=config,
        unit=WordsUnit() if config.unit == WORDS_V1 else tokens,
        tokenizer=tokens.unit_id,
        table=table,
        end_ids=frozenset() if is_text else _end_ids(config, tokens),
        vocab_size=tokens.vocab_size,
        spelling=Spelling(table) if is_text else None,
        tags=None if is_text else _tags(config, tokens),
    )


def _end_ids(config: ModelConfig, tokens: TokenizerUnit) -> frozenset[int]:
    if not config.end_tokens:
        raise ConfigError(
            f'model {config.name!r} needs end_tokens, such as ["<|endoftext|>"]; without them '
            "no reply would end"
        )
    found = {token: tokens.tokenizer.token_to_id(token) for token in config.end_tokens}
    unknown = sorted(token for token, number in found.items() if number is None)
    if unknown:
        raise ConfigError(
            f"model {config.name!r}: its tokenizer has no token {', '.join(unknown)}; spell "
            "end_tokens as the tokenizer does"
        )
    return frozenset(number for number in found.values() if number is not None)


def _tags(config: ModelConfig, tokens: TokenizerUnit) -> Tags | None:
    reasoning = config.reasoning
    if reasoning is None:
        return None
    found = [tokens.tokenizer.token_to_id(tag) for tag in (reasoning.start, reasoning.end)]
    start, end = found
    if start is None or end is None:
        raise ConfigError(
            f"model {config.name!r}: {reasoning.start!r} and {reasoning.end!r} are not each one "
            "token of its tokenizer; name what begins and ends its reasoning, or leave the section "
            "reasoning out"
        )
    return Tags(start, end, is_marked=reasoning.marked)


def continuing(client: UpstreamClient, model: ServedModel) -> Upstream:
    """Return how an upstream is asked for continuations, as a model's capabilities say."""
    able = model.config.capabilities
    # What the proxy marks, an engine that marks by itself must not mark again.
    one = _asked_once(client.saying(switch_off(model.config.native.engine)), model)
    return ParallelUpstream(one, max_n=able.max_n) if able.parallel > 1 else one


def _asked_once(client: UpstreamClient, model: ServedModel) -> Upstream:
    able = model.config.capabilities
    if able.api == "anthropic":
        return MessagesUpstream(client, repeats=able.echo)
    if able.is_text:
        return TextUpstream(client, able, model.spelling)
    if able.api == "sglang":
        return SglangUpstream(client, model.vocab_size)
    if able.api == "llama-server":
        return LlamaServerUpstream(client, model.vocab_size, filler=model.filler)
    return TokenIdUpstream(client, LogprobsMode(able.logprobs_mode), model.vocab_size)


def keyed_models(config: ProxyConfig) -> tuple[KeyedModel, ...]:
    """Return what the keys have to mark.

    Raises:
        ConfigError: A tokenizer lacks an end token, or is not named.
        TokenizerFileError: A tokenizer cannot be read.
    """
    return tuple(_keyed_model(serve_model(model)) for model in config.models)


def _keyed_model(model: ServedModel) -> KeyedModel:
    return KeyedModel(model.config.name, model.unit.unit_id)


class ServingModels:
    """What the endpoints serve with, made of the models in force and replaced with them.

    A model of which nothing has changed stays as it is, with what is known of its upstream.

    Attributes:
        current: The models by name, and how each one's upstream is asked.
        units: How the keys of all models that were ever in force cut text.
    """

    def __init__(self, client: UpstreamClient) -> None:
        """Ask through a client."""
        self._client = client
        self.current: tuple[Mapping[str, ServedModel], Mapping[str, Upstream]] = ({}, {})
        self.units: dict[str, Unit] = {WORDS_V1: WordsUnit()}

    def take(self, models: Iterable[ModelConfig]) -> list[ServedModel]:
        """Serve with these from now on.

        Raises:
            ConfigError: One cannot be served as configured.
            TokenizerFileError: A tokenizer cannot be read.
        """
        known, asked = self.current
        served: dict[str, ServedModel] = {}
        upstreams: dict[str, Upstream] = {}
        for config in models:
            name, before = config.name, known.get(config.name)
            is_same = before is not None and before.config == config
            served[name] = before if before is not None and is_same else serve_model(config)
            upstreams[name] = asked[name] if is_same else continuing(self._client, served[name])
        self.units |= {model.unit.unit_id: model.unit for model in served.values()}
        self.current = served, upstreams
        return list(served.values())


def create_app(
    config: ProxyConfig,
    keys: KeyRing | KeyHolder,
    *,
    metrics: Metrics | None = None,
    models: ModelHolder | None = None,
    accounts: AccountHolder | None = None,
    watch: Watch | None = None,
    beside: Callable[[], contextlib.AbstractAsyncContextManager[None]] = contextlib.nullcontext,
    open_ledger: Callable[[], Ledger] | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], float] = time.time,  # noqa: TID251 - the composition root
    entropy: Callable[[], int] = lambda: secrets.randbits(256),
) -> Starlette:
    """Return the proxy; its lifespan opens and closes the upstream's connections.

    Args:
        config: The configuration.
        keys: The keys; a ring stays, a holder's may be replaced.
        metrics: The counters; new ones where none are given.
        models: Holds the configuration's models, and may replace them; None for ever those.
        accounts: Who may call; None for everybody.
        watch: What is noted of accounts; None where there are none.
        beside: What runs while the application does.
        open_ledger: Opens the ledger of this process, once it serves; None for no ledger.
        transport: Stands in for the network in tests.
        clock: Monotonic seconds.
        now: Seconds since the epoch.
        entropy: Draws 256 fresh random bits.

    Raises:
        ConfigError: A model cannot be served as configured.
        WatermarkError: A tokenizer or a key does not fit.
    """
    metrics = metrics or Metrics()
    client = UpstreamClient(config.upstream, transport=transport)
    start = datetime.fromtimestamp(now(), UTC)
    serving = ServingModels(client)
    served = serving.take(config.models)
    holder = KeyHolder(keys, now=start) if isinstance(keys, KeyRing) else keys
    check_ring(holder.current.ring, map(_keyed_model, served), now=start)
    metrics.keys_loaded(holder.current.generation)
    book = Book(open_ledger)
    usage = None if accounts is None else UsageStore(Path(config.state) / FILE_NAME)
    access = Access(usage, watch, metrics, now)
    ingress = Ingress(config.ingress, metrics)
    marking = Marking(
        serving=serving,
        keys=holder,
        passes_unmarked=config.keys.on_missing == "pass-unmarked",
        trusted=frozenset(config.disclosure.callers),
        max_body_bytes=config.server.max_body_bytes,
        access=access,
        ingress=ingress,
        metrics=metrics,
        clock=clock,
        now=now,
        entropy=entropy,
        ledger=book.ledger,
        passes_unlogged=config.ledger is not None
        and config.ledger.on_unavailable == "pass-unmarked",
        refused=frozenset(config.ingress.refuse),
        min_temperature=config.ingress.min_temperature,
        keep_alive_s=config.server.keep_alive_s,
        checker=_checker(config, metrics, entropy),
    )
    passthrough = Passthrough(client, marking)
    detection = DetectionService(
        config=config.detection,
        keys=holder,
        units=serving.units,
        book=QueryBook(Path(config.state) / "detection"),
        metrics=metrics,
        max_body_bytes=config.server.max_body_bytes,
        now=now,
    )
    if models is not None:
        models.follow(serving.take)
    operations = Operations(metrics, marking.trusted, holder, now, book.ledger)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001 - ASGI's form
        async with client, beside(), book:
            yield
        if usage is not None:
            usage.close()

    return Starlette(
        routes=[
            *(
                Route(name.value, GenerationEndpoint(name, marking, passthrough), methods=["POST"])
                for name in DialectName
            ),
            # A text that somebody asks about, or a mistyped path, is not for the upstream.
            Mount(
                "/watermark",
                routes=[
                    Route("/detect", DetectionEndpoint(detection), methods=["POST"]),
                    Route("/health", operations.health),
                    Route("/metrics", operations.metrics),
                ],
            ),
            Everything(passthrough),
        ],
        middleware=_door(accounts, usage, metrics),
        lifespan=lifespan,
    )


def _checker(config: ProxyConfig, metrics: Metrics, entropy: Callable[[], int]) -> Checker | None:
    share = config.selftest.share
    return Checker(metrics, share=share, entropy=entropy) if share else None


def _door(
    accounts: AccountHolder | None, usage: UsageStore | None, metrics: Metrics
) -> list[Middleware]:
    """Return what stands before every route where there are accounts."""
    if accounts is None or usage is None:
        return []
    return [Middleware(Gate, accounts=accounts, usage=usage, metrics=metrics)]
