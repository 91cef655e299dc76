"""A folder to run in, a tokenizer, and a text without a mark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.watermark.cli.shell import LEXICON, Shell, train_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    tmp_path.chmod(0o700)
    return Shell(tmp_path)


@pytest.fixture(scope="session")
def tokenizer_data() -> bytes:
    return train_tokenizer(LEXICON)


@pytest.fixture
def plain_text() -> str:
    rng = np.random.default_rng(7)
    return " ".join(rng.choice(LEXICON, 200).tolist())
