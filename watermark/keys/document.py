"""The text of `KEYS.toml` as rows, and where each of them stands.

Rule 1: an unknown field or form version refuses the whole file, because a misspelt field would
silently mean its default. Rule 2: a table that stands in the file as it stood before is not read
again; what is read this way is what reading the whole file gives.

Source: `watermark/spec/key-file.md`, section "KEYS.toml".
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from operator import eq
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from watermark.errors import KeysConfigError, KeysError
from watermark.keys.edit import Edit, differing
from watermark.keys.foreign import FOREIGN_SCHEMES, Scalar
from watermark.keys.places import Source, form_error, syntax_error
from watermark.keys.record import (
    DEFAULT_ACCOUNT_SHARE_Q16,
    DEFAULT_CONTEXT_WIDTH,
    DEFAULT_RHO,
    DEFAULT_SCHEME,
    DEFAULT_SCOPE,
    KeyFields,
)
from watermark.keys.scope import ANY, Scope
from watermark.keys.secret import check_key_id
from watermark.keys.shapes import read_toml
from watermark.keys.states import DECLARED_STATES, KeyState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEYS_SCHEMA: Final = 1

_OPENING: Final = "\n[["
_FEW: Final = 1000  # tables that are read again rather than looked for in another place


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[key]]` as it stands in the file."""

    id: str
    unit: str
    secret: str = ""
    context_width: int | msgspec.UnsetType = msgspec.UNSET
    scheme: str = DEFAULT_SCHEME
    rho: float = DEFAULT_RHO
    parameters: dict[str, Scalar] = {}
    account_share_q16: int = DEFAULT_ACCOUNT_SHARE_Q16
    state: str = KeyState.MARKING.value
    scope: str = DEFAULT_SCOPE
    not_before: datetime | None = None
    not_after: datetime | None = None
    compromised_at: datetime | None = None
    disclosed_at: datetime | None = None
    destroy_at: datetime | None = None


class ScopeRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[scope]]` as it stands in the file."""

    name: str
    models: tuple[str, ...] = (ANY,)
    routes: tuple[str, ...] = (ANY,)
    accounts: tuple[str, ...] = (ANY,)


class AgeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[age]`: what opens encrypted key files, and to whom new ones are encrypted."""

    identity: str
    recipients: tuple[str, ...] = ()


class VaultOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[vault]`: where Vault answers, and the file that holds the token."""

    address: str
    token: str
    namespace: str = ""
    ca: str = ""
    timeout_s: float = 10.0


class LogOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[log]`: where commitments are logged, and by which key."""

    verifier: str
    folder: str = "log"
    signer: str = ""


class TimestampOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[timestamp]`: who stamps the log's checkpoints, and the certificate that vouches for it."""

    roots: str
    url: str = ""
    timeout_s: float = 10.0


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything in the file that is neither a key nor a scope."""

    schema: int
    require_commitment: bool = False
    require_timestamp: bool = False
    age: AgeOptions | None = None
    vault: VaultOptions | None = None
    log: LogOptions | None = None
    timestamp: TimestampOptions | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    schema: int
    require_commitment: bool = False
    require_timestamp: bool = False
    age: AgeOptions | None = None
    vault: VaultOptions | None = None
    log: LogOptions | None = None
    timestamp: TimestampOptions | None = None
    key: tuple[Row, ...] = ()
    scope: tuple[ScopeRow, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One `[[key]]`: its public part, checked, and the reference to its secret."""

    fields: KeyFields
    reference: str


Table: TypeAlias = "KeyEntry | Scope"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file of the right form.

    Attributes:
        source: Its name and text, to say where a mistake stands.
        options: What is neither key nor scope.
        keys: The keys, in order.
        scopes: The scopes, in order.
        name: What tells it from every other document.
        base: The name of the document that was read before, where the edit is known.
        edit: What is gone since then, and what has come.
    """

    source: Source
    options: Options
    keys: tuple[KeyEntry, ...]
    scopes: tuple[Scope, ...]
    name: object = field(default_factory=object)
    base: object = None
    edit: Edit[Table] = ((), ())

    def edit_since(self, before: Document | None) -> tuple[Edit[KeyEntry], Edit[Scope]]:
        """Return what is gone of another document's keys and scopes, and what has come.

        Parts are told apart by identity, which the reader keeps where nothing has changed.
        """
        if before is None:
            return ((), self.keys), ((), self.scopes)
        if self.base is not before.name:
            return differing(before.keys, self.keys), differing(before.scopes, self.scopes)
        gone, come = self.edit
        return (
            (
                [one for one in gone if isinstance(one, KeyEntry)],
                [one for one in come if isinstance(one, KeyEntry)],
            ),
            (
                [one for one in gone if isinstance(one, Scope)],
                [one for one in come if isinstance(one, Scope)],
            ),
        )


class DocumentReader:
    """Reads the file again and again, and every table of it once."""

    def __init__(self) -> None:
        self._chunks: list[str] = []
        self._tables: list[Table] = []
        self._name: object = None

    def read(self, path: Path, text: str) -> Document:
        """Return what a text says.

        Args:
            path: Where it comes from, for messages only.
            text: The whole text.

        Raises:
            KeysConfigError: It is not of the form.
        """
        source = Source(path, text)
        document = self._read_by_table(source, text)
        return _read_whole(source, text) if document is None else document

    def _read_by_table(self, source: Source, text: str) -> Document | None:
        """Return what the text says, table by table; None where that way is not safe.

        Tables that are TOML each by themselves, and hold nothing but themselves, are together
        what the whole text is: where one ends, no string is open.
        """
        head, *chunks = text.split(_OPENING)
        try:
            options = _options(tomllib.loads(head))
            tables, edit = self._tables_of(chunks)
        except (ValueError, RecursionError, KeysError, msgspec.ValidationError):
            return None  # the whole text says where the mistake stands
        document = Document(
            source=source,
            options=options,
            keys=tuple([one for one in tables if type(one) is KeyEntry]),
            scopes=tuple([one for one in tables if type(one) is Scope]),
            base=self._name,
            edit=edit,
        )
        self._chunks, self._tables, self._name = chunks, tables, document.name
        return document

    def _tables_of(self, chunks: list[str]) -> tuple[list[Table], Edit[Table]]:
        """Return what each chunk says, and what has changed since the text before.

        Where few chunks differ from those that stood in their places, these are read; else
        chunks are looked up between the beginning and the end that both texts share.
        """
        old, known = self._chunks, self._tables
        same = list(map(eq, old, chunks))  # by the interpreter: 20,000 a reload
        if same.count(False) <= _FEW >= abs(len(chunks) - len(old)):
            places = list(_places_of(same))
            come = [_read_table(chunks[place]) for place in places]
            tables = known[: len(chunks)]
            for place, table in zip(places, come, strict=True):
                tables[place] = table
            tail = [_read_table(chunk) for chunk in chunks[len(old) :]]
            gone = [known[place] for place in places] + known[len(chunks) :]
            return tables + tail, (gone, come + tail)
        start = same.index(False) if False in same else len(same)
        ends = list(map(eq, reversed(old[start:]), reversed(chunks[start:])))
        shared = ends.index(False) if False in ends else len(ends)
        lookup = dict(zip(old[start:], known[start:], strict=True))
        stop = len(chunks) - shared
        middle = [lookup.get(chunk) or _read_table(chunk) for chunk in chunks[start:stop]]
        before = known[start : len(old) - shared]
        tables = known[:start] + middle + known[len(old) - shared :]
        return tables, differing(before, middle)


def _places_of(same: list[bool]) -> Iterator[int]:
    """Yield the places of what is not the same."""
    place = -1
    for _ in range(same.count(False)):
        place = same.index(False, place + 1)
        yield place


def _options(table: dict[str, Any]) -> Options:
    """Return what stands before the first key or scope."""
    options = msgspec.convert(table, Options, strict=True)
    if type(table.get("schema")) is not int or options.schema != KEYS_SCHEMA:  # True == 1
        raise KeysConfigError("schema")
    return options


def _read_table(chunk: str) -> Table:
    """Return the one key or scope of a text that holds nothing else."""
    table = read_toml(_OPENING + chunk)
    keys, scopes = table.pop("key", ()), table.pop("scope", ())
    if table or len(keys) + len(scopes) != 1:
        raise KeysConfigError("other tables")
    if keys:
        return _entry(msgspec.convert(keys[0], Row, strict=True))
    return _scope(msgspec.convert(scopes[0], ScopeRow, strict=True))


def _read_whole(source: Source, text: str) -> Document:
    """Return what the text says, or say where it is wrong."""
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as err:
        raise syntax_error(source, text, str(err)) from None
    schema = table.get("schema")
    if type(schema) is not int or schema != KEYS_SCHEMA:  # True == 1
        raise source.error(
            f"`schema` is missing or not {KEYS_SCHEMA}; begin the file with "
            f"`schema = {KEYS_SCHEMA}`, or update this software",
            line=source.line_with("schema"),
        )
    try:
        file = msgspec.convert(table, _File, strict=True)
    except msgspec.ValidationError as err:
        raise form_error(source, str(err)) from None
    names = Options.__struct_fields__
    return Document(
        source=source,
        options=Options(**{name: getattr(file, name) for name in names}),
        keys=tuple(_located_entry(row, number, source) for number, row in enumerate(file.key)),
        scopes=tuple(_located_scope(row, number, source) for number, row in enumerate(file.scope)),
    )


def _located_entry(row: Row, number: int, source: Source) -> KeyEntry:
    """Return a row's public part and reference, or say where it is wrong."""
    try:
        return _entry(row)
    except KeysError as err:
        raise source.record_error(number, str(err), row.id) from err


def _located_scope(row: ScopeRow, number: int, source: Source) -> Scope:
    """Return a scope, or say where it is wrong."""
    try:
        return _scope(row)
    except KeysError as err:
        raise source.scope_error(number, str(err), row.name) from err


def _entry(row: Row) -> KeyEntry:
    """Return the row's public part, checked, and its reference."""
    check_key_id(row.id)
    fields = KeyFields(
        key_id=row.id,
        unit=row.unit,
        context_width=_context_width(row),
        scheme=row.scheme,
        rho=row.rho,
        parameters=tuple(sorted(row.parameters.items())),
        account_share_q16=row.account_share_q16,
        state=_state(row.state),
        scope=row.scope,
        not_before=row.not_before,
        not_after=row.not_after,
        compromised_at=row.compromised_at,
        disclosed_at=row.disclosed_at,
        destroy_at=row.destroy_at,
    )
    if not row.secret and fields.state is not KeyState.DESTROYED:
        raise KeysConfigError("missing required field `secret`; see the key file form")
    return KeyEntry(fields, row.secret)


def _context_width(row: Row) -> int:
    """Return the width given, or the scheme's own default."""
    if row.context_width is not msgspec.UNSET:
        return row.context_width
    foreign = FOREIGN_SCHEMES.get(row.scheme)
    return DEFAULT_CONTEXT_WIDTH if foreign is None else foreign.context_width


def _scope(row: ScopeRow) -> Scope:
    """Return the row as a scope, checked."""
    return Scope(name=row.name, models=row.models, routes=row.routes, accounts=row.accounts)


def _state(name: str) -> KeyState:
    """Return the state called `name`."""
    try:
        return KeyState(name)
    except ValueError:
        known = ", ".join(repr(state.value) for state in DECLARED_STATES)
        raise KeysConfigError(f"state {name!a} is unknown; write one of {known}") from None
