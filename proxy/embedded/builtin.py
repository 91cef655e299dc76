"""The built-in model: trained at first start, on what every Python brings along.

A byte-level BPE of 4,096 tokens and a 5-gram model, both deterministic: one Python gives one
pair of files, whose name says which versions made them. Its text has the words and the rhythm
of technical English, and no sense.
"""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from proxy.embedded.cache_files import pack_arrays, read_file, unpack_arrays, write_atomically
from proxy.embedded.corpus import read_corpus
from proxy.embedded.ngram import NGramLevel, NGramModel
from proxy.embedded.ngram_training import train
from proxy.embedded.prompts import encode_text, join_messages
from proxy.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from proxy.embedded.language_model import ChatMessage, TokenRow

BUILDER_VERSION: Final = 1
"""Raise it when a change here, in `corpus` or in `ngram_training` changes the files."""

VOCAB_SIZE: Final = 4096
END_OF_TEXT: Final = "<|endoftext|>"
END_ID: Final = 0  # The trainer numbers special tokens first.
CONTEXT_LIMIT: Final = 8192
MAX_ROWS: Final = 256
_LEVEL_FIELDS: Final = ("contexts", "starts", "left", "tokens", "masses")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltinModel:
    """The built-in language model (see `proxy.embedded.language_model.LanguageModel`)."""

    ngrams: NGramModel
    tokenizer: Tokenizer
    tokenizer_path: Path
    name: str = "builtin"
    vocab_size: int = VOCAB_SIZE
    context_limit: int = CONTEXT_LIMIT

    @property
    def end_ids(self) -> frozenset[int]:
        """The end-of-text token, which also starts every document."""
        return frozenset({self.ngrams.end_id})

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of `text`, after the end-of-text token if asked."""
        start = self.ngrams.end_id if add_special_tokens else None
        return encode_text(self.tokenizer, text, start_id=start)

    def render_chat(
        self,
        messages: Sequence[ChatMessage],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
    ) -> str:
        """Return the contents, a blank line between them."""
        return join_messages(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )

    def encode_chat(
        self,
        messages: Sequence[ChatMessage],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
    ) -> list[int]:
        """Return the ids of the rendered conversation, after the end-of-text token."""
        text = self.render_chat(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )
        return self.encode(text, add_special_tokens=True)

    def open_session(self) -> BuiltinSession:
        """Return the model ready to work."""
        return BuiltinSession(self.ngrams)


class BuiltinSession:
    """Looks distributions up; keeps nothing between steps."""

    max_rows = MAX_ROWS

    def __init__(self, ngrams: NGramModel) -> None:
        self._ngrams = ngrams

    def logits(self, rows: Sequence[TokenRow]) -> NDArray[np.float64]:
        """Return the natural logarithms of the rows' distributions, shape (rows, vocab)."""
        return np.log(np.stack([self._ngrams.probabilities(row.tokens) for row in rows]))

    def release(self, row: TokenRow) -> None:
        """Do nothing: there is no state."""


def load_builtin(cache_dir: Path, *, stdlib: Path | None = None) -> BuiltinModel:
    """Return the built-in model from the cache, building it where it is missing or damaged.

    Args:
        cache_dir: Folder for the two files; created if need be.
        stdlib: Folder of library sources to train on; this Python's own by default.

    Raises:
        EmbeddedError: This Python has no documentation to train on.
    """
    stem = f"builtin-{_recipe_digest()}"
    tokenizer_path = cache_dir / f"{stem}.tokenizer.json"
    ngrams_path = cache_dir / f"{stem}.ngrams"
    ngrams = _read_cache(tokenizer_path, ngrams_path)
    if ngrams is None:
        tokenizer_json, ngrams = _build(stdlib)
        write_atomically(tokenizer_path, tokenizer_json)
        write_atomically(ngrams_path, _pack(ngrams, tokenizer_json))
    return BuiltinModel(
        ngrams=ngrams,
        tokenizer=Tokenizer.from_file(str(tokenizer_path)),
        tokenizer_path=tokenizer_path,
    )


def _recipe_digest() -> str:
    recipe = (
        f"output-watermark builtin {BUILDER_VERSION} {platform.python_implementation()} "
        f"{platform.python_version()} numpy {np.__version__} tokenizers {tokenizers.__version__}"
    )
    return hashlib.sha256(recipe.encode()).hexdigest()[:16]


def _build(stdlib: Path | None) -> tuple[bytes, NGramModel]:
    documents = read_corpus(stdlib)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise EmbeddedError(
            f"this Python's documentation fills {tokenizer.get_vocab_size()} of {VOCAB_SIZE} "
            "vocabulary entries; name a model folder with --model DIR"
        )
    encoded = tokenizer.encode_batch(documents, add_special_tokens=False)
    ngrams = train(
        (encoding.ids for encoding in encoded),
        vocab_size=VOCAB_SIZE,
        end_id=END_ID,
    )
    return tokenizer.to_str(pretty=False).encode(), ngrams


def _pack(ngrams: NGramModel, tokenizer_json: bytes) -> bytes:
    arrays: dict[str, NDArray[np.generic]] = {
        "tokenizer_sha256": np.frombuffer(hashlib.sha256(tokenizer_json).digest(), dtype=np.uint8),
        "end_id": np.array(ngrams.end_id),
        "unigram": ngrams.unigram,
    }
    for order, level in enumerate(ngrams.levels, start=2):
        arrays.update({f"{field}{order}": getattr(level, field) for field in _LEVEL_FIELDS})
    return pack_arrays(arrays)


def _read_cache(tokenizer_path: Path, ngrams_path: Path) -> NGramModel | None:
    """Return the cached model if both files are whole and belong together."""
    tokenizer_json, packed = read_file(tokenizer_path), read_file(ngrams_path)
    arrays = unpack_arrays(packed) if packed is not None else None
    if tokenizer_json is None or arrays is None:
        return None
    if arrays["tokenizer_sha256"].tobytes() != hashlib.sha256(tokenizer_json).digest():
        return None
    orders = sum(name.startswith("contexts") for name in arrays)
    levels = (
        NGramLevel(**{field: arrays[f"{field}{order}"] for field in _LEVEL_FIELDS})  # type: ignore[arg-type]
        for order in range(2, 2 + orders)
    )
    return NGramModel(
        unigram=arrays["unigram"].astype(np.float64),
        levels=tuple(levels),
        end_id=int(arrays["end_id"].item()),
    )
