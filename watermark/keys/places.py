"""Where in `KEYS.toml` a mistake stands: file, line, record, and what helps.

Rule: a message names the file and the line, and quotes no value of the `secret` field.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from watermark.errors import KeysConfigError

if TYPE_CHECKING:
    from pathlib import Path

_TABLE_LINE: Final = re.compile(r"\s*\[\[\s*[\"']?(key|scope)[\"']?\s*\]\]")
_TABLE_PATH: Final = re.compile(r"\$\.(key|scope)\[(\d+)\]")
_FIELD_PATH: Final = re.compile(r"`([A-Za-z0-9_-]+)`")
_SYNTAX_LINE: Final = re.compile(r" ?\(at line (\d+), column \d+\)")
_SYNTAX_END: Final = " (at end of document)"


class Source:
    """The file's name and text, to say where a mistake stands."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self._text = text

    def line_of(self, number: int, table: str = "key") -> int | None:
        """Return the line of a table's header, as editors count; None where it has none."""
        found = 0
        for line_number, line in enumerate(self._text.split("\n"), start=1):
            match = _TABLE_LINE.match(line)
            if match and match[1] == table:
                if found == number:
                    return line_number
                found += 1
        return None

    def line_with(self, word: str) -> int | None:
        """Return the first line that sets or opens `word`; None where there is none."""
        opens = re.compile(rf"\s*(\[\s*)?[\"']?{re.escape(word)}[\"']?\s*[\].=]")
        for line_number, line in enumerate(self._text.split("\n"), start=1):
            if opens.match(line):
                return line_number
        return None

    def place(self, line: int | None = None) -> str:
        """Return file and line; the first line where none is to blame."""
        return f"{self.path}:{line or 1}"

    def error(self, message: str, *, line: int | None = None) -> KeysConfigError:
        """Return an error about the file as a whole, or about a line."""
        return KeysConfigError(f"{self.place(line)}: {message}")

    def where(self, number: int, key_id: str = "", table: str = "key") -> str:
        """Return file, line, and which record or scope it is."""
        line = self.line_of(number, table)
        where = f"{self.path}" if line is None else f"{self.path}:{line}"
        where += f": {'record' if table == 'key' else 'scope'} {number + 1}"
        return f"{where} ({key_id!a})" if key_id else where

    def record_error(self, number: int, message: str, key_id: str = "") -> KeysConfigError:
        """Return an error about one record."""
        return KeysConfigError(f"{self.where(number, key_id)}: {message}")

    def scope_error(self, number: int, message: str, name: str = "") -> KeysConfigError:
        """Return an error about one scope."""
        return KeysConfigError(f"{self.where(number, name, 'scope')}: {message}")


def syntax_error(source: Source, text: str, message: str) -> KeysConfigError:
    """Return where the text stops being TOML."""
    found = _SYNTAX_LINE.search(message)
    line = int(found[1]) if found else None
    if message.endswith(_SYNTAX_END):
        line = text.count("\n") + 1
    message = _SYNTAX_LINE.sub("", message.removesuffix(_SYNTAX_END))
    return source.error(f"not TOML: {lower(message)}; correct the syntax", line=line)


def form_error(source: Source, message: str) -> KeysConfigError:
    """Return where a field is unknown, missing or of another type."""
    found = _TABLE_PATH.search(message)
    text = f"{lower(message)}; see the key file form"
    if found is None:
        field = _FIELD_PATH.search(message.replace("`$.", "`"))
        return source.error(text, line=source.line_with(field[1]) if field else None)
    if found[1] == "key":
        return source.record_error(int(found[2]), text)
    return source.scope_error(int(found[2]), text)


def lower(message: str) -> str:
    """Return another library's message in this project's form."""
    return message[:1].lower() + message[1:]
