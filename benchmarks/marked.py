"""Replies of the story model in process, marked over the full distribution or not marked at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.story import probabilities
from proxy.sampling.candidates import CandidateList
from proxy.sampling.reply import Reply
from watermark.seeding import KeyedUniforms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.story import Story
    from watermark.keys import KeyRecord


def marked_replies(
    story: Story,
    record: KeyRecord,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    temperature: float,
    seed: int = 0,
) -> list[np.ndarray]:
    """Return one reply a prompt as the sampler chose it, token ids of shape (tokens,)."""
    keyed = KeyedUniforms(record)
    replies = [
        Reply(keyed, np.random.default_rng(seed + row), max_tokens=None)
        for row in range(len(prompts))
    ]
    sequences = [list(prompt) for prompt in prompts]
    every = np.arange(story.model.vocab_size, dtype=np.uint32)
    for _, logits in zip(range(tokens), story.logits(sequences), strict=False):
        p = probabilities(logits, temperature, story.end_id)
        for row, (reply, sequence) in enumerate(zip(replies, sequences, strict=True)):
            token = reply.choose(CandidateList(every, p[row], 0.0), reply.stream())
            assert token is not None
            reply.spend(tuple(reply.tokens), (token,))
            reply.extend((token,))
            sequence.append(token)
    return [np.array(reply.tokens, np.uint32) for reply in replies]


def unmarked_replies(
    story: Story,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    temperature: float,
    seed: int = 0,
) -> list[np.ndarray]:
    """Return one unmarked reply a prompt, token ids of shape (tokens,)."""
    rng = np.random.default_rng([seed, 7])
    sequences = [list(prompt) for prompt in prompts]
    for _, logits in zip(range(tokens), story.logits(sequences), strict=False):
        p = probabilities(logits, temperature, story.end_id)
        chosen = (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1)
        for sequence, token in zip(sequences, chosen.tolist(), strict=True):
            sequence.append(min(token, story.model.vocab_size - 1))
    start = [len(prompt) for prompt in prompts]
    return [
        np.array(sequence[first:], np.uint32)
        for sequence, first in zip(sequences, start, strict=True)
    ]
