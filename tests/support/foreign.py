"""Engines' keys, and texts that the engines' own samplers mark under them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.support.engines import sglang_core, vllm_gumbel
from watermark.detection import Detector
from watermark.keys import ForeignKey, KeyRecord, KeyState
from watermark.keys.foreign import FOREIGN_SCHEMES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watermark.keys.foreign import Scalar

VOCAB = 400


def foreign_record(
    scheme: str, integers: Sequence[int], *, width: int | None = None, **parameters: Scalar
) -> KeyRecord:
    """Return the record of an engine's key."""
    return KeyRecord(
        key_id="engine",
        unit="words/v1",
        scheme=scheme,
        context_width=FOREIGN_SCHEMES[scheme].context_width if width is None else width,
        parameters=tuple(sorted(parameters.items())),
        state=KeyState.DETECT,
        secret=ForeignKey("engine", integers),
    )


def foreign_detector(
    scheme: str, integers: Sequence[int], *, width: int | None = None, **parameters: Scalar
) -> Detector:
    """Return a detector of an engine's key."""
    return Detector(foreign_record(scheme, integers, width=width, **parameters))


def zipf_logits(vocab: int = VOCAB) -> np.ndarray:
    """Return log probabilities of a Zipf law, some 4 bits a token."""
    logits: np.ndarray = -1.1 * np.log(np.arange(1.0, vocab + 1))
    return logits


def generate(n: int, choose: Callable[[list[int]], int]) -> list[int]:
    """Return n tokens, each chosen after those before."""
    tokens: list[int] = []
    for _ in range(n):
        tokens.append(choose(tokens))
    return tokens


def vllm_text(key: int, n: int, *, width: int = 4, alpha: float | None = None) -> list[int]:
    """Return tokens that vLLM's own sampler chose; with alpha, its dual-key one."""
    import torch  # noqa: PLC0415 - an extra; callers skip without it

    engine = vllm_gumbel()
    logits = torch.tensor(zipf_logits(), dtype=torch.float32)[None]
    generator = torch.Generator().manual_seed(key)
    dice = lambda rows: torch.multinomial(rows.exp(), 1, generator=generator)[:, 0]
    if alpha is None:
        sampler = engine.GumbelWatermarker(key, width)
    else:
        sampler = engine.DualKeyGumbelWatermarker(key, width, alpha=alpha)

    def choose(tokens: list[int]) -> int:
        context = torch.tensor([([-1] * width + tokens)[-width:]])
        return int(sampler.sample(logits, context, dice).token_ids[0])

    return generate(n, choose)


def sglang_text(
    keys: Sequence[int], n: int, *, width: int = 4, mixing_probability: float = 0.5
) -> list[int]:
    """Return tokens that SGLang's own sampler chose."""
    import torch  # noqa: PLC0415

    engine = sglang_core()
    probabilities = torch.softmax(torch.tensor(zipf_logits(), dtype=torch.float32), 0)[None]
    signed = [torch.tensor([key - (key >> 63 << 64)]) for key in keys]
    second: dict[str, Any] = {}
    if len(keys) > 1:
        threshold = torch.tensor([int(mixing_probability * 2**32)])
        second = {"keys_b": signed[1], "mixing_thresholds": threshold}
    rng = np.random.default_rng(keys[0] & 0xFFFF)

    def choose(tokens: list[int]) -> int:
        if len(tokens) < width:  # the prompt that the engine would hash is not there
            return int(rng.integers(VOCAB))
        context = torch.tensor([engine.hash_context(tokens[-width:])])
        chosen = engine.select_watermark_tokens_torch(probabilities, context, signed[0], **second)
        return int(chosen[0])

    return generate(n, choose)


def green_list_text(n: int, **config: Any) -> list[int]:
    """Return tokens sampled from what transformers' green list processor leaves."""
    import torch  # noqa: PLC0415
    from transformers import WatermarkLogitsProcessor  # noqa: PLC0415

    processor = WatermarkLogitsProcessor(vocab_size=VOCAB, device="cpu", **config)
    logits = torch.tensor(zipf_logits(), dtype=torch.float32)[None]
    generator = torch.Generator().manual_seed(7)

    def choose(tokens: list[int]) -> int:
        ids = torch.tensor([[1, 2, 3, 4, *tokens]])
        rows = processor(ids, logits)
        return int(torch.multinomial(torch.softmax(rows, -1), 1, generator=generator))

    return generate(n, choose)


def synthid_text(n: int, keys: list[int], *, ngram_len: int = 5, table_seed: int = 0) -> list[int]:
    """Return tokens sampled from what transformers' SynthID processor leaves."""
    import torch  # noqa: PLC0415
    from transformers import SynthIDTextWatermarkLogitsProcessor  # noqa: PLC0415

    processor = SynthIDTextWatermarkLogitsProcessor(
        ngram_len=ngram_len,
        keys=keys,
        sampling_table_size=2**16,
        sampling_table_seed=table_seed,
        context_history_size=1024,
        device=torch.device("cpu"),
    )
    logits = torch.tensor(zipf_logits(), dtype=torch.float32)[None]
    generator = torch.Generator().manual_seed(7)

    def choose(tokens: list[int]) -> int:
        rows = processor(torch.tensor([[1, *tokens]]), logits)
        return int(torch.multinomial(torch.softmax(rows, -1), 1, generator=generator))

    return generate(n, choose)
