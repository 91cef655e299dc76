"""Are the p-values of unmarked text uniform, on real texts and through the real proxy?

    OUTPUT_WATERMARK_SHARED=... python -m benchmarks.null_calibration [--quick]

Cells: text of the story model, unmarked and in process (1,800 replies of 100 tokens) and through
the proxy at temperature > 0 with marking off (200); the same model's *marked* text under wrong
keys; WikiText-2 and Shakespeare in chunks of 200 units; each in token units and in words/v1, each
text under a key of its own. Kolmogorov-Smirnov against the uniform law with Holm over all cells
at 0.01; keys are made from seeds 0..n-1. Negative control: the same chunks scored without the
repeat rule, on a template repeated 20 times, must fail.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from benchmarks.story import (
    Setting,
    Story,
    complete,
    load_story,
    print_table,
    probabilities,
    proxied,
    shared,
    story_upstream,
)
from watermark.detection import Detector
from watermark.keys import KeyRecord, SecretKey
from watermark.schemes import scores_from_levels
from watermark.seeding import ContextPRF, as_token_ids, context_windows, uniform_levels
from watermark.stats import gamma_log_sf, holm
from watermark.text import TokenizerUnit, Unit, WordsUnit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ALPHA = 0.01
BATCH = 100


def key(seed: int, unit: Unit) -> KeyRecord:
    """Return the key of one text."""
    secret = SecretKey(f"null-{seed}", np.random.default_rng(seed).bytes(32))
    return KeyRecord(key_id=secret.key_id, unit=unit.unit_id, secret=secret)


def p_values(texts: Sequence[str], unit: Unit) -> np.ndarray:
    """Return one p-value a text, text i under the key of seed i."""
    return np.array(
        [
            np.exp(Detector(key(seed, unit), unit).detect(text).log_pvalue)
            for seed, text in enumerate(texts)
        ]
    )


def chunks(text: str, unit: Unit, *, size: int, count: int) -> list[str]:
    """Return pieces of about `size` units, cut at white space."""
    words = text.split(" ")
    per_word = max(1.0, len(unit.encode(text[:20_000])) / len(text[:20_000].split(" ")))
    step = int(size / per_word)
    pieces = [" ".join(words[i : i + step]) for i in range(0, len(words) - step, step)]
    return pieces[:count]


def sampled_in_process(story: Story, count: int, tokens: int) -> list[str]:
    """Return unmarked replies of the story model at temperature 1."""
    rng = np.random.default_rng(0)
    texts: list[str] = []
    for start in range(0, count, BATCH):
        sequences = [list(p) for p in story.prompts(min(BATCH, count - start), skip=start % 1500)]
        length = len(sequences[0])
        for _, logits in zip(range(tokens), story.logits(sequences), strict=False):
            p = probabilities(logits, 1.0, story.end_id)
            draws = (rng.random((len(p), 1)) < p.cumsum(axis=1)).argmax(axis=1)
            for sequence, token in zip(sequences, draws.tolist(), strict=True):
                sequence.append(token)
        texts += [story.unit.decode(sequence[length:]) for sequence in sequences]
    return texts


def through_proxy(story: Story, count: int, tokens: int, *, marked: bool) -> list[str]:
    """Return replies delivered by the proxy, with marking on or off."""

    async def ask() -> list[str]:
        setting = Setting("splice", logprobs=100) if marked else Setting("none")
        async with proxied(setting, ready, story.key(10**6)) as client:
            jobs = [
                complete(
                    client,
                    model=ready.model,
                    prompt=prompt,
                    max_tokens=tokens,
                    logit_bias={str(story.end_id): -100},
                )
                for prompt in story.prompts(count)
            ]
            answers = await asyncio.gather(*jobs)
        expected = "marked" if marked else "unmarked"
        assert all(answer["watermark"].startswith(expected) for answer in answers)
        return [answer["choices"][0]["text"] for answer in answers]

    with tempfile.TemporaryDirectory() as folder, story_upstream(Path(folder)) as ready:
        return asyncio.run(ask())


def without_repeat_rule(texts: Sequence[str], unit: Unit) -> np.ndarray:
    """Return the p-values of a detector that counts every position: the negative control."""
    values = []
    for seed, text in enumerate(texts):
        record = key(seed, unit)
        ids = as_token_ids(unit.encode(text))
        prf = ContextPRF(record.secret.subkey("context", 16))
        streams, _ = prf.evaluate(context_windows(ids, record.context_width))
        scores = scores_from_levels(uniform_levels(streams, ids[record.context_width :]))
        values.append(np.exp(gamma_log_sf(float(scores.sum()), len(scores))))
    return np.array(values)


def main() -> None:
    """Measure, print, and fail where a cell is not uniform."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the texts")
    args = parser.parse_args()
    part = 10 if args.quick else 1
    story = load_story()
    units: dict[str, Unit] = {"tokens": story.unit, "words/v1": WordsUnit()}
    gpt2 = TokenizerUnit.read(shared() / "tokenizers/gpt2-50k/tokenizer.json")
    sources: dict[str, Callable[[Unit], list[str]]] = {}
    in_process = sampled_in_process(story, 1800 // part, 100)
    unmarked = through_proxy(story, 200 // part, 100, marked=False)
    marked = through_proxy(story, 200 // part, 100, marked=True)
    sources["story model, unmarked, in process"] = lambda _: in_process
    sources["story model, unmarked, through the proxy"] = lambda _: unmarked
    sources["story model, marked, wrong keys"] = lambda _: marked
    for name in ("wikitext2/test.txt", "shakespeare/tinyshakespeare.txt"):
        text = (shared() / "text" / name).read_text(encoding="utf-8")
        sources[name] = partial(chunks, text, size=200, count=1000 // part)
    cells = []
    for source, make in sources.items():
        is_story = source.startswith("story")
        for unit_name, unit in {**units, "tokens": story.unit if is_story else gpt2}.items():
            values = p_values(make(unit), unit)
            cells.append((source, unit_name, values))
    logs = [float(np.log(stats.kstest(values, "uniform").pvalue)) for _, _, values in cells]
    adjusted = np.exp(holm(logs))
    print_table(
        "p-values of text without the key",
        ("texts", "unit", "n", "KS p", "Holm p", "p <= .01", "p <= .001"),
        [
            (
                source,
                unit,
                len(values),
                float(np.exp(log)),
                float(holm_p),
                float((values <= 0.01).mean()),
                float((values <= 0.001).mean()),
            )
            for (source, unit, values), log, holm_p in zip(cells, logs, adjusted, strict=True)
        ],
    )
    template = [piece * 20 for piece in chunks(in_process[0] * 50, story.unit, size=20, count=200)]
    control = float(stats.kstest(without_repeat_rule(template, story.unit), "uniform").pvalue)
    kept = float(stats.kstest(p_values(template, story.unit), "uniform").pvalue)
    print(
        f"\nnegative control, no repeat rule on a repeated template: KS p = {control:.2g} "
        f"(must be below {ALPHA}); with the rule {kept:.2g}"
    )
    if adjusted.min() <= ALPHA or control > ALPHA:
        sys.exit("calibration failed")


if __name__ == "__main__":
    main()
