"""The parts of the dense reference one by one: factors of charts, atoms, gates, conditioned blocks."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations_with_replacement, pairwise, product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import dblquad, quad
from scipy.linalg import expm
from scipy.special import gammaln, log_ndtr, lpmv

from numeric import assert_close, differences, slope, taylor
from reference.atoms import (
    Atom,
    Circle,
    Cylinder,
    Duchon,
    FiniteSet,
    KleinBottle,
    Line,
    Mobius,
    Patch,
    Poincare,
    ProjectivePlane,
    Segment,
    Sphere,
    Torus,
)
from reference.atoms.duchon import kernel_columns, kernel_jets
from reference.atoms.patch import log_rotation_volume
from reference.atoms.poincare import radial_weights
from reference.atoms.sphere import sphere_nodes
from reference.compact import Part, charge_interval, closed, interval
from reference.conditioning import Spectrum
from reference.factors import CircleFactor, Factor, IntervalFactor, LineFactor, SphereFactor
from reference.gates import IBP, Frozen, Gate, Softmax, Threshold
from reference.gates.softmax import (
    entropy_gradient,
    entropy_hessian,
    entropy_third,
    log_normaliser,
    normaliser_nodes,
)
from reference.priors import Place
from strategies import duchon

Array = NDArray[np.float64]

NO_ARD = np.zeros(0, int)

ATOMS: tuple[Atom, ...] = (
    Circle(1),
    Circle(3),
    Torus(1),
    Torus(2),
    Sphere(1),
    Sphere(3),
    ProjectivePlane(2),
    ProjectivePlane(4),
    Cylinder(1, 1),
    Cylinder(2, 3),
    Line(),
    Patch(1, 2),
    Patch(2, 1),
    Patch(2, 3),
    Patch(3, 2),
    duchon(6, 1),
    duchon(9, 2),
    duchon(12, 3),
    Poincare(1),
    Poincare(2),
    Poincare(3),
    KleinBottle(2),
    KleinBottle(3),
    Mobius(2, 1),
    Mobius(3, 2),
    FiniteSet(3),
    Segment(1),
    Segment(4),
)

SMALL_ATOMS = tuple(atom for atom in ATOMS if atom.width <= 13)

every_atom = pytest.mark.parametrize("atom", ATOMS, ids=lambda atom: f"{atom.kind}{atom.width}")
seeds = st.integers(0, 2**16)
few = settings(max_examples=5, deadline=None, derandomize=True, database=None)


# Factors


@pytest.mark.parametrize("alpha", [None, 0.01, 1.0, 50.0])
@pytest.mark.parametrize("factor", [CircleFactor(), CircleFactor(np.pi), LineFactor()], ids=["circle", "half", "line"])
def test_coordinate_prior(factor: Factor, alpha: float | None) -> None:
    """It integrates to one, and its derivatives are those of its energy."""
    precision = None if alpha is None else np.array([alpha])

    def density(t: float) -> float:
        return float(np.exp(-factor.energy(np.array([t]), precision) - factor.log_volume))

    ends = (-np.inf, np.inf) if isinstance(factor, LineFactor) else (0.0, factor.period)
    assert quad(density, *ends, epsabs=1e-12)[0] == pytest.approx(1, rel=1e-8)
    t = np.array([0.7])
    assert_close(factor.gradient(t, precision), differences(lambda v: factor.energy(v, precision), t), 1e-9)
    assert_close(factor.curvature(t, precision), differences(lambda v: factor.gradient(v, precision)[0], t), 1e-9)
    assert_close(factor.third(t, precision), differences(lambda v: factor.curvature(v, precision)[0], t), 1e-9)
    if precision is not None:
        in_alpha = differences(lambda v: factor.energy(t, np.exp(v)), np.log(precision))
        assert_close(factor.energy_log_alpha(t, precision), in_alpha, 1e-9)


@pytest.mark.parametrize("antipodal", [False, True])
@few
@given(seed=seeds)
def test_sphere_moves(antipodal: bool, seed: int) -> None:
    """The frame is orthonormal and tangent; transport composes with moves along one geodesic."""
    factor, rng = SphereFactor(antipodal), np.random.default_rng(seed)
    t, u = factor.draw(rng, 1)[0], rng.standard_normal(2)
    frame = factor.frame(t)
    assert_close(frame.T @ frame, np.eye(2), 1e-14)
    assert_close(t @ frame, np.zeros(2), 1e-14)
    end, turn = factor.advance(t, u), factor.transport(t, u)
    assert np.arccos(np.clip(t @ end, -1, 1)) == pytest.approx(np.linalg.norm(u) % (2 * np.pi), rel=1e-6)
    assert_close(turn.T @ turn, np.eye(2), 1e-13)
    assert_close(factor.advance(end, -turn @ u), t, 1e-13)
    assert_close(factor.advance(end, 0.3 * turn @ u), factor.advance(t, 1.3 * u), 1e-13)
    # The tangent vector across the path stays where it is in space.
    across = np.array([-u[1], u[0]])
    assert_close(factor.frame(end) @ turn @ across, frame @ across, 1e-13)


def part_of(*factors: Factor) -> Part:
    """A compact part of its own, of one atom each factor."""
    starts = np.cumsum([0, *[factor.dim for factor in factors]])
    listed = [
        Place(k, 0, factor, np.zeros(factor.ambient), None, starts[k] + np.arange(factor.dim), NO_ARD)
        for k, factor in enumerate(factors)
    ]
    if isinstance(factors[0], IntervalFactor):
        return interval(listed[0])
    return Part(tuple(listed), tuple(axis for place in listed for axis in closed(place)))


SINGLE = {
    "2pi": (CircleFactor(),),
    "pi": (CircleFactor(np.pi),),
    "S2": (SphereFactor(),),
    "RP2": (SphereFactor(True),),
}
PARTS = {
    **SINGLE,
    "T2": (CircleFactor(), CircleFactor(3.0)),
    "S2+pi": (SphereFactor(), CircleFactor(np.pi)),
    "mixed": (CircleFactor(3.0), SphereFactor(True), CircleFactor(), SphereFactor()),
}
INTERVAL = IntervalFactor(-1.0, 2.0)
COMPACT = pytest.mark.parametrize("factors", [*PARTS.values(), (INTERVAL,)], ids=[*PARTS, "interval"])


@COMPACT
@pytest.mark.parametrize("size", [-0.7, 1e-3, 0.4, 30.0])
def test_a_charge_has_its_slope(factors: tuple[Factor, ...], size: float) -> None:
    part = part_of(*factors)
    d = len(part.index)
    exact = 0.3 / (1.0 + np.abs(np.subtract.outer(np.arange(d), np.arange(d)) - 1.0))
    exact = size * (0.5 * (exact + exact.T) + np.diag(np.linspace(1.0, 0.4, d)))
    for a, b in combinations_with_replacement(range(d), 2):
        at = np.zeros((d, d))
        at[a, b] = at[b, a] = 1.0
        numeric = slope(lambda s, at=at: part.charge(exact + s * at))
        assert np.sum(part.charge_slope(exact) * at) == pytest.approx(float(numeric), rel=1e-8, abs=1e-10)


@COMPACT
def test_an_unidentified_coordinate_counts_for_nothing(factors: tuple[Factor, ...]) -> None:
    """Prior, Gaussian integral and compact term cancel as the curvature goes to zero, and only the Gaussian stays when
    it grows."""
    part = part_of(*factors)
    d = len(part.index)
    volume = sum(factor.log_volume for factor in factors)
    assert volume + part.charge(1e-9 * np.eye(d)) - d / 2 * np.log(2 * np.pi) == pytest.approx(0.0, abs=1e-7)
    assert part.charge(1e5 * np.eye(d)) == pytest.approx(d / 2 * np.log(1e5), abs=1e-4)


@pytest.mark.parametrize("factor", [factors[0] for factors in SINGLE.values()], ids=SINGLE)
def test_a_charge_is_an_integral(factor: Factor) -> None:
    """exp(-k (1 - cos angle)) over the factor, by the midpoint rule in the angle."""
    for k in (-2.0, 0.3, 5.0):
        reach = np.pi / 2 if getattr(factor, "antipodal", False) else np.pi
        angle = (np.arange(200_000) + 0.5) / 200_000 * reach
        ring = 2 * np.pi * np.sin(angle) if isinstance(factor, SphereFactor) else 2.0 * np.ones_like(angle)
        integral = np.sum(ring * np.exp(-k * (1 - np.cos(angle)))) * reach / 200_000
        kappa = factor.kappa if isinstance(factor, CircleFactor) else 1.0
        expected = -np.log(integral / kappa**factor.dim) + factor.dim / 2 * np.log(2 * np.pi)
        assert part_of(factor).charge(k * kappa**2 * np.eye(factor.dim)) == pytest.approx(float(expected), abs=1e-8)


@pytest.mark.parametrize(("a", "b"), [(-0.4, 1.6), (-2.0, 0.0), (0.0, 0.7)])
@pytest.mark.parametrize(("g", "k"), [(0.0, 0.0), (0.7, 3.0), (-5.0, 2.0), (40.0, 1.0), (-3.0, 0.0), (20.0, 900.0)])
def test_a_charge_between_two_ends(a: float, b: float, g: float, k: float) -> None:
    """In closed form, and its derivatives."""
    value, by_slope, by_curvature, by_point = charge_interval(g, k, a, b)
    if k > 0:
        # completing the square: a normal law of mean -g/k cut off at both ends, seen from its smaller tail
        low, high = (a + g / k) * np.sqrt(k), (b + g / k) * np.sqrt(k)
        larger, smaller = (log_ndtr(-low), log_ndtr(-high)) if high > 0 else (log_ndtr(high), log_ndtr(low))
        expected = -(g**2) / (2 * k) - 0.5 * np.log(2 * np.pi / k) - larger - np.log1p(-np.exp(smaller - larger))
    else:
        expected = -np.log((np.exp(-g * a) - np.exp(-g * b)) / g) if g else -np.log(b - a)
    assert value == pytest.approx(expected, rel=1e-10, abs=1e-10)
    in_slope = slope(lambda s: np.array(charge_interval(g + float(s), k, a, b)[0]))
    in_point = slope(lambda s: np.array(charge_interval(g, k, a - float(s), b - float(s))[0]))
    assert by_slope == pytest.approx(float(in_slope), rel=1e-7, abs=1e-7)
    assert by_point == pytest.approx(float(in_point), rel=1e-6, abs=1e-6)
    if k > 0:
        in_curvature = slope(lambda s: np.array(charge_interval(g, k + float(s), a, b)[0]))
        assert by_curvature == pytest.approx(float(in_curvature), rel=1e-7, abs=1e-7)


# Atoms


@every_atom
@few
@given(seed=seeds)
def test_jets_are_the_derivatives_of_the_basis(atom: Atom, seed: int) -> None:
    """Along every geodesic: the jets contracted with a velocity are the Taylor coefficients of the basis on it."""
    rng = np.random.default_rng(seed)
    t, radius, tol = atom.draw(rng, 1)[0], 0.4, 1e-8
    if isinstance(atom, Duchon):
        # Kernels are smooth away from their centers only.
        gap = np.linalg.norm(np.array(atom.centers) - t, axis=1).min()
        radius, tol = 0.25 * gap, 1e-5 if gap > 0.05 else np.inf
    if isinstance(atom, Segment):
        # a step stops at the ends
        room = 1 - abs(float(t[0]))
        radius, tol = 0.5 * room, 1e-6 if room > 0.05 else np.inf
    jets = atom.jets(t, 3)
    assert jets.d3 is not None
    for _ in range(3):
        u = rng.standard_normal(atom.dim)
        u /= np.linalg.norm(u)
        value, first, second, third = taylor(lambda s, u=u: atom.jets(atom.advance(t, s * u)).phi, radius)
        assert_close(jets.phi, value, 1e-12)
        assert_close(u @ jets.d1, first, 1e-3 * tol)
        assert_close(np.einsum("a,b,abm->m", u, u, jets.d2), second, 1e-1 * tol)
        assert_close(np.einsum("a,b,c,abcm->m", u, u, u, jets.d3), third, tol)
    assert_close(jets.d2, jets.d2.transpose(1, 0, 2), 1e-15)
    for order in ((1, 0, 2, 3), (0, 2, 1, 3)):
        assert_close(jets.d3, jets.d3.transpose(order), 1e-13)


@every_atom
def test_roughness_and_null_space(atom: Atom) -> None:
    s, n = atom.roughness(), atom.null_projector()
    assert s.shape == n.shape == (atom.width, atom.width)
    assert_close(s, s.T, 1e-15)
    values, vectors = np.linalg.eigh(s)
    flat = values < 1e-10 * max(values[-1], 1)
    assert values[0] > -1e-12 * max(values[-1], 1)
    assert_close(n, vectors[:, flat] @ vectors[:, flat].T, 1e-8)


@every_atom
@few
@given(seed=seeds)
def test_motions_of_the_chart(atom: Atom, seed: int) -> None:
    """The basis follows each motion, the roughness does not change, velocities are the derivatives of the flow."""
    rng = np.random.default_rng(seed)
    t, s, n = atom.draw(rng, 1)[0], atom.roughness(), atom.null_projector()
    jets = atom.jets(t)
    for generator in atom.generators():
        q = generator.basis_map
        assert_close(generator.velocity(t) @ jets.d1, jets.phi @ q, 1e-12)
        assert_close(q.T @ s + s @ q, np.zeros_like(s), 1e-11)
        assert_close(q.T @ n + n @ q, np.zeros_like(s), 1e-13)
        assert_close(atom.jets(generator.flow(t, 0.7)).phi, jets.phi @ expm(0.7 * q), 1e-11)
        u = rng.standard_normal(atom.dim)

        def carried(step: float, u: Array = u, generator=generator) -> Array:
            moved = atom.advance(t, step * u)
            return atom.transport(t, step * u).T @ generator.velocity(moved)

        assert_close(generator.slope(t) @ u, slope(carried), 1e-9)
        assert_close(generator.slope(t), -generator.slope(t).T, 1e-14)
    for symmetry in (*atom.symmetries(True), *atom.symmetries(False)):
        r = symmetry.basis_map
        assert_close(atom.jets(symmetry.move(t)).phi, jets.phi @ r, 1e-12)
        assert_close(r.T @ s @ r, s, 1e-12)
        assert_close(r.T @ n @ r, n, 1e-13)


@pytest.mark.parametrize("atom", SMALL_ATOMS, ids=lambda atom: f"{atom.kind}{atom.width}")
def test_number_of_discrete_symmetries(atom: Atom) -> None:
    """The group the symmetries generate on the basis, modulo the free motions, has the order that is counted."""
    for free in (True, False):
        turns = [generator.basis_map for generator in atom.generators()] if free else []
        classes, fresh = [np.eye(atom.width)], [np.eye(atom.width)]
        while fresh:
            found = [m @ symmetry.basis_map for m in fresh for symmetry in atom.symmetries(free)]
            fresh = []
            for m in found:
                if not any(_differ_by_a_motion(m, other, turns) for other in classes):
                    classes.append(m)
                    fresh.append(m)
        assert np.log(len(classes)) == pytest.approx(atom.log_symmetries(free))


def _differ_by_a_motion(one: Array, other: Array, turns: list[Array]) -> bool:
    """Whether one^-1 other = exp(sum_g s_g Q_g), tried on a grid of half turns.

    A motion of finite order in these groups is a product of half turns when it is a reflection at all.
    """
    ratio = np.linalg.solve(one, other)
    for turned in product((0.0, np.pi), repeat=len(turns)):
        motion = np.eye(len(ratio))
        for angle, q in zip(turned, turns, strict=True):
            motion = motion @ expm(angle * q)
        if np.allclose(ratio, motion, atol=1e-9):
            return True
    return False


def _torus_mean(atom: Atom, of_laplacian: bool = True) -> Array:
    """Mean over two angles of the outer square of the Laplacian of the basis."""
    grid = 2 * np.pi * np.arange(16) / 16
    rows = [np.trace(atom.jets(np.array([a, b])).d2) for a in grid for b in grid]
    return np.mean([np.outer(row, row) for row in rows], axis=0)


@pytest.mark.parametrize("harmonics", [1, 2, 3])
def test_roughness_of_a_circle(harmonics: int) -> None:
    # The trapezoid rule is exact for trigonometric polynomials of a degree below the number of nodes.
    bends = [Circle(harmonics).jets(np.array([u])).d2[0, 0] for u in np.linspace(0, 2 * np.pi, 64, endpoint=False)]
    assert_close(Circle(harmonics).roughness(), np.mean([np.outer(b, b) for b in bends], axis=0), 1e-13)


@pytest.mark.parametrize("atom", [Torus(1), Torus(2), KleinBottle(2), KleinBottle(3)], ids=repr)
def test_roughness_is_the_mean_squared_laplacian_on_the_torus(atom: Atom) -> None:
    assert_close(atom.roughness(), _torus_mean(atom), 1e-12)


@pytest.mark.parametrize("atom", [Sphere(1), Sphere(3), ProjectivePlane(4)], ids=repr)
def test_spherical_harmonics_are_orthonormal_with_the_laplacian_as_roughness(atom: Atom) -> None:
    points, weights = sphere_nodes(2 * atom.degree)  # type: ignore[attr-defined]
    jets = [atom.jets(t) for t in points]
    gram = np.einsum("q,qm,qn->mn", weights, *2 * [np.array([j.phi for j in jets])])
    assert_close(gram, np.eye(atom.width), 1e-13)
    laplacian = np.array([np.trace(j.d2) for j in jets])
    assert_close(atom.roughness(), np.einsum("q,qm,qn->mn", weights, laplacian, laplacian), 1e-11)


def test_spherical_harmonics_in_angles() -> None:
    """Against associated Legendre functions times cos m phi, sin m phi, without the (-1)^m of some books."""
    polar, phi = 0.8, 2.1
    t = np.array([np.sin(polar) * np.cos(phi), np.sin(polar) * np.sin(phi), np.cos(polar)])
    row = []
    for level in range(5):
        for m in range(-level, level + 1):
            k = abs(m)
            square = (2 * level + 1) * (2 if m else 1) * np.exp(gammaln(level - k + 1) - gammaln(level + k + 1))
            turn = np.cos(k * phi) if m >= 0 else np.sin(k * phi)
            row.append(np.sqrt(square) * (-1) ** k * lpmv(k, level, np.cos(polar)) * turn)
    assert_close(Sphere(4).jets(t).phi, np.array(row), 1e-13)
    assert_close(Sphere(1).jets(t).phi, np.r_[1, np.sqrt(3) * t[[1, 2, 0]]], 1e-15)


def _normal_nodes(dim: int) -> list[tuple[Array, float]]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    weights = weights / weights.sum()
    grid = product(range(len(nodes)), repeat=dim)
    return [(nodes[list(index)], float(np.prod(weights[list(index)]))) for index in grid]


@pytest.mark.parametrize("atom", [Patch(1, 3), Patch(2, 1), Patch(2, 3), Patch(3, 2)], ids=repr)
def test_roughness_of_a_patch(atom: Patch) -> None:
    total = np.zeros((atom.width, atom.width))
    for t, weight in _normal_nodes(atom.dim):
        total += weight * np.einsum("abm,abn->mn", *2 * [atom.jets(t).d2])
    assert_close(atom.roughness(), total, 1e-12)


@pytest.mark.parametrize("atom", [Cylinder(1, 1), Cylinder(2, 3), Mobius(2, 1), Mobius(3, 2)], ids=repr)
def test_roughness_of_a_cylinder(atom: Atom) -> None:
    total = np.zeros((atom.width, atom.width))
    angles = 2 * np.pi * np.arange(16) / 16
    for s, weight in _normal_nodes(1):
        for angle in angles:
            bends = atom.jets(np.array([angle, s[0]])).d2[[0, 1], [0, 1]]
            total += weight / len(angles) * bends.T @ bends
    assert_close(atom.roughness(), total, 1e-12)


def test_volume_of_the_rotations() -> None:
    volumes = [np.exp(log_rotation_volume(d)) for d in (1, 2, 3, 4)]
    assert_close(np.array(volumes), np.array([1, 2 * np.pi, 8 * np.pi**2, 16 * np.pi**4]), 1e-14)


# Poincare


def test_weight_of_the_gradient_is_that_of_the_ball() -> None:
    """sqrt(det h) h^-1 from the ball's metric 4 |dx|^2 / (1 - |x|^2)^2 pulled back by t -> tanh(|t|) t / |t|."""
    for dim in (1, 2, 3):
        t = np.array([0.4, -0.3, 0.5])[:dim]

        def ball(v: Array) -> Array:
            return np.tanh(np.linalg.norm(v)) * v / np.linalg.norm(v)

        jacobian, x = differences(ball, t), ball(t)
        h = 4 * jacobian.T @ jacobian / (1 - x @ x) ** 2
        r = np.linalg.norm(t)
        along, across = radial_weights(np.array([r]), dim)
        radial = np.outer(t, t) / r**2
        expected = np.sqrt(np.linalg.det(h)) * np.linalg.inv(h)
        assert_close(along * radial + across * (np.eye(dim) - radial), expected, 1e-9)


def test_roughness_of_the_hyperbolic_plane_by_quadrature() -> None:
    atom = Poincare(2)

    def entry(m: int, n: int) -> float:
        def integrand(angle: float, r: float) -> float:
            u = np.array([np.cos(angle), np.sin(angle)])
            along, across = radial_weights(np.array([r]), 2)
            weight = along * np.outer(u, u) + across * (np.eye(2) - np.outer(u, u))
            d1 = atom.jets(r * u).d1
            return float(r / np.pi * d1[:, m] @ weight @ d1[:, n])

        return dblquad(integrand, 1e-12, 1, 0, 2 * np.pi, epsabs=1e-9)[0]

    s = atom.roughness()
    for m, n in ((1, 1), (1, 2), (1, 4), (3, 3), (3, 5), (4, 4)):
        assert entry(m, n) == pytest.approx(s[m, n], abs=1e-8)


def test_roughness_of_hyperbolic_space_of_one_dimension_is_flat() -> None:
    assert_close(Poincare(1).roughness(), np.diag([0, 0.5, 2 / 3]), 1e-14)


# Duchon


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_duchon_kernel_is_conditionally_positive(dim: int) -> None:
    m = dim // 2 + 2
    n_poly = comb(m - 1 + dim, dim)
    atom = duchon(n_poly + 4, dim, seed=dim)
    z, gram = kernel_columns(atom.centers)
    assert z.shape == (n_poly + 4, 4)
    assert np.linalg.eigvalsh(gram)[0] > 0
    assert np.trace(gram) / 4 == pytest.approx(1)
    polynomials = np.array([atom.jets(np.array(c)).phi[4:] for c in atom.centers])
    assert_close(z.T @ polynomials, np.zeros((4, n_poly)), 1e-10)
    assert_close(z.T @ z, z[:, 0] @ z[:, 0] * np.eye(4), 1e-12)


def test_duchon_roughness_in_one_dimension_is_the_integral_of_the_squared_second_derivative() -> None:
    """For r^3 the fourth derivative is 12 at the center, so the integral is 12 delta' K delta, of bounded support."""
    atom = duchon(6, 1)
    centers = np.array(atom.centers)[:, 0]
    edges = np.sort(centers)
    total = np.zeros((4, 4))
    nodes, weights = np.polynomial.legendre.leggauss(4)
    for a, b in pairwise(edges):
        for x, w in zip(nodes, weights, strict=True):
            bend = atom.jets(np.array([(a + b) / 2 + (b - a) / 2 * x])).d2[0, 0, :4]
            total += (b - a) / 2 * w * np.outer(bend, bend)
    assert_close(total / 12, atom.roughness()[:4, :4], 1e-11)
    assert_close(atom.jets(np.array([edges[-1] + 5])).d2[0, 0, :4], np.zeros(4), 1e-11)


def test_duchon_refuses_what_it_cannot_interpolate() -> None:
    with pytest.raises(ValueError, match="more than 6 centers, got 6"):
        kernel_columns(duchon(6, 2).centers)
    line = tuple((float(x), 2 * float(x)) for x in range(9))
    with pytest.raises(ValueError, match="curve"):
        kernel_columns(line)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_duchon_kernel_at_its_center(dim: int) -> None:
    value, first, second, _ = kernel_jets(np.zeros(dim))
    assert value == 0
    assert not first.any()
    assert not second.any()
    near = kernel_jets(np.full(dim, 1e-7))
    assert np.abs(near[2]).max() < 1e-5


# Gates


def _gates() -> list[Gate]:
    return [
        Softmax(0.7),
        Threshold(0.3, 0.8),
        Threshold(ungated=(1,)),
        IBP(1.5, True, "ordered", 0.8),
        IBP(1.5, False, "ordered", ungated=(0,)),
        IBP(2.5, True, "plug_in"),
        IBP(0.7, False, "plug_in", 1.3),
        Frozen(),
    ]


every_gate = pytest.mark.parametrize("gate", _gates(), ids=repr)


def _draw(gate: Gate, seed: int, n: int = 4, n_atoms: int = 3) -> tuple[Array, NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.standard_normal((n, n_atoms))
    logits[:, gate.n_free(n_atoms) :] = 0 if isinstance(gate, Softmax) else 0.6
    support = rng.random((n, n_atoms)) < 0.7
    support[np.arange(n), rng.integers(0, n_atoms, n)] = True
    support[:, list(getattr(gate, "ungated", ()))] = True
    return logits, support


@every_gate
@few
@given(seed=seeds)
def test_gate_jets(gate: Gate, seed: int) -> None:
    logits, support = _draw(gate, seed)
    free, at = gate.n_free(3), 0.3

    def jets(v: Array) -> tuple[Array, Array, Array]:
        return gate.jets(np.r_[v, logits[0, free:]], support[0], at)

    a, da, d2a = jets(logits[0, :free])
    assert not a[~support[0]].any()
    if free:
        assert_close(da, differences(lambda v: jets(v)[0], logits[0, :free]), 1e-9)
        assert_close(d2a, differences(lambda v: jets(v)[1], logits[0, :free]), 1e-9)
    pull = slope(lambda s: gate.jets(logits[0], support[0], at + s)[0])
    assert_close(a * gate.log_slopes(3, at), pull, 1e-10)
    for k in getattr(gate, "ungated", ()):
        assert a[k] == 1
        assert not da[k].any()


@every_gate
@few
@given(seed=seeds)
def test_gate_prior(gate: Gate, seed: int) -> None:
    """Gradient, Hessian, derivatives of the majoriser and the coupling, all in the logits and in the strength."""
    logits, support = _draw(gate, seed)
    free, at = gate.n_free(3), 0.3
    size = logits.shape[0] * free

    def moved(step: Array) -> Array:
        out = logits.copy()
        out[:, :free] += step.reshape(-1, free) if free else 0
        return out

    def state(step: Array) -> tuple[Array, NDArray[np.bool_], float]:
        return moved(step), support, at

    zero = np.zeros(size)
    if size:
        gradient = differences(lambda v: gate.energy(*state(v)), zero)
        assert_close(gate.gradient(*state(zero)), gradient, 1e-8)
        assert_close(gate.hessian(*state(zero)), differences(lambda v: gate.gradient(*state(v)), zero), 1e-8)
        for name in ("majoriser", "coupling"):
            change = differences(lambda v, name=name: getattr(gate, name)(*state(v)), zero)
            assert_close(getattr(gate, name + "_theta")(*state(zero)), change, 1e-8)
    for name in ("energy", "gradient", "majoriser", "coupling"):
        change = slope(lambda s, name=name: getattr(gate, name)(logits, support, at + s))
        assert_close(getattr(gate, name + "_strength")(logits, support, at), change, 1e-8)
    if isinstance(gate, Softmax | Threshold) and size:
        gap = np.linalg.eigvalsh(gate.majoriser(*state(zero)) - gate.hessian(*state(zero)))
        assert gap.min() >= -1e-12


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("n_atoms", [2, 3, 5])
def test_entropy_derivatives(n_atoms: int, temperature: float) -> None:
    rng = np.random.default_rng(n_atoms)
    for scale in (0.1, 1.0, 4.0):
        logits = scale * rng.standard_normal(n_atoms)
        hessian = entropy_hessian(logits, temperature)
        assert_close(hessian, differences(lambda v: entropy_gradient(v, temperature), logits), 1e-8)
        third = differences(lambda v: entropy_hessian(v, temperature), logits)
        assert_close(entropy_third(logits, temperature), third, 1e-8)


@pytest.mark.parametrize("gate", [Softmax(1.3), Threshold(0.4, 1.3), Threshold(ungated=(0,))], ids=repr)
def test_log_normaliser_slope_and_limit(gate: Gate) -> None:
    for at in (-3.0, 0.0, 2.0):
        numeric = slope(lambda s, at=at: gate.log_normaliser(3, at + s)[0])
        assert gate.log_normaliser(3, at)[1] == pytest.approx(float(numeric), rel=1e-8)
    assert gate.log_normaliser(3, -700.0)[0] == pytest.approx(0, abs=1e-12)
    assert log_normaliser(5.0, normaliser_nodes(1, 0.04), 1.0) == (0.0, 0.0)


def test_threshold_normaliser_is_the_integral_of_the_prior() -> None:
    gate = Threshold(0.4, 2.0, logit_precision=0.3)

    def integrand(logit: float) -> float:
        gauss = np.sqrt(0.3 / (2 * np.pi)) * np.exp(-0.15 * logit**2)
        return float(gauss * np.exp(-gate.energy(np.array([[logit]]), np.array([[True]]), 0.5)))

    assert gate.log_normaliser(1, 0.5)[0] == pytest.approx(np.log(quad(integrand, -30, 30)[0]), abs=1e-8)


def test_closed_threshold_gates_still_pay() -> None:
    gate, closed = Threshold(), np.zeros((1, 1), bool)
    assert gate.energy(np.array([[-1.0]]), closed, 0.0) == pytest.approx(1 / (1 + np.e))
    assert gate.energy(np.array([[-36.5]]), closed, 0.0) == 0


def test_ordered_energy_is_the_integral_over_the_rate() -> None:
    gate, logits, support = IBP(1.5, False, "ordered"), np.array([[0.3], [-1.0], [2.0]]), np.ones((3, 1), bool)
    mass = (1 / (1 + np.exp(-logits))).sum()
    a = (1.5 / 2.5) / (1 - 1.5 / 2.5)
    integral = quad(lambda q: q**mass * (1 - q) ** (3 - mass) * a * q ** (a - 1), 0, 1, epsabs=1e-12)[0]
    assert gate.energy(logits, support, 0.0) == pytest.approx(-np.log(integral), rel=1e-9)


def test_plug_in_energy_is_the_bernoulli_loss_at_the_posterior_mean() -> None:
    gate, support = IBP(2.5, True, "plug_in"), np.ones((4, 2), bool)
    logits = np.random.default_rng(0).standard_normal((4, 2))
    z, a, log_strength = 1 / (1 + np.exp(-logits)), 2.5 * np.exp(0.3) / 2, 0.3
    rate = (z.sum(0) + a) / (4 + a + 1)
    energy = -(z * np.log(rate) + (1 - z) * np.log(1 - rate)).sum() - (np.log(a) + (a - 1) * np.log(rate)).sum()
    assert gate.energy(logits, support, log_strength) == pytest.approx(energy, rel=1e-13)


def test_column_mass_counts_open_gates_only() -> None:
    gate = IBP()
    logits, support = np.array([[0.3], [-1.0], [2.0]]), np.array([[True], [False], [True]])
    elsewhere = np.where(support, logits, 7.0)
    assert gate.energy(logits, support, 0.2) == gate.energy(elsewhere, support, 0.2)
    assert gate.gradient(logits, support, 0.2)[1] == 0


# Conditioned blocks


@few
@given(seed=seeds)
def test_conditioned_block_and_its_derivative(seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = np.arange(4)
    factor, change = rng.standard_normal((4, 2)), rng.standard_normal((4, 4))
    vectors = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    block, change = factor @ factor.T, change + change.T
    block -= 0.3 * np.outer(vectors[:, 0], vectors[:, 0]) * (seed % 2)
    spectrum = Spectrum.of(index, block)
    values = np.linalg.eigvalsh(block)
    kept = values >= max(1e-8 * values[-1], 0)
    expected = np.sort(np.where(kept, values, 1.0))
    assert_close(np.linalg.eigvalsh(spectrum.block), expected, 1e-12)
    # Along changes that keep the null space null the map is smooth: rotate the block.
    spin = change - change.T + np.triu(change, 1) - np.triu(change, 1).T
    turned = slope(lambda s: Spectrum.of(index, expm(s * spin) @ block @ expm(-s * spin)).block)
    assert_close(spectrum.change(spin @ block - block @ spin), turned, 1e-7)
    # Along any change when the replaced eigenvalues are well below zero.
    deep = block - np.linalg.norm(block) * np.outer(vectors[:, 1], vectors[:, 1])
    deep_spectrum = Spectrum.of(index, deep - 0.1 * np.eye(4))
    numeric = slope(lambda s: Spectrum.of(index, deep - 0.1 * np.eye(4) + s * change).block, 1e-5)
    assert_close(deep_spectrum.change(change), numeric, 1e-5)


def test_conditioning_keeps_a_healthy_block() -> None:
    block = np.array([[2.0, 0.5], [0.5, 1.0]])
    spectrum = Spectrum.of(np.arange(2), block)
    assert_close(spectrum.block, block, 1e-15)
    assert_close(replace(spectrum).change(np.eye(2)), np.eye(2), 1e-15)
