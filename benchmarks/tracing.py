"""Who was served: accounts found among a million by text, what the account share costs, how fast.

    OUTPUT_WATERMARK_SHARED=... python -m benchmarks.tracing [--seed N] [--texts FILE] [--quick]
    python -m benchmarks.tracing --speed

Story model, whole vocabulary in process, temperature 1.0, context width 2, rho 0.9, account share
1/4, end of text banned. Single texts: 800 tokens of one account each, every text held against the
same list of a million accounts, each trial a family of its own. Mixture: 10 accounts, 30 replies of
200 tokens each, pooled. Documents: the first 15 replies of each, document by document. Innocent
accounts are the rest of the list; the tail of their p-values is compared with its nominal level.
The epoch test of the same texts is compared with texts made without a share. Key, private draws,
prompts and names follow from `--seed`; the strengths and shares of `tracing/segments.py` were
chosen on seed 7, so figures to report are those of another. `--speed` times one pass of a million
accounts over 100,000 random tokens, names included; the processor's time is of all threads, and
says on a busy machine what the clock does not.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from watermark.detection import Detector
from watermark.keys import KeyRecord, SecretKey
from watermark.seeding import KeyedUniforms
from watermark.stats import holm
from watermark.tracing import BodyTrace, code_sums, trace_accounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from benchmarks.story import Story

TUNED_ON, DEFAULT_SEED = 7, 8
ALPHA = 1e-3
SHARE_Q16 = 1 << 14
ROWS = 60
SINGLE_TOKENS, REPLY_TOKENS = 800, 200
N_MIXED, MIXED_REPLIES, DOCUMENT_REPLIES = 10, 30, 15
RESTART_AFTER, KEPT_TOKENS = 300, 100  # the story model's context holds 512


@dataclass(frozen=True)
class Texts:
    """Token ids: single texts, replies of the mixture account by account, texts without a share."""

    single: NDArray[np.uint32]
    mixed: NDArray[np.uint32]
    without: NDArray[np.uint32]


def generate(
    story: Story, record: KeyRecord, accounts: Sequence[str], tokens: int, *, seed: int, skip: int
) -> NDArray[np.uint32]:
    """Return one reply an account, shape (len(accounts), tokens)."""
    return np.concatenate(
        [
            _batch(story, record, accounts[i : i + ROWS], tokens, seed=seed + i, skip=skip + i)
            for i in range(0, len(accounts), ROWS)
        ]
    )


def _batch(
    story: Story, record: KeyRecord, accounts: Sequence[str], tokens: int, *, seed: int, skip: int
) -> NDArray[np.uint32]:
    from benchmarks.story import probabilities
    from proxy.sampling.candidates import CandidateList
    from proxy.sampling.reply import Reply

    keyed = {name: KeyedUniforms(record, account=name) for name in set(accounts)}
    replies = [
        Reply(keyed[name], np.random.default_rng([seed, i]), max_tokens=None)
        for i, name in enumerate(accounts)
    ]
    sequences = [list(prompt) for prompt in story.prompts(len(accounts), skip=skip)]
    every = np.arange(story.model.vocab_size, dtype=np.uint32)
    while (left := tokens - len(replies[0].tokens)) > 0:
        steps = range(min(RESTART_AFTER, left))
        for _, logits in zip(steps, story.logits(sequences), strict=False):
            p = probabilities(logits, 1.0, story.end_id)
            for row, (reply, sequence) in enumerate(zip(replies, sequences, strict=True)):
                token = reply.choose(CandidateList(every, p[row], 0.0), reply.stream())
                assert token is not None
                reply.spend(tuple(reply.tokens), (token,))
                reply.extend((token,))
                sequence.append(token)
        sequences = [sequence[-KEPT_TOKENS:] for sequence in sequences]
    return np.array([reply.tokens for reply in replies], np.uint32)


def make_texts(story: Story, record: KeyRecord, *, trials: int, seed: int) -> Texts:
    """Generate everything that is traced; three seeds in a row share no prompt."""
    single = [f"single-{i}" for i in range(trials)]
    mixed = [f"mixed-{i}" for i in range(N_MIXED) for _ in range(MIXED_REPLIES)]
    off = replace(record, account_share_q16=0)
    draws, skip = 100_000 * seed, 300 * ((seed - TUNED_ON) % 3)
    return Texts(
        single=generate(story, record, single, SINGLE_TOKENS, seed=draws, skip=skip),
        mixed=generate(story, record, mixed, REPLY_TOKENS, seed=draws + 10_000, skip=skip + 1000),
        without=generate(story, off, single, REPLY_TOKENS, seed=draws + 20_000, skip=skip),
    )


def account_list(n: int, trials: int) -> list[str]:
    """Return n accounts: those served, and innocent ones."""
    guilty = [f"single-{i}" for i in range(trials)] + [f"mixed-{i}" for i in range(N_MIXED)]
    return guilty + [f"innocent-{i:07d}" for i in range(n - len(guilty))]


def named_alone(trace: BodyTrace) -> list[str]:
    """Return who is named where this body is the whole family."""
    logs = holm([one.log_pvalue for one in trace.ranked], family_size=trace.n_accounts)
    level = math.log(ALPHA)
    return [one.account for one, log in zip(trace.ranked, logs, strict=True) if log <= level]


def single_table(record: KeyRecord, texts: Texts, accounts: Sequence[str]) -> None:
    """Print how single texts are traced, and the tail of the innocent accounts' p-values."""
    from benchmarks.story import print_table

    with ThreadPoolExecutor(_cores()) as threads:
        sums = [code_sums(record, [ids]) for ids in texts.single]
        traces = trace_accounts(sums, accounts, over=threads.map)
    named = [named_alone(trace) for trace in traces]
    own = [f"single-{i}" in names for i, names in enumerate(named)]
    wrong = [any(name != f"single-{i}" for name in names) for i, names in enumerate(named)]
    z = [one.z for i, t in enumerate(traces) for one in t.ranked if one.account == f"single-{i}"]
    head = ("trials", "accounts", "own named", "an innocent named", "pairs", "own z, median", "5%")
    pairs = float(np.median([t.n_scored for t in traces]))
    low, median = np.quantile(z, [0.05, 0.5]).tolist()
    print_table(
        f"One text of {SINGLE_TOKENS} tokens, family-wise {ALPHA:g}",
        head,
        [(len(own), len(accounts), _share(own), _share(wrong), pairs, median, low)],
    )
    tail_table(traces)


def tail_table(traces: Sequence[BodyTrace]) -> None:
    """Print how often innocent accounts' p-values fall below a level."""
    from benchmarks.story import print_table

    logs = np.array(
        [one.log_pvalue for t in traces for one in t.ranked if one.account.startswith("innocent")]
    )
    n_tests = sum(t.n_accounts for t in traces)
    rows = []
    for exponent in (-3.5, -4, -5, -6, -7, -8):
        found = int((logs <= exponent * math.log(10)).sum())
        rows.append((10**exponent, found, n_tests * 10**exponent))
    head = ("p at most", "tests of innocent accounts", "expected if exact")
    print_table(f"{n_tests} tests of innocent accounts", head, rows)


def mixture_tables(record: KeyRecord, texts: Texts, accounts: Sequence[str]) -> None:
    """Print how a mixture is traced, pooled and document by document."""
    from benchmarks.story import print_table

    replies = texts.mixed.reshape(N_MIXED, MIXED_REPLIES, REPLY_TOKENS)
    documents = replies[:, :DOCUMENT_REPLIES]
    with ThreadPoolExecutor(_cores()) as threads:
        sums = code_sums(record, replies.reshape(-1, REPLY_TOKENS))
        (pooled,) = trace_accounts([sums], accounts, over=threads.map)
        each = trace_accounts(
            [code_sums(record, list(one)) for one in documents], accounts, over=threads.map
        )
    names = {one.account for one in pooled.named(alpha=ALPHA)}
    own = {f"mixed-{i}" for i in range(N_MIXED)}
    z = sorted(one.z for one in pooled.ranked if one.account in own)
    right = [
        {one.account for one in trace.named(alpha=ALPHA)} == {f"mixed-{i}"}
        for i, trace in enumerate(each)
    ]
    rows = [
        (
            f"pooled, {MIXED_REPLIES * REPLY_TOKENS} tokens each",
            f"{len(names & own)} of {N_MIXED}",
            len(names - own),
            f"{z[0]:.1f} to {z[-1]:.1f}" if z else "",
        ),
        (
            f"document by document, {DOCUMENT_REPLIES * REPLY_TOKENS} tokens each",
            f"{sum(right)} of {N_MIXED}",
            sum(len(trace.named(alpha=ALPHA)) for trace in each) - sum(right),
            f"{min(t.ranked[0].z for t in each):.1f} to {max(t.ranked[0].z for t in each):.1f}",
        ),
    ]
    head = ("mixture of 10 accounts", "named", "others named", "z")
    print_table(f"{len(accounts)} accounts, family-wise {ALPHA:g}", head, rows)


def share_table(record: KeyRecord, texts: Texts) -> None:
    """Print what the account share costs the epoch test."""
    from benchmarks.story import print_table

    rows, power = [], []
    for share, ids in ((0, texts.without), (SHARE_Q16, texts.single[:, :REPLY_TOKENS])):
        detector = Detector(replace(record, account_share_q16=share))
        results = [detector.detect(one) for one in ids]
        scored = np.array([result.n_scored for result in results])
        excess = np.array([result.statistic for result in results]) - scored
        effect = excess.sum() / scored.sum()
        rate = scored.mean() / REPLY_TOKENS
        error = float(np.std(excess - effect * scored) / scored.mean() / math.sqrt(len(ids)))
        power.append((rate * effect**2, 2 * error / effect))
        rows.append((share / 65536, rate, f"{effect:.3f} +- {error:.3f}"))
    ratio = power[0][0] / power[1][0]
    error = ratio * math.hypot(power[0][1], power[1][1])
    title = f"Epoch test: tokens needed, {ratio:.2f} +- {error:.2f} times (1/(1 - share) = 1.33)"
    print_table(title, ("share", "scored per token", "effect"), rows)


def speed_table(n_accounts: int) -> None:
    """Print how long one pass takes, and the memory of this process."""
    from benchmarks.story import print_table

    secret = SecretKey("speed", bytes(range(32)))
    record = KeyRecord(key_id="speed", unit="words/v1", secret=secret, account_share_q16=SHARE_Q16)
    accounts = [f"account-{i:07d}" for i in range(n_accounts)]
    ids = np.random.default_rng(0).integers(0, 50_000, 100_000).astype(np.uint32)
    rows = []
    for _ in range(3):
        began, spent = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(_cores()) as threads:
            (trace,) = trace_accounts([code_sums(record, [ids])], accounts, over=threads.map)
        seconds, spent = time.perf_counter() - began, time.process_time() - spent
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append(
            (
                n_accounts,
                trace.n_scored,
                _cores(),
                f"{seconds:.2f}",
                f"{spent:.2f}",
                f"{memory:.0f}",
            )
        )
    head = ("accounts", "pairs", "cores", "s", "CPU s", "peak MiB")
    print_table("One pass over 100,000 tokens, names included", head, rows)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _share(hits: Sequence[bool]) -> str:
    return f"{sum(hits)} ({100 * sum(hits) / len(hits):.1f}%)"


def _load(path: Path | None, *, trials: int, seed: int) -> tuple[KeyRecord, Texts]:
    """Return the key and the texts, from the file where it is there."""
    from benchmarks.story import load_story

    story = load_story()
    record = replace(story.key(seed), account_share_q16=SHARE_Q16)
    if path is not None and path.exists():
        with np.load(path) as found:
            return record, Texts(**{name: found[name] for name in found.files})
    texts = make_texts(story, record, trials=trials, seed=seed)
    if path is not None:
        np.savez(path, **vars(texts))
    return record, texts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=Path, help="keep the generated texts in this .npz")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="20 trials, 10,000 accounts")
    parser.add_argument("--speed", action="store_true", help="the timing only; needs no model")
    args = parser.parse_args()
    if args.quick:
        args.trials, args.accounts = 20, 10_000
    if args.speed:
        speed_table(args.accounts)
        return
    record, texts = _load(args.texts, trials=args.trials, seed=args.seed)
    accounts = account_list(args.accounts, len(texts.single))
    single_table(record, texts, accounts)
    mixture_tables(record, texts, accounts)
    share_table(record, texts)
    speed_table(args.accounts)


if __name__ == "__main__":
    main()
