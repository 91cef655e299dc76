"""Other people's models, asked over the network."""

from watermark.suspects.distributions import PromptDistributions

__all__ = ["PromptDistributions"]
