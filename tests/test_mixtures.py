"""A dictionary of different kinds: every row goes to the kind that made it, and every kind finds its own part.

Long tests are skipped unless the environment has ``SAE_RS_SLOW=1``.
"""

from __future__ import annotations

import os
from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from charts import frame
from measures import affine, conformal, rotated, turned
from sae_rs import Circle, Line, ManifoldSAE, Sphere

FloatArray = NDArray[np.float64]

slow = pytest.mark.skipif(os.environ.get("SAE_RS_SLOW") != "1", reason="takes minutes; SAE_RS_SLOW=1 runs it")

N, P, NOISE = 900, 24, 0.05
CIRCLE, LINE, SPHERE = range(3)


class Mixture:
    """Rows by turns near a unit circle, a line and a unit sphere, all about the origin."""

    def __init__(self, seed: int, rigid: bool) -> None:
        rng = np.random.default_rng(seed)
        self.which = np.arange(N) % 3
        directions = rng.standard_normal((6, P))
        if rigid:
            directions = np.linalg.qr(directions.T)[0].T
        else:
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        ring, along, ball = directions[:2], directions[2:3], directions[3:]
        angle = rng.uniform(0.0, 2.0 * np.pi, (N, 1))
        # Near 0 the line is as near to the centres of the others, and within the noise no row tells whose it is.
        place = rng.choice([-1.0, 1.0], (N, 1)) * rng.uniform(0.3, 2.0, (N, 1))
        point = rng.standard_normal((N, 3))
        point /= np.linalg.norm(point, axis=1, keepdims=True)
        cosine, sine = np.cos(angle), np.sin(angle)
        clean = [np.hstack([cosine, sine]) @ ring, place @ along, point @ ball]
        # velocities (n, d, p) of the rows in the coordinates of their kind
        tangents = [
            (np.hstack([-sine, cosine]) @ ring)[:, None, :],
            np.tile(along, (N, 1, 1)),
            np.einsum("mia,ip->map", frame(point), ball),
        ]
        self.coords = [t[self.which == k] for k, t in enumerate((angle, place, point))]
        self.tangents = [v[self.which == k] for k, v in enumerate(tangents)]
        self.X: FloatArray = np.choose(self.which[:, None], clean) + NOISE * rng.standard_normal((N, P))

    def loss(self, k: int) -> float:
        """The part 1 − R² of the variance of a kind's coordinates that the noise takes from any estimate.

        Its mean squared error is at least σ² tr (JᵀJ)⁻¹ of the tangents J (Cramér–Rao); points on the circle and the
        sphere have mean square one.
        """
        gram = np.einsum("map,mbp->mab", self.tangents[k], self.tangents[k])
        error = NOISE**2 * np.linalg.inv(gram).trace(axis1=1, axis2=2).mean()
        return float(error / (self.coords[k].var() if k == LINE else 1.0))

    def ceiling(self, k: int) -> float:
        """Explained variance of a part by least squares on its true functions at its true coordinates."""
        t = self.coords[k]
        design = np.hstack([np.ones((len(t), 1)), np.cos(t), np.sin(t)] if k == CIRCLE else [np.ones((len(t), 1)), t])
        rows = self.X[self.which == k]
        residual = rows - design @ np.linalg.lstsq(design, rows, rcond=None)[0]
        return float(1.0 - np.square(residual).sum() / np.square(rows - rows.mean(axis=0)).sum())


def check(seed: int, rigid: bool, sphere: Sphere, order: tuple[int, ...] = (CIRCLE, LINE, SPHERE)) -> None:
    data = Mixture(seed, rigid)
    kinds = (Circle(), Line(), sphere)
    model = ManifoldSAE(3, [kinds[k] for k in order]).fit(data.X)
    assert model.converged_
    assert np.sqrt(model.dispersion_) == pytest.approx(NOISE, rel=0.05)
    chosen = np.array(order)[model.gates_.argmax(axis=1)]
    assert np.mean(chosen == data.which) >= 0.98
    rows = model.reconstruct()
    for k, measure in ((CIRCLE, turned), (LINE, affine), (SPHERE, rotated if sphere.degree == 1 else conformal)):
        own = data.which == k
        X = data.X[own]
        explained = 1.0 - np.square(X - rows[own]).sum() / np.square(X - X.mean(axis=0)).sum()
        assert explained == pytest.approx(data.ceiling(k), abs=0.01)
        # half more than the noise takes: gates and decoders are estimates too
        assert measure(model.coords_[order.index(k)][own], data.coords[k]) >= 1.0 - 1.5 * data.loss(k)


@pytest.mark.parametrize("rigid", [True, False], ids=["orthonormal", "generic"])
@pytest.mark.parametrize("sphere", [Sphere(), Sphere(degree=1)], ids=["bent", "ellipsoid"])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=slow), pytest.param(2, marks=slow)])
def test_circle_line_and_sphere(seed: int, sphere: Sphere, rigid: bool) -> None:
    check(seed, rigid, sphere)


@slow
@pytest.mark.parametrize("order", list(permutations(range(3)))[1:])
def test_the_order_of_the_kinds_does_not_matter(order: tuple[int, ...]) -> None:
    check(0, True, Sphere(), order)
