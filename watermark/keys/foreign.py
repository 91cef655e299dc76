"""Keys of the engines' own schemes: which schemes there are, and the integers that they take.

Rule 1: a foreign key detects here, and its engine marks with it. Nothing of this project marks
with it, derives from it, or commits to it. Rule 2: a record pins every parameter that the engine's
detector must know, by the engine's own names; an unknown or malformed one refuses the file.

Source: `watermark/spec/foreign-schemes.md`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from watermark.errors import KeysConfigError, KeysError
from watermark.keys.secret import SecretKey, check_key_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_FOREIGN_INTEGERS: Final = 32  # so many that a key file stays below its 1,024 bytes
MAX_FOREIGN_WIDTH: Final = 64
_LAST_INTEGER: Final = 2**64 - 1

Scalar = str | int | float | bool
Parameters = tuple[tuple[str, Scalar], ...]


class ForeignKey(SecretKey):
    """The secret integers of an engine's scheme; shows the id only.

    Args:
        key_id: Name of the key.
        integers: 1 to 32 integers, each in 0..2^64 - 1.

    Raises:
        KeysError: The id is malformed, there are too few or too many, or one is out of range.
    """

    __slots__ = ()

    def __init__(self, key_id: str, integers: Sequence[int]) -> None:
        if not 1 <= len(integers) <= MAX_FOREIGN_INTEGERS:
            raise KeysError(
                f"foreign key {key_id!a} has {len(integers)} integers; "
                f"give 1 to {MAX_FOREIGN_INTEGERS}"
            )
        if not all(0 <= value <= _LAST_INTEGER for value in integers):
            raise KeysError(
                f"an integer of foreign key {key_id!a} is out of range; give 0 to 2^64 - 1"
            )
        packed = b"".join(value.to_bytes(8, "little") for value in integers)
        name = hashlib.sha256(b"output-watermark/v1/foreign-fingerprint" + packed).hexdigest()
        object.__setattr__(self, "_key_id", key_id)
        object.__setattr__(self, "_id_bytes", check_key_id(key_id))
        object.__setattr__(self, "_secret", packed)
        object.__setattr__(self, "_fingerprint", name[:32])

    @property
    def is_epoch_secret(self) -> bool:
        """Whether this is a secret of this project's own; it is an engine's."""
        return False

    @property
    def integers(self) -> tuple[int, ...]:
        """The secret integers, in the engine's order; for its reader and its key file only."""
        packed = self._secret
        return tuple(
            int.from_bytes(packed[start : start + 8], "little")
            for start in range(0, len(packed), 8)
        )

    def subkey(self, label: str, length: int) -> bytes:
        """Refuse: nothing is derived from an engine's key.

        Raises:
            KeysError: Always.
        """
        raise KeysError(
            f"key {self.key_id!a} is an engine's and cannot derive {label!a} ({length} bytes); "
            "give a key file that `watermark keys new` made, or correct `scheme`"
        )

    def reveal(self) -> bytes:
        """Refuse: there is no epoch secret here.

        Raises:
            KeysError: Always.
        """
        raise KeysError(f"key {self.key_id!a} is an engine's; it holds no epoch secret")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One public parameter of a scheme.

    Attributes:
        kind: Its type.
        default: The engine's default; None where it must be given.
        low: Its least value.
        high: Its greatest value.
        choices: What it may be, where only some values do.
    """

    kind: type[Scalar]
    default: Scalar | None = None
    low: float = 0
    high: float = 1
    choices: tuple[Scalar, ...] = ()

    def complaint(self, value: Scalar) -> str:
        """Return what is wrong with a value; empty where nothing is."""
        is_number = type(value) is self.kind or (self.kind is float and type(value) is int)
        if not is_number:
            return f"is not of type {self.kind.__name__}"
        if self.choices:
            return (
                ""
                if value in self.choices
                else f"is not one of {', '.join(map(str, self.choices))}"
            )
        return "" if self.low <= float(value) <= self.high else f"is not {self.low} to {self.high}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignScheme:
    """What a key record of an engine's scheme must say.

    Attributes:
        context_width: The engine's default.
        integers: The least and the greatest number of secret integers.
        parameters: By the engine's own names.
    """

    context_width: int
    integers: tuple[int, int] = (1, 1)
    parameters: Mapping[str, Parameter] = field(default_factory=lambda: MappingProxyType({}))


FOREIGN_SCHEMES: Final[Mapping[str, ForeignScheme]] = MappingProxyType(
    {
        "vllm-gumbel": ForeignScheme(
            context_width=4,
            parameters=MappingProxyType(
                {
                    "algorithm": Parameter(
                        kind=str, default="gumbel", choices=("gumbel", "dual_key_gumbel")
                    ),
                    "alpha": Parameter(kind=float, default=0.1),
                }
            ),
        ),
        "sglang-gumbel": ForeignScheme(
            context_width=4,
            integers=(1, 2),
            parameters=MappingProxyType(
                {"mixing_probability": Parameter(kind=float, default=0.5, low=1e-9, high=1 - 1e-9)}
            ),
        ),
        "hf-green-list": ForeignScheme(
            context_width=1,
            parameters=MappingProxyType(
                {
                    "vocab_size": Parameter(kind=int, low=2, high=2**24),
                    "greenlist_ratio": Parameter(kind=float, default=0.25, low=1e-6, high=1 - 1e-6),
                    "seeding_scheme": Parameter(
                        kind=str, default="lefthash", choices=("lefthash", "selfhash")
                    ),
                }
            ),
        ),
        "hf-synthid": ForeignScheme(
            context_width=4,
            integers=(1, MAX_FOREIGN_INTEGERS),
            parameters=MappingProxyType(
                {
                    "sampling_table_size": Parameter(
                        kind=int, default=2**16, choices=tuple(2**k for k in range(1, 21))
                    ),
                    "sampling_table_seed": Parameter(kind=int, default=0, high=2**63 - 1),
                }
            ),
        ),
    }
)


STATIC_GREEN_LIST: Final = "static-green-list"
"""A list of tokens that an upstream is asked to prefer; an epoch's, by a subkey of its own."""
_OWN_PARAMETERS: Final[Mapping[str, Mapping[str, Parameter]]] = MappingProxyType(
    {
        STATIC_GREEN_LIST: MappingProxyType(
            {
                "first_id": Parameter(kind=int, default=256, high=2**24),
                "list_size": Parameter(kind=int, default=512, low=64, high=2**16),
            }
        )
    }
)


def _known_parameters(scheme: str) -> Mapping[str, Parameter]:
    foreign = FOREIGN_SCHEMES.get(scheme)
    return _OWN_PARAMETERS.get(scheme, {}) if foreign is None else foreign.parameters


def check_parameters(scheme: str, parameters: Parameters) -> None:
    """Refuse parameters that a scheme does not have, or lacks.

    Raises:
        KeysConfigError: One is unknown, missing, or malformed.
    """
    known = _known_parameters(scheme)
    for name, value in parameters:
        if name not in known:
            names = ", ".join(known) or "none"
            raise KeysConfigError(f"scheme {scheme!a} has no parameter {name!a}; it has {names}")
        complaint = known[name].complaint(value)
        if complaint:
            raise KeysConfigError(f"parameter {name} = {value!a} {complaint}; correct it")
    given = dict(parameters)
    for name, parameter in known.items():
        if parameter.default is None and name not in given:
            raise KeysConfigError(
                f"scheme {scheme!a} needs the parameter {name}; write parameters = "
                f"{{ {name} = ... }}"
            )


def check_integers(scheme: str, key: ForeignKey) -> None:
    """Refuse a key of more or fewer integers than a scheme takes.

    Raises:
        KeysConfigError: It is one.
    """
    least, most = FOREIGN_SCHEMES[scheme].integers
    if not least <= len(key.integers) <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        raise KeysConfigError(
            f"key {key.key_id!a} holds {len(key.integers)} integers, scheme {scheme!a} takes "
            f"{wanted}; correct `scheme`, or import the key again"
        )


def parameter_of(scheme: str, parameters: Parameters, name: str) -> Scalar:
    """Return a parameter as it was given, or the scheme's default."""
    given = dict(parameters).get(name, _known_parameters(scheme)[name].default)
    if given is None:  # pragma: no cover - check_parameters has refused it
        raise KeysConfigError(f"scheme {scheme!a} needs the parameter {name}")
    return given
