"""Public names are listed, documented and annotated."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import watermark

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path for package in ("watermark", "proxy") for path in (ROOT / package).rglob("*.py")
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


def is_public(name: str) -> bool:
    return not name.startswith("_")


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Yield the public functions and classes of a module, and the public methods of those."""
    for node in body:
        if isinstance(node, Definition) and is_public(node.name):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from definitions(node.body, f"{prefix}{node.name}.")


def unannotated(node: Function, *, is_method: bool) -> list[str]:
    """Return what of a function has no annotation."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    is_static = any(
        isinstance(decorator, ast.Name) and decorator.id == "staticmethod"
        for decorator in node.decorator_list
    )
    if is_method and not is_static:
        positional = positional[1:]  # self, cls
    variadic = [arg for arg in (arguments.vararg, arguments.kwarg) if arg is not None]
    every = [*positional, *arguments.kwonlyargs, *variadic]
    missing = [arg.arg for arg in every if arg.annotation is None]
    return missing if node.returns is not None else [*missing, "return"]


def complaints(tree: ast.Module) -> list[str]:
    found = []
    if ast.get_docstring(tree) is None:
        found.append("the module has no docstring")
    for name, node in definitions(tree.body):
        if ast.get_docstring(node) is None:
            found.append(f"{name} (line {node.lineno}) has no docstring")
        if isinstance(node, Function):
            missing = unannotated(node, is_method="." in name)
            found += [f"{name} (line {node.lineno}) does not annotate {arg}" for arg in missing]
    return found


def test_the_list_of_public_names_is_sorted_and_complete() -> None:
    tree = parse(ROOT / "watermark" / "__init__.py")
    homes = {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("watermark")
        for alias in node.names
    }
    assert watermark.__all__ == sorted(homes) == dir(watermark)
    assert all(is_public(name) or name == "__version__" for name in watermark.__all__)
    for name, module in homes.items():
        assert getattr(watermark, name) is getattr(importlib.import_module(str(module)), name)
    with pytest.raises(AttributeError, match="no attribute 'Detecter'"):
        watermark.Detecter  # type: ignore[attr-defined] # noqa: B018 - the reading is the test


def test_commands_about_keys_do_not_wait_for_the_mathematics() -> None:
    code = (
        "import sys; sys.argv[1:] = ['keys', 'rotate', '--help']\n"
        "import atexit; atexit.register(lambda: print('scipy' in sys.modules))\n"
        "from watermark.cli.main import cli; cli()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "False"
    assert "--compromised" in done.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_are_documented_and_annotated(path: Path) -> None:
    assert complaints(parse(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_list_of_names_is_sorted_and_names_what_is_there(path: Path) -> None:
    tree = parse(path)
    lists = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and [target.id for target in node.targets if isinstance(target, ast.Name)] == ["__all__"]
    ]
    for names in lists:
        assert sorted(set(names), key=sort_key) == names
        bound = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        bound |= {name for name, _ in definitions(tree.body)}
        bound |= {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        assert set(names) <= bound


def sort_key(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, as ruff sorts them."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)


def test_what_is_missing_is_noticed() -> None:
    tree = ast.parse(
        '''
def bare(a, *, b: int): ...
class Open:
    """Has a docstring."""
    def method(self, *args) -> None: ...
    @staticmethod
    def static(a) -> None: "documented"
    def _private(self): ...
def _hidden(a): ...
'''
    )
    assert complaints(tree) == [
        "the module has no docstring",
        "bare (line 2) has no docstring",
        "bare (line 2) does not annotate a",
        "bare (line 2) does not annotate return",
        "Open.method (line 5) has no docstring",
        "Open.method (line 5) does not annotate args",
        "Open.static (line 7) does not annotate a",
    ]
