"""Packages that only some scans need."""

from __future__ import annotations

import importlib
from typing import Any

from watermark.errors import CorpusError


def need(module: str, extra: str, use: str) -> Any:  # noqa: ANN401 - a module without types
    """Return a module that an extra of this package installs.

    Args:
        module: Its name.
        extra: The extra.
        use: What it is needed for.

    Raises:
        CorpusError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as err:
        raise CorpusError(
            f"{use} need the package {module.partition('.')[0]}; install it with "
            f"`pip install 'output-watermark[{extra}]'`"
        ) from err
