"""What is pinned by one key record: everything that a detector must know beside the text."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from watermark.errors import KeysConfigError

if TYPE_CHECKING:
    from watermark.keys.secret import SecretKey

DEFAULT_CONTEXT_WIDTH: Final = 2
DEFAULT_SCHEME: Final = "gumbel-copula"
DEFAULT_RHO: Final = 0.9
DEFAULT_ACCOUNT_SHARE_Q16: Final = 0

MAX_CONTEXT_WIDTH: Final = 4
MAX_ACCOUNT_SHARE_Q16: Final = 65536
SCHEMES: Final = (DEFAULT_SCHEME,)

_UNIT: Final = re.compile(r"words/v1|tokenizer:sha256:[0-9a-f]{64}")


class KeyState(enum.Enum):
    """What a key may be used for; later states join here and in the specification."""

    MARKING = "marking"
    """Marks new text and detects; at most one key of a unit is in this state."""
    DETECT = "detect"
    """Detects text that was marked earlier; never marks again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFields:
    """The public part of a key record.

    Attributes:
        key_id: Name of the epoch key.
        unit: What a token is: `words/v1`, or `tokenizer:sha256:` and a digest in hex.
        context_width: Tokens before the position that seed it, 1..4.
        scheme: Name of the sampling scheme.
        rho: Correlation of the copula, 0 (no mark) to 1 (plain Gumbel-max).
        account_share_q16: Share of the positions, in 65536ths, that carry the account.
        state: What the key may be used for.

    Raises:
        KeysConfigError: A value is outside its range.
    """

    key_id: str
    unit: str
    context_width: int = DEFAULT_CONTEXT_WIDTH
    scheme: str = DEFAULT_SCHEME
    rho: float = DEFAULT_RHO
    account_share_q16: int = DEFAULT_ACCOUNT_SHARE_Q16
    state: KeyState = KeyState.MARKING

    def __post_init__(self) -> None:
        if _UNIT.fullmatch(self.unit) is None:
            raise KeysConfigError(
                f"unit {self.unit!a} is unknown; write 'words/v1', or 'tokenizer:sha256:' and "
                "the lower-case digest of tokenizer.json"
            )
        if not 1 <= self.context_width <= MAX_CONTEXT_WIDTH:
            raise KeysConfigError(
                f"context_width {self.context_width} is out of range; "
                f"choose 1 to {MAX_CONTEXT_WIDTH}"
            )
        if self.scheme not in SCHEMES:
            raise KeysConfigError(f"scheme {self.scheme!a} is unknown; known: {', '.join(SCHEMES)}")
        if not 0.0 <= self.rho <= 1.0:  # refuses NaN too
            raise KeysConfigError(f"rho {self.rho} is out of range; choose 0 to 1")
        if not 0 <= self.account_share_q16 <= MAX_ACCOUNT_SHARE_Q16:
            raise KeysConfigError(
                f"account_share_q16 {self.account_share_q16} is out of range; "
                f"choose 0 to {MAX_ACCOUNT_SHARE_Q16}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord(KeyFields):
    """One key for one unit, with its secret.

    Attributes:
        secret: The epoch's secret; it shows its id only.

    Raises:
        KeysConfigError: A value is outside its range, or the secret is of another id.
    """

    secret: SecretKey = field(repr=False)

    def __post_init__(self) -> None:
        KeyFields.__post_init__(self)
        if self.secret.key_id != self.key_id:
            raise KeysConfigError(
                f"key {self.key_id!a} was given the secret of key {self.secret.key_id!a}; "
                "give it its own"
            )
