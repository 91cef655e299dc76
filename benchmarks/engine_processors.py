"""What does the mark add to a decoding step, beside transformers' SynthID?

    python -m benchmarks.engine_processors [--device cuda] [--synthid-steps 2]

One thread, top-k 50, scores as they come out of the warpers; both get the same scores and
ids in the same run. The cost of the warpers themselves is not counted.
"""

from __future__ import annotations

import argparse
import os
import time

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import SynthIDTextWatermarkLogitsProcessor, TopKLogitsWarper

from watermark.engines.huggingface import CopulaLogitsProcessor
from watermark.keys import KeyRecord, SecretKey

if TYPE_CHECKING:
    from collections.abc import Callable

BATCHES = (1, 32)
VOCABS = (32_000, 128_000)
TOP_K = 50
BAR = 1 / 20
PROMPT = 100


def ours(device: str) -> Any:
    """Return this project's processor at its defaults."""
    secret = SecretKey("bench", bytes(range(32)))
    record = KeyRecord(key_id="bench", unit="words/v1", secret=secret)
    return CopulaLogitsProcessor(record, generator=torch.Generator(device).manual_seed(0))


def synthid(device: str) -> Any:
    """Return transformers' processor with its usual thirty keys."""
    return SynthIDTextWatermarkLogitsProcessor(
        ngram_len=5,
        keys=np.random.default_rng(0).integers(1, 1000, 30).tolist(),
        sampling_table_size=2**16,
        sampling_table_seed=0,
        context_history_size=1024,
        device=torch.device(device),
    )


def per_step(
    processor: Any, scores: torch.Tensor, ids: torch.Tensor, steps: int, sync: Callable[[], None]
) -> float:
    """Return the median seconds a step takes, the first few left out."""
    times = []
    for step in range(steps + 2):
        view = ids[:, : PROMPT + step]
        sync()
        begin = time.perf_counter()
        processor(view, scores)
        sync()
        times.append(time.perf_counter() - begin)
    return float(np.median(times[2:] if steps > 1 else times[-1:]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--vocabs", type=int, nargs="+", default=list(VOCABS))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--synthid-steps", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sync = torch.cuda.synchronize if args.device.startswith("cuda") else lambda: None
    print(
        "| batch | vocabulary | ours, ms | SynthID, ms | ratio | <= 1/20 |\n"
        "|---|---|---|---|---|---|"
    )
    for batch in args.batches:
        for vocab in args.vocabs:
            generator = torch.Generator().manual_seed(batch)
            logits = 3 * torch.randn(batch, vocab, generator=generator)
            length = PROMPT + args.steps + 2
            ids = torch.randint(vocab, (batch, length), generator=generator).to(args.device)
            scores = TopKLogitsWarper(TOP_K)(ids, logits).to(args.device)
            own = per_step(ours(args.device), scores, ids, args.steps, sync)
            peer = per_step(synthid(args.device), scores, ids, args.synthid_steps, sync)
            held = "yes" if own <= BAR * peer else "NO"
            figures = f"{own * 1e3:.2f} | {peer * 1e3:.1f} | 1/{peer / own:.0f} | {held}"
            print(f"| {batch} | {vocab:,} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
