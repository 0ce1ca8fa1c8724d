"""GELU for numpy, fast enough that it does not decide how fast an encoder is.

numpy has no erf. The normal distribution is written as a logistic function of an odd polynomial instead, fitted
so that GELU is off by at most 3.1e-6 anywhere: `gelu(x) = x / (1 + exp(-x P(x^2)))`, P of degree 4. The caller scales
the weights before and after by `SCALE`, which makes the leading coefficient 1 and saves the sign.
"""

import numpy as np
from numpy.typing import NDArray

# Minimax fit of logit(Phi(x)) / x over x^2, weighted by the slope of GELU; from the constant upwards.
_FIT = (1.59565627e00, 7.29375820e-02, -2.49723327e-04, -6.11620020e-05, 2.23816377e-06)
_DEGREE = len(_FIT) - 1

SCALE = -(_FIT[-1] ** (1 / (2 * _DEGREE + 1)))
"""What goes in must be multiplied by it; what comes out is."""

# Arrays, not numbers: numpy spends more time on turning a number into one than on a tile of additions.
_COEFFICIENTS = tuple(np.asarray(-a / SCALE ** (2 * i + 1), dtype=np.float32) for i, a in enumerate(_FIT[:-1]))
_ONE = np.asarray(1, dtype=np.float32)

_TILE = 1 << 15  # values; input, square and polynomial together stay in the second-level cache


class ScaledGelu:
    """Adds a bias and applies GELU in place, tile by tile.

    Not for two threads at once: it owns its scratch space.
    """

    def __init__(self, width: int) -> None:
        """`width`: of the rows."""
        self._rows = max(1, _TILE // width)
        self._square = np.empty(self._rows * width, dtype=np.float32)
        self._power = np.empty_like(self._square)

    def tiled(self, bias: NDArray[np.float32]) -> NDArray[np.float32]:
        """A bias in the shape that `apply` takes."""
        return np.tile(bias, self._rows)

    def apply(self, scaled: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        """`scaled`: contiguous, shape (rows, width), already times SCALE, as is the `bias` made by `tiled`."""
        # Values far below zero overflow to infinity on the way and end as zero, as they should.
        with np.errstate(over="ignore", under="ignore"):
            self._apply(scaled.reshape(-1), bias)

    def _apply(self, flat: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        for start in range(0, flat.size, self._square.size):
            x = flat[start : start + self._square.size]
            square, power = self._square[: x.size], self._power[: x.size]
            np.add(x, bias[: x.size], out=x)
            np.multiply(x, x, out=square)
            np.add(square, _COEFFICIENTS[-1], out=power)
            for coefficient in _COEFFICIENTS[-2::-1]:
                np.multiply(power, square, out=power)
                np.add(power, coefficient, out=power)
            np.multiply(power, x, out=power)
            np.exp(power, out=power)
            np.add(power, _ONE, out=power)
            np.divide(x, power, out=x)
