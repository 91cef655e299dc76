"""Is a marked passage found in a long document, where is it said to be, and how often by mistake?

    OUTPUT_WATERMARK_SHARED=... python -m benchmarks.localization [--trials 200] [--clean 5000]

Marked: 200 tokens of the story model (temperature 1.0, context width 2, rho 0.9, in process),
put at a random word of other stories so that 10,000 tokens result; tokenized anew, looked for at
family-wise 1e-3. *Found*: a span overlaps the passage. *Edges*: distance in tokens of a found
span's ends, which stand on windows of 16 while the key is secret, from the passage's.

Clean: documents of 10,000 tokens (Shakespeare, WikiText-2, stories, GSM8K), each held against 40
keys of its own. *Limit*: the 99% point of the binomial law at 1e-3. Decoy keys on the document
instead of drawn scores: on the first trials, both must name the same spans.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import numpy as np
from scipy import stats

from benchmarks.marked import marked_replies
from benchmarks.story import Story, load_story, print_table, shared, stories
from watermark.detection import Localization, Localizer
from watermark.keys import KeyRecord, SecretKey

ALPHA = 1e-3
DOCUMENT, PASSAGE = 10_000, 200
PER_KEY = 50
KEYS_PER_DOCUMENT = 40
CHARACTERS = 60_000  # more than 10,000 tokens
STEP = 7_001  # from one document's first character to the next one's
WITH_DECOYS = 5


@dataclass(frozen=True)
class Trial:
    """A document with a marked passage, in units."""

    record: KeyRecord
    text: str
    passage: tuple[int, int]


def trials(story: Story, count: int) -> list[Trial]:
    """Return documents with a passage each, keys and places by trial number."""
    filler = "\n\n".join(stories())
    found = []
    for first in range(0, count, PER_KEY):
        record = story.key(1000 + first)
        prompts = story.prompts(min(PER_KEY, count - first), skip=first)
        replies = marked_replies(
            story, record, prompts, tokens=PASSAGE, temperature=1.0, seed=first
        )
        for row, reply in enumerate(replies):
            start = (first + row) * STEP % (len(filler) - CHARACTERS)
            around = filler[start : start + CHARACTERS]
            passage = story.unit.decode(reply.tolist())
            found.append(_document(story, record, around, passage, first + row))
    return found


def _document(story: Story, record: KeyRecord, around: str, passage: str, seed: int) -> Trial:
    """Return 10,000 tokens with the passage at a random word."""
    _, offsets = story.unit.encode_with_offsets(around)
    around = around[: int(offsets[DOCUMENT - PASSAGE, 0])]
    place = int(np.random.default_rng([seed, 3]).integers(len(around)))
    place = around.find(" ", place) if " " in around[place:] else len(around)
    text = around[:place] + passage + around[place:]
    _, offsets = story.unit.encode_with_offsets(text)
    first, last = np.searchsorted(offsets[:, 0], [place, place + len(passage)])
    return Trial(record, text, (int(first), int(last)))


def found_span(result: Localization, passage: tuple[int, int]) -> tuple[int, int] | None:
    """Return the span that overlaps the passage most."""
    overlaps = [
        (min(span.units[1], passage[1]) - max(span.units[0], passage[0]), span.units)
        for span in result.spans
    ]
    best = max(overlaps, default=(0, (0, 0)))
    return best[1] if best[0] > 0 else None


def measure_marked(story: Story, count: int) -> tuple[list[object], bool]:
    """Return the row of marked documents, and whether both bars are met."""
    rng = np.random.default_rng(0)
    starts, stops, others = [], [], 0
    agree = 0
    for number, trial in enumerate(trials(story, count)):
        localizer = Localizer(trial.record, story.unit)
        result = localizer.localize(trial.text, rng=rng, alpha=ALPHA)
        if number < WITH_DECOYS:
            decoys = localizer.localize(trial.text, rng=rng, alpha=ALPHA, with_decoys=True)
            agree += decoys.spans == result.spans
        span = found_span(result, trial.passage)
        others += len(result.spans) - (span is not None)
        if span is not None:
            starts.append(abs(span[0] - trial.passage[0]))
            stops.append(abs(span[1] - trial.passage[1]))
    edges = np.array(starts + stops)
    share = len(starts) / count
    row = [
        count,
        100 * share,
        float(np.median(edges)),
        float(np.quantile(edges, 0.9)),
        others,
        f"{agree} of {min(WITH_DECOYS, count)}",
    ]
    return row, share >= 0.95 and float(np.median(edges)) <= 25


def clean_documents(story: Story, count: int) -> list[np.ndarray]:
    """Return the ids of documents of 10,000 tokens."""
    folder = shared() / "text"
    sources = [
        (folder / "shakespeare/tinyshakespeare.txt").read_text(encoding="utf-8"),
        (folder / "wikitext2/test.txt").read_text(encoding="utf-8"),
        "\n\n".join(stories()),
        (folder / "gsm8k/train.jsonl").read_text(encoding="utf-8"),
    ]
    found: list[np.ndarray] = []
    for text in sources:
        for start in range(0, len(text) - CHARACTERS, CHARACTERS):
            if len(found) == count:
                return found
            ids = story.unit.encode(text[start : start + CHARACTERS])[:DOCUMENT]
            if len(ids) == DOCUMENT:
                found.append(ids)
    return found


def measure_clean(story: Story, count: int) -> tuple[list[object], bool]:
    """Return the row of clean documents, and whether the bar is met."""
    rng = np.random.default_rng(1)
    flagged = n = 0
    for ids in clean_documents(story, -(-count // KEYS_PER_DOCUMENT)):
        nulls: dict[tuple[int, int], object] = {}
        for _ in range(KEYS_PER_DOCUMENT):
            secret = SecretKey(f"clean-{n}", np.random.default_rng([n, 9]).bytes(32))
            record = KeyRecord(key_id=secret.key_id, unit=story.unit.unit_id, secret=secret)
            localizer = Localizer(record)
            localizer._nulls = nulls  # type: ignore[assignment] # one null a document  # noqa: SLF001
            flagged += bool(localizer.localize(ids, rng=rng, alpha=ALPHA).spans)
            n += 1
    limit = int(stats.binom.ppf(0.99, n, ALPHA))
    return [n, flagged, 100 * flagged / n, limit], flagged <= limit


def main() -> None:
    """Print both tables; exit 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--clean", type=int, default=5000)
    args = parser.parse_args()
    story = load_story()
    row, is_met = measure_marked(story, args.trials)
    head = ["documents", "found, %", "edges, median", "90%", "other spans", "decoys agree"]
    print_table("200 marked tokens in 10,000", head, [row])
    row, is_clean = measure_clean(story, args.clean)
    print_table("Clean documents", ["documents x keys", "flagged", "%", "limit"], [row])
    if not (is_met and is_clean):
        sys.exit(1)


if __name__ == "__main__":
    main()
