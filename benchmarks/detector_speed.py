"""How fast is the detector, beside the detectors that others ship.

    python -m benchmarks.detector_speed [--peers]

One key, one thread, distinct-pair rule on, key set-up included, token ids given; then 1,000 keys
and 1,000 decoy keys on 10,000 and on 1,000,000 pairs, in key-tokens a second. Peers run where
they are installed: SGLang's detector (`pip install --no-deps sglang`, it needs msgspec only) and
the two of transformers; on fewer tokens, because they take minutes on more.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from functools import partial
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

from typing import TYPE_CHECKING

import numpy as np

from watermark.detection import Detector, decoy_context_keys, detect_many, key_statistics
from watermark.keys import KeyRecord, SecretKey
from watermark.seeding import context_windows

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (1_000, 10_000, 1_000_000, 10_000_000)
PEER_SIZES = (1_000, 4_000)
MAX_ID = 2**32 - 2
BAR = 5e6
MANY_KEYS = 1_000
MANY_SIZES = (10_000, 1_000_000)
MANY_BAR = 50e6


def texts(n: int, seed: int) -> dict[str, np.ndarray]:
    """Return token ids of three kinds: no repeats, words of a language, a loop."""
    rng = np.random.default_rng(seed)
    return {
        "uniform, ids to 2^32-2": rng.integers(0, MAX_ID, n, dtype=np.uint32, endpoint=True),
        "Zipf, 50k ids": np.minimum(rng.zipf(1.2, n), 50_000).astype(np.uint32),
        "loop of 1000": np.tile(rng.integers(0, 50_000, 1000, dtype=np.uint32), n // 1000),
    }


def speeds(run: Callable[[], object], n: int) -> tuple[float, float]:
    """Return items a second of the median run and of the fastest.

    The runs together take about a second, and there are three at least. What else a machine does
    slows runs down and never speeds them up, so the fastest says what the code costs, and the
    median what one gets on this machine now.
    """
    run()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < 1.0 and len(times) < 5000):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return n / float(np.median(times)), n / min(times)


def cells(found: tuple[float, float], bar: float) -> str:
    """Return the median and the fastest run in millions a second, and both beside the bar."""
    median, fastest = found
    return f"{median / 1e6:.3g} | {fastest / 1e6:.3g} | {median / bar:.1f}x, {fastest / bar:.1f}x"


def ours(ids: np.ndarray, width: int) -> Callable[[], object]:
    """Return a run of this project's detector, from the secret to the p-value."""

    def run() -> object:
        secret = SecretKey("bench", bytes(range(32)))
        record = KeyRecord(key_id="bench", unit="words/v1", context_width=width, secret=secret)
        return Detector(record).detect(ids)

    return run


def many_keys() -> None:
    """Print what a key costs where there are a thousand: epochs, and decoys."""
    secrets = [SecretKey(f"k{i}", i.to_bytes(32, "little")) for i in range(MANY_KEYS)]
    records = [KeyRecord(key_id=key.key_id, unit="words/v1", secret=key) for key in secrets]
    decoys = decoy_context_keys(MANY_KEYS, np.random.default_rng(0))
    print("\n| 1,000 keys | pairs | million key-tokens/s, median | fastest | of the bar |")
    print("|---|---|---|---|---|")
    for n in MANY_SIZES:
        ids = np.random.default_rng(0).integers(0, MAX_ID, n + 2, dtype=np.uint32)
        contexts, tokens = context_windows(ids, 2), ids[2:]
        runs: dict[str, Callable[[], object]] = {
            "sums under context keys": partial(key_statistics, decoys, contexts, tokens),
            "detect_many, subkeys derived, Holm": partial(detect_many, records, [ids]),
        }
        for name, run in runs.items():
            print(f"| {name} | {n:,} | {cells(speeds(run, MANY_KEYS * n), MANY_BAR)} |", flush=True)


def sglang(ids: np.ndarray) -> Callable[[], object]:
    """Return a run of SGLang's detector, context width 4; it scores 4,096 contexts at most.

    Its package is loaded by itself: the whole of SGLang needs a GPU's worth of dependencies.
    """
    found = importlib.util.find_spec("sglang")
    if found is None or found.origin is None:
        raise ModuleNotFoundError(name="sglang")
    folder = Path(found.origin).parent / "srt/sampling/watermarking"
    spec = importlib.util.spec_from_file_location("sglang_watermarking", folder / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = package
    spec.loader.exec_module(package)
    detector = package.WatermarkDetector("0123456789abcdef", context_window=4)
    tokens = ids.tolist()
    return lambda: detector.detect_tokens(tokens)


def transformers_green_list(ids: np.ndarray) -> Callable[[], object]:
    """Return a run of transformers' WatermarkDetector, 32k ids, repeats ignored."""
    import torch
    from transformers import GPT2Config, WatermarkDetector, WatermarkingConfig

    torch.set_num_threads(1)
    detector = WatermarkDetector(
        model_config=GPT2Config(vocab_size=32_000, bos_token_id=31_999),
        device="cpu",
        watermarking_config=WatermarkingConfig(seeding_scheme="lefthash", context_width=1),
        ignore_repeated_ngrams=True,
    )
    tokens = torch.tensor(ids.astype(np.int64) % 31_000)[None]
    return lambda: detector(tokens, return_dict=True)


def transformers_synthid(ids: np.ndarray) -> Callable[[], object]:
    """Return a run of SynthID's g-values, repetition mask and mean, as transformers has them."""
    import torch
    from transformers import SynthIDTextWatermarkLogitsProcessor

    torch.set_num_threads(1)
    processor = SynthIDTextWatermarkLogitsProcessor(
        ngram_len=5,
        keys=list(range(1, 31)),
        sampling_table_size=2**16,
        sampling_table_seed=0,
        context_history_size=1024,
        device=torch.device("cpu"),
    )
    tokens = torch.tensor(ids.astype(np.int64))[None]

    def run() -> object:
        g = processor.compute_g_values(input_ids=tokens)
        mask = processor.compute_context_repetition_mask(input_ids=tokens)
        return (g.double() * mask[:, :, None]).sum() / (30 * mask.sum())

    return run


PEERS = {
    "SGLang": sglang,
    "transformers green list": transformers_green_list,
    "transformers SynthID": transformers_synthid,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", action="store_true", help="also run the peers' detectors")
    args = parser.parse_args()
    print("| detector | text | tokens | Mtokens/s, median | fastest | of the bar |")
    print("|---|---|---|---|---|---|")
    for n in SIZES:
        for name, ids in texts(n, 0).items():
            for width in (1, 2, 3, 4):
                figures = cells(speeds(ours(ids, width), n), BAR)
                print(f"| ours, width {width} | {name} | {n:,} | {figures} |", flush=True)
    many_keys()
    print()
    for name, make in PEERS.items() if args.peers else ():
        for n in PEER_SIZES:
            ids = texts(n, 0)["Zipf, 50k ids"]
            try:
                run = make(ids)
            except ImportError as error:
                print(f"| {name} | not installed ({error.name}) | | | | |")
                break
            print(f"| {name} | Zipf, 50k ids | {n:,} | {cells(speeds(run, n), BAR)} |", flush=True)


if __name__ == "__main__":
    main()
