"""Every scheme that can be read, by the name that a key record gives."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from watermark.schemes.copula_reader import CopulaReader
from watermark.schemes.hf_green_list import GreenListReader
from watermark.schemes.hf_synthid import SynthidReader
from watermark.schemes.sglang_gumbel import SglangReader
from watermark.schemes.static_green_list import StaticListReader
from watermark.schemes.vllm_gumbel import VllmReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from watermark.keys import KeyRecord
    from watermark.schemes.reader import Reader

READERS: Final[Mapping[str, Callable[[KeyRecord], Reader]]] = MappingProxyType(
    {
        "gumbel-copula": CopulaReader.of,
        "hf-green-list": GreenListReader.of,
        "hf-synthid": SynthidReader.of,
        "vllm-gumbel": VllmReader.of,
        "sglang-gumbel": SglangReader.of,
        "sglang-native": SglangReader.of_epoch,
        "static-green-list": StaticListReader.of,
    }
)


def reader_of(record: KeyRecord) -> Reader:
    """Return the reader of a key record, its subkeys derived.

    Raises:
        KeysError: The record's secret cannot give what its scheme needs.
    """
    return READERS[record.scheme](record)
