"""The von Mises prior on an angle of period 2 pi, and its limit: the uniform angle (chapter 1.5)."""

from __future__ import annotations

import numpy as np
from scipy.special import i0e, i1e

LN_2PI = float(np.log(2 * np.pi))


def angle_energy(t: float, alpha: float | None) -> float:
    """alpha (1 - cos t) - alpha + ln I0(alpha) + ln 2 pi, and ln 2 pi when there is no precision.

    exp(-energy) = exp(alpha cos t) / (2 pi I0(alpha)) integrates to one over the circle.
    """
    if alpha is None:
        return LN_2PI
    # ln I0(alpha) = alpha + ln i0e(alpha) does not overflow.
    return float(alpha * (1 - np.cos(t)) + np.log(i0e(alpha)) + LN_2PI)


def angle_energy_log_alpha(t: float, alpha: float) -> float:
    """d energy / d ln alpha = alpha (I1/I0(alpha) - cos t)."""
    return float(alpha * (i1e(alpha) / i0e(alpha) - np.cos(t)))


def angle_gradient(t: float, alpha: float | None) -> float:
    """d energy / dt = alpha sin t."""
    return 0.0 if alpha is None else float(alpha * np.sin(t))


def angle_curvature(t: float, alpha: float | None) -> float:
    """d^2 energy / dt^2 = alpha cos t, negative on the far half of the circle."""
    return 0.0 if alpha is None else float(alpha * np.cos(t))


def angle_third(t: float, alpha: float | None) -> float:
    """d^3 energy / dt^3 = -alpha sin t."""
    return 0.0 if alpha is None else float(-alpha * np.sin(t))
