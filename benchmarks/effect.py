"""How strong is the mark, by path: effect per scored token, tokens to 1e-6, cost upstream.

    OUTPUT_WATERMARK_SHARED=... python -m benchmarks.effect [--prompts 64] [--tokens 200] [--quick]

Story model, context width 2, rho 0.9. Everything but the rows "in process" goes through the proxy
over HTTP and is scored from the delivered text, tokenized anew. The rows "over text" let the
upstream continue text only: no token ids go in or out. The end of text is banned by the
client's logit_bias in every row, so that all replies have the same length. SynthID's tournament
(transformers, depth 30, weighted mean) is the peer, on the same prompts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from benchmarks.marked import marked_replies
from benchmarks.story import (
    Setting,
    Story,
    complete,
    counter,
    load_story,
    print_table,
    probabilities,
    proxied,
    story_upstream,
)
from watermark.detection import Detector

if TYPE_CHECKING:
    from proxy.cli.servers import EmbeddedReady

ALPHA = 1e-6
TEMPERATURES = (1.0, 0.7)
SELECT = Setting("select", chunk_tokens=8, candidates=8)


@dataclass
class Row:
    """One line of the table."""

    name: str
    temperature: float
    effect: float
    median_tokens: float
    own_effect: float = math.nan  # scored from the sampler's ids
    lost: float = math.nan  # share of the sampler's positions that re-tokenizing loses
    covered: float = math.nan
    per_request: float = math.nan
    expected: float = math.nan
    generated: float = math.nan
    seconds: float = math.nan
    texts: list[str] = field(default_factory=list, repr=False)


def tokens_to_alpha(detector: Detector, ids: list[np.ndarray]) -> float:
    """Return the median number of tokens after which p <= 1e-6; inf where most never get there."""
    return float(np.median([_first_prefix(detector, one) for one in ids]))


def _first_prefix(detector: Detector, ids: np.ndarray) -> float:
    for length in range(detector.record.context_width + 1, len(ids) + 1):
        if detector.detect(ids[:length]).log_pvalue <= math.log(ALPHA):
            return length
    return math.inf


def pooled_effect(detector: Detector, ids: list[np.ndarray]) -> tuple[float, int]:
    """Return the mean excess per scored token over all replies, and how many were scored.

    Each reply is scored on its own, as a document would be.
    """
    results = [detector.detect(one) for one in ids]
    n = sum(result.n_scored for result in results)
    return sum(result.statistic for result in results) / n - 1.0, n


async def through_proxy(
    story: Story,
    ready: EmbeddedReady,
    setting: Setting,
    temperature: float,
    args: argparse.Namespace,
) -> Row:
    """Return a path's row."""
    record = story.key(1)
    detector = Detector(record, story.unit)
    began = time.perf_counter()
    async with proxied(setting, ready, record) as client:
        answers = await asyncio.gather(
            *(
                complete(
                    client,
                    model=ready.model,
                    prompt=story.unit.decode(prompt) if setting.is_text else prompt,
                    max_tokens=args.tokens,
                    temperature=temperature,
                    logit_bias={str(story.end_id): -100},
                    return_token_ids=not setting.is_text,
                )
                for prompt in story.prompts(args.prompts)
            )
        )
        drafts = await counter(client, "watermark_upstream_drafts_total")
        drafted = await counter(client, "watermark_drafted_tokens_total")
    seconds = time.perf_counter() - began
    assert all(answer["watermark"].startswith(f"marked; path={setting.path}") for answer in answers)
    choices = [answer["choices"][0] for answer in answers]
    texts = [choice["text"] for choice in choices]
    again = [story.unit.encode(text) for text in texts]
    effect, n_scored = pooled_effect(detector, again)
    delivered = sum(answer["usage"]["completion_tokens"] for answer in answers)
    row = Row(
        name=_name(setting, story),
        temperature=temperature,
        effect=effect,
        median_tokens=tokens_to_alpha(detector, again),
        per_request=delivered / drafts,
        generated=drafted / delivered,
        seconds=seconds,
        texts=texts,
    )
    if setting.is_text:  # the sampler's own ids are nobody's
        return row
    own = [np.array(choice["token_ids"], np.uint32) for choice in choices]
    own_effect, own_scored = pooled_effect(detector, own)
    row.own_effect = own_effect
    row.lost = 1 - (n_scored * effect) / (own_scored * own_effect)
    figures = _distribution_figures(story, setting, temperature, args, own)
    row.covered = figures.get("covered", math.nan)
    row.expected = figures.get("expected", math.nan)
    return row


def _name(setting: Setting, story: Story) -> str:
    over = " over text" if setting.is_text else ""
    if setting.path == "select":
        return f"select{over} k={setting.chunk_tokens} m={setting.candidates}"
    top = "all" if setting.logprobs >= story.model.vocab_size else str(setting.logprobs)
    kind = f"sampled x{setting.drafts}" if setting.drafts else "greedy"
    return f"splice{over} top-{top}, {kind}, d={setting.draft_tokens}"


def _distribution_figures(
    story: Story,
    setting: Setting,
    temperature: float,
    args: argparse.Namespace,
    own: list[np.ndarray],
) -> dict[str, float]:
    """Return covered mass and expected tokens a request, from the model at every position."""
    if setting.path != "splice":
        return {}
    prompts = story.prompts(args.prompts)
    sequences = [list(prompt) for prompt in prompts]
    most, covered = [], []
    for step, logits in zip(range(args.tokens), story.logits(sequences), strict=False):
        p = probabilities(logits, temperature, story.end_id)
        most.append(p.max(axis=1).mean())
        top = min(setting.logprobs, p.shape[1])
        covered.append(np.partition(p, -top, axis=1)[:, -top:].sum(axis=1).mean())
        for sequence, ids in zip(sequences, own, strict=True):
            sequence.append(int(ids[step]))
    mean_p, d = float(np.mean(most)), setting.draft_tokens
    return {"covered": float(np.mean(covered)), "expected": (1 - mean_p**d) / (1 - mean_p)}


def in_process(story: Story, temperature: float, args: argparse.Namespace) -> Row:
    """Return the row of sampling over the full distribution without any API between."""
    record = story.key(1)
    detector = Detector(record, story.unit)
    own = marked_replies(
        story, record, story.prompts(args.prompts), tokens=args.tokens, temperature=temperature
    )
    texts = [story.unit.decode(ids.tolist()) for ids in own]
    again = [story.unit.encode(text) for text in texts]
    effect, n_scored = pooled_effect(detector, again)
    own_effect, own_scored = pooled_effect(detector, own)
    return Row(
        name="in process, whole vocabulary",
        temperature=temperature,
        effect=effect,
        own_effect=own_effect,
        lost=1 - (n_scored * effect) / (own_scored * own_effect),
        median_tokens=tokens_to_alpha(detector, again),
        covered=1.0,
    )


def synthid(story: Story, temperature: float, args: argparse.Namespace) -> Row:
    """Return the row of SynthID's tournament, as transformers has it, weighted-mean score."""
    import torch
    from transformers import SynthIDTextWatermarkLogitsProcessor

    keys = np.random.default_rng(1).integers(1, 2**31, 30).tolist()
    processor = SynthIDTextWatermarkLogitsProcessor(
        ngram_len=3,  # context width 2, as ours
        keys=keys,
        sampling_table_size=2**16,
        sampling_table_seed=0,
        context_history_size=1024,
        device=torch.device("cpu"),
    )
    prompts = story.prompts(args.prompts)
    sequences = [list(prompt) for prompt in prompts]
    generator = torch.Generator().manual_seed(1)
    replies: list[list[int]] = [[] for _ in prompts]
    for _, logits in zip(range(args.tokens), story.logits(sequences), strict=False):
        p = probabilities(logits, temperature, story.end_id)
        scores = torch.log(torch.tensor(p, dtype=torch.float32).clamp_min(1e-38))
        # The processor reads contexts from the ids, so it is given the replies alone.
        ids = torch.tensor([[0, 0, *reply] for reply in replies])[:, -len(replies[0]) - 2 :]
        marked = torch.softmax(processor(ids, scores), dim=-1)
        drawn = torch.multinomial(marked, 1, generator=generator)[:, 0].tolist()
        for reply, sequence, token in zip(replies, sequences, drawn, strict=True):
            reply.append(token)
            sequence.append(token)
    texts = [story.unit.decode(reply) for reply in replies]
    ids_again = [torch.tensor(story.unit.encode(text).astype(np.int64))[None] for text in texts]
    scored = [_weighted_scores(processor, one) for one in ids_again]
    excess = np.concatenate(list(scored))
    return Row(
        name="SynthID tournament, depth 30",
        temperature=temperature,
        effect=float(excess.mean()),
        median_tokens=float(np.median([_tournament_tokens(scores) for scores in scored])),
    )


def _weighted_scores(processor: object, ids: object) -> np.ndarray:
    """Return each scored position's weighted g-mean, centered and scaled under its null."""
    g = processor.compute_g_values(input_ids=ids)[0].double().numpy()  # type: ignore[attr-defined]
    keep = processor.compute_context_repetition_mask(input_ids=ids)[0].numpy()  # type: ignore[attr-defined]
    weights = np.linspace(10, 1, g.shape[1])
    weights *= g.shape[1] / weights.sum()
    scores = (g * weights).mean(axis=1)
    deviation = 0.5 * math.sqrt((weights**2).sum()) / g.shape[1]
    result: np.ndarray = ((scores - 0.5) / deviation)[keep.astype(bool)]
    return result


def _tournament_tokens(scores: np.ndarray) -> float:
    """Return after how many tokens the normal approximation of the weighted mean says 1e-6."""
    z = np.cumsum(scores) / np.sqrt(np.arange(1, len(scores) + 1))
    below = np.flatnonzero(special.log_ndtr(-z) <= math.log(ALPHA))
    return float(below[0] + 3) if len(below) else math.inf


def settings(story: Story, *, quick: bool, text_only: bool) -> list[Setting]:
    """Return the paths to measure."""
    vocab = story.model.vocab_size
    base = Setting("splice", draft_tokens=4)
    rows = [
        replace(base, logprobs=5, drafts=2),
        replace(base, logprobs=20, drafts=2),
        replace(base, logprobs=20),
        replace(base, logprobs=100),
        replace(base, logprobs=100, drafts=2),
        replace(base, logprobs=vocab),
    ]
    over_text = [replace(rows[4], is_text=True), replace(SELECT, is_text=True)]
    if text_only:
        return [rows[4], SELECT, *over_text]
    return [rows[1], SELECT] if quick else [*rows, SELECT, *over_text]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="two paths only")
    parser.add_argument("--text", action="store_true", help="paths over text, and their likes")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    args = parser.parse_args()
    story = load_story()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, story_upstream(Path(folder)) as ready:
        for temperature in TEMPERATURES:
            rows.append(in_process(story, temperature, args))
            for setting in settings(story, quick=args.quick, text_only=args.text):
                rows.append(asyncio.run(through_proxy(story, ready, setting, temperature, args)))
                print(rows[-1], flush=True)
            rows.append(synthid(story, temperature, args))
    head = (
        "temperature",
        "path",
        "effect",
        "tokens to 1e-6",
        "effect, own ids",
        "lost by re-tokenizing",
        "covered mass",
        "tokens/request",
        "(1-p^d)/(1-p)",
        "ratio",
        "generated/delivered",
        "s",
    )
    print_table(
        f"Story model, {args.prompts} prompts, {args.tokens} tokens",
        head,
        [
            (
                r.temperature,
                r.name,
                r.effect,
                r.median_tokens,
                r.own_effect,
                r.lost,
                r.covered,
                r.per_request,
                r.expected,
                r.per_request / r.expected,
                r.generated,
                r.seconds,
            )
            for r in rows
        ],
    )
    if args.json:
        args.json.write_text(
            json.dumps([{k: v for k, v in vars(r).items() if k != "texts"} for r in rows], indent=1)
        )


if __name__ == "__main__":
    main()
