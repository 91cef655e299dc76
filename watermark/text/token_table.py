"""The bytes that each token stands for.

Text is put together from bytes, not from decoded strings: a character may be spread over several
tokens, and a piece that starts with a space must keep it. Two families of tokenizer are known:
byte-level ones (GPT-2's table of printable stand-ins) and those with a space mark and byte
pieces (`<0x0A>`), as SentencePiece writes them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from watermark.errors import TokenizerFileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenizers import Tokenizer

SPACE_MARK: Final = "\u2581"
_BYTE_PIECE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTable:
    """What each id looks like; contents and labels have one entry for every row of the logits.

    Attributes:
        content: The bytes that a token adds to the text; none for special tokens.
        labels: The token as a string, special tokens spelled out; not unique.
        special: Ids that are skipped in text.
        strips_first_space: The tokenizer's decoder drops one space at the start of a document.
        byte_pieces: Ids that stand for one byte each, for what no other token spells.
    """

    content: tuple[bytes, ...]
    labels: tuple[str, ...]
    special: frozenset[int]
    strips_first_space: bool
    byte_pieces: frozenset[int] = field(default=frozenset())


def build_token_table(tokenizer: Tokenizer, vocab_size: int) -> TokenTable:
    """Return the table for ids 0 to `vocab_size` - 1; ids without a token are empty and special.

    Raises:
        TokenizerFileError: The tokenizer belongs to neither family.
    """
    description: dict[str, Any] = json.loads(tokenizer.to_str())
    to_bytes, strips = _decoder_of(description.get("decoder"))
    added = tokenizer.get_added_tokens_decoder()
    content, labels, special = [], [], set[int]()
    for token_id in range(vocab_size):
        piece = tokenizer.id_to_token(token_id)
        if piece is None or (token_id in added and added[token_id].special):
            special.add(token_id)
            content.append(b"")
            labels.append(piece or "")
        else:
            content.append(piece.encode() if token_id in added else to_bytes(piece))
            labels.append(content[-1].decode("utf-8", "replace"))
    return TokenTable(
        content=tuple(content),
        labels=tuple(labels),
        special=frozenset(special),
        strips_first_space=strips,
        byte_pieces=_byte_pieces(tokenizer, vocab_size),
    )


def _byte_pieces(tokenizer: Tokenizer, vocab_size: int) -> frozenset[int]:
    found = (tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
    return frozenset(token for token in found if token is not None and token < vocab_size)


def _decoder_of(decoder: dict[str, Any] | None) -> tuple[Callable[[str], bytes], bool]:
    steps = (decoder or {}).get("decoders", [decoder] if decoder else [])
    kinds = {step["type"] for step in steps}
    if "ByteLevel" in kinds:
        return _byte_level, False
    if kinds & {"ByteFallback", "Metaspace"}:
        strips = any(step["type"] == "Strip" and step.get("start") for step in steps)
        return _space_marked, strips or "Metaspace" in kinds
    raise TokenizerFileError(
        f"the tokenizer's decoder is {sorted(kinds) or 'missing'}; byte-level tokenizers and "
        "those with a space mark and byte pieces can be served"
    )


def _byte_table() -> dict[str, int]:
    """Return GPT-2's stand-ins: printable bytes stand for themselves, others from U+0100 on."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(shown)]
    return {chr(byte): byte for byte in shown} | {
        chr(0x100 + place): byte for place, byte in enumerate(hidden)
    }


_STAND_INS: Final = _byte_table()


def _byte_level(piece: str) -> bytes:
    try:
        return bytes(_STAND_INS[character] for character in piece)
    except KeyError:  # Tokens added by hand are not written in stand-ins.
        return piece.encode()


def _space_marked(piece: str) -> bytes:
    byte = _BYTE_PIECE.match(piece)
    if byte:
        return bytes([int(byte[1], 16)])
    return piece.replace(SPACE_MARK, " ").encode()
