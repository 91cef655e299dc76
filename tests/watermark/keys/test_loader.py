"""A loader that has seen much finds what one finds that has seen nothing: ring or refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.watermark.keys.rings import TOKENS, day, secret_of
from watermark.errors import KeysError
from watermark.keys import KEYS_HEADER, KeyRing, KeysLoader, document, format_record
from watermark.keys.keyfile import format_key_file
from watermark.keys.references import Secrets

if TYPE_CHECKING:
    from pathlib import Path

    from hypothesis.strategies import DrawFn

    from watermark.keys.ring_index import RingIndex
    from watermark.keys.secret import SecretKey

IDS = ("a", "b", "c")
SCOPES = ("default", "gold", "blue")


@st.composite
def key_tables(draw: DrawFn) -> str:
    """One record; most of a draw agree with each other, many do not."""
    key_id = draw(st.sampled_from(IDS))
    place = IDS.index(key_id)
    windows: list[dict[str, Any]] = [
        {"not_before": day(place), "not_after": day(place + 1)},
        {"not_before": day(place), "not_after": day(place + 1), "compromised_at": day(place + 0.5)},
        {"not_before": day(place + 0.5)},
        {},
    ]
    return format_record(
        key_id=key_id,
        unit=draw(st.sampled_from(["words/v1", "words/v1", TOKENS])),
        secret=draw(st.sampled_from([f"{key_id}.key"] * 8 + ["a.key", "copy.key"])),
        scope=draw(st.sampled_from(["default"] * 4 + ["gold"])),
        **draw(st.sampled_from(windows)),
    ) + draw(st.sampled_from([""] * 8 + ["rhoo = 1\n", 'state = "archived"\n']))


@st.composite
def scope_tables(draw: DrawFn) -> str:
    name = draw(st.sampled_from(["gold", "gold", "blue"]))
    return f'[[scope]]\nname = "{name}"\nmodels = ["{draw(st.sampled_from("mn"))}"]\n'


TABLES = st.one_of(key_tables(), key_tables(), scope_tables())


@st.composite
def edited(draw: DrawFn, tables: list[str]) -> list[str]:
    """Some tables taken out, put in, put elsewhere, or given twice."""
    new = list(tables)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(new)))
        kind = draw(st.sampled_from(["insert", "delete", "replace", "repeat", "move"]))
        if kind == "insert" or not new:
            new.insert(place, draw(TABLES))
            continue
        other = draw(st.integers(0, len(new) - 1))
        if kind == "delete":
            del new[other]
        elif kind == "replace":
            new[other] = draw(TABLES)
        elif kind == "repeat":
            new.insert(place, new[other])
        else:
            new.insert(min(place, len(new) - 1), new.pop(other))
    return new


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name, key_id in [*((one, one) for one in IDS), ("copy", "b")]:
        path = folder / f"{name}.key"
        path.write_bytes(format_key_file(secret_of(key_id)))
        path.chmod(0o600)
    return folder


def found(loader: KeysLoader, text: str) -> KeyRing | str:
    try:
        return loader.load_text(text)
    except KeysError as err:
        return f"{type(err).__name__}: {err}"


def content(ring: KeyRing) -> tuple[object, ...]:
    index: RingIndex = ring._index
    return (ring, ring.generation, index.patterns, index.epochs, index.owners, index.total)


@pytest.mark.parametrize("few", [0, 1000])
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_was_seen_before_changes_nothing(
    folder: Path, few: int, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    monkeypatch.setattr(document, "_FEW", few)
    loader = KeysLoader(folder / "KEYS.toml")
    windows: dict[str, Any] = {"a": (None, day(1)), "b": (day(1), day(2))}
    tables = [
        format_record(
            key_id=one, unit="words/v1", secret=f"{one}.key", not_before=start, not_after=stop
        )
        for one, (start, stop) in windows.items()
    ]
    for _ in range(4):
        text = KEYS_HEADER + "\n" + "\n".join(tables)
        now, fresh = found(loader, text), found(KeysLoader(folder / "KEYS.toml"), text)
        if isinstance(now, KeyRing) and isinstance(fresh, KeyRing):
            assert content(now) == content(fresh)
        else:
            assert now == fresh
        tables = data.draw(edited(tables))


def test_most_of_what_is_drawn_is_not_refused_for_one_reason_only(folder: Path) -> None:
    """The test above would prove nothing if its files were all refused, or all taken."""
    seen: set[str] = set()

    @settings(max_examples=200, database=None)
    @given(st.lists(TABLES, min_size=1, max_size=4))
    def collect(tables: list[str]) -> None:
        one = found(KeysLoader(folder / "KEYS.toml"), KEYS_HEADER + "\n" + "\n".join(tables))
        seen.add("taken" if isinstance(one, KeyRing) else _kind(one))

    collect()
    assert seen >= {"taken", "both mark", "is not defined", "two records"}


def test_a_secret_is_opened_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    open_one = Secrets.open

    def counted(self: Secrets, reference: str, key_id: str) -> SecretKey:
        opened.append(reference)
        return open_one(self, reference, key_id)

    monkeypatch.setattr(Secrets, "open", counted)
    records = [format_record(key_id=one, unit=TOKENS, secret=f"{one}.key") for one in ("a", "b")]
    records[1] += 'scope = "gold"\n'
    gold = '[[scope]]\nname = "gold"\n'
    loader = KeysLoader(folder / "KEYS.toml")
    for _ in range(2):
        loader.load_text(KEYS_HEADER + "\n" + "\n".join([*records, gold]))
    assert opened == ["file:a.key", "file:b.key"]


def _kind(message: str) -> str:
    words = ("both mark", "two secrets", "is not defined", "two records", "no key has this scope")
    return next((word for word in words if word in message), "another")
