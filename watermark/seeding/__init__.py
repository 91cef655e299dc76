"""From a key and a context to the pseudorandom numbers that samplers and scorers share.

The bytes are fixed by `watermark/spec/seeding.md`; `watermark seeding check` recomputes its
vectors. Samplers take single positions from `KeyedUniforms`, the detector whole texts from
`ContextPRF`; both end in the one function `uniforms.uniform_levels`.
"""

from watermark.seeding.channel import (
    CODE_BLOCK_BITS,
    CODE_POSITIONS,
    AccountCode,
    AccountCodes,
    check_account,
    code_indices,
    is_account_channel,
)
from watermark.seeding.coins import coin_bits
from watermark.seeding.context import (
    MAX_CONTEXT_WIDTH,
    PADDING,
    as_token_ids,
    context_windows,
)
from watermark.seeding.distinct import first_occurrences, repeats
from watermark.seeding.keyed import ContextStream, ContextStreams, KeyedUniforms
from watermark.seeding.prf import ContextPRF
from watermark.seeding.private import private_seed
from watermark.seeding.uniforms import (
    BEFORE_HALF_LEVEL,
    COMPLEMENT_AS_FLOAT,
    TOKEN_STEP,
    flip_levels,
    levels_to_uniforms,
    mix64,
    pair_complements,
    pair_levels,
    pair_values,
    uniform_levels,
)

__all__ = [
    "BEFORE_HALF_LEVEL",
    "CODE_BLOCK_BITS",
    "CODE_POSITIONS",
    "COMPLEMENT_AS_FLOAT",
    "MAX_CONTEXT_WIDTH",
    "PADDING",
    "TOKEN_STEP",
    "AccountCode",
    "AccountCodes",
    "ContextPRF",
    "ContextStream",
    "ContextStreams",
    "KeyedUniforms",
    "as_token_ids",
    "check_account",
    "code_indices",
    "coin_bits",
    "context_windows",
    "first_occurrences",
    "flip_levels",
    "is_account_channel",
    "levels_to_uniforms",
    "mix64",
    "pair_complements",
    "pair_levels",
    "pair_values",
    "private_seed",
    "repeats",
    "uniform_levels",
]
