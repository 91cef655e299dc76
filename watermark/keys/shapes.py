"""TOML whose tables are alike, each shape of them parsed once.

A file of thousands of keys is one table again and again, with other strings and other dates. Text
is parsed with numbers in their places, and what stood there is put back.

Rule: what is read this way is what `tomllib` reads. Text in which a quotation mark could be
anything but the end of a plain string (a comment, an escape, another kind of string, a quoted name)
is given to `tomllib` as it is.
"""

from __future__ import annotations

import re
import tomllib
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

_VALUE: Final = re.compile(
    r'("[^"\\\x00-\x1f\x7f]+"'
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}Z)"
)
_UNCERTAIN: Final = re.compile(r"""["'#\\]""")
_SHAPES: Final = 256


def read_toml(text: str) -> dict[str, Any]:
    """Return what a text says, as `tomllib.loads` does.

    Raises:
        ValueError: It is not TOML.
        RecursionError: It is nested too deep.
    """
    parts = _VALUE.split(text)
    between, found = parts[::2], parts[1::2]
    if '""' in text or any(map(_UNCERTAIN.search, between)):
        return tomllib.loads(text)
    try:
        values = [_value_of(one) for one in found]
        shaped = "".join(f'{before}"{number}"' for number, before in enumerate(between[:-1]))
        filled: dict[str, Any] = _filled(_shape(shaped + between[-1]), values)
    except ValueError:
        return tomllib.loads(text)
    return filled


@lru_cache(maxsize=_SHAPES)
def _shape(text: str) -> dict[str, Any]:
    """Return what a text with numbers for values says; not to be changed."""
    return tomllib.loads(text)


def _value_of(written: str) -> str | datetime:
    """Return a plain string or a time in UTC.

    Raises:
        ValueError: There is no such time.
    """
    return written[1:-1] if written[0] == '"' else datetime.fromisoformat(written)


def _filled(part: Any, values: list[str | datetime]) -> Any:  # noqa: ANN401 - a tree of TOML
    """Return a copy of a part of a shape with values for its numbers.

    Raises:
        ValueError: A name is a number, so that it may have been a string.
    """
    if type(part) is str:
        return values[int(part)]
    if type(part) is dict:
        if any(map(str.isdigit, part)):
            raise ValueError("a quoted name")
        return {name: _filled(one, values) for name, one in part.items()}
    if type(part) is list:
        return [_filled(one, values) for one in part]
    return part
