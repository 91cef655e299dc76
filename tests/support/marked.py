"""Texts of equally likely words, plain or marked in the unit `words/v1`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from watermark.schemes import CopulaSampler
from watermark.seeding import KeyedUniforms
from watermark.text.words import word_id

if TYPE_CHECKING:
    from watermark.keys import KeyRecord

WORDS = [f"w{place}" for place in range(50)]
IDS = np.array([word_id(word) for word in WORDS], np.uint32)


def plain_text(seed: int, n: int = 600) -> str:
    rng = np.random.default_rng(seed)
    return " ".join(WORDS[place] for place in rng.integers(0, len(WORDS), n))


def marked_text(record: KeyRecord, seed: int, n: int = 600) -> str:
    """A text of equally likely words, marked at every context that is new."""
    rng = np.random.default_rng(seed)
    keyed, sampler = KeyedUniforms(record), CopulaSampler(record.rho)
    places = [int(one) for one in rng.integers(0, len(WORDS), 2)]
    seen: set[tuple[int, ...]] = set()
    weights = np.full(len(WORDS), 1 / len(WORDS))
    while len(places) < n:
        context = tuple(int(IDS[one]) for one in places[-2:])
        stream = None if context in seen else keyed.at(context)
        seen.add(context)
        uniforms = None if stream is None else stream.uniforms(IDS)
        places.append(int(sampler.choose(weights, uniforms, rng, rest=0.0)))
    return " ".join(WORDS[place] for place in places)
