"""`native`: the engine marks. Which keys it marks with, and the switch in a request.

The request goes to the engine as the client wrote it, with the switch set by the proxy: what a
client wrote there is overwritten. vLLM has one key a process, and a request only says yes; SGLang
and transformers are given the key with each request, so that it travels in a body: use TLS, and
mind the engine's logs of requests.

An engine that does not know the switch in a dialect takes the request all the same, and answers
unmarked as if nothing were wrong: `DIALECTS` says where each one reads it.

Source: UPSTREAMS (vLLM 0.33.0 `watermarking`; SGLang 0.5.23 `watermark`; transformers 5.24
`generation_config`), and the request models of those versions.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from watermark.keys import ForeignKey
from watermark.schemes import native_key
from watermark.wire.openai_requests import DialectName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from watermark.keys import KeyRecord

ENGINES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "vllm-gumbel": "vllm",
        "sglang-native": "sglang",
        "sglang-gumbel": "sglang",
        "hf-green-list": "transformers",
    }
)
"""Which engine makes a scheme's mark."""

DIALECTS: Final[Mapping[str, frozenset[DialectName]]] = MappingProxyType(
    {
        "vllm": frozenset(DialectName),
        "sglang": frozenset({DialectName.CHAT, DialectName.TEXT}),
        "transformers": frozenset({DialectName.CHAT, DialectName.TEXT, DialectName.RESPONSES}),
    }
)
"""The dialects in which an engine reads its switch."""

_GREEN_BIAS: Final = 2.0  # transformers' default; a detector does not need to know it


def switch_on(body: Mapping[str, Any], record: KeyRecord) -> dict[str, Any]:
    """Return the fields that have the engine mark a request with a key.

    Args:
        body: As the client wrote it.
        record: A key of a scheme in `ENGINES`.
    """
    engine = ENGINES[record.scheme]
    if engine == "vllm":
        return {"watermarking": True}
    if engine == "sglang":
        return {"watermark": _sglang(record)}
    return {"generation_config": _transformers(body, record)}


def switch_off(engine: str) -> dict[str, Any]:
    """Return the fields that keep an engine from marking: unless told, it marks everything.

    Calls of tools and structured output are not to be altered, and a draft of ours is marked by
    the proxy.

    Args:
        engine: As the config names it.
    """
    if engine == "vllm":
        return {"watermarking": False}
    return {"watermark": {"enabled": False}} if engine == "sglang" else {}


def _sglang(record: KeyRecord) -> dict[str, Any]:
    if isinstance(record.secret, ForeignKey):
        number = record.secret.integers[0]
    else:
        number = native_key(record.secret)
    return {"enabled": True, "key": f"{number:016x}", "context_window": record.context_width}


def _transformers(body: Mapping[str, Any], record: KeyRecord) -> str:
    """Return the generation config, a JSON string, with the mark in it."""
    given = body.get("generation_config")
    try:
        said = msgspec.json.decode(given, type=dict[str, Any]) if isinstance(given, str) else {}
    except msgspec.DecodeError:
        said = {}  # the server would refuse it; the client's own fields still hold
    said["watermarking_config"] = {
        "greenlist_ratio": record.parameter("greenlist_ratio"),
        "bias": _GREEN_BIAS,
        "hashing_key": cast("ForeignKey", record.secret).integers[0],
        "seeding_scheme": record.parameter("seeding_scheme"),
        "context_width": record.context_width,
    }
    return msgspec.json.encode(said).decode()
