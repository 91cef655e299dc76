"""Edits of `accounts.toml`: one field changes, everything else stays."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from proxy.accounts.document import parse_accounts
from proxy.accounts.editing import set_closed, set_state
from watermark.errors import AccountsFileError

TEXT = """\
schema = 1   # the form

[unknown]
policy = "serve"

# Our oldest customer.
[[account]]
name = "acme"   # since 2020
models = ["m"]

[[account]]
name = "zeta"
state = "active"     # quiet
"""


def test_a_state_is_changed_or_added_and_comments_stay() -> None:
    changed = set_state(TEXT, "zeta", "banned")
    assert changed == TEXT.replace('state = "active" ', 'state = "banned" ')
    added = set_state(TEXT, "acme", "suspended")
    assert [line for line in added.splitlines() if line not in TEXT.splitlines()] == [
        'state = "suspended"'
    ]
    states = {one.name: one.state for one in parse_accounts(added, path=Path("a")).accounts}
    assert states == {"acme": "suspended", "zeta": "active"}


def test_a_pseudonym_gets_a_record() -> None:
    changed = set_state(TEXT, "caller-00ff", "banned")
    assert changed.startswith(TEXT.rstrip())
    assert parse_accounts(changed, path=Path("a")).accounts[-1].name == "caller-00ff"
    odd = set_state(TEXT, 'caller-"\nstate = 1', "banned")
    assert tomllib.loads(odd)["account"][-1]["name"] == 'caller-"\nstate = 1'


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AccountsFileError, match="no account 'nobody'"):
        set_state(TEXT, "nobody", "banned")
    with pytest.raises(AccountsFileError, match="not TOML"):
        set_state("[[", "acme", "banned")


@pytest.mark.parametrize("text", [TEXT, "schema = 1\n", "schema = 1\nclosed = false # open\n"])
def test_the_door_is_closed_and_opened(text: str) -> None:
    closed = set_closed(text, is_closed=True)
    assert parse_accounts(closed, path=Path("a")).closed
    opened = set_closed(closed, is_closed=False)
    assert not parse_accounts(opened, path=Path("a")).closed
    assert set(text.split()) <= set(opened.split())
