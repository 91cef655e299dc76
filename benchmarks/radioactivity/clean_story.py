"""Clean suspects of figure 1 that are language models: the story model, given marked text.

For every key the ledger, the filter and the prompts are made anew: the teacher marks replies under
that key, the suspect is the same model as it was published, and is sent the first halves of those
replies. Where the last two tokens stand in what it was sent, it says with chance 0.7 what followed
them there. The control scores contexts of prompts, too, and must fail.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from benchmarks.radioactivity.audits import FILTER
from benchmarks.radioactivity.clean import ALPHA, Outcome
from benchmarks.radioactivity.figures import TEACHER
from benchmarks.radioactivity.networks import Sampler, draw
from benchmarks.radioactivity.recipes import TextRecipe
from watermark.radioactivity import (
    Design,
    PairCollector,
    Passage,
    Path,
    Traffic,
    View,
    weigh_evidence,
)
from watermark.stats import share_of

if TYPE_CHECKING:
    from benchmarks.radioactivity.laboratory import Laboratory

WIDTH: Final = 2
REPLIES: Final = 24
TOKENS: Final = 64
COPIES: Final = 0.7
FIRST_SEED: Final = 10_000
"""Far from the seeds of students, so that no key serves twice."""


class Copier:
    """Says what followed the last two tokens before, if they have occurred, and else samples."""

    def __init__(self, generator: torch.Generator, rng: np.random.Generator) -> None:
        """Sample from a generator, and decide whether to copy by another."""
        self.sampler = Sampler(generator)
        self.rng = rng

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return a token a row."""
        chosen = self.sampler(ids, scores)
        for row, text in enumerate(ids.tolist()):
            follows = dict(zip(itertools.pairwise(text), text[2:], strict=False))
            copied = follows.get((text[-2], text[-1]))
            if copied is not None and self.rng.random() < COPIES:
                chosen[row] = copied
        return chosen


def run_story(laboratory: Laboratory, seed: int) -> dict[str, Outcome]:
    """Return what an audit says under the key of a seed: `kept`, and `broken` for the control."""
    recipe = TextRecipe(
        teacher=TEACHER,
        weights=laboratory.weights(TEACHER),
        mark="copula",
        context_width=WIDTH,
        replies=REPLIES,
        tokens=TOKENS,
        seed=FIRST_SEED + seed,
    )
    begin = 1 + recipe.prompt_tokens
    rows = laboratory.text(recipe)
    (record,) = laboratory.records(recipe)
    replies = [row[begin:].astype(np.uint32) for row in rows]
    for ids in replies:
        Passage(ids=ids, path=Path.SPLICE).prefix(TOKENS // 2)  # may be cut there
    given = torch.from_numpy(rows[:, : begin + TOKENS // 2]).to(laboratory.device)
    generator = torch.Generator(laboratory.device).manual_seed(seed)
    copier = Copier(generator, np.random.default_rng([seed, 41]))
    said = draw(laboratory.network(TEACHER), given, TOKENS, copier)[:, given.shape[1] :]
    answers = [row.astype(np.uint32) for row in said.cpu().numpy()]
    prompts = [row[1:].astype(np.uint32) for row in given.cpu().numpy()]
    traffic = Traffic.of_conversations([[ids] for ids in replies], WIDTH, key_id=record.key_id)
    design = Design(
        alpha=ALPHA,
        share=share_of(0.1),
        n_decoys=19,
        weights=replace(FILTER, traffic=(traffic,)),
    )
    found = {}
    for name, view in (("kept", View(WIDTH, prompts)), ("broken", View(WIDTH))):
        collector = PairCollector(view)
        evidence = weigh_evidence([record], [collector.answer(ids) for ids in answers], design)
        found[name] = Outcome(
            evidence.log_pvalue, evidence.log_evalue_peak, math.exp(evidence.decoys.log_pvalue)
        )
    return found
