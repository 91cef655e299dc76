"""The accounts in force: who a caller is, and whether he is served.

Rule 1: a book never changes; another replaces it whole. Rule 2: a key is known by its keyed
digest alone; neither a book nor what it prints holds a caller's key. Rule 3: a header names the
account only where it comes from a gateway that the configuration trusts.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final

from proxy.accounts.document import parse_accounts, read_secret, read_text, secret_path
from proxy.errors import AccessError
from watermark.errors import AccountsFileError, SchemeParameterError
from watermark.seeding import check_account

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from proxy.accounts.document import AccountEntry, Document, Rules

    Pairs = list[tuple[bytes, bytes]]

Network = IPv4Network | IPv6Network
CALLER_SCOPE: Final = "watermark.caller"  # where the door leaves the caller for the routes
PSEUDONYM: Final = "caller-"
_KEY: Final = "key:"
_DIGEST_DIGITS: Final = 32
_BEARER: Final = b"bearer "
_KEY_HEADERS: Final = (b"x-api-key", b"api-key")
_REFUSED: Final = frozenset({"suspended", "banned"})


class KeyDigests:
    """Turns callers' keys into digests that mean nothing without the digest key."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        """Keep the digest key."""
        self._key = key

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return "<KeyDigests>"

    def of(self, credential: bytes) -> str:
        """Return the digest of a caller's key, as `accounts.toml` writes it."""
        digest = hmac.digest(self._key, credential, hashlib.sha256).hex()
        return f"{_KEY}{digest[:_DIGEST_DIGITS]}"


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where a header may name the account.

    Attributes:
        header: The header, in lower case; empty for none.
        networks: The peers that may set it.
    """

    header: bytes = b""
    networks: tuple[Network, ...] = ()

    def trusts(self, peer: str) -> bool:
        """Return whether a peer may name the account."""
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self.networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks.

    Attributes:
        name: The account, or a pseudonym; empty for a caller without any key.
        rules: What holds for him.
        state: The account's state; `unknown` where no account has him.
        digest: The digest of his key; empty without one.
        upstream_key: What goes upstream in place of his key; None for the key itself.
        gateway_header: A header that ends here.
    """

    name: str
    rules: Rules = field(repr=False)
    state: str
    digest: str = field(repr=False)
    upstream_key: bytes | None = field(default=None, repr=False)
    gateway_header: bytes = field(default=b"", repr=False)

    @property
    def code(self) -> str | None:
        """The account whose code goes into marked replies, None for no code."""
        return self.name if self.name and self.rules.code else None

    def upstream_headers(self, headers: Pairs) -> Pairs:
        """Return the headers that the upstream is to see of this caller."""
        kept = [(name, value) for name, value in headers if name != self.gateway_header]
        if self.upstream_key is None:
            return kept
        return [(name, _replaced(name, value, self.upstream_key)) for name, value in kept]


def _replaced(name: bytes, value: bytes, key: bytes) -> bytes:
    if name == b"authorization":
        return b"Bearer " + key
    return key if name in _KEY_HEADERS else value


def credential_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the key that a request carries, None where it carries none."""
    for name, value in headers:
        if name == b"authorization" and value[: len(_BEARER)].lower() == _BEARER:
            return value[len(_BEARER) :].strip()
        if name in _KEY_HEADERS:
            return value.strip()
    return None


class AccountBook:
    """All accounts of one file."""

    def __init__(
        self,
        document: Document,
        digests: KeyDigests,
        *,
        gateway: Gateway | None = None,
        secrets: Mapping[str, bytes] | None = None,
    ) -> None:
        """Index the accounts.

        Args:
            document: The file's content.
            digests: Makes the digests by which keys are known.
            gateway: Where a header may name the account.
            secrets: What each reference in `upstream_key` holds.
        """
        self.document = document
        self._digests = digests
        self._gateway = gateway or Gateway()
        self._secrets = dict(secrets or {})
        self._by_name = {entry.name: entry for entry in document.accounts}
        self._by_key = {key: entry for entry in document.accounts for key in entry.keys}
        self._by_virtual = {key: entry for entry in document.accounts for key in entry.virtual_keys}

    def __repr__(self) -> str:
        """Show how many there are."""
        return f"<AccountBook of {len(self._by_name)}>"

    def identify(self, headers: Sequence[tuple[bytes, bytes]], peer: str) -> Caller:
        """Return who sends a request.

        Args:
            headers: The request's, names in lower case.
            peer: The address that it comes from.
        """
        credential = credential_of(headers)
        digest = "" if credential is None else self._digests.of(credential)
        named = self._named_by_gateway(headers, peer)
        if named is not None:
            return self._caller(named, self._by_name.get(named), digest)
        if digest in self._by_virtual:
            entry = self._by_virtual[digest]
            upstream_key = self._secrets[entry.upstream_key or ""]
            return self._caller(entry.name, entry, digest, upstream_key=upstream_key)
        if digest in self._by_key:
            entry = self._by_key[digest]
            return self._caller(entry.name, entry, digest)
        name = PSEUDONYM + digest.removeprefix(_KEY) if digest else ""
        return self._caller(name, self._by_name.get(name), digest)

    def _named_by_gateway(self, headers: Iterable[tuple[bytes, bytes]], peer: str) -> str | None:
        """Return the account that a gateway names; whoever else names one is not heard."""
        if not self._gateway.header or not self._gateway.trusts(peer):
            return None
        for name, value in headers:
            if name == self._gateway.header:
                account = value.decode("utf-8", "replace").strip()
                try:
                    check_account(account)
                except SchemeParameterError:
                    return None
                return account
        return None

    def _caller(
        self,
        name: str,
        entry: AccountEntry | None,
        digest: str,
        *,
        upstream_key: bytes | None = None,
    ) -> Caller:
        return Caller(
            name=name,
            rules=self.document.unknown if entry is None else entry,
            state="unknown" if entry is None else entry.state,
            digest=digest,
            upstream_key=upstream_key,
            gateway_header=self._gateway.header,
        )

    def check(self, caller: Caller, was_served: Callable[[str], bool]) -> None:
        """Refuse a caller who is not to be served.

        Args:
            caller: Who asks.
            was_served: Whether a caller of a name has been served before.

        Raises:
            AccessError: He is not served; the message is for him.
        """
        if caller.state in _REFUSED:
            raise self._refusal(f"this account is {caller.state}", caller.state)
        if caller.state != "unknown":
            return
        if self.document.unknown.policy == "refuse":
            raise self._refusal("this key belongs to no account of this service", "unknown")
        if self.document.closed and not (caller.name and was_served(caller.name)):
            raise self._refusal("this service takes no new callers now", "closed")

    def _refusal(self, message: str, reason: str) -> AccessError:
        terms = self.document.terms
        remedy = f"; the terms of use: {terms}" if terms else "; write to whoever runs the service"
        return AccessError(message + remedy, reason=reason, terms=terms)


class AccountHolder:
    """Holds the book in force; one assignment replaces it.

    Attributes:
        current: The book in force.
        error: Why the last reload was refused; empty where it was not.
        on_change: Called after a book was replaced, in the thread that did it.
    """

    def __init__(self, book: AccountBook) -> None:
        """Begin with a book."""
        self.current = book
        self.error = ""
        self.on_change: Callable[[], None] = lambda: None

    def replace(self, book: AccountBook) -> None:
        """Put a book in force; whoever it refuses is cut off by who listens."""
        self.current = book
        self.error = ""
        self.on_change()

    def refuse(self, error: str) -> None:
        """Stay with the book in force and remember why."""
        self.error = error


def load_book(path: Path, digests: KeyDigests, gateway: Gateway) -> AccountBook:
    """Return the accounts of a file, and what its references hold.

    Raises:
        AccountsFileError: The file or a file that it names cannot be used.
    """
    document = parse_accounts(read_text(path), path=path)
    secrets: dict[str, bytes] = {}
    for entry in document.accounts:
        if entry.upstream_key is not None and entry.upstream_key not in secrets:
            try:
                secrets[entry.upstream_key] = read_secret(
                    secret_path(entry.upstream_key, path.parent)
                )
            except AccountsFileError as err:
                raise AccountsFileError(f"{path}: account {entry.name!a}: {err}") from err
    return AccountBook(document, digests, gateway=gateway, secrets=secrets)
