"""How a key's uniforms choose tokens, and how they are scored: sampler and scorer side by side."""

from watermark.schemes.gumbel_copula import CopulaSampler, scores_from_levels
from watermark.schemes.trie_race import Candidate, PairScores, race

__all__ = ["Candidate", "CopulaSampler", "PairScores", "race", "scores_from_levels"]
