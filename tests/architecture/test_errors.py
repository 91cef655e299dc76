"""The trees of errors are the ones that their modules draw."""

from __future__ import annotations

import importlib
import inspect
import re
from types import ModuleType

import pytest

# Each package's root, and what it descends from: nobody has to catch more than one class.
ROOTS = {
    "watermark.errors": ("WatermarkError", "Exception"),
    "proxy.errors": ("ProxyError", "WatermarkError"),
}

_LINE = re.compile(r"    ((?:│   |    )*)(├── |└── )?(\w+)")


def drawn(module: ModuleType) -> dict[str, str | None]:
    """Return every class of the drawing with its parent; None for the root."""
    drawing = module.__doc__
    assert drawing is not None
    path: list[str] = []
    parents: dict[str, str | None] = {}
    for line in drawing.partition("::\n")[2].splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            assert not line.strip(), f"not a line of a tree: {line!r}"
            continue
        depth = len(found[1]) // 4 + (found[2] is not None)
        assert depth <= len(path), f"{found[3]} hangs in the air"
        del path[depth:]
        assert found[3] not in parents, f"{found[3]} is drawn twice"
        parents[found[3]] = path[-1] if path else None
        path.append(found[3])
    return parents


def defined(module: ModuleType) -> dict[str, type]:
    """Return the classes that the module itself defines."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__
    }


@pytest.mark.parametrize("name", ROOTS)
def test_the_drawing_is_the_tree(name: str) -> None:
    module = importlib.import_module(name)
    root, base = ROOTS[name]
    expected = drawn(module)
    found = {
        kind: None if kind == root else value.__bases__[0].__name__
        for kind, value in defined(module).items()
    }
    assert found == expected
    assert next(iter(expected)) == root
    assert defined(module)[root].__bases__[0].__name__ == base


@pytest.mark.parametrize("name", ROOTS)
def test_every_class_has_one_parent_and_says_who_is_to_blame(name: str) -> None:
    for kind, value in defined(importlib.import_module(name)).items():
        assert kind.endswith("Error")
        assert len(value.__bases__) == 1
        assert value.__doc__


def test_a_drawing_is_read_as_it_stands() -> None:
    module = ModuleType("drawing", "A tree::\n\n    A\n    ├── B\n    │   └── C\n    └── D\n")
    assert drawn(module) == {"A": None, "B": "A", "C": "B", "D": "A"}
    for broken in ("    A\n    │   └── C\n", "    A\n    - B\n", "    A\n    ├── A\n"):
        module.__doc__ = f"A tree::\n\n{broken}"
        with pytest.raises(AssertionError):
            drawn(module)
