"""What is pinned by one key record: everything that a detector must know beside the text.

Rule 1: whether a key marks follows from its dates and the caller's clock, never from a clock of
this package. Rule 2: a state is written down only where dates cannot tell it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from watermark.errors import KeysConfigError
from watermark.keys.foreign import (
    FOREIGN_SCHEMES,
    MAX_FOREIGN_WIDTH,
    STATIC_GREEN_LIST,
    ForeignKey,
    Parameters,
    Scalar,
    check_integers,
    check_parameters,
    parameter_of,
)
from watermark.keys.states import RANKS, RETIRED, KeyState

if TYPE_CHECKING:
    from watermark.keys.secret import SecretKey

DEFAULT_CONTEXT_WIDTH: Final = 2
DEFAULT_SCHEME: Final = "gumbel-copula"
DEFAULT_RHO: Final = 0.9
DEFAULT_ACCOUNT_SHARE_Q16: Final = 0
DEFAULT_SCOPE: Final = "default"

MAX_CONTEXT_WIDTH: Final = 4
MAX_ACCOUNT_SHARE_Q16: Final = 65536
SGLANG_NATIVE: Final = "sglang-native"
"""SGLang's own scheme under a subkey of an epoch of ours, which goes with every request."""
SCHEMES: Final = (DEFAULT_SCHEME, SGLANG_NATIVE, STATIC_GREEN_LIST, *FOREIGN_SCHEMES)
"""This project's own schemes, and those of engines."""
_OF_TOKEN_IDS: Final = frozenset({SGLANG_NATIVE, STATIC_GREEN_LIST})
ENGINE_MARKED: Final = frozenset({"vllm-gumbel", "sglang-gumbel", "hf-green-list"})
"""Engines' schemes that a proxy can switch on, so that a key may stand as marking."""

BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
END: Final = datetime.max.replace(tzinfo=UTC)

TIME_FIELDS: Final = (
    "not_before",
    "not_after",
    "compromised_at",
    "disclosed_at",
    "destroy_at",
)
"""The fields of a record that are times, in the order in which they stand in a file."""

_UNIT: Final = re.compile(r"words/v1|tokenizer:sha256:[0-9a-f]{64}")
_SCOPE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}", re.ASCII)


def check_scope_name(name: str) -> str:
    """Return `name` if it can name a scope.

    Raises:
        KeysConfigError: It is not 1 to 100 of lower-case letters, digits, `.`, `_` and `-`.
    """
    if _SCOPE.fullmatch(name) is None:
        raise KeysConfigError(
            f"scope {name!a} is malformed; use lower-case letters, digits, '.', '_' and '-'"
        )
    return name


def check_utc(name: str, moment: datetime | None) -> None:
    """Refuse a time that is not in UTC.

    Raises:
        KeysConfigError: It has no offset, or another than zero.
    """
    if moment is not None and moment.utcoffset() != timedelta(0):
        raise KeysConfigError(
            f"{name} {moment.isoformat()} is not in UTC; write it as 2026-11-01T00:00:00Z"
        )


def format_time(moment: datetime) -> str:
    """Return a UTC time as it is written in files, without needless fractions."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _utc(moment: datetime) -> datetime:
    """Return a time that can be compared, until the check of its offset says what is wrong."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFields:
    """The public part of a key record.

    Attributes:
        key_id: Name of the epoch key.
        unit: What a token is: `words/v1`, or `tokenizer:sha256:` and a digest in hex.
        context_width: Tokens before the position that seed it, 1..4; an engine's may be wider.
        scheme: Name of the sampling scheme.
        rho: Correlation of the copula, 0 (no mark) to 1 (plain Gumbel-max).
        account_share_q16: Share of the positions, in 65536ths, that carry the account.
        state: What the record says of itself; `marking` means between its dates.
        scope: Which requests it marks.
        not_before: It marks from this instant on; None for always.
        not_after: It marks before this instant; None for ever.
        compromised_at: Since when others may know the secret.
        disclosed_at: Since when its context subkey is public.
        destroy_at: When its secret is to be destroyed; archived until then.
        parameters: What the scheme needs beside its key, by name, in order of names.
        start: The first instant of its window.
        stop: The instant at which its window is over: its end, or what cut it short.
        claims: Whether it holds its window for itself, so that no other may mark in it.

    Raises:
        KeysConfigError: A value is outside its range, or two of them contradict each other.
    """

    key_id: str
    unit: str
    context_width: int = DEFAULT_CONTEXT_WIDTH
    scheme: str = DEFAULT_SCHEME
    rho: float = DEFAULT_RHO
    account_share_q16: int = DEFAULT_ACCOUNT_SHARE_Q16
    state: KeyState = KeyState.MARKING
    scope: str = DEFAULT_SCOPE
    not_before: datetime | None = None
    not_after: datetime | None = None
    compromised_at: datetime | None = None
    disclosed_at: datetime | None = None
    destroy_at: datetime | None = None
    parameters: Parameters = ()
    start: datetime = field(init=False, repr=False, compare=False)
    stop: datetime = field(init=False, repr=False, compare=False)
    claims: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ends = (self.not_after, self.compromised_at, self.disclosed_at)
        stop = min([_utc(end) for end in ends if end is not None], default=END)
        start = BEGINNING if self.not_before is None else _utc(self.not_before)
        is_marker = self.state is KeyState.MARKING or self.state is KeyState.SUSPENDED
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "stop", stop)
        object.__setattr__(self, "claims", is_marker and stop > start)
        if _UNIT.fullmatch(self.unit) is None:
            raise KeysConfigError(
                f"unit {self.unit!a} is unknown; write 'words/v1', or 'tokenizer:sha256:' and "
                "the lower-case digest of tokenizer.json"
            )
        if self.scheme not in SCHEMES:
            raise KeysConfigError(f"scheme {self.scheme!a} is unknown; known: {', '.join(SCHEMES)}")
        widest = MAX_FOREIGN_WIDTH if self.is_foreign else MAX_CONTEXT_WIDTH
        if not 1 <= self.context_width <= widest:
            raise KeysConfigError(
                f"context_width {self.context_width} is out of range; choose 1 to {widest}"
            )
        check_parameters(self.scheme, self.parameters)
        if not 0.0 <= self.rho <= 1.0:  # refuses NaN too
            raise KeysConfigError(f"rho {self.rho} is out of range; choose 0 to 1")
        if not 0 <= self.account_share_q16 <= MAX_ACCOUNT_SHARE_Q16:
            raise KeysConfigError(
                f"account_share_q16 {self.account_share_q16} is out of range; "
                f"choose 0 to {MAX_ACCOUNT_SHARE_Q16}"
            )
        check_scope_name(self.scope)
        self._check_times()
        self._check_engine()

    def _check_engine(self) -> None:
        """Refuse what a key that others mark with cannot be: it carries no account."""
        if self.is_copula:
            return
        if self.account_share_q16:
            raise KeysConfigError(
                f"scheme {self.scheme!a} carries no account, as the upstream marks; leave "
                "account_share_q16 out"
            )
        if self.scheme in _OF_TOKEN_IDS and not self.unit.startswith("tokenizer:"):
            raise KeysConfigError(
                f"scheme {self.scheme!a} marks token ids; give the unit of the model's tokenizer"
            )
        if not self.is_foreign:
            return
        may_mark = self.scheme in ENGINE_MARKED and self.scope != DEFAULT_SCOPE
        if self.is_dated or (self.claims and not may_mark):
            raise KeysConfigError(
                f"scheme {self.scheme!a} is an engine's, whose keys only detect here; set state "
                "'detect', and leave not_before and not_after out (a key that the engine marks "
                "with now may have state 'marking' in a scope of its own)"
            )

    def _check_times(self) -> None:
        """Refuse dates that contradict each other or the state."""
        if self.state is KeyState.PENDING:
            raise KeysConfigError(
                "state 'pending' follows from not_before; leave `state` out and set not_before"
            )
        for name in TIME_FIELDS:
            check_utc(name, getattr(self, name))
        if self.start >= (END if self.not_after is None else _utc(self.not_after)):
            raise KeysConfigError("not_after is not after not_before; set it later, or leave it")
        if self.state is KeyState.COMPROMISED and self.compromised_at is None:
            raise KeysConfigError("state 'compromised' needs compromised_at; say since when")
        if self.state is KeyState.DISCLOSED and self.disclosed_at is None:
            raise KeysConfigError("state 'disclosed' needs disclosed_at; say since when")
        if self.claims and self.destroy_at is not None and self.destroy_at < self.stop:
            raise KeysConfigError(
                "destroy_at is before the key's window ends; give it an earlier not_after, or "
                "destroy it later"
            )

    @property
    def is_retired(self) -> bool:
        """Whether its secret is not read: archived, destroyed, or about to be."""
        return self.state in RETIRED or self.destroy_at is not None

    @property
    def is_foreign(self) -> bool:
        """Whether the secret is an engine's own rather than an epoch's."""
        return self.scheme in FOREIGN_SCHEMES

    @property
    def is_copula(self) -> bool:
        """Whether this project's own sampler marks with the key, rather than an engine's."""
        return self.scheme == DEFAULT_SCHEME

    @property
    def is_evidence(self) -> bool:
        """Whether a detection may be shown to others as evidence.

        A static list is not: it changes the replies and is soon read off them, so that anybody
        can write a text to fit it.
        """
        return self.scheme != STATIC_GREEN_LIST

    def parameter(self, name: str) -> Scalar:
        """Return a parameter of the scheme: the one given, or the scheme's default."""
        return parameter_of(self.scheme, self.parameters, name)

    @property
    def is_dated(self) -> bool:
        """Whether dates bound the window at one side at least."""
        return self.start != BEGINNING or self.stop != END

    @property
    def changes(self) -> tuple[datetime, ...]:
        """The instants at which its state changes by itself, in order."""
        if self.destroy_at is not None:
            return (self.destroy_at,)
        if self.state is not KeyState.MARKING:
            return ()
        return tuple(at for at in (self.start, self.stop) if at not in (BEGINNING, END))

    def state_at(self, now: datetime) -> KeyState:
        """Return what the key may be used for at an instant.

        Args:
            now: The instant, with an offset.
        """
        if self.destroy_at is not None:
            return KeyState.DESTROYED if now >= self.destroy_at else KeyState.ARCHIVED
        if self.state is not KeyState.MARKING:
            return self.state
        if self.compromised_at is not None and now >= self.compromised_at:
            return KeyState.COMPROMISED
        if self.disclosed_at is not None and now >= self.disclosed_at:
            return KeyState.DISCLOSED
        if now < self.start:
            return KeyState.PENDING
        return KeyState.MARKING if now < self.stop else KeyState.DETECT

    def regress_from(self, before: KeyFields, now: datetime) -> str:
        """Return how this record sets back what an earlier one said of the key; empty for not.

        Args:
            before: The same key and unit, as it was known earlier.
            now: The instant at which the two are compared.
        """
        planned = before.destroy_at if before.destroy_at and before.destroy_at > now else None
        if planned is not None:
            if self.state is KeyState.DESTROYED or (self.destroy_at or planned) < planned:
                return (
                    f"key {self.key_id!a} is to be destroyed at {format_time(planned)}, not "
                    "earlier; write that time back, or take destroy_at out to keep the key"
                )
            before = replace(before, destroy_at=None)  # it may be restored until then
        old, new = before.state_at(now), self.state_at(now)
        if RANKS[new] < RANKS[old]:
            return (
                f"key {self.key_id!a} goes back from {old.value!r} to {new.value!r}; "
                "a key never does, so take the edit back, or make another key"
            )
        for name in ("compromised_at", "disclosed_at"):
            known, given = getattr(before, name), getattr(self, name)
            if known is not None and known <= now and (given is None or given > known):
                return (
                    f"key {self.key_id!a} was recorded with {name} {format_time(known)}, and the "
                    "file says later or nothing; write that time back"
                )
        for name in ("context_width", "scheme", "parameters", "account_share_q16", "scope"):
            if getattr(self, name) != getattr(before, name) and RANKS[old]:
                return (
                    f"key {self.key_id!a} has marked with {name} {getattr(before, name)!a}, "
                    f"not {getattr(self, name)!a}; write it back, or make another key"
                )
        return ""

    @property
    def mark_parameters(self) -> tuple[object, ...]:
        """What, with the secret, decides the mark: neither the state nor the dates."""
        return (
            self.key_id,
            self.unit,
            self.context_width,
            self.scheme,
            self.rho,
            self.account_share_q16,
            self.parameters,
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

    @classmethod
    def of(cls, public: KeyFields, secret: SecretKey) -> KeyRecord:
        """Return a record of a public part and its secret.

        Raises:
            KeysConfigError: The secret is of another id, or may not be used so.
        """
        record = object.__new__(cls)
        for name in _PUBLIC:  # checked when it was made, and unchanged since
            object.__setattr__(record, name, getattr(public, name))
        object.__setattr__(record, "secret", secret)
        record._check_secret()
        return record

    @property
    def public(self) -> KeyFields:
        """The public part alone."""
        return KeyFields(**values_of(self))

    def __post_init__(self) -> None:
        KeyFields.__post_init__(self)
        self._check_secret()

    def _check_secret(self) -> None:
        """Refuse a secret that does not belong to the record."""
        if self.secret.key_id != self.key_id:
            raise KeysConfigError(
                f"key {self.key_id!a} was given the secret of key {self.secret.key_id!a}; "
                "give it its own"
            )
        if self.is_foreign != isinstance(self.secret, ForeignKey):
            kind, made = ("an engine's", "import") if self.is_foreign else ("our own", "new")
            raise KeysConfigError(
                f"key {self.key_id!a} has scheme {self.scheme!a}, which needs {kind} key file; "
                f"correct `scheme`, or give a file that `watermark keys {made}` wrote"
            )
        if isinstance(self.secret, ForeignKey):
            check_integers(self.scheme, self.secret)
        if self.secret.is_context_only and self.state is not KeyState.DISCLOSED:
            raise KeysConfigError(
                f"key {self.key_id!a} is a disclosed context subkey, which anyone may hold; "
                "it never marks: set state 'disclosed' and disclosed_at"
            )


_PUBLIC: Final = tuple(one.name for one in fields(KeyFields))
FIELD_NAMES: Final = tuple(one.name for one in fields(KeyFields) if one.init)
"""What a record says, by name: what files, histories and digests hold of it."""


def values_of(record: KeyFields) -> dict[str, Any]:
    """Return everything that a record says of its key, by name, without its secret."""
    return {name: getattr(record, name) for name in FIELD_NAMES}
