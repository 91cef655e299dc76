"""Are p-values uniform over keys, whatever the text, where peers' are not?

    OUTPUT_WATERMARK_SHARED=... python -m benchmarks.null_calibration_keys [--peers] [--keys N]

Cells: prose (WikiText-2), Shakespeare, Python source of the standard library, licence texts of the
system, GSM8K answers, and one template repeated 1,000 times; each in words/v1 and in tokens of
GPT-2, at context widths 1, 2 and 4, each under 10,000 keys of its own (seeds fixed): 100 texts of
1,200 characters, 100 keys a text. For each cell Kolmogorov-Smirnov against the uniform law, and the
shares below 1e-2, 1e-3, 1e-4 against the binomial law, two-sided; Holm over all of them at 0.01.

Then: repetition must leave p unchanged to 1e-12; a detector without the repeat rule must fail on
the template (negative control); and, with --peers, the detectors of transformers and TextSeal on
the first texts of each cell, at their defaults and with repeats left out where they can.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from benchmarks.story import print_table, shared
from watermark.detection import Document, detect_many
from watermark.keys import KeyRecord, SecretKey
from watermark.schemes import scores_from_levels
from watermark.seeding import ContextPRF, context_windows, uniform_levels
from watermark.stats import gamma_log_sf, holm
from watermark.text import TokenizerUnit, Unit, WordsUnit

if TYPE_CHECKING:
    from collections.abc import Callable

ALPHA = 0.01
LEVELS = (1e-2, 1e-3, 1e-4)
N_TEXTS = 100
CHARACTERS = 1200
WIDTHS = (1, 2, 4)
REPEATS = 1000
PEER_KEYS = 100
TEMPLATE = (
    "Dear customer {n}, your order has been shipped today. You can follow it on our page at any "
    "time; if you have a question about it, answer to this message and we will help you.\n"
)


def record(seed: int, unit: Unit, width: int) -> KeyRecord:
    """Return the key of a seed."""
    secret = SecretKey(f"null-{seed}", np.random.default_rng(seed).bytes(32))
    return KeyRecord(key_id=secret.key_id, unit=unit.unit_id, context_width=width, secret=secret)


def pieces(text: str) -> list[str]:
    """Return texts of equal length, spread over a corpus."""
    starts = np.linspace(0, len(text) - CHARACTERS, N_TEXTS).astype(int)
    return [text[start : start + CHARACTERS] for start in starts]


def corpora() -> dict[str, list[str]]:
    """Return the texts of every cell."""
    library = Path(os.__file__).parent
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted(library.glob("*.py")))
    licences = sorted(Path("/usr/share/common-licenses").glob("*-*")) or [library / "LICENSE.txt"]
    answers = (shared() / "text/gsm8k/test.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "prose": pieces((shared() / "text/wikitext2/test.txt").read_text(encoding="utf-8")),
        "Shakespeare": pieces((shared() / "text/shakespeare/tinyshakespeare.txt").read_text()),
        "Python source": pieces(source),
        "licences": pieces("\n".join(path.read_text(errors="replace") for path in licences)),
        "GSM8K answers": pieces("\n".join(json.loads(line)["answer"] for line in answers)),
        f"template x {REPEATS}": [TEMPLATE.format(n=n) * REPEATS for n in range(N_TEXTS)],
    }


def p_values(
    texts: list[np.ndarray], unit: Unit, width: int, first: int, n_keys: int
) -> np.ndarray:
    """Return one p-value a key, each text under its share of the keys."""
    share = n_keys // len(texts)
    logs: list[float] = []
    for i, text in enumerate(texts):
        seeds = range(first + i * share, first + (i + 1) * share)
        family = detect_many([record(seed, unit, width) for seed in seeds], [text])
        logs += [result.log_pvalue for result in family]
    return np.exp(logs)


def tests(values: np.ndarray) -> list[float]:
    """Return the log p-values of uniformity and of the share below every level."""
    ks = stats.kstest(values, "uniform").pvalue
    below = [
        stats.binomtest(int((values <= level).sum()), len(values), level).pvalue for level in LEVELS
    ]
    return [float(np.log(max(p, 1e-300))) for p in (ks, *below)]


def calibrate(n_keys: int, units: dict[str, Unit]) -> bool:
    """Print the table; return whether no cell is rejected."""
    cells: list[tuple[str, str, int, np.ndarray]] = []
    first = 0
    for source, texts in corpora().items():
        for name, unit in units.items():
            ids = [unit.encode(text) for text in texts]
            for width in WIDTHS:
                values = p_values(ids, unit, width, first, n_keys)
                cells.append((source, name, width, values))
                first += n_keys
    found = [tests(values) for *_, values in cells]
    flat = np.exp(holm([log for row in found for log in row]))
    adjusted = flat.reshape(len(cells), -1).min(axis=1)
    print_table(
        f"p-values of text without the key, {len(cells)} cells",
        ("texts", "unit", "width", "keys", "KS p", *map(str, LEVELS), "smallest Holm p"),
        [
            (
                source,
                name,
                width,
                len(values),
                math.exp(row[0]),
                *(float((values <= level).mean()) for level in LEVELS),
                float(lowest),
            )
            for (source, name, width, values), row, lowest in zip(
                cells, found, adjusted, strict=True
            )
        ],
    )
    return bool(adjusted.min() > ALPHA)


def repetition(unit: Unit) -> bool:
    """Print how far repetition moves p; return whether it stays below 1e-12."""
    keys = [record(seed, unit, 2) for seed in range(100)]
    text = unit.encode(TEMPLATE.format(n=0))
    worst = 0.0
    for once, often in (
        ([np.tile(text, 2)], [np.tile(text, REPEATS)]),
        ([text], [text] * REPEATS),
    ):
        pooled = [detect_pooled(keys, replies) for replies in (once, often)]
        worst = max(worst, float(np.abs(np.exp(pooled[0]) - np.exp(pooled[1])).max()))
    print(f"\nrepetition x {REPEATS}, in one text and as {REPEATS} replies: p moves by {worst:.1g}")
    return worst <= 1e-12


def detect_pooled(keys: list[KeyRecord], replies: list[np.ndarray]) -> np.ndarray:
    """Return the log p-values of replies tested as one body."""
    family = detect_many(keys, [Document(replies=tuple(replies))])
    return np.array([result.log_pvalue for result in family])


def without_repeat_rule(unit: Unit, n_keys: int) -> float:
    """Return the KS p-value of a detector that counts every position: the negative control."""
    ids = unit.encode(TEMPLATE.format(n=0) * 20)
    values = []
    for seed in range(n_keys):
        prf = ContextPRF(record(seed, unit, 2).secret.subkey("context", 16))
        streams, _ = prf.evaluate(context_windows(ids, 2))
        scores = scores_from_levels(uniform_levels(streams, ids[2:]))
        values.append(math.exp(gamma_log_sf(float(scores.sum()), len(scores))))
    return float(stats.kstest(values, "uniform").pvalue)


def transformers_peer(*, repeats: bool) -> Callable[[np.ndarray, int], float]:
    """Return transformers' green-list detector, context width 1, under the key of a seed."""
    import torch
    from transformers import GPT2Config, WatermarkDetector, WatermarkingConfig

    torch.set_num_threads(1)

    def p_value(ids: np.ndarray, seed: int) -> float:
        key = int(np.random.default_rng(seed).integers(1, 2**31))
        detector = WatermarkDetector(
            model_config=GPT2Config(vocab_size=50_257, bos_token_id=50_256),
            device="cpu",
            watermarking_config=WatermarkingConfig(hashing_key=key, seeding_scheme="lefthash"),
            ignore_repeated_ngrams=not repeats,
        )
        return float(
            detector(torch.tensor(ids.astype(np.int64))[None], return_dict=True).p_value[0]
        )

    return p_value


def _enter_textseal() -> None:
    if "textseal.posthoc" in sys.modules:
        return
    found = importlib.util.find_spec("textseal")
    if found is None or found.origin is None:
        raise ModuleNotFoundError(name="textseal")
    for name in ("textseal", "textseal.posthoc"):
        room = types.ModuleType(name)
        room.__path__ = [str(Path(found.origin).parent / Path(*name.split(".")[1:]))]
        sys.modules[name] = room


def textseal_peer(*, repeats: bool) -> Callable[[np.ndarray, int], float]:
    """Return TextSeal's Gumbel-max detector, context width 2, under the key of a seed.

    Its rooms are entered without their `__init__`, which imports its whole evaluation.
    """
    _enter_textseal()
    from textseal.common.watermark.core import WatermarkConfig
    from textseal.posthoc.detector import build_detector

    class Ids:
        """A tokenizer for text that is cut already."""

        vocab_size = 50_257

        def add_special_tokens(self) -> None: ...

        def decode(self, ids: object) -> str:
            return str(ids)

        def encode(self, ids: list[int], *, add_special_tokens: bool) -> list[int]:
            assert not add_special_tokens
            return ids

    def p_value(ids: np.ndarray, seed: int) -> float:
        key = int(np.random.default_rng(seed).integers(1, 2**31))
        config = WatermarkConfig(watermark_type="gumbelmax", ngram=2, secret_key=key)
        detector = build_detector(Ids(), config)
        seen: set[object] | None = None if repeats else set()
        scores = detector.get_scores_by_t([ids.tolist()], scoring_method="v2", seen_windows=seen)
        return float(detector.get_pvalues(scores)[0])

    return p_value


def peers(unit: Unit) -> None:
    """Print how peers do on the same texts, GPT-2 tokens, 400 tokens at most."""
    makers: dict[str, Callable[[], Callable[[np.ndarray, int], float]]] = {
        "transformers green list, default": lambda: transformers_peer(repeats=True),
        "transformers green list, repeats ignored": lambda: transformers_peer(repeats=False),
        "TextSeal Gumbel-max, default call": lambda: textseal_peer(repeats=True),
        "TextSeal Gumbel-max, with a set of seen pairs": lambda: textseal_peer(repeats=False),
    }
    rows = []
    for name, make in makers.items():
        try:
            p_value = make()
        except ImportError as error:
            print(f"\n{name}: not installed ({error.name})")
            continue
        for source, texts in corpora().items():
            ids = [unit.encode(text[: 4 * CHARACTERS])[:400] for text in texts]
            values = np.array([p_value(ids[i % N_TEXTS], i) for i in range(PEER_KEYS)])
            ks = float(stats.kstest(values, "uniform").pvalue)
            shares = [float((values <= level).mean()) for level in (0.05, *LEVELS)]
            rows.append((name, source, len(values), ks, *shares))
    heads = ("detector", "texts", "keys", "KS p", "0.05", *map(str, LEVELS))
    print_table("peers on the same texts", heads, rows)


def main() -> None:
    """Measure, print, and fail where a cell is not uniform."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000, help="keys a cell")
    parser.add_argument("--peers", action="store_true", help="also run the peers' detectors")
    args = parser.parse_args()
    gpt2 = TokenizerUnit.read(shared() / "tokenizers/gpt2-50k/tokenizer.json")
    is_uniform = calibrate(args.keys, {"words/v1": WordsUnit(), "GPT-2": gpt2})
    is_unmoved = repetition(gpt2)
    control = without_repeat_rule(gpt2, min(args.keys, 1000))
    print(f"negative control, template x 20 without the repeat rule: KS p = {control:.2g}")
    if args.peers:
        peers(gpt2)
    if not is_uniform or not is_unmoved or control > ALPHA:
        sys.exit("calibration failed")


if __name__ == "__main__":
    main()
