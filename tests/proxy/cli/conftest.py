from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxy.embedded.builtin import load_builtin
from tests.support.servers import byte_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.embedded.builtin import BuiltinModel


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the built-in model is kept between runs; it goes by digest."""
    named = os.environ.get("OUTPUT_WATERMARK_CACHE")
    return Path(named) if named else tmp_path_factory.getbasetemp().parent / "builtin-model"


@pytest.fixture(scope="session")
def builtin(cache: Path) -> BuiltinModel:
    return load_builtin(cache)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `watermark-proxy` in a folder of its own."""
    root = Path(__file__).parents[3]

    def runner(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "proxy", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(root), "COLUMNS": "100"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return runner
