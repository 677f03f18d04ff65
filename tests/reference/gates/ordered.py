"""The ordered Beta-Bernoulli energy of a column: its Bernoulli rates integrated against Beta(a_k, 1).

    f(M) = -ln a - ln Gamma(M + a) - ln Gamma(N - M + 1) + ln Gamma(N + a + 1),
    a = 1 / expm1((k + 1) ln(1 + 1/alpha)).

N counts all rows. a / (a + 1) = (alpha / (alpha + 1))^(k + 1) is the prior mean of the rate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln, polygamma

Array = NDArray[np.float64]


def column(mass: float, n_rows: int, k: int, n_atoms: int, alpha: float) -> tuple[Array, Array]:
    """f and its three derivatives in the mass; the derivatives in ln alpha of f, f' and f''."""
    a = float(1 / np.expm1((k + 1) * np.log1p(1 / alpha)))
    # With y = (k + 1) ln(1 + 1/alpha): da/dy = -a (a + 1) and dy/dln alpha = -(k + 1) / (alpha + 1).
    a_slope = (k + 1) * a * (a + 1) / (alpha + 1)
    on, off = mass + a, n_rows - mass + 1
    f = np.array(
        [
            -np.log(a) - gammaln(on) - gammaln(off) + gammaln(n_rows + a + 1),
            -digamma(on) + digamma(off),
            -polygamma(1, on) - polygamma(1, off),
            -polygamma(2, on) + polygamma(2, off),
        ]
    )
    in_a = np.array([-1 / a - digamma(on) + digamma(n_rows + a + 1), -polygamma(1, on), -polygamma(2, on)])
    return f, a_slope * in_a
