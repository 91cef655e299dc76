"""`watermark-proxy probe`: what the upstream really does, and what marking through it costs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
from rich.console import Console
from rich.table import Table

from proxy.app import continuing, serve_model
from proxy.cli.reloading import utc_now
from proxy.cli.servers import embedded_upstream, with_embedded
from proxy.config import load_config
from proxy.errors import ConfigError
from proxy.sampling.bias import is_biased_by
from proxy.sampling.costs import PROMPT_TOKENS, REPLY_TOKENS, chosen_path, costs_of
from proxy.sampling.keys import KeyedModel, marking_records
from proxy.sampling.native import ENGINES
from proxy.sampling.questions import Path as MarkPath
from proxy.upstream.client import UpstreamClient
from proxy.upstream.native_probing import NativeMark, read_native_mark
from proxy.upstream.probing import Findings, Prober
from watermark.errors import WatermarkError
from watermark.keys import load_keys
from watermark.text import WORDS_V1

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from proxy.config import Capabilities, ModelConfig, ProxyConfig
    from proxy.sampling.costs import PathCost
    from proxy.sampling.serving import ServedModel
    from proxy.upstream.continuing import Upstream
    from watermark.keys import KeyRecord, KeyRing

_SINGLE: Final = "one choice a request: parallel = 4 (say) in its capabilities draws several"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """One model after its probe.

    Attributes:
        model: Its config with what was found, and only the chosen path left on.
        findings: What was found.
        costs: Every path and the unmarked reply, strongest first.
        chosen: The strongest within the limits.
    """

    model: ModelConfig
    findings: Findings
    costs: Sequence[PathCost]
    chosen: PathCost


def run_probe(path: Path, *, as_json: bool) -> None:
    """Probe every model of a config and print what was found.

    Raises:
        WatermarkError: The config cannot be used, or the upstream does not answer.
    """
    config = load_config(path)
    if not config.models:
        raise ConfigError(f"{path}: there is no [[model]] to probe; add one")
    with contextlib.ExitStack() as stack:
        if config.embedded is not None:
            cache = Path(config.state) / "cache"
            # Its own port may be the running proxy's.
            embedded = msgspec.structs.replace(config.embedded, port=0)
            ready = stack.enter_context(embedded_upstream(embedded, cache_dir=cache))
            config = with_embedded(config, ready)
        probed = asyncio.run(_probe_all(config, config.models, _ring_of(config)))
    if as_json:
        click.echo(msgspec.json.encode([_plain(one) for one in probed]).decode())
        return
    for one in probed:
        _print(one)


def with_probes(
    config: ProxyConfig, say: Callable[[str], None], *, ring: KeyRing | None = None
) -> ProxyConfig:
    """Return a config in which models that say `probe` have what was found.

    Args:
        config: The config.
        say: Told of each model what it will be marked by.
        ring: The keys in force; None takes those of the file.

    Raises:
        UpstreamError: The upstream does not answer.
    """
    asked = [model for model in config.models if model.capabilities.probe]
    if not asked:
        return config
    probed = asyncio.run(_probe_all(config, asked, _ring_of(config) if ring is None else ring))
    for one in probed:
        say(f"probed {one.model.name}: path {one.chosen.path}, {one.chosen.multiple:.2f}x tokens")
    found = {one.model.name: one.model for one in probed}
    models = [found.get(model.name, model) for model in config.models]
    return msgspec.structs.replace(config, models=models)


async def _probe_all(
    config: ProxyConfig, models: Sequence[ModelConfig], ring: KeyRing | None
) -> list[Probed]:
    async with UpstreamClient(config.upstream) as client:
        return [await _probe(config, client, model, ring) for model in models]


async def _probe(
    config: ProxyConfig, client: UpstreamClient, model: ModelConfig, ring: KeyRing | None
) -> Probed:
    start = msgspec.structs.replace(model.capabilities, probe=False)
    if model.tokenizer is None:
        start = msgspec.structs.replace(start, continuation="text")
    served = serve_model(_knowing(model, start))

    def adapter(able: Capabilities) -> Upstream:
        changed = serve_model(_knowing(model, able)) if able.is_text else served
        return continuing(client, replace(changed, config=_knowing(model, able)))

    prober = Prober(
        model=model.name,
        declared=msgspec.structs.replace(model.capabilities, max_n=1 << 14, parallel=1),
        vocab_size=served.vocab_size,
        forced=_forced(served),
        adapter=adapter,
        headers=_key_headers(config),
        clock=time.monotonic,
    )
    findings = await prober.probe()
    keys = _MarkingKeys.of(ring, served)
    findings = replace(findings, notes=(*findings.notes, keys.note))
    if model.native.engine != "none" and model.native.enabled:
        mark, how = await read_native_mark(
            client, model.name, keys.of_engine(model), served.unit, _key_headers(config)
        )
        note = f"native mark of {model.native.engine}: {mark} ({how})"
        findings = replace(findings, notes=(*findings.notes, note), native=mark)
    able = msgspec.structs.replace(
        findings.capabilities, parallel=model.capabilities.parallel, probe=False
    )
    if able.choices == 1:
        findings = replace(findings, notes=(*findings.notes, _SINGLE))
    known = _held_to(msgspec.structs.replace(model, capabilities=able), findings.native)
    costs = costs_of(known, keys.raced(known), findings.speed)
    missing = {MarkPath.NATIVE} if findings.native is NativeMark.NO_KEY else set()
    missing |= set() if keys.has_list or keys.is_empty else {MarkPath.BIAS}
    costs = [one for one in costs if one.path not in missing]
    chosen = chosen_path(costs[:-1], model.limits, plain=costs[-1])
    return Probed(
        model=_only(known, chosen),
        findings=replace(findings, capabilities=able),
        costs=costs,
        chosen=chosen,
    )


def _forced(served: ServedModel) -> tuple[int, str] | None:
    """Return a token with a text of its own; None where no tokenizer is at hand."""
    if served.table is None:
        return None
    return served.filler, served.table.labels[served.filler]


def _knowing(model: ModelConfig, able: Capabilities) -> ModelConfig:
    return msgspec.structs.replace(model, capabilities=able)


def _held_to(model: ModelConfig, mark: NativeMark | None) -> ModelConfig:
    """Return a model whose engine is not relied on where it did not mark when told to."""
    if mark not in (NativeMark.IGNORED, NativeMark.UNANSWERED):
        return model
    native = msgspec.structs.replace(model.native, enabled=False)
    return msgspec.structs.replace(model, native=native)


def _ring_of(config: ProxyConfig) -> KeyRing | None:
    """Return the keys of the file; None where it cannot be read, which serving says of itself."""
    try:
        return load_keys(Path(config.keys.file), now=utc_now())
    except (WatermarkError, OSError):  # a probe may come before the first key
        return None


@dataclass(frozen=True, slots=True)
class _MarkingKeys:
    """What marks a model now, in every scope that requests for it fall under.

    Attributes:
        records: One a scope, by unit as the config names it; only units that it can be served in.
    """

    records: Mapping[str, Sequence[KeyRecord]]

    @classmethod
    def of(cls, ring: KeyRing | None, served: ServedModel) -> _MarkingKeys:
        units = {WORDS_V1: WORDS_V1}
        if served.table is not None:
            units |= {"tokenizer": served.tokenizer}
        if ring is None:
            return cls({})
        now, name = utc_now(), served.config.name
        found = {
            unit: marking_records(ring, KeyedModel(name, unit_id), now=now)
            for unit, unit_id in units.items()
        }
        return cls({unit: records for unit, records in found.items() if records})

    @property
    def is_empty(self) -> bool:
        """Whether nothing marks the model yet."""
        return not self.records

    @property
    def has_list(self) -> bool:
        """Whether a list of biases is among them."""
        return any(map(is_biased_by, self.records.get("tokenizer", ())))

    @property
    def note(self) -> str:
        """A line on what marks now."""
        said = ", ".join(sorted(self.records))
        return f"keys that mark now: {said or 'none; the paths are those of a key to come'}"

    def of_engine(self, model: ModelConfig) -> KeyRecord | None:
        """Return the key with which a model's engine would mark a request now, None for none."""
        found = self.records.get(model.unit, ())
        return next((one for one in found if ENGINES.get(one.scheme) == model.native.engine), None)

    def raced(self, model: ModelConfig) -> list[str]:
        """Return the units whose keys the proxy's own paths mark with, the model's own first.

        Its own where there are none: a key may come.
        """
        found = [
            unit
            for unit, records in self.records.items()
            if any(record.is_copula for record in records)
        ]
        if not found and self.has_list and model.bias.enabled:
            return []
        return sorted(found, key=lambda unit: unit != model.unit) or [model.unit]


def _key_headers(config: ProxyConfig) -> list[tuple[bytes, bytes]]:
    if config.upstream.key_file is None:
        return []
    try:
        key = Path(config.upstream.key_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"cannot read upstream.key_file: {type(err).__name__}") from err
    return [(b"authorization", f"Bearer {key}".encode())]


def _only(model: ModelConfig, chosen: PathCost) -> ModelConfig:
    """Return a model that uses the chosen path, or weaker ones where that one's budget ends."""
    order = (MarkPath.SPLICE, MarkPath.SELECT, MarkPath.REPLY, MarkPath.BIAS)
    rank = order.index(chosen.path) if chosen.path in order else len(order)
    if chosen.path is MarkPath.NATIVE:
        rank = 0

    def is_on(path: MarkPath, *, enabled: bool) -> bool:
        return enabled and order.index(path) >= rank

    with_enabled = msgspec.structs.replace
    return with_enabled(
        model.asked_whole if chosen.path is MarkPath.REPLY else model,
        unit=chosen.unit or model.unit,
        splice=with_enabled(
            model.splice, enabled=is_on(MarkPath.SPLICE, enabled=model.splice.enabled)
        ),
        select=with_enabled(
            model.select, enabled=is_on(MarkPath.SELECT, enabled=model.select.enabled)
        ),
        reply=with_enabled(model.reply, enabled=is_on(MarkPath.REPLY, enabled=model.reply.enabled)),
        bias=with_enabled(model.bias, enabled=model.bias.enabled and chosen.path is MarkPath.BIAS),
    )


def _plain(one: Probed) -> dict[str, Any]:
    prices = one.model.prices
    return {
        "model": one.model.name,
        "capabilities": one.findings.capabilities,
        "notes": one.findings.notes,
        "native": one.findings.native,
        "chosen": one.chosen.path,
        "unit": one.chosen.unit,
        "paths": [
            {
                "path": cost.path,
                "unit": cost.unit,
                "tokens": cost.multiple,
                "rounds": cost.rounds,
                "seconds": cost.seconds,
                "first_byte_s": cost.first_byte_s,
                "money": None if prices is None else cost.money(prices),
            }
            for cost in one.costs
        ],
    }


def _declared(able: Capabilities) -> dict[str, Any]:
    """Return what a config has to say so that nothing need be probed."""
    said = msgspec.structs.asdict(able)
    return {name: value for name, value in said.items() if name != "probe" and value is not None}


def _print(one: Probed) -> None:
    click.echo(f"model {one.model.name}")
    for note in one.findings.notes:
        click.echo(f"  {note}")
    click.echo("\n[model.capabilities]")
    for name, value in _declared(one.model.capabilities).items():
        click.echo(f"{name} = {msgspec.json.encode(value).decode()}")
    title = f"{PROMPT_TOKENS:,} tokens of prompt, {REPLY_TOKENS} of reply"
    table = Table("path", "unit", "tokens", "rounds", "seconds", "first byte", title=title)
    if one.model.prices is not None:
        table.add_column("money")
    for cost in one.costs:
        row = [
            f"{cost.path}{' *' if cost is one.chosen else ''}",
            cost.unit,
            f"{cost.multiple:.2f}x",
            f"{cost.rounds:.0f}",
            f"{cost.seconds:.2f}",
            f"{cost.first_byte_s:.3f}",
        ]
        if one.model.prices is not None:
            row.append(f"{cost.money(one.model.prices):.4f}")
        table.add_row(*row)
    click.echo("")
    with contextlib.suppress(BrokenPipeError):
        Console(width=100).print(table)
    click.echo("* the strongest path within the model's limits\n")
    if one.chosen.path is MarkPath.BIAS:
        click.echo(
            "bias changes what replies say, and its list can be read off them: no evidence\n"
        )
