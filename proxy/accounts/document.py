"""The form of `accounts.toml`, read strictly: taken whole or refused with file and line.

Source: `watermark/spec/accounts.md`.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

import msgspec

from watermark.errors import AccountsFileError, SchemeParameterError
from watermark.seeding import check_account

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

State: TypeAlias = Literal["active", "watched", "suspended", "banned"]
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
_Digest: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^key:[0-9a-f]{32}$")]
_Reference: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^file:.")]
_TermsUrl: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s<>\"]+$")]

_TABLE: Final = re.compile(r"^\s*\[\[\s*account\s*\]\]")
_AT_ACCOUNT: Final = re.compile(r"\$\.account\[(\d+)\]")
_AT_LINE: Final = re.compile(r"at line (\d+)")
_FILE: Final = "file:"
_MOST_BYTES: Final = 1 << 28
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for a caller; the defaults restrict nothing.

    Attributes:
        marking: Whether replies are marked.
        reasoning: Whether the account gets reasoning traces, asked for or not.
        code: Whether marked replies carry the account's code.
        min_temperature: What a lower temperature is raised to.
        logprobs: Whether log-probabilities may be asked for.
        max_n: Most choices a request.
        models: The models that may be asked for; None for all.
        requests_per_minute: Quota.
        requests_per_day: Quota, by UTC days.
        tokens_per_minute: Quota of completion tokens.
        tokens_per_day: Quota of completion tokens, by UTC days.
        on_ledger_unavailable: What happens while the ledger cannot be written; None for what
            `ledger.on_unavailable` says.
    """

    marking: bool = True
    reasoning: bool = True
    code: bool = True
    min_temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.0
    logprobs: bool = True
    max_n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    models: list[str] | None = None
    requests_per_minute: _Count | None = None
    requests_per_day: _Count | None = None
    tokens_per_minute: _Count | None = None
    tokens_per_day: _Count | None = None
    on_ledger_unavailable: Literal["block", "pass-unmarked"] | None = None

    @property
    def restricts_requests(self) -> bool:
        """Whether a request has to be read to know that it is allowed."""
        is_open = self.reasoning and self.logprobs and not self.min_temperature
        return not is_open or self.max_n is not None or self.models is not None

    @property
    def has_quota(self) -> bool:
        """Whether anything has to be counted."""
        limits = (
            self.requests_per_minute,
            self.requests_per_day,
            self.tokens_per_minute,
            self.tokens_per_day,
        )
        return any(limit is not None for limit in limits)


class AccountEntry(Rules, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[account]]`.

    Attributes:
        name: Name or pseudonym; goes into the account's code.
        state: `suspended` and `banned` are refused; `watched` is served as `active` is.
        keys: Digests of the upstream keys by which the account is known.
        virtual_keys: Digests of keys of the proxy's own; the upstream gets `upstream_key`.
        upstream_key: `file:PATH` of what is sent upstream for a virtual key.
        audit_prompts: Whether its first prompts may be sent to a suspect by `watermark audit`.
    """

    name: str
    state: State = "active"
    keys: list[_Digest] = []
    virtual_keys: list[_Digest] = []
    upstream_key: _Reference | None = None
    audit_prompts: bool = False


class UnknownCallers(Rules, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[unknown]`: callers that no account has.

    Attributes:
        policy: `serve` serves them under a pseudonym made of their key's digest, `refuse` not.
    """

    policy: Literal["serve", "refuse"] = "serve"


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file.

    Attributes:
        schema: 1.
        closed: The switch that closes the door to callers who have not been served before.
        terms: Where the terms of use are; refusals link to it.
        unknown: What holds for callers that no account has.
        accounts: The accounts, `[[account]]` in the file.
    """

    schema: Literal[1]
    closed: bool = False
    terms: _TermsUrl | None = None
    unknown: UnknownCallers = UnknownCallers()
    accounts: list[AccountEntry] = msgspec.field(default_factory=list, name="account")


def read_text(path: Path) -> str:
    """Return the text of an accounts file.

    Raises:
        AccountsFileError: It cannot be read, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as err:
        reason = (err.strerror or str(err)).lower()
        raise AccountsFileError(f"{path}:1: {reason}; correct accounts.file") from err
    if len(data) > _MOST_BYTES:
        raise AccountsFileError(f"{path}:1: larger than {_MOST_BYTES} bytes; split the service")
    try:
        return data.decode()
    except UnicodeDecodeError as err:
        line = data[: err.start].count(b"\n") + 1
        raise AccountsFileError(f"{path}:{line}: not UTF-8; convert the file") from None


def parse_accounts(text: str, *, path: Path) -> Document:
    """Read the text of an accounts file.

    Args:
        text: The text.
        path: What messages call the file.

    Raises:
        AccountsFileError: It is malformed, or contradicts itself.
    """
    try:
        document = msgspec.toml.decode(text, type=Document)
    except (msgspec.DecodeError, RecursionError) as err:
        line = _line_of_error(text, str(err))
        raise AccountsFileError(f"{path}:{line}: {err}; see watermark/spec/accounts.md") from err
    for number, message in _contradictions(document):
        raise AccountsFileError(f"{path}:{line_of_account(text, number)}: {message}")
    return document


def line_of_account(text: str, number: int) -> int:
    """Return the line on which the table of an account begins; 1 where it is written otherwise.

    Args:
        text: The file's text.
        number: The account's place among all, from 0.
    """
    lines = [place for place, line in enumerate(text.split("\n"), 1) if _TABLE.match(line)]
    return lines[number] if number < len(lines) else 1


def _line_of_error(text: str, message: str) -> int:
    if found := _AT_ACCOUNT.search(message):
        return line_of_account(text, int(found[1]))
    if found := _AT_LINE.search(message):
        return int(found[1])
    name = re.search(r"`\$\.(\w+)", message) or re.search(r"field `(\w+)`", message)
    if name is not None:
        pattern = re.compile(rf"^\s*\[*\s*{name[1]}\b")
        for number, line in enumerate(text.split("\n"), 1):
            if pattern.match(line):
                return number
    return 1


def _contradictions(document: Document) -> Iterator[tuple[int, str]]:
    """Yield the account at which something is wrong, and what."""
    names: set[str] = set()
    owners: dict[str, str] = {}
    for number, entry in enumerate(document.accounts):
        try:
            check_account(entry.name)
        except SchemeParameterError as err:
            yield number, str(err)
        if entry.name in names:
            yield number, f"account {entry.name!a} stands twice; keep one of them"
        names.add(entry.name)
        for digest in (*entry.keys, *entry.virtual_keys):
            if digest in owners:
                yield number, f"{digest} belongs to {owners[digest]!a} too; give it to one account"
            owners[digest] = entry.name
        if bool(entry.virtual_keys) != (entry.upstream_key is not None):
            yield (
                number,
                "virtual_keys and upstream_key need each other; add the one that is missing",
            )


def secret_path(reference: str, folder: Path) -> Path:
    """Return the file that a reference names."""
    return folder / reference.removeprefix(_FILE)


def read_secret(path: Path) -> bytes:
    """Return the one line of a file that nobody else can read.

    Raises:
        AccountsFileError: The file is missing, empty, has more lines, or is open to others.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(1 << 16).strip()
    except OSError as err:
        reason = (err.strerror or str(err)).lower()
        raise AccountsFileError(f"{path}: {reason}; write the secret there") from err
    if mode & _OTHERS:
        raise AccountsFileError(f"{path} can be read by others (mode {mode:o}); `chmod 600` it")
    if not data or len(data.split()) != 1:
        raise AccountsFileError(f"{path} is not one line that holds a secret; write it anew")
    return data
