"""Do engines' own texts get the engines' own p-values from our detector?

    OUTPUT_WATERMARK_ENGINES=FOLDER python -m benchmarks.engine_marks [--texts 20] [--tokens 150]

Texts are made by the engines' own samplers, on the CPU, from a Zipf law, each under a key of its
own, and given to their detector and to ours. FOLDER holds the unpacked wheels of vLLM and SGLang
(`pip download --no-deps vllm==0.33.0 sglang==0.5.23`, then `unzip`); what is not there is left out.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tests.support.engines import EngineMissingError, sglang_detector, vllm_gumbel
from tests.support.foreign import (
    VOCAB,
    foreign_detector,
    green_list_text,
    sglang_text,
    synthid_text,
    vllm_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from watermark.detection import DetectionResult

BAR = 1e-9


@dataclass(frozen=True, slots=True)
class Held:
    """One text: what ours says, and the engine's statistic and log p (None where it has none)."""

    ours: DetectionResult
    statistic: float
    log_pvalue: float | None


def vllm(key: int, n: int) -> Held:
    """Return vLLM's single key."""
    text = vllm_text(key, n)
    theirs = vllm_gumbel().GumbelWatermarkDetector(key).detect(text)
    ours = foreign_detector("vllm-gumbel", [key]).detect(text)
    return Held(ours, theirs.score, log_of(theirs.p_value))


def vllm_dual(key: int, n: int) -> Held:
    """Return vLLM's two keys, alpha 0.1."""
    text = vllm_text(key, n, alpha=0.1)
    theirs = vllm_gumbel().DualKeyGumbelWatermarkDetector(key).detect(text)
    ours = foreign_detector("vllm-gumbel", [key], algorithm="dual_key_gumbel").detect(text)
    return Held(ours, theirs.score, log_of(theirs.p_value))


def log_of(p: float) -> float | None:
    """Return the logarithm of a p-value; None where a double no longer holds all its digits."""
    return math.log(p) if p >= sys.float_info.min else None


def sglang(key: int, n: int) -> Held:
    """Return SGLang's single key."""
    text = sglang_text([key], n)
    theirs = sglang_detector().WatermarkDetector(f"{key:x}").detect_tokens(text).combined
    ours = foreign_detector("sglang-gumbel", [key]).detect(text)
    return Held(ours, theirs.score, theirs.log_p_value)


def sglang_dual(key: int, n: int) -> Held:
    """Return SGLang's two keys."""
    keys = [key, key ^ 0xFFFF]
    text = sglang_text(keys, n)
    detector = sglang_detector().WatermarkDetector(f"{keys[0]:x}", key_b=f"{keys[1]:x}")
    theirs = detector.detect_tokens(text).combined
    ours = foreign_detector("sglang-gumbel", keys).detect(text)
    return Held(ours, theirs.score, theirs.log_p_value)


def green_list(key: int, n: int) -> Held:
    """Return transformers' lefthash; its p is a normal one, which is not compared."""
    import transformers

    key >>= 1
    text = green_list_text(n, hashing_key=key)
    detector = transformers.WatermarkDetector(
        model_config=transformers.GPT2Config(
            vocab_size=VOCAB, bos_token_id=VOCAB - 1, eos_token_id=VOCAB - 1
        ),
        device="cpu",
        watermarking_config=transformers.WatermarkingConfig(hashing_key=key),
        ignore_repeated_ngrams=True,
    )
    theirs = detector(torch.tensor([text]), return_dict=True)
    ours = foreign_detector("hf-green-list", [key], vocab_size=VOCAB).detect(text)
    return Held(ours, float(theirs.num_green_tokens[0]), None)


def synthid(key: int, n: int) -> Held:
    """Return transformers' SynthID, depth 30; it has no p-value."""
    import transformers

    keys = [int(k) for k in np.random.default_rng(key).integers(2**32, size=30)]
    text = synthid_text(n, keys)
    processor = transformers.SynthIDTextWatermarkLogitsProcessor(
        ngram_len=5, keys=keys, sampling_table_size=2**16, sampling_table_seed=0,
        context_history_size=1024, device=torch.device("cpu"),
    )  # fmt: skip
    tokens = torch.tensor([text])
    mask = processor.compute_context_repetition_mask(input_ids=tokens)
    ones = int((processor.compute_g_values(input_ids=tokens) * mask[:, :, None]).sum())
    return Held(foreign_detector("hf-synthid", keys).detect(text), ones, None)


MARKS: dict[str, Callable[[int, int], Held]] = {
    "vLLM gumbel": vllm,
    "vLLM dual_key_gumbel": vllm_dual,
    "SGLang": sglang,
    "SGLang, two keys": sglang_dual,
    "transformers green list": green_list,
    "transformers SynthID": synthid,
}
EXACT = ("vLLM gumbel", "SGLang", "SGLang, two keys")


def row(name: str, held: list[Held]) -> str:
    """Return a line of the table."""
    statistic = max(abs(one.ours.statistic / one.statistic - 1) for one in held)
    log_p = np.median([one.ours.log10_pvalue for one in held])
    pairs = [(one.ours.log_pvalue, one.log_pvalue) for one in held if one.log_pvalue is not None]
    cells = [name, held[0].ours.law.name, f"{log_p:.1f}", f"{statistic:.1e}", str(len(pairs))]
    if pairs and name in EXACT:
        worst = max(abs(ours / theirs - 1) for ours, theirs in pairs)
        cells += [f"{worst:.1e}", "yes" if worst <= BAR else "NO"]
    elif pairs:
        factor = math.exp(float(np.median([ours - theirs for ours, theirs in pairs])))
        cells += [f"theirs {factor:.2f}x too small in the median", "theirs is not exact"]
    else:
        cells += ["theirs has no exact p", ""]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Make texts, hold both detectors against them, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=150)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keys = [int(key) for key in np.random.default_rng(0).integers(2**63, size=args.texts)]
    print(
        "| engine's mark | law | log10 p, median | statistic, relative | p compared "
        "| log p, relative | <= 1e-9 |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, make in MARKS.items():
        held: list[Any] = []
        try:
            held = [make(key, args.tokens) for key in keys]
        except (EngineMissingError, ModuleNotFoundError) as missing:
            print(f"| {name} | not at hand: {missing} | | | | | |")
            continue
        print(row(name, held), flush=True)


if __name__ == "__main__":
    main()
