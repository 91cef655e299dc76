"""What the vLLM plug-ins are told, and the requests that they mark.

vLLM has no place for a plug-in's options but `additional_config`::

    vllm serve MODEL --logits-processors watermark.engines.vllm_v2:CopulaLogitsProcessor
      --additional-config '{"output_watermark": {"keys": "/etc/watermark/KEYS.toml"}}'

Rule 1: keys are read once, when the engine starts; a rotation of keys known then happens by their
dates, and one that was added later takes a restart. Rule 2: the options are the operator's; a
request cannot choose its key, or that it is not marked. Rule 3: the copula's noise is the
engine's device randomness; a request's `seed` does not repeat it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import torch

from watermark.engines.torch_race import choose, force, truncate
from watermark.errors import KeysConfigError
from watermark.keys import DEFAULT_SCOPE, load_keys
from watermark.seeding import KeyedUniforms, as_token_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watermark.keys import KeyRing

OPTIONS_NAME: Final = "output_watermark"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`additional_config["output_watermark"]`."""

    keys: str
    unit: str = ""
    scope: str = DEFAULT_SCOPE


@dataclass(frozen=True, slots=True)
class RequestSampling:
    """How a request is sampled: what a plug-in has to do itself before it may mark.

    Attributes:
        temperature: Above 0.
        top_k: Below 1 for all.
        top_p: Mass that stays.
        min_p: Least probability that stays, relative to the largest.
        keyed: The key that marks the request.
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    keyed: KeyedUniforms


class MarkedRow(NamedTuple):
    """A row of logits whose position is marked."""

    row: int
    sampling: RequestSampling
    context: tuple[int, ...]


class EngineKeys:
    """The ring of an engine process, and which of its keys marks a request.

    Args:
        vllm_config: The engine's configuration.
        clock: The time in UTC.

    Raises:
        KeysConfigError: The options are missing or malformed, or the keys do not load.
    """

    def __init__(self, vllm_config: Any, clock: Callable[[], datetime]) -> None:  # noqa: ANN401
        options = _options(getattr(vllm_config, "additional_config", None))
        self._clock = clock
        self._scope = options.scope
        self._ring = load_keys(Path(options.keys), now=clock())
        self._unit = options.unit or _only_unit(self._ring)
        self._keyed: dict[str, KeyedUniforms] = {}
        self._ring.marking(self._unit, now=clock(), scope=self._scope)  # or say so at the start

    def sampling_of(self, params: Any) -> RequestSampling | None:  # noqa: ANN401 - vLLM's own
        """Return how a request is sampled; None where it is not marked.

        Temperature 0 and structured output are never altered.

        Args:
            params: vLLM's `SamplingParams`.
        """
        if params.temperature <= 0.0 or params.structured_outputs is not None:
            return None
        try:
            record = self._ring.marking(self._unit, now=self._clock(), scope=self._scope)
        except KeysConfigError:
            return None  # no key marks now: the request goes unmarked
        keyed = self._keyed.get(record.key_id)
        if keyed is None:
            keyed = self._keyed[record.key_id] = KeyedUniforms(record)
        return RequestSampling(params.temperature, params.top_k, params.top_p, params.min_p, keyed)


def mark_rows(logits: torch.Tensor, marked: Sequence[MarkedRow]) -> None:
    """Leave nothing but its winner in every row, in place, one key at a time.

    Args:
        logits: Shape (rows, vocab).
        marked: The rows whose contexts are fresh.
    """
    groups: dict[KeyedUniforms, list[MarkedRow]] = {}
    for one in marked:
        groups.setdefault(one.sampling.keyed, []).append(one)
    for keyed, group in groups.items():
        flat = as_token_ids([token for one in group for token in one.context])
        found = keyed.at_each(flat.reshape(len(group), -1))
        kept = [one for one, is_keyed in zip(group, found.is_keyed, strict=True) if is_keyed]
        if kept:
            rows = torch.tensor([one.row for one in kept], device=logits.device)
            left = _truncated(logits[rows], [one.sampling for one in kept])
            force(logits, rows, choose(left, found.keyed(), keyed.record.rho))


def _truncated(logits: torch.Tensor, requests: Sequence[RequestSampling]) -> torch.Tensor:
    """Return what the sampling of each row's request leaves of its logits."""

    def column(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)  # on the CPU, where the cuts are planned

    return truncate(
        logits,
        column([one.temperature for one in requests]),
        column([one.top_k for one in requests]),
        column([one.top_p for one in requests]),
        column([one.min_p for one in requests]),
    )


def utc_now() -> datetime:
    """Return the time: a plug-in is where the engine's process and this library meet."""
    return datetime.now(UTC)  # noqa: TID251 - see the docstring


def _options(config: object) -> Options:
    """Return the plug-in's options.

    Raises:
        KeysConfigError: They are missing or malformed.
    """
    given = config.get(OPTIONS_NAME) if isinstance(config, dict) else None
    if given is None:
        raise KeysConfigError(
            f"vLLM was given no options for the mark; start it with --additional-config "
            f'\'{{"{OPTIONS_NAME}": {{"keys": "KEYS.toml"}}}}\''
        )
    try:
        return msgspec.convert(given, Options, strict=True)
    except msgspec.ValidationError as err:
        raise KeysConfigError(f"options {OPTIONS_NAME!a} of vLLM are malformed: {err}") from None


def _only_unit(ring: KeyRing) -> str:
    """Return the one unit of the ring that is a tokenizer.

    Raises:
        KeysConfigError: There is none, or several.
    """
    own = dict.fromkeys(record.unit for record in ring if record.is_copula)
    units = [unit for unit in own if unit.startswith("tokenizer:")]
    if len(units) != 1:
        raise KeysConfigError(
            f"the keys have {len(units)} units that are tokenizers; name the model's in the "
            f'option "unit" of {OPTIONS_NAME!a}'
        )
    return units[0]
