"""Edits of the text of `accounts.toml` that leave everything else as it stands, comments too.

Rule 1: text in, text out; nothing here touches a file. Rule 2: only the field that is named
changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from proxy.accounts.book import PSEUDONYM
from watermark.errors import AccountsFileError

if TYPE_CHECKING:
    from proxy.accounts.document import State


def set_state(text: str, name: str, state: State) -> str:
    """Return the text with an account in another state.

    A caller under a pseudonym gets a record of its own, so that it can be banned.

    Args:
        text: The text.
        name: The account's name.
        state: Its new state.

    Raises:
        AccountsFileError: The text is not TOML, or has no such account.
    """
    document = _parse(text)
    for entry in _accounts(document):
        if entry.get("name") == name:
            entry["state"] = state
            return tomlkit.dumps(document)
    if not name.startswith(PSEUDONYM):
        raise AccountsFileError(
            f"no account {name!a}; `watermark-proxy accounts list` names them, and an unknown "
            f"caller is called {PSEUDONYM}..."
        )
    table = f'[[account]]\nname = {tomlkit.string(name).as_string()}\nstate = "{state}"\n'
    return f"{text.rstrip()}\n\n{table}"


def set_closed(text: str, *, is_closed: bool) -> str:
    """Return the text with the door closed to new callers, or open.

    Raises:
        AccountsFileError: The text is not TOML.
    """
    document = _parse(text)
    if "closed" not in document:
        value = str(is_closed).lower()
        lines = text.split("\n")
        at = next((i for i, line in enumerate(lines) if line.lstrip().startswith("[")), len(lines))
        return "\n".join([*lines[:at], f"closed = {value}", *([""] if at < len(lines) else []),
                          *lines[at:]])  # fmt: skip
    document["closed"] = is_closed
    return tomlkit.dumps(document)


def _parse(text: str) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(text)
    except TOMLKitError as err:
        raise AccountsFileError(
            "the file is not TOML; `watermark-proxy accounts check` says where"
        ) from err


def _accounts(document: tomlkit.TOMLDocument) -> list[Any]:
    return list(document.get("account", ()))
