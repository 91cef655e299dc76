"""What the server asks of a language model.

A model is shared and does not change; a `Session` belongs to one engine's thread and may keep
state between steps (key-value caches), which is why rows are told when they leave.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation, its text parts joined."""

    role: str
    content: str
    name: str | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class TokenRow:
    """One sequence in the batch; the engine appends what it sampled.

    Attributes:
        tokens: Prompt and generated tokens.
        cached_tokens: Prompt tokens that needed no computation; the session fills it in.
    """

    tokens: list[int]
    cached_tokens: int = 0


class Session(Protocol):
    """A model at work for one engine; used from one thread only."""

    @property
    def max_rows(self) -> int:
        """How many rows may be open at a time."""
        ...

    def logits(self, rows: Sequence[TokenRow]) -> NDArray[np.float64]:
        """Return the next token's logits after each row, shape (rows, vocab), free to modify."""
        ...

    def release(self, row: TokenRow) -> None:
        """Forget a row that has left; unknown rows are no error."""
        ...


class LanguageModel(Protocol):
    """A tokenizer, a next-token distribution, and how to put a conversation to it."""

    @property
    def name(self) -> str:
        """The model id that the API shows."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, without truncation or padding."""
        ...

    @property
    def tokenizer_path(self) -> Path:
        """A tokenizer.json; its SHA-256 is the digest that keys pin."""
        ...

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        ...

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a reply."""
        ...

    @property
    def context_limit(self) -> int:
        """Most tokens of prompt and reply together."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of `text`, after the model's start token where it has one."""
        ...

    def render_chat(
        self,
        messages: Sequence[ChatMessage],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
    ) -> str:
        """Return the text that a conversation is to the model, without the start token."""
        ...

    def encode_chat(
        self,
        messages: Sequence[ChatMessage],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
    ) -> list[int]:
        """Return the ids of a conversation, its start token included."""
        ...

    def open_session(self) -> Session:
        """Return the model ready to work."""
        ...
