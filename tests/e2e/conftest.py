from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxy.app import create_app
from proxy.config import SpliceConfig
from proxy.embedded.builtin import load_builtin
from proxy.embedded.server import create_app as create_model_app
from tests.support.servers import (
    ABLE,
    SELECT_ONLY,
    Backstage,
    key_ring,
    model_config,
    proxy_config,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.config import ModelConfig
    from proxy.embedded.builtin import BuiltinModel
    from watermark.keys import KeyRing


@pytest.fixture(scope="session")
def builtin(tmp_path_factory: pytest.TempPathFactory) -> BuiltinModel:
    """The built-in model, kept between runs; its cache goes by digest."""
    cache = os.environ.get("OUTPUT_WATERMARK_CACHE")
    kept = tmp_path_factory.getbasetemp().parent / "builtin-model"
    return load_builtin(Path(cache) if cache else kept)


@dataclass(frozen=True)
class Stage:
    """The model on a socket, and a proxy a path in front of it."""

    direct: str
    proxies: dict[str, str]
    ring: KeyRing


def configurations(builtin: BuiltinModel) -> dict[str, ModelConfig]:
    """One configuration a path; the splicing lists are shorter than the vocabulary."""
    greedy = SpliceConfig(logprobs=100, drafts=0)
    sampled = SpliceConfig(logprobs=100, drafts=2)
    tokenizer = builtin.tokenizer_path
    return {
        "splice-greedy": model_config("builtin", tokenizer, splice=greedy),
        "splice-sampled": model_config("builtin", tokenizer, splice=sampled),
        "select": model_config("builtin", tokenizer, splice=SELECT_ONLY),
        "select-words": model_config("builtin", tokenizer, splice=SELECT_ONLY, unit="words/v1"),
    }


@pytest.fixture(scope="session")
def stage(builtin: BuiltinModel) -> Iterator[Stage]:
    ring = key_ring(builtin.tokenizer_path)
    with Backstage().opened() as backstage:
        direct = backstage.serve(create_model_app(builtin))
        proxies = {
            name: backstage.serve(create_app(proxy_config(direct, model), ring))
            for name, model in configurations(builtin).items()
        }
        assert ABLE.max_n >= 3
        yield Stage(direct, proxies, ring)
