"""The marks that are compared, as choosers of a teacher's tokens, and the audits of each.

Ours is the project's own processor for transformers at the default rho (copula) and at rho = 1
(gumbel: stronger, and one reply a prompt and key), and `select` its own race. The peers:

- tournament: transformers' SynthID, depth 30, its own arithmetic over the candidates that top-k
  leaves. Its audit takes the mean over layers weighted from 10 to 1, which finds more than the
  plain count of ones does.
- green list: delta 3, gamma 1/4, membership by this project's keyed uniforms. transformers' own
  has 32-bit seeds, looks at one token (lefthash) and supports no p below 1/1000, so that its
  tokens to 1e-6 cannot be measured; with an ideal function the count of green tokens among
  distinct pairs is exactly binomial, which favors the peer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import special

from watermark.keys import LABEL_CONTEXT, ForeignKey, KeyRecord, KeyState, SecretKey
from watermark.seeding import ContextPRF, levels_to_uniforms, pair_levels, pair_values
from watermark.stats import binomial_log_sf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.radioactivity.networks import Chooser
    from benchmarks.radioactivity.recipes import TextRecipe

    Tokens = NDArray[np.uint32]

DELTA, GAMMA, DEPTH, RHO = 3.0, 0.25, 30, 0.9
OURS = ("copula", "gumbel")
PEERS = ("green-list", "tournament")


def records_of(recipe: TextRecipe, unit: str) -> list[KeyRecord]:
    """Return the keys of a text, made from its seed: for measurements only."""
    return [_record(recipe, unit, index) for index in range(recipe.n_keys)]


def _record(recipe: TextRecipe, unit: str, index: int) -> KeyRecord:
    rng = np.random.default_rng([recipe.seed, index, 5])
    key_id = f"lab-{recipe.seed}-{index}"
    if recipe.mark == "tournament":
        keys = rng.integers(1, 2**31, DEPTH).tolist()
        return KeyRecord(
            key_id=key_id,
            unit=unit,
            context_width=recipe.context_width,
            scheme="hf-synthid",
            state=KeyState.DETECT,
            secret=ForeignKey(key_id, keys),
            parameters=(("sampling_table_seed", 0), ("sampling_table_size", 2**16)),
        )
    return KeyRecord(
        key_id=key_id,
        unit=unit,
        context_width=recipe.context_width,
        rho=1.0 if recipe.mark == "gumbel" else RHO,
        secret=SecretKey(key_id, rng.bytes(32)),
    )


class GreenList:
    """Adds delta to a random quarter of the vocabulary, drawn anew for every context."""

    def __init__(self, record: KeyRecord, generator: torch.Generator, prompt_tokens: int) -> None:
        """Mark replies that begin after so many tokens."""
        self.record = record
        self.generator = generator
        self.begin = prompt_tokens

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return a token a row."""
        width = self.record.context_width
        if ids.shape[1] >= self.begin + width:
            rows, tokens = torch.nonzero(scores > -torch.inf, as_tuple=True)
            contexts = ids[:, -width:].cpu().numpy().astype(np.uint32)[rows.cpu().numpy()]
            green = is_green(self.record, contexts, tokens.cpu().numpy().astype(np.uint32))
            bias = DELTA * torch.from_numpy(green).to(scores)
            scores = scores.index_put((rows, tokens), bias, accumulate=True)
        p = torch.softmax(scores, dim=-1)
        return torch.multinomial(p, 1, generator=self.generator)[:, 0]


def is_green(record: KeyRecord, contexts: Tokens, tokens: Tokens) -> NDArray[np.bool_]:
    """Return which pairs are green, shape (n,)."""
    streams = ContextPRF(record.secret.subkey(LABEL_CONTEXT, 16)).evaluate(contexts)[0]
    found: NDArray[np.bool_] = levels_to_uniforms(pair_levels(pair_values(streams, tokens))) < GAMMA
    return found


class Tournament:
    """transformers' SynthID over the candidates that are left of the vocabulary."""

    def __init__(
        self, record: KeyRecord, generator: torch.Generator, prompt_tokens: int, top_k: int
    ) -> None:
        """Mark replies that begin after so many tokens."""
        self.processor = _synthid(record, generator.device)
        self.generator = generator
        self.begin = prompt_tokens
        self.top_k = top_k
        self.seen: list[set[tuple[int, ...]]] = []

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return a token a row."""
        width = self.processor.ngram_len - 1
        if not self.seen:
            self.seen = [set() for _ in ids]
        scores, tokens = scores.topk(self.top_k or scores.shape[-1], dim=-1)
        if ids.shape[1] >= self.begin + width:
            contexts = ids[:, -width:]
            before = contexts[:, None].expand(-1, tokens.shape[1], -1)
            ngrams = torch.cat([before, tokens[:, :, None]], dim=2)
            g = self.processor.sample_g_values(self.processor.compute_ngram_keys(ngrams))
            marked = self.processor.update_scores(scores, g)
            is_new = [self._is_new(*one) for one in enumerate(contexts.tolist())]
            scores = torch.where(torch.tensor(is_new, device=ids.device)[:, None], marked, scores)
        chosen = torch.multinomial(torch.softmax(scores, -1), 1, generator=self.generator)
        return tokens.gather(-1, chosen)[:, 0]

    def _is_new(self, row: int, context: list[int]) -> bool:
        is_new = tuple(context) not in self.seen[row]
        self.seen[row].add(tuple(context))
        return is_new


class Copula:
    """This project's processor, the token then taken from what it leaves."""

    def __init__(self, record: KeyRecord, generator: torch.Generator) -> None:
        """Mark a batch of replies, which begins with the first call."""
        from watermark.engines.huggingface import CopulaLogitsProcessor

        self.processor = CopulaLogitsProcessor(record, generator=generator)
        self.generator = generator

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return a token a row."""
        p = torch.softmax(self.processor(ids, scores), dim=-1)
        return torch.multinomial(p, 1, generator=self.generator)[:, 0]


def chooser_of(
    recipe: TextRecipe, record: KeyRecord, generator: torch.Generator, prompt_tokens: int
) -> Chooser:
    """Return what marks a batch of replies token by token."""
    if recipe.mark in OURS:
        return Copula(record, generator)
    if recipe.mark == "green-list":
        return GreenList(record, generator, prompt_tokens)
    return Tournament(record, generator, prompt_tokens, recipe.top_k)


@dataclass(frozen=True, slots=True)
class PeerScores:
    """What a peer's key makes of distinct pairs, in the order of an audit.

    Attributes:
        excess: Standardized scores under the null, shape (n,); of the tournament the mean over
            its layers weighted from 10 to 1, which is the stronger one. Thirty coins a score make
            its sum as good as normal.
        record: Its key.
        contexts: Shape (n, context_width).
        tokens: Shape (n,).
    """

    excess: NDArray[np.float64]
    record: KeyRecord
    contexts: Tokens
    tokens: Tokens

    def log_pvalue(self, n: int) -> float:
        """Return the natural log of the p-value of the first n pairs."""
        if self.record.scheme == "hf-synthid":
            return float(special.log_ndtr(-self.excess[:n].sum() / math.sqrt(max(1, n))))
        green = is_green(self.record, self.contexts[:n], self.tokens[:n])
        return binomial_log_sf(int(green.sum()), n, GAMMA)


def peer_scores(record: KeyRecord, contexts: Tokens, tokens: Tokens) -> PeerScores:
    """Return what a peer's audit has to go by.

    Args:
        record: Its key.
        contexts: Of distinct pairs, shape (n, context_width).
        tokens: Theirs, shape (n,).
    """
    if record.scheme != "hf-synthid":
        green = is_green(record, contexts, tokens).astype(np.float64)
        excess = (green - GAMMA) / math.sqrt(GAMMA * (1 - GAMMA))
        return PeerScores(excess, record, contexts, tokens)
    processor = _synthid(record, torch.device("cpu"))
    ngrams = torch.from_numpy(np.column_stack([contexts, tokens]).astype(np.int64))
    g = processor.compute_g_values(input_ids=ngrams)[:, 0].double().numpy()
    weights = np.linspace(10.0, 1.0, DEPTH)
    share = float(processor.sampling_table.double().mean())
    spread = math.sqrt(share * (1.0 - share) * float(weights @ weights))
    excess = np.asarray((g - share) @ weights / spread, np.float64)
    return PeerScores(excess, record, contexts, tokens)


def _synthid(record: KeyRecord, device: torch.device) -> Any:
    from transformers import SynthIDTextWatermarkLogitsProcessor

    assert isinstance(record.secret, ForeignKey)
    return SynthIDTextWatermarkLogitsProcessor(
        ngram_len=record.context_width + 1,
        keys=list(record.secret.integers),
        sampling_table_size=2**16,
        sampling_table_seed=0,
        context_history_size=1024,
        device=device,
    )
