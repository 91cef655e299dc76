"""Packages that only some deployments need."""

from __future__ import annotations

from typing import Any

from watermark.errors import SecretSourceError
from watermark.extras import load_extra


def need(module: str, extra: str, use: str) -> Any:  # noqa: ANN401 - a module without types
    """Return a module that an extra of this package installs.

    Args:
        module: Its name.
        extra: The extra.
        use: What it is needed for.

    Raises:
        SecretSourceError: It is not installed.
    """
    return load_extra(module, extra, f"{use} needs", SecretSourceError)
