"""Who is who: by key, by virtual key, by a gateway's header, and nobody by anybody's word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxy.accounts.book import AccountBook, credential_of, load_book
from proxy.errors import AccessError
from tests.support.accounts import DIGESTS, GATEWAY, account, book, digest
from watermark.errors import AccountsFileError

if TYPE_CHECKING:
    from pathlib import Path

    from proxy.accounts.book import Caller

PEER = "127.0.0.1"


def bearer(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + key.encode())]


def never(_name: str) -> bool:
    return False


def reason(accounts: AccountBook, caller: Caller) -> str:
    with pytest.raises(AccessError) as caught:
        accounts.check(caller, never)
    assert caught.value.status == 403
    return caught.value.reason


@pytest.mark.parametrize("header", [b"x-api-key", b"api-key"])
def test_a_key_makes_its_account_known(header: bytes) -> None:
    accounts = book(account("acme", "sk-1", "sk-2"))
    for headers in (bearer("sk-1"), [(header, b"sk-2")], [(b"authorization", b"bearer  sk-1 ")]):
        caller = accounts.identify(headers, PEER)
        assert (caller.name, caller.state, caller.code) == ("acme", "active", "acme")
        accounts.check(caller, never)


def test_an_unknown_key_is_a_pseudonym_that_a_record_can_take() -> None:
    accounts = book("")
    caller = accounts.identify(bearer("sk-9"), PEER)
    assert caller.name == "caller-" + digest("sk-9")[4:]
    assert (caller.state, caller.code) == ("unknown", caller.name)
    accounts.check(caller, never)
    banned = book(account(caller.name, state="banned"))
    assert reason(banned, banned.identify(bearer("sk-9"), PEER)) == "banned"


def test_without_a_key_there_is_no_name_and_no_code() -> None:
    caller = book("").identify([], PEER)
    assert (caller.name, caller.code, caller.digest) == ("", None, "")


def test_a_virtual_key_takes_the_upstreams_in_its_place() -> None:
    text = f"""[[account]]
name = "acme"
virtual_keys = ["{digest("vk-1")}"]
upstream_key = "file:up"
"""
    accounts = book(text, gateway=GATEWAY, up=b"sk-upstream")
    headers = [*bearer("vk-1"), (b"x-api-key", b"vk-1"), (b"accept", b"*/*")]
    caller = accounts.identify(headers, "10.0.0.1")
    assert caller.name == "acme"
    assert caller.upstream_headers(headers) == [
        (b"authorization", b"Bearer sk-upstream"),
        (b"x-api-key", b"sk-upstream"),
        (b"accept", b"*/*"),
    ]
    assert "sk-upstream" not in repr(caller) + repr(accounts)


@pytest.mark.parametrize(
    ("peer", "name"), [("127.0.0.1", "acme"), ("10.0.0.1", ""), ("", ""), ("unix:", "")]
)
def test_only_a_gateway_may_name_an_account(peer: str, name: str) -> None:
    accounts = book(account("acme"), gateway=GATEWAY)
    headers = [(b"x-account", b"acme")]
    caller = accounts.identify(headers, peer)
    assert caller.name == name
    assert caller.upstream_headers(headers) == []  # it goes no further, whoever set it


def test_without_a_gateway_the_header_is_nobodys_business() -> None:
    headers = [(b"x-account", b"acme")]
    caller = book(account("acme")).identify(headers, PEER)
    assert (caller.name, caller.upstream_headers(headers)) == ("", headers)


@pytest.mark.parametrize("state", ["suspended", "banned"])
def test_a_state_refuses_with_the_terms(state: str) -> None:
    accounts = book('terms = "https://example.com/t"\n' + account("acme", "sk-1", state=state))
    caller = accounts.identify(bearer("sk-1"), PEER)
    with pytest.raises(AccessError, match=f"is {state}; the terms of use: https://example.com/t"):
        accounts.check(caller, lambda _name: True)


def test_unknown_callers_are_refused_by_policy() -> None:
    accounts = book('[unknown]\npolicy = "refuse"\n' + account("acme", "sk-1"))
    accounts.check(accounts.identify(bearer("sk-1"), PEER), never)
    assert reason(accounts, accounts.identify(bearer("sk-2"), PEER)) == "unknown"
    assert reason(accounts, accounts.identify([], PEER)) == "unknown"


def test_a_closed_door_lets_in_who_was_in_before() -> None:
    accounts = book("closed = true\n" + account("acme", "sk-1"))
    accounts.check(accounts.identify(bearer("sk-1"), PEER), never)
    stranger = accounts.identify(bearer("sk-2"), PEER)
    accounts.check(stranger, lambda name: name == stranger.name)
    assert reason(accounts, stranger) == "closed"
    assert reason(accounts, accounts.identify([], PEER)) == "closed"


def test_what_is_referred_to_is_read_with_the_book(tmp_path: Path) -> None:
    path = tmp_path / "accounts.toml"
    path.write_text(
        f'schema = 1\n[[account]]\nname = "acme"\nvirtual_keys = ["{digest("vk")}"]\n'
        'upstream_key = "file:up.key"\n'
    )
    with pytest.raises(AccountsFileError, match=r"account 'acme'.*no such file"):
        load_book(path, DIGESTS, GATEWAY)
    (tmp_path / "up.key").write_text("sk-up\n")
    (tmp_path / "up.key").chmod(0o600)
    caller = load_book(path, DIGESTS, GATEWAY).identify(bearer("vk"), "10.0.0.1")
    assert caller.upstream_key == b"sk-up"


def test_digests_hang_on_their_key() -> None:
    assert digest("sk-1") != digest("sk-2")
    assert repr(DIGESTS) == "<KeyDigests>"
    assert credential_of([(b"accept", b"*/*"), (b"authorization", b"Basic eA==")]) is None
