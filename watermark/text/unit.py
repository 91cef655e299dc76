"""What a key's token is.

A key names its unit: `tokenizer:sha256:<digest of tokenizer.json>`, the model's own token ids, or
`words/v1`, which needs no tokenizer and survives another one.

Source: `watermark/spec/seeding.md`, Units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from watermark.errors import TextEncodingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WORDS_V1: Final = "words/v1"


class Unit(Protocol):
    """A way to cut text into numbered units."""

    @property
    def unit_id(self) -> str:
        """The name by which keys refer to this unit."""
        ...

    def encode(self, text: str) -> NDArray[np.uint32]:
        """Return the ids of the text's units, shape (n,), each below 2^32 - 1.

        Raises:
            TextEncodingError: The text holds half a surrogate pair.
        """
        ...

    def encode_with_offsets(self, text: str) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Return the ids, and where each unit stands in the text.

        Returns:
            Ids, shape (n,), as from :meth:`encode`; and first and last-plus-one character of
            each unit, shape (n, 2), starts ascending. Units may share a character.

        Raises:
            TextEncodingError: The text holds half a surrogate pair.
        """
        ...


def check_text(text: str) -> None:
    """Refuse text that has no UTF-8 form.

    Raises:
        TextEncodingError: The text holds a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError as err:
        message = f"the text holds a lone surrogate at character {err.start}; decode it as UTF-8"
        raise TextEncodingError(message) from None
