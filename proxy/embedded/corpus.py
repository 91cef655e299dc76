"""The English that every Python brings along: what the built-in model is trained on.

The language reference topics of `pydoc` and the documentation strings of the standard library
are read where they are installed; nothing of them is copied into this project. Sources are
parsed, never imported, and read in a fixed order, so that one Python gives one corpus.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sysconfig
import tokenize
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_CORPUS_CHARACTERS: Final = 300_000
"""Below this the vocabulary cannot be filled; CPython 3.11 to 3.14 bring over 1,500,000."""

MIN_DOCUMENT_CHARACTERS: Final = 40
"""One-line notes such as "See base class." teach only when to stop."""

SKIPPED_FOLDERS: Final = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"}
)

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def read_corpus(stdlib: Path | None = None) -> list[str]:
    """Return the documents of this Python's corpus, in a fixed order and without repeats.

    Args:
        stdlib: Folder of library sources; this Python's own by default.

    Raises:
        EmbeddedError: This Python was stripped of its documentation.
    """
    folder = stdlib if stdlib is not None else Path(sysconfig.get_path("stdlib"))
    documents = list(dict.fromkeys([*_topics(), *_documentation_strings(folder)]))
    size = sum(map(len, documents))
    if size < MIN_CORPUS_CHARACTERS:
        raise EmbeddedError(
            f"this Python brings {size} characters of documentation, the built-in model needs "
            f"{MIN_CORPUS_CHARACTERS}; use a Python with its standard library sources, or name "
            "a model folder with --model DIR"
        )
    return documents


def _topics() -> Iterator[str]:
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:  # Some distributions package the topics apart.
        return
    for name in sorted(topics):
        text = topics[name].strip()
        if len(text) >= MIN_DOCUMENT_CHARACTERS:
            yield text


def _documentation_strings(folder: Path) -> Iterator[str]:
    sources = sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix())
    for path in sources:
        if SKIPPED_FOLDERS.isdisjoint(path.relative_to(folder).parts[:-1]):
            yield from _strings_of(path)


def _strings_of(path: Path) -> Iterator[str]:
    try:
        with tokenize.open(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Old escapes in others' sources are not our matter.
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, UnicodeDecodeError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED):
            text = inspect.cleandoc(ast.get_docstring(node, clean=False) or "").strip()
            if len(text) >= MIN_DOCUMENT_CHARACTERS:
                yield text
