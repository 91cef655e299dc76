"""Which model to serve: the built-in one, or a folder."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy.embedded.builtin import load_builtin
from proxy.errors import ModelFolderError

if TYPE_CHECKING:
    from proxy.embedded.language_model import LanguageModel

BUILTIN: Final = "builtin"


def load_model(spec: str, *, cache_dir: Path, trust_remote_code: bool = False) -> LanguageModel:
    """Return the model that `spec` names.

    Args:
        spec: "builtin", or the path of a Hugging Face model folder.
        cache_dir: Where the built-in model is kept.
        trust_remote_code: Run Python code that the folder brings along.

    Raises:
        EmbeddedError: The built-in model cannot be built.
        ModelFolderError: The folder is missing or incomplete, or packages are.
    """
    if spec == BUILTIN:
        return load_builtin(cache_dir)
    folder = Path(spec)
    if not (folder / "config.json").is_file():
        raise ModelFolderError(
            f"{spec} has no config.json; name a Hugging Face model folder, or {BUILTIN!r}"
        )
    try:
        adapter = importlib.import_module("proxy.embedded.huggingface")
    except ImportError as error:
        raise ModelFolderError(
            "a model folder needs torch and transformers; "
            "run: pip install 'output-watermark[embedded]'"
        ) from error
    model: LanguageModel = adapter.load_folder(folder, trust_remote_code=trust_remote_code)
    return model
