"""Small runs of `benchmarks/rotation`: keys change under load, and nobody notices."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.rotation.experiments import (
    measure_emergency,
    measure_mutations,
    measure_rotations,
    measure_scopes,
)
from benchmarks.rotation.stage import Stage

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def test_mutations_under_load(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage", np.random.default_rng(5))
    figures = asyncio.run(measure_mutations(stage, count=90, clients=2))
    assert figures["invalid taken"] == 0, figures
    assert figures["disagreements with a fresh reader"] == 0, figures
    assert figures["good file refused afterwards"] == 0, figures
    assert figures["replies under a wrong or missing key"] == 0, figures
    assert figures["errors to clients"] == 0, figures


def test_rotations_under_load(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage", np.random.default_rng(6), workers=4)
    figures = asyncio.run(measure_rotations(stage, count=20, clients=4, interval=0.5))
    assert figures["replies not detectable under exactly their header's key"] == 0, figures
    assert figures["replies outside their key's window"] == 0, figures
    assert figures["errors to clients"] == 0, figures
    assert float(figures["longest skew between workers, ms"]) <= 1000, figures


def test_a_key_is_replaced_at_once_while_no_authority_answers(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage", np.random.default_rng(8), workers=4)
    figures = asyncio.run(measure_emergency(stage, count=2, clients=2))
    assert figures["replies not detectable under exactly their header's key"] == 0, figures
    assert figures["errors to clients"] == 0, figures


def test_many_scopes(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage", np.random.default_rng(7))
    figures = asyncio.run(measure_scopes(stage, scopes=1000, reloads=5))
    assert figures["errors to clients"] == 0, figures
