"""Language models as tensors: load, draw batches of replies, train.

One function draws, for teachers and suspects, whatever chooses the tokens; one trains. Everything
is seeded, and runs on a GPU where it is told to.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

from watermark.text import TokenizerUnit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Tokens = NDArray[np.uint32]


class Chooser(Protocol):
    """What picks the next tokens of a batch."""

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the next token of each row, shape (batch,).

        Args:
            ids: Prompts and replies so far, shape (batch, length).
            scores: Log probabilities up to a constant a row; -inf is no candidate.
        """
        ...


@dataclass
class Network:
    """A model with its tokenizer.

    Attributes:
        folder: Where it was loaded from.
        module: The model.
        unit: Its tokenizer.
        start_id: The token that starts a text.
        banned: What ends one; never drawn, so that replies are as long as they were ordered.
        device: Where it lies.
    """

    folder: Path
    module: Any
    unit: TokenizerUnit
    start_id: int
    banned: tuple[int, ...]
    device: str = "cpu"

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu", from_scratch: int | None = None) -> Network:
        """Load a folder, or draw its weights anew from a seed."""
        module: Any
        if from_scratch is None:
            module = AutoModelForCausalLM.from_pretrained(
                folder, trust_remote_code=True, local_files_only=True, dtype=torch.float32
            )
        else:
            torch.manual_seed(from_scratch)
            config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
            module = AutoModelForCausalLM.from_config(config, trust_remote_code=True)
        ends = {int(module.config.bos_token_id), int(module.config.eos_token_id)}
        return cls(
            folder,
            module.float().to(device).eval(),
            TokenizerUnit.read(folder / "tokenizer.json"),
            int(module.config.bos_token_id),
            tuple(sorted(ends)),
            device,
        )

    def scores(self, logits: torch.Tensor, temperature: float, top_k: int) -> torch.Tensor:
        """Return what is sampled from: after temperature and top-k, ends of text banned."""
        scores = logits.float() / temperature
        scores[:, list(self.banned)] = -torch.inf
        if top_k:
            least = scores.topk(top_k, dim=-1).values[:, -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        return scores


def draw(
    network: Network,
    prompts: torch.Tensor,
    tokens: int,
    chooser: Chooser,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    cache: DynamicCache | None = None,
) -> torch.Tensor:
    """Return prompts with their continuations, shape (batch, length + tokens).

    Args:
        network: Who speaks.
        prompts: Shape (batch, length).
        tokens: How many are added.
        chooser: What picks them.
        temperature: Of sampling, > 0.
        top_k: Candidates left; 0 for all.
        cache: What the network has read of the prompts already, all but their last tokens.
    """
    cache = DynamicCache() if cache is None else cache
    # transformers 5.24 calls it `cache`; older ones, and code that folders bring, do not.
    takes = inspect.signature(network.module.forward).parameters
    name = "cache" if "cache" in takes else "past_key_values"
    ids = prompts
    read = cache.get_seq_length()
    with torch.inference_mode():
        for _ in range(tokens):
            out = network.module(
                input_ids=ids[:, read:], use_cache=True, logits_to_keep=1, **{name: cache}
            )
            read = ids.shape[1]
            chosen = chooser(ids, network.scores(out.logits[:, -1], temperature, top_k))
            ids = torch.cat([ids, chosen[:, None]], dim=1)
    return ids


class Sampler:
    """Draws without any key."""

    def __init__(self, generator: torch.Generator) -> None:
        """Draw from a generator."""
        self.generator = generator

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return a token a row."""
        del ids
        p = torch.softmax(scores, dim=-1)
        return torch.multinomial(p, 1, generator=self.generator)[:, 0]


def train(
    network: Network,
    texts: list[NDArray[np.int64]],
    *,
    epochs: int,
    rate: float,
    batch: int,
    skip: int,
    rng: np.random.Generator,
) -> None:
    """Fine-tune in place.

    Args:
        network: The student.
        texts: Token ids, the start token first.
        epochs: Passes over all texts.
        rate: Peak learning rate; falls to 0 as a cosine, after a tenth of warming up.
        batch: Texts a step.
        skip: Tokens at the beginning of each text that are read and not learned: the prompt.
        rng: Order of the texts.
    """
    module = network.module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=0.0)
    steps = epochs * -(-len(texts) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_cosine(steps))
    for rows in _batches(len(texts), epochs, batch, rng):
        loss = _loss(network, [texts[row] for row in rows], skip)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    module.eval()


def _warm_cosine(steps: int) -> Callable[[int], float]:
    warm = max(1, steps // 10)

    def share(step: int) -> float:
        return min((step + 1) / warm, 0.5 + 0.5 * float(np.cos(np.pi * step / steps)))

    return share


def _batches(
    n: int, epochs: int, batch: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    for _ in range(epochs):
        order = rng.permutation(n)
        yield from (order[first : first + batch] for first in range(0, n, batch))


def _loss(network: Network, texts: list[NDArray[np.int64]], skip: int) -> torch.Tensor:
    longest = max(len(text) for text in texts)
    ids = np.full((len(texts), longest), network.start_id, np.int64)
    targets = np.full((len(texts), longest), -100, np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        targets[row, skip : len(text)] = text[skip:]
    there = torch.from_numpy(ids).to(network.device)
    wanted = torch.from_numpy(targets).to(network.device)[:, 1:]
    logits = network.module(input_ids=there, use_cache=False).logits[:, :-1]
    return functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), wanted.reshape(-1), ignore_index=-100
    )
