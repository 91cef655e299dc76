"""The built-in model: its corpus, its files, and what happens when they are damaged."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from proxy.embedded import builtin as module
from proxy.embedded import corpus
from proxy.embedded.builtin import VOCAB_SIZE, load_builtin
from proxy.embedded.cache_files import pack_arrays, unpack_arrays, write_atomically
from proxy.errors import EmbeddedError
from tests.proxy.embedded.driver import model_files

if TYPE_CHECKING:
    from pathlib import Path

    from proxy.embedded.builtin import BuiltinModel


@pytest.fixture
def builds(builtin: BuiltinModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count builds, and let them take no time."""
    calls: list[int] = []
    content = builtin.tokenizer_path.read_bytes()

    def build(_stdlib: object) -> tuple[bytes, Any]:
        calls.append(1)
        return content, builtin.ngrams

    monkeypatch.setattr(module, "_build", build)
    return calls


@pytest.mark.slow  # it is trained twice
def test_another_process_builds_the_same_files(builtin: BuiltinModel, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from proxy.embedded.builtin import load_builtin; "
        "load_builtin(Path(sys.argv[1]))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "99"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    first = model_files(builtin.tokenizer_path.parent)
    for name, content in model_files(tmp_path).items():
        assert hashlib.sha256(content).digest() == hashlib.sha256(first[name]).digest()


def test_a_second_start_reads_the_cache(builds: list[int], tmp_path: Path) -> None:
    cold, warm = load_builtin(tmp_path), load_builtin(tmp_path)
    assert len(builds) == 1
    for context in ([0], [0, 300, 20, 17, 9], [9, 9, 9, 9]):
        np.testing.assert_array_equal(
            cold.ngrams.probabilities(context), warm.ngrams.probabilities(context)
        )


@pytest.mark.parametrize("suffix", [".ngrams", ".tokenizer.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_damaged_files_are_rebuilt(
    builds: list[int], tmp_path: Path, suffix: str, damage: str
) -> None:
    load_builtin(tmp_path)
    whole = model_files(tmp_path)
    (path,) = tmp_path.glob(f"*{suffix}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(bytes({"cut": content[:-100], "flip": content, "empty": b""}[damage]))
    load_builtin(tmp_path)
    assert len(builds) == 2
    assert model_files(tmp_path) == whole


def test_distribution_sums_to_one_and_is_positive(builtin: BuiltinModel) -> None:
    ids = builtin.encode("Return the list of", add_special_tokens=True)
    for length in range(len(ids) + 1):
        probabilities = builtin.ngrams.probabilities(ids[:length])
        assert probabilities.shape == (VOCAB_SIZE,)
        assert probabilities.min() > 0
        assert probabilities.sum() == pytest.approx(1, abs=1e-12)


def test_start_token_comes_once(builtin: BuiltinModel) -> None:
    bare = builtin.encode("Return", add_special_tokens=False)
    assert builtin.encode("Return", add_special_tokens=True) == [0, *bare]
    assert builtin.encode("<|endoftext|>Return", add_special_tokens=True) == [0, *bare]
    assert builtin.tokenizer.decode(bare) == "Return"


def test_a_stripped_python_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "_topics", lambda: iter(()))
    with pytest.raises(EmbeddedError, match="--model DIR"):
        load_builtin(tmp_path / "cache", stdlib=tmp_path)


def test_a_vocabulary_that_is_not_filled_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "read_corpus", lambda _stdlib: ["one and the same text " * 9])
    with pytest.raises(EmbeddedError, match="vocabulary"):
        load_builtin(tmp_path)


def test_corpus_skips_what_is_no_source_or_no_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "MIN_CORPUS_CHARACTERS", 0)
    monkeypatch.setattr(corpus, "_topics", lambda: iter(()))
    text = "A sentence that is long enough to be worth learning from."
    (tmp_path / "b.py").write_text(f'"""{text} B"""\ndef f():\n    """Short."""\n')
    (tmp_path / "a.py").write_text(f'"""{text} A"""\nclass C:\n    """{text} B"""\n')
    (tmp_path / "broken.py").write_text(f'"""{text}"""\ndef (')
    (tmp_path / "bytes.py").write_bytes(b'"""' + text.encode() + b'\xff"""')
    (tmp_path / "old_escape.py").write_text(f'"""{text} \\d"""\n')
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "c.py").write_text(f'"""{text} C"""')
    assert corpus.read_corpus(tmp_path) == [f"{text} A", f"{text} B", f"{text} \\d"]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Path, _target: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(type(tmp_path), "replace", refuse)
    with pytest.raises(PermissionError):
        write_atomically(tmp_path / "file", b"content")
    assert not list(tmp_path.iterdir())


def test_packed_arrays_come_back_or_not_at_all() -> None:
    packed = pack_arrays({"a": np.arange(5), "b": np.array(1.5)})
    arrays = unpack_arrays(packed)
    assert arrays is not None
    np.testing.assert_array_equal(arrays["a"], np.arange(5))
    assert pack_arrays({"a": np.arange(5), "b": np.array(1.5)}) == packed
    assert all(unpack_arrays(packed[:end]) is None for end in range(0, len(packed), 7))
