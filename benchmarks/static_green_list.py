"""What a static green list gives and costs: the path `bias`, where an upstream takes biases only.

    OUTPUT_WATERMARK_SHARED=... python -m benchmarks.static_green_list [--replies 48] [--null]

Story model, temperature 1, biased in process as an engine does it. Three questions: how much of
the mark one reply carries (effect, median p against decoys), what the bias does to the replies
(KL from the unmarked distribution a token, share of distinct 4-grams), and how many texts of
people, none marked, a fixed key takes for marked: over keys the share is the nominal one, and
over the texts of one key it is not.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.story import Story, load_story, print_table, probabilities, stories
from watermark.detection import Detector
from watermark.schemes import green_list

if TYPE_CHECKING:
    from watermark.keys import KeyRecord

SIZES = (150, 512)
DELTAS = (0.0, 1.0, 2.0, 4.0)
KEYS = 200
ALPHA = 0.01


@dataclass(frozen=True)
class Replies:
    """Replies under one list."""

    ids: list[list[int]]
    divergence: float

    @property
    def diversity(self) -> float:
        """Share of distinct 4-grams over all replies."""
        grams = [tuple(one[i : i + 4]) for one in self.ids for i in range(len(one) - 3)]
        return len(set(grams)) / len(grams)


def key_of(story: Story, seed: int, size: int) -> KeyRecord:
    """Return a key of the scheme, made from a fixed seed."""
    scheme, parameters = "static-green-list", (("list_size", size),)
    return replace(story.key(seed), scheme=scheme, parameters=parameters)


def speak(story: Story, record: KeyRecord, delta: float, args: argparse.Namespace) -> Replies:
    """Return biased replies, and the mean divergence of a step from the unmarked one."""
    rng, green = np.random.default_rng(0), green_list(record)
    sequences = story.prompts(args.replies)
    begun, divergences = [len(one) for one in sequences], []
    steps = story.logits(sequences)
    for _ in range(args.tokens):
        logits = next(steps)
        plain = probabilities(logits.copy(), 1.0, story.end_id)
        logits[:, green[green < logits.shape[1]]] += delta
        marked = probabilities(logits, 1.0, story.end_id)
        ratio = np.log(np.maximum(marked, 1e-300) / np.maximum(plain, 1e-300))
        divergences.append(float((marked * ratio).sum(axis=1).mean()))
        for sequence, row in zip(sequences, marked, strict=True):
            sequence.append(int(rng.choice(len(row), p=row)))
    ids = [one[start:] for one, start in zip(sequences, begun, strict=True)]
    return Replies(ids, float(np.mean(divergences)))


def strength(story: Story, args: argparse.Namespace) -> None:
    """Print what a list gives and costs."""
    rows = []
    for size in SIZES:
        record = key_of(story, 1, size)
        detector = Detector(record, story.unit)
        for delta in DELTAS:
            said = speak(story, record, delta, args)
            # Scored from the text, as it would be found.
            results = [detector.detect(story.unit.decode(one)) for one in said.ids]
            n = sum(one.n_scored for one in results)
            effect = sum(one.effect * one.n_scored for one in results) / n
            median = float(np.median([one.log10_pvalue for one in results]))
            caught = float(np.mean([one.log_pvalue <= math.log(ALPHA) for one in results]))
            covered = n / (len(results) * args.tokens)
            rows.append(
                (size, delta, covered, effect, median, caught, said.divergence, said.diversity)
            )
    print_table(
        f"{args.replies} replies of {args.tokens} tokens",
        (
            "list",
            "delta",
            "scored a token",
            "effect",
            "median log10 p",
            f"p <= {ALPHA}",
            "KL a token (nats)",
            "distinct 4-grams",
        ),
        rows,
    )


def null(story: Story) -> None:
    """Print how often texts of people are taken for marked, over keys and under single ones."""
    texts = [story.unit.encode(text)[:200] for text in stories()[:10]]
    rates = []
    for seed in range(KEYS):
        detector = Detector(key_of(story, 1000 + seed, SIZES[1]))
        found = [detector.detect(one).log_pvalue <= math.log(ALPHA) for one in texts]
        rates.append(float(np.mean(found)))
    worst = sorted(rates)[-KEYS // 20 :]
    print_table(
        f"Unmarked stories at p <= {ALPHA}, {KEYS} keys, 10 texts each",
        ("rate over keys and texts", "keys with any", "mean rate of the worst 5% of keys"),
        [(float(np.mean(rates)), float(np.mean(np.array(rates) > 0)), float(np.mean(worst)))],
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replies", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--null", action="store_true", help="Only the rates of unmarked texts.")
    args = parser.parse_args()
    story = load_story()
    if not args.null:
        strength(story, args)
    null(story)


if __name__ == "__main__":
    main()
