"""Text and conversations to token ids, for models without a chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

    from proxy.embedded.language_model import ChatMessage

MESSAGE_BREAK: Final = "\n\n"


def encode_text(tokenizer: Tokenizer, text: str, *, start_id: int | None) -> list[int]:
    """Return the ids of `text` with `start_id` before them, once.

    Args:
        tokenizer: The model's tokenizer; special tokens spelled out in the text are recognized.
        text: Any text, also empty.
        start_id: The token that starts a document, or None to add nothing.
    """
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    if start_id is None or ids[:1] == [start_id]:
        return ids
    return [start_id, *ids]


def join_messages(
    messages: Sequence[ChatMessage], *, add_generation_prompt: bool, continue_final_message: bool
) -> str:
    """Return the contents in order, a blank line between them, and one for the reply to come.

    A model without a template was trained on plain text and knows no roles. A final message that
    is to be continued stays open; otherwise the reply begins after a blank line of its own.
    """
    text = MESSAGE_BREAK.join(message.content for message in messages)
    if add_generation_prompt and not continue_final_message and text:
        return text + MESSAGE_BREAK
    return text
