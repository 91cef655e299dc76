r"""Upper tails of weighted sums of fair coins.

For fixed weights w_j and independent signs e_j = +1 or -1 with probability 1/2 each, and
T = sum_j e_j w_j, two bounds of P(T >= t) hold for every t and every choice of weights:

    Gaussian:    c P(Z >= t / |w|),  Z standard normal, c = 1 / (4 P(Z >= sqrt 2)) = 3.178...
    exponential: exp(sum_j log cosh(h w_j) - h t)  for every h >= 0

The first is the best of its form for all weights (Bentkus and Dzindzalieta). The second is
Markov's inequality for exp(h T), whose mean is prod_j cosh(h w_j); since it holds for every h, it
holds for the h at which it is smallest, which depends on nothing random. The smaller of two upper
bounds of one number is an upper bound of it, so no factor is due. The first is the sharper one
for many weights, the second near the largest possible sum.

Source: Bentkus and Dzindzalieta, Bernoulli 21 (2015), 1231-1237; Chernoff 1952, Hoeffding 1963.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import special

from watermark.errors import SchemeParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG_GAUSSIAN_FACTOR: Final = -math.log(4.0) - float(special.log_ndtr(-math.sqrt(2.0)))
_STEPS: Final = 24
_LOG_2: Final = math.log(2.0)


def rademacher_log_sf(
    statistics: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return an upper bound of log P(T >= t), at most 3.2 times the Gaussian tail in P.

    Args:
        statistics: The values t, shape (n,).
        weights: The weights w_j, shape (m,); their signs do not matter.

    Returns:
        Shape (n,), each <= 0; 0 where t <= 0 or no weight differs from 0.

    Raises:
        SchemeParameterError: A number is not finite.
    """
    values, counts = np.unique(np.abs(np.asarray(weights, np.float64)), return_counts=True)
    t = np.asarray(statistics, np.float64)
    if not (np.isfinite(values).all() and np.isfinite(t).all()):
        raise SchemeParameterError("weights and statistics of a coin sum are finite numbers")
    squares = float(counts @ (values * values))
    bound = np.zeros(t.shape)
    above = (t > 0) & (squares > 0)
    if above.any():
        gaussian = special.log_ndtr(-t[above] / math.sqrt(squares)) + _LOG_GAUSSIAN_FACTOR
        exponential = _exponential(t[above], values, counts, squares)
        bound[above] = np.minimum(np.minimum(gaussian, exponential), 0.0)
    return bound


def _exponential(
    t: NDArray[np.float64],
    values: NDArray[np.float64],
    counts: NDArray[np.int64],
    squares: float,
) -> NDArray[np.float64]:
    """Return the exponential bound, minimized by Newton's method, shape (n,).

    The derivative's equation sum w tanh(h w) = t has a concave left side, and h = t / sum w^2
    lies left of its root, so every step ends left of it too; wherever the steps end, the bound is
    one.
    """
    h = t / squares
    for _ in range(_STEPS):
        tanh = np.tanh(np.outer(h, values))
        slope = (1.0 - tanh * tanh) @ (counts * values * values)
        missing = t - tanh @ (counts * values)
        with np.errstate(divide="ignore", invalid="ignore"):
            h = h + np.where((slope > 0) & (missing > 0), missing / slope, 0.0)
        h = np.minimum(h, 1e3 / values[values > 0].min())  # there every tanh is 1
    return np.asarray(_log_cosh(np.outer(h, values)) @ counts - h * t, np.float64)


def _log_cosh(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log cosh x for x >= 0, without overflow."""
    return np.asarray(x + np.log1p(np.exp(-2.0 * x)) - _LOG_2, np.float64)
