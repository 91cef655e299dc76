"""Packages that only some deployments need."""

from __future__ import annotations

import importlib
from typing import Any

from watermark.errors import SecretSourceError


def need(module: str, extra: str, use: str) -> Any:  # noqa: ANN401 - a module without types
    """Return a module that an extra of this package installs.

    Args:
        module: Its name.
        extra: The extra.
        use: What it is needed for.

    Raises:
        SecretSourceError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as err:
        raise SecretSourceError(
            f"{use} needs the package {module.partition('.')[0]}; install it with "
            f"`pip install 'output-watermark[{extra}]'`"
        ) from err
