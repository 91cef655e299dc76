"""The engines' own watermark code, run alone: from an installed package or an unpacked wheel.

`OUTPUT_WATERMARK_ENGINES` names a folder in which wheels were unpacked (`pip download --no-deps`,
then `unzip`); without it, what is installed is taken; without either, callers skip. The engines
themselves need a GPU's worth of dependencies, their watermark files next to none.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VARIABLE = "OUTPUT_WATERMARK_ENGINES"


@dataclass
class VllmParams:
    """What of vLLM's `SamplingParams` matters here, with its defaults."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    structured_outputs: object = None
    extra_args: dict[str, Any] = field(default_factory=dict)


class EngineMissingError(Exception):
    """The engine's files are not at hand."""


def engine_folder(package: str) -> Path:
    """Return the folder of an engine's package.

    Raises:
        EngineMissingError: It is neither unpacked nor installed.
    """
    unpacked = os.environ.get(VARIABLE)
    if unpacked and (Path(unpacked) / package).is_dir():
        return Path(unpacked) / package
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EngineMissingError(f"{package} is not installed and not in ${VARIABLE}")
    return Path(next(iter(spec.submodule_search_locations)))


def load_file(name: str, path: Path) -> Any:
    """Return a module made of one file, under a name of its own."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def sglang_detector() -> Any:
    """Return SGLang's detector module."""
    folder = engine_folder("sglang") / "srt/sampling/watermarking"
    _package("_sglang_watermarking", folder)
    return load_file("_sglang_watermarking.detector", folder / "detector.py")


def sglang_core() -> Any:
    """Return SGLang's sampler module, which needs torch."""
    sglang_detector()
    folder = engine_folder("sglang") / "srt/sampling/watermarking"
    return load_file("_sglang_watermarking.core", folder / "core.py")


def vllm_gumbel() -> Any:
    """Return vLLM's module of Gumbel samplers and detectors, which needs torch.

    What it imports from the rest of the engine is put in its place: the configuration's key
    derivation is the engine's own function; the GPU sampler is not reached.
    """
    folder = engine_folder("vllm")
    names = ("vllm", "vllm.config", "vllm.v1", "vllm.v1.worker", "vllm.v1.worker.gpu")
    before = {name: sys.modules.get(name) for name in list(sys.modules) if name.startswith("vllm")}
    for name in (*names, "vllm.v1.worker.gpu.sample", "vllm.v1.watermarking"):
        _package(name, folder / "/".join(name.split(".")[1:]))
    config: Any = types.ModuleType("vllm.config.watermarking")
    config.WatermarkPRFName = str
    config.WatermarkContextScope = str
    config.derive_watermark_key = _derivation(folder / "config/watermarking.py")
    gpu: Any = types.ModuleType("vllm.v1.worker.gpu.sample.gumbel")
    gpu.gumbel_sample = None
    sys.modules |= {config.__name__: config, gpu.__name__: gpu}
    try:
        return load_file("vllm.v1.watermarking.gumbel", folder / "v1/watermarking/gumbel.py")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "vllm"]:
            del sys.modules[name]
        sys.modules |= {name: module for name, module in before.items() if module is not None}


def _package(name: str, folder: Path) -> None:
    """Put an empty package in place, whose modules are those of a folder."""
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


def _derivation(path: Path) -> Any:
    """Return the engine's own `derive_watermark_key`, without what its file imports."""
    tree = ast.parse(path.read_text())
    wanted: list[ast.stmt] = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == "derive_watermark_key"
    ]
    scope: dict[str, Any] = {"hashlib": hashlib}
    exec(compile(ast.Module(wanted, []), str(path), "exec"), scope)  # noqa: S102 - the engine's
    return scope["derive_watermark_key"]
