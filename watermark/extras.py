"""Packages that only some uses need, and the extra of this package that brings each."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from watermark.errors import WatermarkError


def load_extra(module: str, extra: str, needs: str, error: type[WatermarkError]) -> Any:  # noqa: ANN401 - a module without types
    """Return a module that an extra of this package installs.

    Args:
        module: Its name.
        extra: The extra.
        needs: What needs it, with the verb: `Parquet files need`.
        error: What is raised where it is not installed.

    Raises:
        WatermarkError: It is not installed; of the class `error`.
    """
    try:
        return importlib.import_module(module)
    except ImportError as err:
        raise error(
            f"{needs} the package {module.partition('.')[0]}; install it with "
            f"`pip install 'output-watermark[{extra}]'`"
        ) from err
