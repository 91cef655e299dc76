"""Of one scope and unit one key marks at any instant, and what would change that makes no ring."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watermark.keys.rings import NOW, TOKENS, day, record, secret_of, write_keys
from watermark.errors import KeysConfigError
from watermark.keys import KeyRing, KeysLoader, KeyState, Scope, load_keys

if TYPE_CHECKING:
    from pathlib import Path

FAR = 400


def chain(cuts: list[int]) -> KeyRing:
    """Epochs from cut to cut."""
    return KeyRing(
        tuple(record(f"k{a}", not_before=day(a), not_after=day(b)) for a, b in pairwise(cuts))
    )


CUTS = st.lists(st.integers(-FAR, FAR), min_size=2, max_size=8, unique=True).map(sorted)


@given(CUTS, st.integers(-FAR - 10, FAR + 10), st.floats(0, 0.999))
def test_exactly_one_key_marks_between_the_first_and_the_last_epoch(
    cuts: list[int], whole: int, part: float
) -> None:
    ring, now = chain(cuts), day(whole + part)
    holders = [one for one in ring if one.state_at(now) is KeyState.MARKING]
    if day(cuts[0]) <= now < day(cuts[-1]):
        assert holders == [ring.marking("words/v1", now=now)]
    else:
        assert holders == []
        with pytest.raises(KeysConfigError, match="no key marks"):
            ring.marking("words/v1", now=now)
    change = ring.next_change(now)
    assert change == next((day(cut) for cut in cuts if day(cut) > now), None)


@given(CUTS.filter(lambda cuts: len(cuts) > 2), st.data())
def test_an_overlap_or_a_gap_makes_no_ring(cuts: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(cuts) - 3))
    shift = data.draw(st.sampled_from([-0.5, 0.5]))
    records = list(chain(cuts).records)
    one = records[place]
    records[place] = record(
        one.key_id, not_before=one.not_before, not_after=one.stop + timedelta(days=shift)
    )
    says = "both mark" if shift > 0 else "no key marks"
    with pytest.raises(KeysConfigError, match=says):
        KeyRing(tuple(data.draw(st.permutations(records))))


@pytest.mark.parametrize(
    ("fields", "states"),
    [
        ({}, ["marking"] * 3),
        ({"not_before": day(0)}, ["pending", "marking", "marking"]),
        ({"not_after": day(0)}, ["marking", "detect", "detect"]),
        ({"compromised_at": day(0.5)}, ["marking", "marking", "compromised"]),
        ({"disclosed_at": day(0.5)}, ["marking", "marking", "disclosed"]),
        ({"state": KeyState.SUSPENDED}, ["suspended"] * 3),
        ({"state": KeyState.DETECT}, ["detect"] * 3),
    ],
)
def test_states_follow_from_dates(fields: dict[str, Any], states: list[str]) -> None:
    one = record("k", **fields)
    ring = KeyRing((one,))
    found = [ring.state_of(one, day(at)).value for at in (-1, 0, 1)]
    assert found == states


@given(st.sampled_from([s for s in KeyState if s is not KeyState.PENDING]), st.integers(-9, 9))
def test_a_key_that_cannot_mark_never_does(state: KeyState, at: int) -> None:
    if state in {KeyState.ARCHIVED, KeyState.DESTROYED}:
        return
    one = record("k", state=state, compromised_at=day(0), disclosed_at=day(0))
    ring = KeyRing((one,))
    if state is KeyState.MARKING and at < 0:
        assert ring.marking("words/v1", now=day(at)) == one
    else:
        with pytest.raises(KeysConfigError):
            ring.marking("words/v1", now=day(at))


@pytest.mark.parametrize(
    "fields",
    [
        {"not_before": day(1), "not_after": day(1)},
        {"not_before": day(1).replace(tzinfo=None)},
        {"state": KeyState.PENDING},
        {"state": KeyState.COMPROMISED},
        {"state": KeyState.DISCLOSED},
        {"scope": "No"},
    ],
)
def test_a_record_that_contradicts_itself_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(KeysConfigError):
        record("k", **fields)


def test_a_key_never_goes_back() -> None:
    marked = record("k", not_after=day(-1))
    assert "goes back from 'detect' to 'marking'" in record("k").regress_from(marked, NOW)
    gone = record("k", state=KeyState.COMPROMISED, compromised_at=day(-1))
    assert "compromised_at" in record("k", state=KeyState.DETECT).regress_from(gone, NOW)
    assert "context_width" in record("k", context_width=3).regress_from(record("k"), NOW)
    assert record("k", not_after=day(1)).regress_from(record("k"), NOW) == ""
    assert record("k").regress_from(record("k", state=KeyState.SUSPENDED), NOW) == ""


def test_running_out_is_told_two_days_before() -> None:
    ring = KeyRing((record("a", not_after=day(2)),))
    assert [one.key_id for one in ring.running_out(NOW)] == ["a"]
    assert ring.running_out(day(-0.1)) == ()
    assert ring.running_out(day(3)) == ()
    followed = KeyRing((record("a", not_after=day(1)), record("b", not_before=day(1))))
    assert followed.running_out(NOW) == ()


def test_pending_keys_do_not_detect() -> None:
    ring = KeyRing((record("a", not_after=day(1)), record("b", not_before=day(1))))
    assert [one.key_id for one in ring.detecting(NOW)] == ["a"]
    assert [one.key_id for one in ring.detecting(day(1))] == ["a", "b"]


def test_a_request_falls_under_the_most_specific_scope() -> None:
    scopes = (
        Scope(name="models", models=("m",)),
        Scope(name="acct", accounts=("a", "b")),
        Scope(name="both", accounts=("a",), models=("m",)),
        Scope(name="route", routes=("/r",)),
    )
    records = [record(f"k{scope.name}", scope=scope.name) for scope in scopes]
    ring = KeyRing((*records, record("k")), scopes=scopes)
    assert ring.scope_of() == "default"
    assert ring.scope_of(model="m") == "models"
    assert ring.scope_of(model="x", account="b") == "acct"
    assert ring.scope_of(model="m", account="b", route="/r") == "acct"
    assert ring.scope_of(model="m", account="a") == "both"
    assert ring.scope_of(model="x", route="/r") == "route"
    assert ring.marking("words/v1", now=NOW, scope="both").key_id == "kboth"
    assert ring.scopes_of_model("m") == ("models", "acct", "both", "route")
    assert ring.scopes_of_model("x") == ("acct", "route", "default")
    ring.check_model("m", "words/v1", now=NOW)
    with pytest.raises(KeysConfigError, match="takes model 'm'"):
        ring.check_model("m", TOKENS, now=NOW)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[scope]]\nname = "s"\n', "no key has this scope"),
        ('[[scope]]\nname = "default"\n', "leave its table out"),
        ('[[scope]]\nname = "s"\naccounts = []\n', "is empty"),
        ('[[scope]]\nname = "s"\naccounts = ["*", "a"]\n', "has '\\*' and others"),
        ('[[scope]]\nname = "s"\nx = 1\n', "unknown field `x`"),
        ('[[scope]]\nname = "s"\n[[scope]]\nname = "t"\n', "both take"),
        ('[[scope]]\nname = "s"\n[[scope]]\nname = "s"\n', "given twice"),
    ],
)
def test_a_malformed_scope_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = write_keys(tmp_path, {"key_id": "k"}, tail=text)
    with pytest.raises(KeysConfigError, match=rf"KEYS.toml:1[1-9]: scope [12].*{says}"):
        load_keys(path)


def test_a_scope_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = write_keys(tmp_path, {"key_id": "k", "scope": "s"})
    with pytest.raises(KeysConfigError, match=r"KEYS.toml:3: record 1 .*is not defined"):
        load_keys(path)


def test_the_generation_is_of_the_content(tmp_path: Path) -> None:
    path = write_keys(tmp_path, {"key_id": "k"})
    first = load_keys(path).generation
    path.write_text(path.read_text() + "# a comment\n")
    assert load_keys(path).generation == first
    write_keys(tmp_path, {"key_id": "k", "not_after": day(1)})
    assert load_keys(path).generation != first
    assert secret_of("k").reveal().hex() not in first


def test_a_loader_refuses_what_sets_back_what_it_loaded(tmp_path: Path) -> None:
    path = write_keys(tmp_path, {"key_id": "k", "not_after": day(-1)})
    loader = KeysLoader(path)
    ring = loader.load(now=NOW)
    write_keys(tmp_path, {"key_id": "k"})
    with pytest.raises(KeysConfigError, match=r"KEYS.toml:3: record 1 .*goes back"):
        loader.load(now=NOW)
    write_keys(tmp_path, {"key_id": "k", "not_after": day(-1)})
    assert loader.load(now=NOW).generation == ring.generation


def test_a_loader_refuses_other_material_under_a_known_id(tmp_path: Path) -> None:
    path = write_keys(tmp_path, {"key_id": "k"})
    loader = KeysLoader(path)
    loader.load(now=NOW)
    other = (tmp_path / "k.key").read_bytes()
    (tmp_path / "k.key").unlink()
    from watermark.keys import SecretKey, write_key_file  # noqa: PLC0415 - the one test

    write_key_file(tmp_path / "k.key", SecretKey("k", b"\7" * 32))
    with pytest.raises(KeysConfigError, match="other material"):
        loader.load(now=NOW)
    (tmp_path / "k.key").write_bytes(other)
    loader.load(now=NOW)


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.data())
def test_reading_by_table_is_reading_the_whole(
    tmp_path_factory: pytest.TempPathFactory, comments: list[bool], data: st.DataObject
) -> None:
    """Any cut of a valid file gives what a fresh loader gives, or fails as it does."""
    folder = tmp_path_factory.mktemp("keys")
    fields: list[dict[str, Any]] = [
        {"key_id": f"k{n}", "not_before": day(n), "not_after": day(n + 1)}
        for n in range(len(comments))
    ]
    path = write_keys(folder, *fields, tail="\n[log]\nverifier = 'v'\n" * comments[0])
    loader = KeysLoader(path)
    loader.load()
    text = path.read_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    path.write_text(
        text[:start] + data.draw(st.sampled_from(["", "#", "[", '"', '"""', "\n[["])) + text[end:]
    )
    try:
        expected = load_keys(path)
    except Exception as err:  # noqa: BLE001 - compared below
        with pytest.raises(type(err)) as caught:
            loader.load()
        assert str(caught.value) == str(err)  # noqa: PT017
    else:
        assert loader.load() == expected
