"""Recompute a file of seeding vectors, for whoever ports the specification.

The form of the file stands in `watermark/spec/seeding.md`, Vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from watermark.errors import VectorsError, WatermarkError
from watermark.keys import LABEL_CONTEXT, SecretKey
from watermark.seeding.channel import AccountCode, code_indices, is_account_channel
from watermark.seeding.context import as_token_ids
from watermark.seeding.prf import ContextPRF
from watermark.seeding.uniforms import (
    flip_levels,
    levels_to_uniforms,
    pair_levels,
    uniform_levels,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_CHANNELS: Final = ("epoch", "account")


class PositionVector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One position: key, context, token, and everything derived from them."""

    secret: str
    key_id: str
    context: list[int]
    token: int
    account: str
    account_share_q16: int
    stream: str
    route: str
    channel: str
    code_index: int
    code_bit: int | None
    uniform: str


class UniformVector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One mixed 64-bit value and the uniforms that it gives."""

    z: str
    uniform: str
    flipped: str


class WordsVector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One text and its `words/v1` units."""

    text: str
    units: list[str]
    ids: list[int]


class VectorsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All vectors of a file."""

    positions: list[PositionVector]
    uniforms: list[UniformVector]
    words: list[WordsVector]


@dataclass(frozen=True, slots=True)
class VectorsReport:
    """How many vectors agree.

    Attributes:
        total: Number of vectors in the file.
        differing: Name of every vector that does not agree, as `positions[3]`.
    """

    total: int
    differing: tuple[str, ...] = field(default=())

    @property
    def n_agreeing(self) -> int:
        """Number of vectors that agree."""
        return self.total - len(self.differing)


def check_vectors(
    data: bytes, cut_words: Callable[[str], tuple[list[str], list[int]]]
) -> VectorsReport:
    """Recompute every vector of a file.

    Args:
        data: The file.
        cut_words: `words/v1`: text to its units and their ids.

    Raises:
        VectorsError: The file is not of the specified form.
    """
    try:
        vectors = msgspec.json.decode(data, type=VectorsFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise VectorsError(
            f"not a seeding vectors file: {err}; its form is in watermark/spec/seeding.md"
        ) from err
    outcomes = {
        **{f"positions[{i}]": _position_agrees(v) for i, v in enumerate(vectors.positions)},
        **{f"uniforms[{i}]": _uniform_agrees(v) for i, v in enumerate(vectors.uniforms)},
        **{
            f"words[{i}]": cut_words(v.text) == (v.units, v.ids)
            for i, v in enumerate(vectors.words)
        },
    }
    differing = tuple(name for name, agrees in outcomes.items() if not agrees)
    return VectorsReport(total=len(outcomes), differing=differing)


def _position_agrees(vector: PositionVector) -> bool:
    try:
        return _position(vector) == (
            vector.stream,
            vector.route,
            vector.channel,
            vector.code_index,
            vector.code_bit,
            vector.uniform,
        )
    except (WatermarkError, ValueError, IndexError, OverflowError):
        # A value outside its range cannot agree.
        return False


def _position(vector: PositionVector) -> tuple[str, str, str, int, int | None, str]:
    """Return stream, route, channel, code index, code bit and uniform, as the file spells them."""
    secret = SecretKey(vector.key_id, bytes.fromhex(vector.secret))
    prf = ContextPRF(secret.subkey(LABEL_CONTEXT, 16))
    streams, routes = prf.evaluate(as_token_ids(vector.context).reshape(1, -1))
    levels = uniform_levels(streams, as_token_ids([vector.token]))
    in_account = bool(is_account_channel(routes, vector.account_share_q16)[0])
    index = code_indices(routes)
    code_bit = None
    if in_account:
        code_bit = int(AccountCode(secret, vector.account).bits(index)[0])
    if code_bit:
        levels = flip_levels(levels)
    return (
        f"{int(streams[0]):016x}",
        f"{int(routes[0]):016x}",
        _CHANNELS[in_account],
        int(index[0]),
        code_bit,
        float(levels_to_uniforms(levels)[0]).hex(),
    )


def _uniform_agrees(vector: UniformVector) -> bool:
    try:
        levels = pair_levels(np.array([int(vector.z, 16)], np.uint64))
    except (ValueError, OverflowError):
        return False
    found = (
        float(levels_to_uniforms(levels)[0]).hex(),
        float(levels_to_uniforms(flip_levels(levels))[0]).hex(),
    )
    return found == (vector.uniform, vector.flipped)
