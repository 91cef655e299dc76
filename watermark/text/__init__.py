"""Characters to units and back; nothing secret, nothing statistical."""

from watermark.text.assembler import StopCutter, TextAssembler
from watermark.text.token_table import TokenTable, build_token_table
from watermark.text.tokenizer import TokenizerUnit, tokenizer_unit_id
from watermark.text.unit import WORDS_V1, Unit, check_text
from watermark.text.words import WordsUnit, complete_words, words

__all__ = [
    "WORDS_V1",
    "StopCutter",
    "TextAssembler",
    "TokenTable",
    "TokenizerUnit",
    "Unit",
    "WordsUnit",
    "build_token_table",
    "check_text",
    "complete_words",
    "tokenizer_unit_id",
    "words",
]
