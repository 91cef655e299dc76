"""The text of `KEYS.toml` as rows, and where each of them stands.

Rule 1: an unknown field or form version refuses the whole file, because a misspelt field would
silently mean its default. Rule 2: a message names the file and the line, and quotes no value of
the `secret` field. Rule 3: a table that stands in the file as it stood before is not read again;
what is read this way is what reading the whole file gives.

Source: `watermark/spec/key-file.md`, section "KEYS.toml".
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING, Any, Final

import msgspec

from watermark.errors import KeysConfigError, KeysError
from watermark.keys.foreign import FOREIGN_SCHEMES, Scalar
from watermark.keys.record import (
    DECLARED_STATES,
    DEFAULT_ACCOUNT_SHARE_Q16,
    DEFAULT_CONTEXT_WIDTH,
    DEFAULT_RHO,
    DEFAULT_SCHEME,
    DEFAULT_SCOPE,
    KeyFields,
    KeyState,
)
from watermark.keys.scope import ANY, Scope
from watermark.keys.secret import check_key_id

if TYPE_CHECKING:
    from pathlib import Path

KEYS_SCHEMA: Final = 1

_OPENING: Final = "\n[["
_TABLE_LINE: Final = re.compile(r"\s*\[\[\s*[\"']?(key|scope)[\"']?\s*\]\]")
_TABLE_PATH: Final = re.compile(r"\$\.(key|scope)\[(\d+)\]")
_FIELD_PATH: Final = re.compile(r"`([A-Za-z0-9_-]+)`")
_SYNTAX_LINE: Final = re.compile(r" ?\(at line (\d+), column \d+\)")
_SYNTAX_END: Final = " (at end of document)"


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


class ScopeRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[scope]]` as it stands in the file."""

    name: str
    models: tuple[str, ...] = (ANY,)
    routes: tuple[str, ...] = (ANY,)
    accounts: tuple[str, ...] = (ANY,)


class AgeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[age]`: how encrypted key files are opened."""

    identity: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file of the right form.

    Attributes:
        source: Its name and text, to say where a mistake stands.
        options: What is neither key nor scope.
        keys: The keys, in order.
        scopes: The scopes, in order.
    """

    source: Source
    options: Options
    keys: tuple[KeyEntry, ...]
    scopes: tuple[Scope, ...]


class Source:
    """The file's name and text, to say where a mistake stands."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self._text = text

    def line_of(self, number: int, table: str = "key") -> int | None:
        """Return the line of a table's header, as editors count; None where it has none."""
        found = 0
        for line_number, line in enumerate(self._text.split("\n"), start=1):
            match = _TABLE_LINE.match(line)
            if match and match[1] == table:
                if found == number:
                    return line_number
                found += 1
        return None

    def line_with(self, word: str) -> int | None:
        """Return the first line that sets or opens `word`; None where there is none."""
        opens = re.compile(rf"\s*(\[\s*)?[\"']?{re.escape(word)}[\"']?\s*[\].=]")
        for line_number, line in enumerate(self._text.split("\n"), start=1):
            if opens.match(line):
                return line_number
        return None

    def place(self, line: int | None = None) -> str:
        """Return file and line; the first line where none is to blame."""
        return f"{self.path}:{line or 1}"

    def error(self, message: str, *, line: int | None = None) -> KeysConfigError:
        """Return an error about the file as a whole, or about a line."""
        return KeysConfigError(f"{self.place(line)}: {message}")

    def where(self, number: int, key_id: str = "", table: str = "key") -> str:
        """Return file, line, and which record or scope it is."""
        line = self.line_of(number, table)
        where = f"{self.path}" if line is None else f"{self.path}:{line}"
        where += f": {'record' if table == 'key' else 'scope'} {number + 1}"
        return f"{where} ({key_id!a})" if key_id else where

    def record_error(self, number: int, message: str, key_id: str = "") -> KeysConfigError:
        """Return an error about one record."""
        return KeysConfigError(f"{self.where(number, key_id)}: {message}")

    def scope_error(self, number: int, message: str, name: str = "") -> KeysConfigError:
        """Return an error about one scope."""
        return KeysConfigError(f"{self.where(number, name, 'scope')}: {message}")


class DocumentReader:
    """Reads the file again and again, and every table of it once."""

    def __init__(self) -> None:
        self._seen: dict[str, KeyEntry | Scope] = {}

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

        Tables that are TOML each by themselves, in a text without strings of several lines, and
        with nothing but themselves in them, are together what the whole text is.
        """
        if '"""' in text or "'''" in text:
            return None
        head, *chunks = text.split(_OPENING)
        # None for what was not seen before; looked up by the interpreter, 20,000 a reload.
        tables = list(map(self._seen.get, chunks))
        try:
            options = _options(tomllib.loads(head))
            for number, table in enumerate(tables):
                if table is None:
                    tables[number] = _read_table(tomllib.loads(_OPENING + chunks[number]))
        except (ValueError, RecursionError, KeysError, msgspec.ValidationError):
            return None  # the whole text says where the mistake stands
        self._seen = {
            chunk: table for chunk, table in zip(chunks, tables, strict=True) if table is not None
        }
        return Document(
            source=source,
            options=options,
            keys=tuple([table for table in tables if isinstance(table, KeyEntry)]),
            scopes=tuple([table for table in tables if isinstance(table, Scope)]),
        )


def _options(table: dict[str, Any]) -> Options:
    """Return what stands before the first key or scope."""
    options = msgspec.convert(table, Options, strict=True)
    if type(table.get("schema")) is not int or options.schema != KEYS_SCHEMA:  # True == 1
        raise KeysConfigError("schema")
    return options


def _read_table(table: dict[str, Any]) -> KeyEntry | Scope:
    """Return the one key or scope of a text that holds nothing else."""
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
        raise _syntax_error(source, text, str(err)) from None
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
        raise _form_error(source, str(err)) from None
    names = Options.__struct_fields__
    return Document(
        source=source,
        options=Options(**{name: getattr(file, name) for name in names}),
        keys=tuple(_located_entry(row, number, source) for number, row in enumerate(file.key)),
        scopes=tuple(_located_scope(row, number, source) for number, row in enumerate(file.scope)),
    )


def _syntax_error(source: Source, text: str, message: str) -> KeysConfigError:
    """Return where the text stops being TOML."""
    found = _SYNTAX_LINE.search(message)
    line = int(found[1]) if found else None
    if message.endswith(_SYNTAX_END):
        line = text.count("\n") + 1
    message = _SYNTAX_LINE.sub("", message.removesuffix(_SYNTAX_END))
    return source.error(f"not TOML: {lower(message)}; correct the syntax", line=line)


def _form_error(source: Source, message: str) -> KeysConfigError:
    """Return where a field is unknown, missing or of another type."""
    found = _TABLE_PATH.search(message)
    text = f"{lower(message)}; see the key file form"
    if found is None:
        field = _FIELD_PATH.search(message.replace("`$.", "`"))
        return source.error(text, line=source.line_with(field[1]) if field else None)
    if found[1] == "key":
        return source.record_error(int(found[2]), text)
    return source.scope_error(int(found[2]), text)


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


def lower(message: str) -> str:
    """Return another library's message in this project's form."""
    return message[:1].lower() + message[1:]
