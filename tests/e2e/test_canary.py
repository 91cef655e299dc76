"""A secret that is known to the test, looked for in everything that the proxy lets out."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.canary import WINDOW, control, found_in, fuzz

if TYPE_CHECKING:
    from pathlib import Path


def test_the_search_finds_what_it_is_for() -> None:
    secret = np.random.default_rng(1).bytes(32)
    for place in range(25):
        part = secret[place : place + WINDOW]
        for coded in (part, part.hex().encode(), part.hex().upper().encode()):
            assert found_in(b"x" + coded + b"y", [secret])
        for lead in (b"", b"a", b"ab"):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                assert found_in(encode(lead + part + b"tail"), [secret])
    assert not found_in(np.random.default_rng(2).bytes(1 << 16), [secret])


@pytest.mark.parametrize("rounds", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_nothing_that_leaves_holds_eight_bytes_of_a_secret(tmp_path: Path, rounds: int) -> None:
    haul, secrets = fuzz(tmp_path / "stage", seed=8, rounds=rounds)
    kinds = {"refusals", "replies", "error bodies", "metrics", "environ", "cmdline", "reports"}
    assert set(haul.seen) == kinds | {"log"}
    assert b"keys not reloaded" in haul.seen["log"][0]
    assert b"starting another" in haul.seen["log"][0]  # a worker did crash
    assert haul.dumped == [False]
    assert haul.cores == []
    for kind, pieces in haul.seen.items():
        assert not found_in(b"\n".join(pieces), secrets), kind


@pytest.fixture
def open_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crash")
    for one in (folder, folder.parent, folder.parent.parent):
        one.chmod(0o755)
    return folder


def test_who_forbids_it_leaves_no_memory_behind_and_who_does_not_does(open_folder: Path) -> None:
    secret = np.random.default_rng(3).bytes(32)
    assert control(open_folder / "kept", secret, forbids=True) == (False, False, False)
    is_read, is_dumped, is_found = control(open_folder / "left", secret, forbids=False)
    assert is_read
    if not is_dumped:
        pytest.skip("this machine writes no core files at all")
    assert is_found or not list((open_folder / "left").iterdir())  # cores may go elsewhere
