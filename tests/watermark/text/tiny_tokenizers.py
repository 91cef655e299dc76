"""Two small tokenizers, one of each family, trained on the spot."""

from __future__ import annotations

import json

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's 3.5 €, isn't it?",
    "  Two spaces, a tab\tand a line\nbreak — with dashes… and “quotes”.",
    "Grüße aus Köln, ça va? naïve café; 日本語の文章, привет мир, 안녕하세요",
    "the the the dog dog and and of of to to in in he he she she was was",
]


def byte_level() -> Tokenizer:
    """GPT-2's kind: bytes in printable stand-ins."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def space_marked(*, within_words: bool = False) -> Tokenizer:
    """Llama's kind: a space mark, byte pieces, and a decoder that drops the first space.

    Args:
        within_words: Whether, as in Llama's own, no token goes on behind a word's end.
    """
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))  # noqa: S106 - a token, no password
    trained.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    if within_words:
        trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<unk>", "</s>", *bytes_],
        limit_alphabet=40,
        show_progress=False,
    )
    trained.train_from_iterator(CORPUS, trainer)
    description = json.loads(trained.to_str())
    description["model"]["byte_fallback"] = True
    description["pre_tokenizer"] = None
    # Byte pieces are plain entries of the vocabulary, not special tokens.
    description["added_tokens"] = description["added_tokens"][:2]
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer
