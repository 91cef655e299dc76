"""How a key's uniforms choose tokens, and how they are scored: sampler and scorer side by side.

A detector reaches a scheme through `reader_of(record)` and the `Reader` that it gives.
"""

from watermark.schemes.copula_reader import CopulaReader
from watermark.schemes.gumbel_copula import (
    FACTORS,
    SUM_BLOCK,
    CopulaSampler,
    score_sum,
    scores_from_levels,
)
from watermark.schemes.reader import (
    GAMMA,
    NO_CONTEXTS,
    NullLaw,
    Pairs,
    Positions,
    Reader,
    all_windows,
    counted,
    join,
    text_identities,
)
from watermark.schemes.registry import READERS, reader_of
from watermark.schemes.sglang_gumbel import native_key
from watermark.schemes.static_green_list import green_list
from watermark.schemes.trie_race import Candidate, PairScores, race

__all__ = [
    "FACTORS",
    "GAMMA",
    "NO_CONTEXTS",
    "READERS",
    "SUM_BLOCK",
    "Candidate",
    "CopulaReader",
    "CopulaSampler",
    "NullLaw",
    "PairScores",
    "Pairs",
    "Positions",
    "Reader",
    "all_windows",
    "counted",
    "green_list",
    "join",
    "native_key",
    "race",
    "reader_of",
    "score_sum",
    "scores_from_levels",
    "text_identities",
]
