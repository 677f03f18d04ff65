"""The plug-in Beta-Bernoulli energy of a column: its Bernoulli rate at the posterior mean.

With a = alpha / K, the rate pi = (M + a) / (N + a + 1) and the energy

    f(M) = -M ln pi - (N - M) ln(1 - pi) - ln a - (a - 1) ln pi.

In u = M + a and v = N - M + 1, whose sum D = N + a + 1 does not move with M, pi = u / D and 1 - pi = v / D, so

    f = -(u - 1) ln u - (v - 1) ln v + (D - 2) ln D - ln a.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def column(mass: float, n_rows: int, k: int, n_atoms: int, alpha: float) -> tuple[Array, Array]:
    """f and its three derivatives in the mass; the derivatives in ln alpha of f, f' and f''."""
    a = alpha / n_atoms
    u, v, d = mass + a, n_rows - mass + 1, n_rows + a + 1
    f = np.array(
        [
            -(u - 1) * np.log(u) - (v - 1) * np.log(v) + (d - 2) * np.log(d) - np.log(a),
            -np.log(u) + 1 / u + np.log(v) - 1 / v,
            -1 / u - 1 / u**2 - 1 / v - 1 / v**2,
            1 / u**2 + 2 / u**3 - 1 / v**2 - 2 / v**3,
        ]
    )
    # u and D move with a, v does not; da / d ln alpha = a.
    in_a = np.array([-np.log(u) + 1 / u + np.log(d) - 2 / d - 1 / a, -1 / u - 1 / u**2, 1 / u**2 + 2 / u**3])
    return f, a * in_a
