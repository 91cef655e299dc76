"""The unit `tokenizer:sha256:...`: a model's own token ids.

Only this file knows the `tokenizers` package. A tokenizer is pinned by the SHA-256 of its
`tokenizer.json`: another file is another unit, even where it would cut text alike.
"""

from __future__ import annotations

import hashlib
from array import array
from typing import TYPE_CHECKING, Final

import numpy as np
from tokenizers import Tokenizer

from watermark.errors import TokenizerFileError, UnitMismatchError
from watermark.text.pieces import PieceEncoder, piece_starts
from watermark.text.unit import check_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

TOKENIZER_PREFIX: Final = "tokenizer:sha256:"


def tokenizer_unit_id(data: bytes) -> str:
    """Return the unit id of a `tokenizer.json` with these bytes."""
    return TOKENIZER_PREFIX + hashlib.sha256(data).hexdigest()


class TokenizerUnit:
    """A Hugging Face `tokenizer.json` as a unit."""

    __slots__ = ("_data", "_pieces", "_tokenizer", "unit_id")

    def __init__(self, data: bytes, *, name: str) -> None:
        """Load a tokenizer from the bytes of its file.

        Args:
            data: The whole `tokenizer.json`.
            name: What error messages call it, a path as a rule.

        Raises:
            TokenizerFileError: The bytes are not a tokenizer.
        """
        try:
            self._tokenizer = Tokenizer.from_buffer(data)
        except Exception as err:  # the package raises bare Exception
            message = f"{name} is not a Hugging Face tokenizer.json; pass the model's own file"
            raise TokenizerFileError(message) from err
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # Delivered text holds no special tokens; one spelt out in it is ordinary text.
        self._tokenizer.encode_special_tokens = True
        self._data: bytes | None = data  # until many texts come, and its rules are read
        self._pieces: PieceEncoder | None = None
        self.unit_id = tokenizer_unit_id(data)

    @classmethod
    def read(cls, path: Path, *, expected: str | None = None) -> TokenizerUnit:
        """Read a tokenizer file and hold it against the unit that a key pins.

        Args:
            path: A `tokenizer.json`.
            expected: The unit id it must have; None accepts any.

        Raises:
            TokenizerFileError: The file cannot be read or is not a tokenizer.
            UnitMismatchError: The file has another digest than the key pins.
        """
        try:
            data = path.read_bytes()
        except OSError as err:
            message = f"cannot read tokenizer {path}: {err.strerror}; pass --tokenizer FILE"
            raise TokenizerFileError(message) from err
        if expected is not None and tokenizer_unit_id(data) != expected:
            message = (
                f"{path} is {tokenizer_unit_id(data)}, the key was made for {expected}; pass the "
                "tokenizer.json that the marking proxy used, byte for byte"
            )
            raise UnitMismatchError(message)
        return cls(data, name=str(path))

    def __repr__(self) -> str:
        """Show the digest."""
        return f"<TokenizerUnit {self.unit_id}>"

    @property
    def tokenizer(self) -> Tokenizer:
        """The loaded tokenizer, for those who decode."""
        return self._tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of token ids, added tokens included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> NDArray[np.uint32]:
        """Return the token ids of a text, no special tokens added, shape (n,).

        Raises:
            TextEncodingError: The text holds half a surrogate pair.
        """
        check_text(text)
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return np.array(ids, np.dtype("<u4"))

    def encode_with_offsets(self, text: str) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Return the token ids, and the characters each stands for, shape (n, 2).

        Tokens that share a character, as its bytes do, share its place.

        Raises:
            TextEncodingError: The text holds half a surrogate pair.
        """
        check_text(text)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        return np.array(encoding.ids, np.dtype("<u4")), np.maximum.accumulate(offsets)

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Return the token ids of many texts, each as :meth:`encode` gives them, but faster.

        Raises:
            TextEncodingError: A text holds half a surrogate pair.
        """
        for text in texts:
            check_text(text)
        pieces = self._piece_encoder()
        if pieces is not None:
            return pieces.encode(texts)
        # The fast form leaves out character offsets, which nobody asks for here.
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        # An array of C integers is filled faster from a list than numpy fills one.
        return [np.frombuffer(array("I", encoding.ids), np.uint32) for encoding in encodings]

    def _piece_encoder(self) -> PieceEncoder | None:
        """Return what encodes texts piece by piece; None where they do not fall into pieces."""
        if self._data is not None:
            starts, self._data = piece_starts(self._data), None
            self._pieces = None if starts is None else PieceEncoder(self._tokenizer, starts)
        return self._pieces

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
