"""This project's mark inside llama-cpp-python.

llama-cpp-python calls a processor with all tokens so far and the raw logits, before its own
sampling; so this one applies the request's temperature, top-k, top-p and min-p itself, in
llama.cpp's order, and leaves one token. Give `Llama` the same values, or none::

    processor = CopulaProcessor(record, rng, temperature=0.8, top_k=40)
    llm("Once upon a time", logits_processor=LogitsProcessorList([processor]))

Rule: one object serves one reply after the other; at temperature 0 nothing is marked.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from watermark.engines.replies import ReplyContexts
from watermark.errors import SchemeParameterError
from watermark.schemes import CopulaSampler
from watermark.seeding import KeyedUniforms

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from watermark.keys import KeyRecord


class CopulaProcessor:
    """Leaves the marked token as the only candidate.

    Args:
        record: The marking key; its unit is the model's tokenizer.
        rng: Private randomness.
        temperature: The request's; 0 marks nothing.
        top_k: How many tokens stay; below 1 for all.
        top_p: Mass that stays.
        min_p: Least probability that stays, relative to the largest.
        account: Who is served; None leaves account-channel positions unmarked.
        breaks: Token ids after which a reply of its own starts: special tokens.

    Raises:
        SchemeParameterError: A value is out of range.
    """

    def __init__(
        self,
        record: KeyRecord,
        rng: np.random.Generator,
        *,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        account: str | None = None,
        breaks: Collection[int] = (),
    ) -> None:
        if not 0.0 <= temperature < math.inf or not 0.0 < top_p <= 1.0 or not 0.0 <= min_p <= 1.0:
            raise SchemeParameterError(
                f"temperature {temperature}, top_p {top_p} or min_p {min_p} is out of range"
            )
        self._keyed = KeyedUniforms(record, account=account)
        self._sampler = CopulaSampler(record.rho)
        self._rng = rng
        self._temperature, self._top_k = temperature, top_k
        self._top_p, self._min_p = top_p, min_p
        self._breaks = frozenset(breaks)
        self._before: list[int] = []
        self._reply: ReplyContexts | None = None

    def __repr__(self) -> str:
        """Show the key id only."""
        return f"<CopulaProcessor {self._keyed.record.key_id!r}>"

    def __call__(
        self, input_ids: NDArray[np.intc], scores: NDArray[np.single]
    ) -> NDArray[np.single]:
        """Return the logits, all but the winner's -inf where the position is marked.

        Args:
            input_ids: Prompt and reply so far, shape (n,).
            scores: Raw logits, shape (vocab,).
        """
        reply = self._follow(input_ids.tolist())
        if self._temperature == 0.0:
            return scores
        context = reply.take()
        stream = None if context is None else self._keyed.at(context)
        if stream is None:
            return scores
        tokens, masses = self._candidates(scores.astype(np.float64))
        uniforms = stream.uniforms(tokens.astype(np.uint32))
        winner = tokens[self._sampler.choose(masses, uniforms, self._rng)]
        forced = np.full_like(scores, -np.inf)
        forced[winner] = 0.0
        return forced

    def _follow(self, tokens: list[int]) -> ReplyContexts:
        """Take the last token, or start a new reply."""
        reply = self._reply
        if reply is None or len(tokens) != len(self._before) + 1 or tokens[:-1] != self._before:
            width = self._keyed.record.context_width
            reply = ReplyContexts(width, prompt=tokens, breaks=self._breaks)
            self._reply = reply
        else:
            reply.extend(tokens[-1])
        self._before = tokens
        return reply

    def _candidates(
        self, logits: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the tokens that the request's sampling leaves, and their masses."""
        tokens = np.flatnonzero(logits > -np.inf)
        if 0 < self._top_k < len(tokens):
            tokens = np.argpartition(logits, -self._top_k)[-self._top_k :]
        tokens = tokens[np.argsort(-logits[tokens], kind="stable")]
        kept = logits[tokens]
        masses = np.exp(kept - kept[0])
        shares = masses / masses.sum()
        is_kept = (np.cumsum(shares) - shares < self._top_p) & (masses >= self._min_p)
        is_kept[0] = True
        kept = kept[is_kept] / self._temperature
        return tokens[is_kept], np.exp(kept - kept[0])
