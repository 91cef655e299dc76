"""What does the mark add to a decoding step inside each engine, beside transformers' SynthID?

    python -m benchmarks.engine_processors [--device cuda] [--seconds 60]

One thread, top-k 50, the same logits in the same run. transformers' two get them as they come out
of the warpers, whose own cost is not counted; the plug-ins of vLLM (both interfaces) and the
processor of llama.cpp get them raw and cut them themselves, which is counted. llama.cpp serves one
sequence at a time: its step of a batch is as many calls, and it stays on the CPU. vLLM need not be
installed: its abstract classes are replaced by empty ones, what runs in a step is ours.
Each cell is the median of its steps; no step begins after `--seconds`, so that SynthID's largest
cell is one step of minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import types

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import SynthIDTextWatermarkLogitsProcessor, TopKLogitsWarper

from tests.support.engines import VllmParams
from watermark.engines.huggingface import CopulaLogitsProcessor
from watermark.engines.llama_cpp import CopulaProcessor
from watermark.keys import KEYS_HEADER, KeyRecord, SecretKey, format_record, write_key_file

if TYPE_CHECKING:
    from collections.abc import Callable

    Step = Callable[[int], object]

BATCHES = (1, 32)
VOCABS = (32_000, 128_000)
TOP_K = 50
BAR = 1 / 20
PROMPT = 100
WARM_UP = 2
UNIT = "tokenizer:sha256:" + "0f" * 32
SECRET = SecretKey("bench", bytes(range(32)))
RECORD = KeyRecord(key_id="bench", unit=UNIT, secret=SECRET)


@dataclass(frozen=True)
class Batch:
    """The logits of a step, the same at every one, and the tokens of all steps."""

    logits: torch.Tensor
    ids: torch.Tensor

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.logits.device


def transformers_step(batch: Batch) -> Step:
    """Return a step of our processor in transformers."""
    scores = TopKLogitsWarper(TOP_K)(batch.ids, batch.logits)
    generator = torch.Generator(batch.device).manual_seed(0)
    processor = CopulaLogitsProcessor(RECORD, generator=generator)
    return lambda step: processor(batch.ids[:, : PROMPT + step], scores)


def synthid_step(batch: Batch) -> Step:
    """Return a step of transformers' own processor, with its usual thirty keys."""
    scores = TopKLogitsWarper(TOP_K)(batch.ids, batch.logits)
    processor = SynthIDTextWatermarkLogitsProcessor(
        ngram_len=5,
        keys=np.random.default_rng(0).integers(1, 1000, 30).tolist(),
        sampling_table_size=2**16,
        sampling_table_seed=0,
        context_history_size=1024,
        device=batch.device,
    )
    return lambda step: processor(batch.ids[:, : PROMPT + step], scores)


def llama_step(batch: Batch) -> Step:
    """Return a step of our processor in llama.cpp, sequence after sequence."""
    rng = np.random.default_rng(0)
    logits = batch.logits.cpu().numpy()
    ids = batch.ids.cpu().numpy().astype(np.intc)
    processors = [
        CopulaProcessor(RECORD, rng, temperature=1.0, top_k=TOP_K, top_p=1.0, min_p=0.0)
        for _ in range(len(logits))
    ]

    def step(number: int) -> object:
        tokens = ids[:, : PROMPT + number]
        return [one(tokens[row], logits[row]) for row, one in enumerate(processors)]

    return step


def load_plugins() -> tuple[type[Any], type[Any]]:
    """Return our plug-ins for vLLM's V2 and V1, on empty abstract classes."""
    for parent in ("vllm.v1.worker.gpu.sample", "vllm.v1.sample"):
        name = f"{parent}.logits_processor.interface"
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            sys.modules.setdefault(".".join(parts[:depth]), types.ModuleType(parts[depth - 1]))
        interface: Any = sys.modules[name]
        interface.LogitsProcessor = type("LogitsProcessor", (), {})
        interface.MoveDirectionality = None
    from watermark.engines.vllm_v1 import CopulaLogitsProcessor as PluginV1
    from watermark.engines.vllm_v2 import CopulaLogitsProcessor as PluginV2

    return PluginV2, PluginV1


def engine_config(folder: Path) -> Any:
    """Return vLLM's configuration, as far as it is read, which names a key of ours."""
    write_key_file(folder / "k.key", SECRET)
    (folder / "KEYS.toml").write_text(
        KEYS_HEADER + format_record(key_id="bench", unit=UNIT, secret="k.key")  # noqa: S106 - a path
    )
    options = {"output_watermark": {"keys": str(folder / "KEYS.toml")}}
    return types.SimpleNamespace(additional_config=options)


def vllm_v2_step(batch: Batch, plugin: Any, config: Any) -> Step:
    """Return a step of our plug-in for vLLM's V2 runner, every row marked."""
    rows = len(batch.logits)
    buffer = types.SimpleNamespace(gpu=batch.ids.int())
    prompt = types.SimpleNamespace(gpu=torch.full((rows,), PROMPT - 10, device=batch.device))
    processor = plugin(config, types.SimpleNamespace(all_token_ids=buffer, prompt_len=prompt))
    for slot in range(rows):
        processor.add_request(slot, VllmParams(top_k=TOP_K))
    slots = torch.arange(rows, device=batch.device)

    def step(number: int) -> object:
        last = PROMPT + number - 1
        context = types.SimpleNamespace(
            expanded_idx_mapping=slots,
            expanded_local_pos=torch.zeros_like(slots),
            input_ids=batch.ids[:, last],
            pos=torch.full_like(slots, last),
        )
        return processor.apply(batch.logits.clone(), context)

    return step


def vllm_v1_step(batch: Batch, plugin: Any, config: Any) -> Step:
    """Return a step of our plug-in for vLLM's V1 runner, every row marked."""
    processor = plugin(config, batch.device, False)  # noqa: FBT003 - the interface's
    ids = batch.ids.tolist()
    outputs = [row[PROMPT - 10 : PROMPT] for row in ids]
    added = [
        (row, VllmParams(top_k=TOP_K), ids[row][: PROMPT - 10], output)
        for row, output in enumerate(outputs)
    ]
    processor.update_state(types.SimpleNamespace(removed=[], added=added, moved=[]))

    def step(number: int) -> object:
        for row, output in enumerate(outputs):
            output[:] = ids[row][PROMPT - 10 : PROMPT + number]
        return processor.apply(batch.logits.clone())

    return step


def milliseconds(step: Step, steps: int, seconds: float, sync: Callable[[], object]) -> float:
    """Return what a step takes: the median, the first few left out where there are more."""
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < steps + WARM_UP and time.perf_counter() - begun < seconds:
        sync()
        start = time.perf_counter()
        step(len(times))
        sync()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times[WARM_UP:] or times[-1:]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--vocabs", type=int, nargs="+", default=list(VOCABS))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--synthid-steps", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sync = torch.cuda.synchronize if args.device.startswith("cuda") else lambda: None
    print(
        "| batch | vocabulary | SynthID, ms | transformers, ms | vLLM V2, ms | vLLM V1, ms "
        "| llama.cpp, ms | largest ratio | <= 1/20 |\n|---|---|---|---|---|---|---|---|---|"
    )
    plugin_v2, plugin_v1 = load_plugins()
    with tempfile.TemporaryDirectory() as folder:
        config = engine_config(Path(folder))
        for size in args.batches:
            for vocab in args.vocabs:
                generator = torch.Generator().manual_seed(size)
                logits = 3 * torch.randn(size, vocab, generator=generator)
                shape = (size, PROMPT + args.steps + WARM_UP)
                ids = torch.randint(vocab, shape, generator=generator)
                batch = Batch(logits.to(args.device), ids.to(args.device))
                own = [
                    milliseconds(step, args.steps, args.seconds, sync)
                    for step in (
                        transformers_step(batch),
                        vllm_v2_step(batch, plugin_v2, config),
                        vllm_v1_step(batch, plugin_v1, config),
                        llama_step(batch),
                    )
                ]
                peer = milliseconds(synthid_step(batch), args.synthid_steps, args.seconds, sync)
                held = "yes" if max(own) <= BAR * peer else "NO"
                figures = " | ".join(f"{one:.2f}" for one in own)
                ratio = f"1/{peer / max(own):.0f} | {held}"
                print(f"| {size} | {vocab:,} | {peer:,.1f} | {figures} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
