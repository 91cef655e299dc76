from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxy.embedded.builtin import load_builtin

if TYPE_CHECKING:
    from proxy.embedded.builtin import BuiltinModel


@pytest.fixture(scope="session")
def builtin(tmp_path_factory: pytest.TempPathFactory) -> BuiltinModel:
    cache = os.environ.get("OUTPUT_WATERMARK_CACHE")
    return load_builtin(Path(cache) if cache else tmp_path_factory.mktemp("builtin"))
