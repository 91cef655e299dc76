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

    Args:
        logits: Shape (n, vocab).
        temperature: Above 0, shape (n,).
        top_k: Shape (n,); below 1, or the vocabulary's size, for all.
        top_p: Shape (n,); the tokens that reach it first stay.
        min_p: Shape (n,); relative to the most likely token.
    """
    scaled = logits.to(torch.float64) / temperature[:, None]
    floor = scaled.amax(-1, keepdim=True) + torch.log(min_p)[:, None]
    scaled = scaled.masked_fill(scaled < floor, -math.inf)
    ordered, tokens = scaled.sort(-1, descending=True)
    ranks = torch.arange(ordered.shape[-1], device=logits.device)
    is_beyond = (top_k[:, None] > 0) & (ranks >= top_k[:, None])
    ordered = ordered.masked_fill(is_beyond, -math.inf)
    masses = torch.softmax(ordered, -1)
    is_beyond = masses.cumsum(-1) - masses >= top_p[:, None]
    is_beyond[:, 0] = False
    ordered = ordered.masked_fill(is_beyond & (top_p[:, None] < 1.0), -math.inf)
    return torch.full_like(scaled, -math.inf).scatter_(-1, tokens, ordered)
