"""The keyed race on torch tensors: the seeding bit for bit numpy's, the law the copula sampler's.

torch has no unsigned 64-bit arithmetic, but two's complement multiplies and adds to the same bits,
and a shift is made logical by a mask. AES runs on the CPU, one block a row; everything that has the
size of the vocabulary runs where the scores are.

Source: `watermark/spec/seeding.md`; `watermark.schemes.gumbel_copula`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from watermark.seeding import ContextStreams


def _signed(value: int) -> int:
    """Return the int64 with the bits of a uint64."""
    return value - (1 << 64) if value >> 63 else value


_TOKEN_STEP: Final = _signed(0x9E3779B97F4A7C15)
_FACTOR_1: Final = _signed(0xBF58476D1CE4E5B9)
_FACTOR_2: Final = _signed(0x94D049BB133111EB)
_LAST_LEVEL: Final = (1 << 52) - 1
_LIST: Final = 1024  # tokens; holds the nucleus of most steps


def _shifted(values: torch.Tensor, by: int) -> torch.Tensor:
    """Return a logical right shift of int64 values."""
    return (values >> by) & ((1 << (64 - by)) - 1)


def mix64(values: torch.Tensor) -> torch.Tensor:
    """Return the SplitMix64 finalizer of int64 values, shape kept, as int64."""
    z = values ^ _shifted(values, 30)
    z = z * _FACTOR_1
    z = z ^ _shifted(z, 27)
    z = z * _FACTOR_2
    return z ^ _shifted(z, 31)


def uniform_levels(streams: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the integer behind every uniform, int64 in 0..2^52 - 1.

    Args:
        streams: int64 with the bits of the streams, to be broadcast against the tokens.
        tokens: int64.
    """
    return _shifted(mix64(streams + tokens * _TOKEN_STEP), 12)


def uniforms(streams: torch.Tensor, tokens: torch.Tensor, is_flipped: torch.Tensor) -> torch.Tensor:
    """Return u of every (stream, token), exact in float64, in [2^-53, 1 - 2^-53]."""
    levels = uniform_levels(streams, tokens)
    levels = torch.where(is_flipped, _LAST_LEVEL - levels, levels)
    return (levels.to(torch.float64) + 0.5) * 2.0**-52


def choose(
    scores: torch.Tensor,
    found: ContextStreams,
    rho: float,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Return the winner of every row.

    Args:
        scores: Log probabilities up to a constant a row, shape (n, vocab); -inf is no candidate.
        found: The streams after the rows' contexts, n of them.
        rho: Correlation of the mark.
        generator: Private randomness, on the scores' device; torch's own where none is given.

    Returns:
        Token ids, shape (n,), int64.
    """
    logits, tokens = candidates(scores)
    streams = torch.from_numpy(found.streams.view(np.int64)).to(scores.device)[:, None]
    is_flipped = torch.from_numpy(found.is_flipped).to(scores.device)[:, None]
    u = uniforms(streams, tokens, is_flipped)
    if rho < 1.0:
        noise = torch.randn(u.shape, generator=generator, dtype=torch.float64, device=u.device)
        normals = rho * torch.special.ndtri(u) + math.sqrt(1.0 - rho * rho) * noise
        times = -torch.special.log_ndtr(normals)
    else:
        times = -torch.log(u)
    # The first arrival of times / p is the last of logits - log times.
    first = (logits - torch.log(times)).argmax(dim=-1, keepdim=True)
    return tokens.gather(-1, first).squeeze(-1)


def candidates(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows' candidates without the rest of the vocabulary.

    Returns:
        Logits in float64 and token ids, both of shape (n, most candidates of a row); rows with
        fewer are filled with -inf.
    """
    n, vocab = scores.shape
    rows, columns = torch.nonzero(scores > -math.inf, as_tuple=True)
    counts = torch.bincount(rows, minlength=n)
    width = int(counts.max()) if n else 0
    if width == vocab:
        return scores.to(torch.float64), torch.arange(vocab, device=scores.device).expand(n, -1)
    starts = counts.cumsum(0) - counts
    places = torch.arange(len(rows), device=scores.device) - starts[rows]
    logits = torch.full((n, width), -math.inf, dtype=torch.float64, device=scores.device)
    tokens = torch.zeros((n, width), dtype=torch.int64, device=scores.device)
    logits[rows, places] = scores[rows, columns].to(torch.float64)
    tokens[rows, places] = columns
    return logits, tokens


def force(scores: torch.Tensor, rows: torch.Tensor, winners: torch.Tensor) -> torch.Tensor:
    """Leave nothing but its winner in some rows, in place, and return the scores."""
    scores[rows] = -math.inf
    scores[rows, winners] = 0.0
    return scores


def truncate(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
) -> torch.Tensor:
    """Return the logits that a request's sampling leaves, the others -inf, shape kept.

    The vocabulary is sorted only where a cut reaches past its likeliest `_LIST` tokens: a list of
    the likeliest leaves the same tokens.

    Args:
        logits: Shape (n, vocab).
        temperature: Above 0, shape (n,); like the next three on any device, best on the CPU.
        top_k: Shape (n,); below 1, or the vocabulary's size, for all.
        top_p: Shape (n,); the tokens that reach it first stay.
        min_p: Shape (n,); relative to the most likely token.
    """
    place, vocab = logits.device, logits.shape[-1]
    has_k, has_p = (top_k > 0) & (top_k < vocab), top_p < 1.0
    counts = torch.where(has_k, top_k, vocab).long()
    scaled = logits.to(torch.float64) / temperature.to(place)[:, None]
    if bool((min_p > 0.0).any()):
        floor = scaled.amax(-1, keepdim=True) + torch.log(min_p.to(place))[:, None]
        scaled = scaled.masked_fill(scaled < floor, -math.inf)
    rows = torch.nonzero(has_k | has_p)[:, 0]
    if not len(rows):
        return scaled
    longest = int(torch.where(has_k, counts, 0).max())
    size = min(vocab, max(longest, _LIST if bool((has_p & ~has_k).any()) else 1))
    cuts = (counts[rows], torch.where(has_p, top_p, math.inf)[rows])
    chosen = scaled if len(rows) == len(scaled) else scaled[rows.to(place)]
    left = _likeliest(chosen, *cuts, size)
    if left is None:
        left = _likeliest(chosen, *cuts, vocab)
    assert left is not None  # noqa: S101 - of the whole vocabulary nothing is missing
    if len(rows) == len(scaled):
        return left
    scaled[rows.to(place)] = left
    return scaled


def _likeliest(
    scaled: torch.Tensor, counts: torch.Tensor, top_p: torch.Tensor, size: int
) -> torch.Tensor | None:
    """Cut rows by a list of their likeliest tokens; None where the list is too short for one.

    Args:
        scaled: Logits after temperature, shape (n, vocab).
        counts: How many tokens stay, shape (n,); on the CPU, as the next.
        top_p: Which mass of those stays, infinity for all, shape (n,).
        size: Tokens in the list.
    """
    place, is_open = scaled.device, counts == scaled.shape[-1]
    has_open = bool(is_open.any())
    is_open, counts, top_p = is_open.to(place), counts.to(place), top_p.to(place)
    ordered, tokens = scaled.topk(size, dim=-1)
    ranks = torch.arange(size, device=place)
    ordered = ordered.masked_fill(ranks >= counts[:, None], -math.inf)
    total = ordered.logsumexp(-1)
    if has_open:
        total = torch.where(is_open, scaled.logsumexp(-1), total)
    masses = torch.exp(ordered - total[:, None])
    reached = masses.cumsum(-1)
    is_short = has_open and size < scaled.shape[-1]
    if is_short and bool((is_open & (reached[:, -1] < top_p)).any()):
        return None
    is_beyond = reached - masses >= top_p[:, None]
    is_beyond[:, 0] = False
    ordered = ordered.masked_fill(is_beyond, -math.inf)
    return torch.full_like(scaled, -math.inf).scatter_(-1, tokens, ordered)
