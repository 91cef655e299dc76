"""Text marked through `select`, in process: sampling access only, raced on the trie.

Per reply and chunk, candidates are drawn from the teacher's own law and one of them is kept. In
words the last run of a chunk belongs to the next one, as the proxy has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from benchmarks.radioactivity.networks import Network, Sampler, draw
from proxy.sampling.reply import Reply
from watermark.schemes import Candidate, race
from watermark.seeding import KeyedUniforms
from watermark.text import WORDS_V1, WordsUnit, complete_words

if TYPE_CHECKING:
    from watermark.keys import KeyRecord

CHUNK, CANDIDATES = 4, 8
WORDS_CHUNK = 8


@dataclass(frozen=True)
class SelectSampling:
    """How candidates are drawn."""

    temperature: float
    top_k: int
    tokens: int


def select_replies(
    network: Network,
    record: KeyRecord,
    prompts: torch.Tensor,
    sampling: SelectSampling,
    seed: int,
) -> torch.Tensor:
    """Return prompts with their replies, shape (batch, length + tokens)."""
    generator = torch.Generator(network.device).manual_seed(seed)
    sampler = Sampler(generator)
    racers = [_Racer(network, record, row, seed) for row in range(len(prompts))]
    begin, ids, cache = prompts.shape[1], prompts, DynamicCache()
    chunk = WORDS_CHUNK if record.unit == WORDS_V1 else CHUNK
    while ids.shape[1] < begin + sampling.tokens:
        cache.batch_repeat_interleave(CANDIDATES)
        drawn = draw(
            network,
            ids.repeat_interleave(CANDIDATES, dim=0),
            min(chunk, begin + sampling.tokens - ids.shape[1]),
            sampler,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            cache=cache,
        )
        rows = drawn[:, begin:].reshape(len(prompts), CANDIDATES, -1).tolist()
        kept = torch.tensor(
            [n * CANDIDATES + racers[n].keep(rows[n]) for n in range(len(prompts))],
            device=network.device,
        )
        cache.batch_select_indices(kept)
        ids = drawn[kept]
    return ids


class _Racer:
    """One reply's races."""

    def __init__(self, network: Network, record: KeyRecord, row: int, seed: int) -> None:
        rng = np.random.default_rng([seed, row, 11])
        self.reply = Reply(KeyedUniforms(record), rng, max_tokens=None)
        self.network = network
        self.words = WordsUnit() if record.unit == WORDS_V1 else None
        self.units: tuple[int, ...] = ()

    def keep(self, candidates: list[list[int]]) -> int:
        """Return the index of the reply so far that is kept."""
        done = len(self.units)
        cut = [self._units(one) for one in candidates]
        raced = [Candidate(units=one[done:]) for one in cut]
        winner = race(raced, self.units, self.reply, self.reply, self.reply.rng)
        self.reply.spend(self.units, cut[winner][done:])
        self.units = cut[winner]
        return winner

    def _units(self, ids: list[int]) -> tuple[int, ...]:
        if self.words is None:
            return tuple(ids)
        text = self.network.unit.decode(ids)
        return tuple(self.words.encode(text).tolist()[: len(complete_words(text))])
