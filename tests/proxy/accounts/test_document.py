"""`accounts.toml`: what is taken, and what is refused with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.accounts.document import parse_accounts, read_secret, read_text
from watermark.errors import AccountsFileError

PATH = Path("/etc/w/accounts.toml")
DIGEST = "key:" + "0" * 32
OTHER = "key:" + "1" * 32
GOOD = f"""schema = 1
closed = true
terms = "https://example.com/terms"

[unknown]
policy = "refuse"
requests_per_day = 10

[[account]]
name = "acme"
keys = ["{DIGEST}"]
models = ["m"]

[[account]]
name = "caller-0123"
state = "banned"
"""

BAD = [
    ("schema missing", GOOD.replace("schema = 1\n", ""), 1, "schema"),
    ("schema unknown", GOOD.replace("schema = 1", "schema = 2"), 1, "schema"),
    ("no TOML", GOOD + "[[account]\n", 17, "at line 17"),
    ("unknown field", GOOD + "colour = 1\n", 14, "colour"),
    ("unknown state", GOOD.replace('"banned"', '"gone"'), 14, "state"),
    ("wrong type", GOOD.replace('models = ["m"]', 'models = "m"'), 9, "models"),
    ("key in the clear", GOOD.replace(DIGEST, "sk-secret"), 9, "keys"),
    ("negative quota", GOOD + "requests_per_day = -1\n", 14, "requests_per_day"),
    ("name twice", GOOD.replace("caller-0123", "acme"), 14, "stands twice"),
    ("key twice", GOOD + f'keys = ["{DIGEST}"]\n', 14, "belongs to 'acme' too"),
    ("no name", GOOD + "[[account]]\n", 17, "name"),
    ("bad name", GOOD.replace('"acme"', '""'), 9, "names no account"),
    ("half a virtual key", GOOD + f'virtual_keys = ["{OTHER}"]\n', 14, "need each other"),
    ("inline secret", GOOD + 'upstream_key = "sk-1"\n', 14, "upstream_key"),
    ("terms no link", GOOD.replace("https://example.com/terms", "ask us"), 3, "terms"),
    ("switch no boolean", GOOD.replace("closed = true", 'closed = "yes"'), 2, "closed"),
]  # fmt: skip


def test_a_good_file_is_taken() -> None:
    document = parse_accounts(GOOD, path=PATH)
    assert (document.closed, document.unknown.policy) == (True, "refuse")
    assert [(one.name, one.state) for one in document.accounts] == [
        ("acme", "active"),
        ("caller-0123", "banned"),
    ]
    assert document.unknown.has_quota
    assert document.accounts[0].restricts_requests
    assert not document.accounts[1].restricts_requests
    assert parse_accounts("schema = 1\n", path=PATH).accounts == []


@pytest.mark.parametrize(
    ("text", "line", "word"), [one[1:] for one in BAD], ids=[b[0] for b in BAD]
)
def test_a_bad_file_is_refused_with_its_line(text: str, line: int, word: str) -> None:
    with pytest.raises(AccountsFileError) as caught:
        parse_accounts(text, path=PATH)
    message = str(caught.value)
    assert message.startswith(f"{PATH}:{line}: "), message
    assert word in message
    assert "sk-" not in message


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AccountsFileError, match="no such file"):
        read_text(tmp_path / "none.toml")
    path = tmp_path / "latin.toml"
    path.write_bytes(b"schema = 1\n# \xe9\n")
    with pytest.raises(AccountsFileError, match=r"latin.toml:2: not UTF-8"):
        read_text(path)


def test_a_secret_is_one_private_line(tmp_path: Path) -> None:
    path = tmp_path / "up.key"
    path.write_text("sk-upstream\n")
    path.chmod(0o600)
    assert read_secret(path) == b"sk-upstream"
    path.chmod(0o640)
    with pytest.raises(AccountsFileError, match="chmod 600"):
        read_secret(path)
    path.chmod(0o600)
    path.write_text("two words\n")
    with pytest.raises(AccountsFileError, match="not one line") as caught:
        read_secret(path)
    assert "two" not in str(caught.value)
    with pytest.raises(AccountsFileError, match="no such file"):
        read_secret(tmp_path / "none")
