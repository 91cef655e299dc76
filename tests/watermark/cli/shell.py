"""The command line in one folder, watched for leaks, and texts with a mark to hold keys against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from click.testing import CliRunner
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from watermark.cli.main import cli
from watermark.keys import KEYS_HEADER, load_keys
from watermark.schemes import CopulaSampler
from watermark.seeding import KeyedUniforms
from watermark.text import TokenizerUnit, WordsUnit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from click.testing import Result

    from watermark.keys import KeyRecord

LEXICON = [first + second + last for first in "bdgk" for second in "aeiou" for last in "lmnr"]
WITNESS = "xylographer"  # in every text that must never be quoted


class Shell:
    """Runs the command in one folder; no run may print a secret of that folder, or the witness."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *args: str | Path, stdin: bytes = b"") -> Result:
        result = CliRunner().invoke(cli, [str(arg) for arg in args], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result
        self.check_leaks(result.stdout + result.stderr)
        for line in result.stderr.splitlines():
            assert line == "" or line.startswith("watermark: ")
            assert not line.endswith(".")
        return result

    def check_leaks(self, output: str) -> None:
        assert WITNESS not in output
        for file in self.folder.rglob("*.key"):
            digits = file.read_bytes().partition(b"secret: ")[2][:64].decode("ascii", "replace")
            for start in range(0, len(digits) - 15, 8):
                assert digits[start : start + 16] not in output

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def key(self, key_id: str, *options: str | Path, state: str = "marking") -> KeyRecord:
        """Make a key, add its record to KEYS.toml, and return it."""
        result = self("keys", "new", "--id", key_id, "--dir", self.folder, *options)
        assert result.exit_code == 0, result.stderr
        record = result.stdout.replace('state = "marking"', f'state = "{state}"')
        before = self.keys.read_text() if self.keys.exists() else KEYS_HEADER
        self.keys.write_text(f"{before}\n{record}")
        return load_keys(self.keys).by_id(key_id)[-1]

    @property
    def keys(self) -> Path:
        return self.folder / "KEYS.toml"


def train_tokenizer(words: Sequence[str]) -> bytes:
    """Return a tokenizer.json in which a space and a word are one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([f" {word}" for word in words], trainer)
    data: str = tokenizer.to_str()
    return data.encode()


def marked_ids(
    record: KeyRecord,
    alphabet: Sequence[int],
    n: int,
    seed: int = 0,
    *,
    account: str | None = None,
) -> list[int]:
    """Sample n units of a uniform law with the mark of a key, and the code of an account."""
    uniforms, sampler = KeyedUniforms(record, account=account), CopulaSampler(record.rho)
    rng = np.random.default_rng(seed)
    ids, width = np.array(alphabet, np.uint32), record.context_width
    probabilities = np.full(len(ids), 1 / len(ids))
    chosen: list[int] = []
    for _ in range(n):
        stream = uniforms.at(chosen[-width:]) if len(chosen) >= width else None
        levels = None if stream is None else stream.uniforms(ids)
        chosen.append(int(ids[sampler.choose(probabilities, levels, rng)]))
    return chosen


def marked_text(
    record: KeyRecord, n: int = 200, seed: int = 0, *, account: str | None = None
) -> str:
    """Return n words with the mark of a key of `words/v1`, and the code of an account."""
    ids = [int(number) for number in WordsUnit().encode(" ".join(LEXICON))]
    word_of = dict(zip(ids, LEXICON, strict=True))
    return " ".join(word_of[number] for number in marked_ids(record, ids, n, seed, account=account))


def marked_token_ids(record: KeyRecord, unit: TokenizerUnit, n: int = 200) -> list[int]:
    """Return n token ids with the mark of a key, one a word."""
    cut = [unit.encode(f" {word}").tolist() for word in LEXICON]
    assert all(len(ids) == 1 for ids in cut)
    return marked_ids(record, [ids[0] for ids in cut], n)
