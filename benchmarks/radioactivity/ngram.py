"""A teacher and suspects that are Markov chains: small enough for thousands of keys.

The teacher marks by plain Gumbel-max (rho 1, the strongest there is), each context once a reply;
`select` draws whole chunks and keeps the one with the largest score sum. A suspect never sees the
key: it samples from the unmarked chain, and copies from its prompt wherever it can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from watermark.keys import LABEL_CONTEXT, KeyRecord, SecretKey
from watermark.seeding import ContextPRF, levels_to_uniforms, pair_levels, pair_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tokens = NDArray[np.uint32]

WIDTH = 2


def key_of(seed: int, *, key_id: str = "k", account_share_q16: int = 0) -> KeyRecord:
    """Return a key made from a seed: for measurements only."""
    secret = SecretKey(key_id, np.random.default_rng([seed, 99]).bytes(32))
    return KeyRecord(
        key_id=key_id,
        unit="words/v1",
        context_width=WIDTH,
        account_share_q16=account_share_q16,
        secret=secret,
    )


@dataclass(frozen=True)
class Chain:
    """A first-order Markov chain: its law of the next token by the last one, shape (v, v)."""

    law: NDArray[np.float64]

    @classmethod
    def of(cls, seed: int, *, vocab: int = 24, concentration: float = 0.2) -> Chain:
        """Return a chain; the smaller the concentration, the fewer choices it has."""
        rng = np.random.default_rng(seed)
        return cls(rng.dirichlet(np.full(vocab, concentration), vocab) * 0.98 + 0.02 / vocab)

    @property
    def vocab(self) -> int:
        """Number of tokens."""
        return len(self.law)

    @classmethod
    def branching(cls, seed: int, *, vocab: int = 300, hubs: float = 0.2, ways: int = 12) -> Chain:
        """Return a chain that is all but certain, save at some tokens after which it forks."""
        rng = np.random.default_rng(seed)
        law = np.full((vocab, vocab), 0.02 / vocab)
        for row in law:
            if rng.random() < hubs:
                row[rng.choice(vocab, ways, replace=False)] += 0.98 / ways
            else:
                row[rng.integers(vocab)] += 0.98
        return cls(law / law.sum(axis=1, keepdims=True))

    def with_loops(self, share: float) -> Chain:
        """Return a chain that repeats its last token with some chance."""
        return Chain((1.0 - share) * self.law + share * np.eye(self.vocab))

    def sample(self, last: Tokens, rng: np.random.Generator) -> Tokens:
        """Return a next token for each row."""
        cumulated = self.law[last].cumsum(axis=1)
        chosen = (cumulated < rng.random((len(last), 1))).sum(axis=1)
        return np.asarray(np.minimum(chosen, self.vocab - 1), np.uint32)

    def starts(self, rows: int, rng: np.random.Generator) -> Tokens:
        """Return first tokens, shape (rows, 2)."""
        return rng.integers(0, self.vocab, (rows, 2), dtype=np.uint32)


def scores_after(record: KeyRecord, contexts: Tokens, tokens: Tokens) -> NDArray[np.float64]:
    """Return -log(1 - u) of pairs; contexts (n, 2), tokens (n,) or (n, v)."""
    streams = ContextPRF(record.secret.subkey(LABEL_CONTEXT, 16)).evaluate(contexts)[0]
    if tokens.ndim == 2:
        streams = np.broadcast_to(streams[:, None], tokens.shape)
    levels = pair_levels(pair_values(streams.ravel().copy(), tokens.ravel()))
    return -np.log1p(-levels_to_uniforms(levels)).reshape(tokens.shape)


def marked(
    chain: Chain,
    record: KeyRecord,
    rows: int,
    length: int,
    rng: np.random.Generator,
    *,
    topics: bool = False,
) -> Tokens:
    """Return marked replies, shape (rows, length).

    With topics they are scored as they stand `in_topics`, and returned as they stood before.
    """
    there = np.arange(rows, dtype=np.uint32)[:, None] * np.uint32(chain.vocab if topics else 0)
    ids = np.zeros((rows, length), np.uint32)
    ids[:, :2] = chain.starts(rows, rng)
    met = np.zeros((rows, chain.vocab**2), np.bool_)
    every = np.broadcast_to(np.arange(chain.vocab, dtype=np.uint32), (rows, chain.vocab))
    row = np.arange(rows)
    for place in range(2, length):
        context = ids[:, place - 2 : place]
        number = context[:, 0].astype(np.int64) * chain.vocab + context[:, 1]
        u = -np.expm1(-scores_after(record, context + there, every + there))
        race = np.log(np.maximum(u, 1e-300)) / chain.law[context[:, 1]]
        free = chain.sample(context[:, 1], rng)
        ids[:, place] = np.where(met[row, number], free, race.argmax(axis=1))
        met[row, number] = True
    return ids


def selected(
    chain: Chain,
    record: KeyRecord,
    rows: int,
    chunks: int,
    rng: np.random.Generator,
    *,
    chunk: int = 12,
    candidates: int = 24,
) -> Tokens:
    """Return replies marked chunk by chunk, shape (rows, 2 + chunks * chunk).

    They are scored as they stand `in_topics`, and returned as they stood before.
    """
    ids = chain.starts(rows, rng)
    topics = np.repeat(np.arange(rows, dtype=np.uint32) * chain.vocab, candidates)[:, None]
    for _ in range(chunks):
        drawn = np.repeat(ids[:, -2:], candidates, axis=0)
        for _ in range(chunk):
            drawn = np.concatenate([drawn, chain.sample(drawn[:, -1], rng)[:, None]], axis=1)
        there = drawn + topics
        windows = np.lib.stride_tricks.sliding_window_view(there, 2, axis=1)[:, :-1]
        scores = scores_after(record, windows.reshape(-1, 2).copy(), there[:, 2:].ravel())
        best = scores.reshape(rows, candidates, chunk).sum(axis=2).argmax(axis=1)
        kept = drawn.reshape(rows, candidates, -1)[np.arange(rows), best, 2:]
        ids = np.concatenate([ids, kept], axis=1)
    return ids


def in_topics(ids: Tokens, vocab: int) -> Tokens:
    """Return texts whose rows share no token: what a row shows is not in view of another.

    Args:
        ids: Shape (rows, n).
        vocab: Number of tokens before.
    """
    return ids + np.arange(len(ids), dtype=np.uint32)[:, None] * np.uint32(vocab)


def answers(
    chain: Chain,
    prompts: Tokens,
    length: int,
    rng: np.random.Generator,
    *,
    copies: float = 0.0,
) -> Tokens:
    """Return what a suspect that never saw the key says, shape (rows, length).

    Args:
        chain: Its law.
        prompts: Shape (rows, m).
        length: Tokens of each answer.
        rng: Its own randomness.
        copies: Chance to say what followed the last two tokens in the prompt, if they are in it.
    """
    rows = len(prompts)
    follows = np.full((rows, chain.vocab**2), -1, np.int64)
    row = np.arange(rows)
    for place in range(2, prompts.shape[1]):
        number = prompts[:, place - 2].astype(np.int64) * chain.vocab + prompts[:, place - 1]
        follows[row, number] = prompts[:, place]
    ids = prompts[:, -2:].copy()
    for _ in range(length):
        number = ids[:, -2].astype(np.int64) * chain.vocab + ids[:, -1]
        copied = follows[row, number]
        is_copied = (copied >= 0) & (rng.random(rows) < copies)
        said = np.where(is_copied, copied, chain.sample(ids[:, -1], rng))
        ids = np.concatenate([ids, said[:, None].astype(np.uint32)], axis=1)
    return ids[:, 2:]
