"""The compact terms: the integral over a compact part of a chart in place of the Gaussian one, at the exact curvature.

The angles and directions of a row are one part, of all atoms that it uses, because a row may hold one combination of
them and leave another free; each interval is one; each choice is one. h is the part's block of H and K that of the
exact Hessian A of L, delta included. Its term is charge(K) - 1/2 ln|h|: with the 1/2 ln|h| in 1/2 ln|H| and the
constants, minus the logarithm of von Mises or von Mises-Fisher integrals whose concentrations are the eigenvalues of K
in radians, charge(K) = sum_a [f_a(K)]_aa with f_a the charge of one concentration on axis a. Where the row determines
its point, K is about h; where it does not, the point lies where the row's noise is, which only K knows.

Between two ends, at a = lo - t and b = hi - t from the point, the integral is

    C(g, k) = -ln int_a^b exp(-g u - k u^2 / 2) du,    dC/dg = E u,   dC/dk = E u^2 / 2,   dC/dt = (f(b) - f(a)) / int f

with f the integrand: charge(K) = C(0, max(K, 0)) + 1/2 ln 2 pi. A coordinate that is held at an end has a one in H, and
C(g, max(K, 0)) + 1/2 ln 2 pi with the slope and the curvature that the row's objective would have if it were free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import i0e, i1e

from .curvature import exact_hessian
from .factors import LN_2PI, ChoiceFactor, CircleFactor, IntervalFactor, LineFactor, SphereFactor
from .jets import RowJets, all_free_row_jets, all_row_jets, basis_jets, held_axes
from .objective import reconstruct_slope
from .priors import Place, places
from .problem import Problem, Rho, State, variables_of

Array = NDArray[np.float64]


def charge_circle(k: Array | float) -> Array:
    """-ln[exp(-k) I0(k)] - 1/2 ln(2 pi), k the curvature on an angle of period 2 pi.

    The Gaussian integral over an angle, sqrt(2 pi / k), is replaced by the von Mises one, 2 pi exp(-k) I0(k), which
    cannot exceed the circle.
    """
    k = np.asarray(k, float)
    return k - np.abs(k) - np.log(i0e(k)) - 0.5 * LN_2PI


def charge_circle_slope(k: Array | float) -> Array:
    """1 - I1(k)/I0(k)."""
    return np.asarray(1 - i1e(k) / i0e(k))


def charge_sphere(k: float, rate: float) -> float:
    """ln k - ln(1 - exp(-rate k)), of the von Mises-Fisher integral over the sphere or half of it, for any k."""
    if k == 0:
        return float(-np.log(rate))
    return float(np.log(abs(k)) + min(rate * k, 0.0) - np.log(-np.expm1(-rate * abs(k))))


def charge_sphere_slope(k: float, rate: float) -> float:
    """1/k - rate / (exp(rate k) - 1)."""
    y = rate * k
    if abs(y) < 1e-2:
        # Bernoulli numbers: y / (e^y - 1) = 1 - y/2 + y^2/12 - y^4/720 + y^6/30240
        return float(rate * (0.5 - y / 12 + y**3 / 720 - y**5 / 30240))
    return float(1 / k - rate / np.expm1(y)) if y < 500 else 1 / k


@lru_cache(maxsize=4096)
def charge_interval(g: float, k: float, a: float, b: float) -> tuple[float, float, float, float]:
    """C(g, k) between a <= 0 and b >= 0, k >= 0, with its derivatives in g, k and the point."""
    mode = float(np.clip(-g / k, a, b)) if k > 0 else (a if g > 0 else b if g < 0 else 0.0)
    inside = a < mode < b
    scale = max(np.sqrt(k), 0.0 if inside else abs(g + k * mode), 1 / (b - a))
    # the integrand falls on the scale of its mode: pieces that an adaptive rule cannot miss
    cuts = np.clip(mode + np.array([-60, -20, -8, -3, 0, 3, 8, 20, 60]) / scale, a, b)

    def density(u: float) -> float:
        fall = (g + k * mode) * (u - mode) if not inside else 0.0
        return float(np.exp(-fall - 0.5 * k * (u - mode) ** 2))

    def moment(power: int) -> float:
        return sum(
            quad(lambda u: u**power * density(u), low, high, epsabs=0.0, epsrel=1e-13, limit=200)[0]
            for low, high in pairwise(cuts)
            if high > low
        )

    total = moment(0)
    value = g * mode + 0.5 * k * mode**2 - np.log(total)
    return float(value), moment(1) / total, 0.5 * moment(2) / total, (density(b) - density(a)) / total


@dataclass(frozen=True)
class Axis:
    """One coordinate of a part: what one radian is, the charge of one concentration and its slope.

    ``point_of`` is the derivative of the charge in the coordinate itself.
    """

    unit: float
    charge_of: Callable[[float], float]
    slope_of: Callable[[float], float]
    point_of: Callable[[float], float] = lambda k: 0.0


@dataclass(frozen=True)
class Part:
    """Places of one row that are integrated together, with all of their axes; ``index`` (n,) are the variables."""

    places: tuple[Place, ...]
    axes: tuple[Axis, ...]

    @property
    def index(self) -> NDArray[np.int_]:
        return np.concatenate([place.index for place in self.places])

    @property
    def atoms(self) -> list[int]:
        """(n,) the atom of each axis."""
        return [place.atom for place in self.places for _ in place.index]

    @property
    def units(self) -> Array:
        return np.array([axis.unit for axis in self.axes])

    def charge(self, exact: Array) -> float:
        """-ln of the integral over the part, + n/2 ln 2 pi, of a density of curvature ``exact`` (n, n) at its mode."""
        values, vectors = np.linalg.eigh(exact * np.outer(self.units, self.units))
        charges = np.array([[axis.charge_of(float(k)) for k in values] for axis in self.axes])
        return float(np.sum(vectors**2 * charges) - np.log(self.units).sum())

    def charge_slope(self, exact: Array) -> Array:
        """d charge / d exact (n, n).

        Of [f(K)]_aa = e' f(K) e, in the eigenvectors U of K, U (F o U'ee'U) U' with F the divided differences of f.
        """
        values, vectors = np.linalg.eigh(exact * np.outer(self.units, self.units))
        gaps = values[:, None] - values
        near = np.abs(gaps) <= 1e-6 * (1 + np.abs(values[:, None]) + np.abs(values))
        middle = 0.5 * (values[:, None] + values)
        inside = np.zeros_like(exact)
        for axis, own in zip(self.axes, vectors, strict=True):
            charges = np.array([axis.charge_of(float(k)) for k in values])
            slopes = np.vectorize(axis.slope_of)(middle)
            divided = np.where(near, slopes, (charges[:, None] - charges) / np.where(near, 1.0, gaps))
            inside += divided * np.outer(own, own)
        return vectors @ inside @ vectors.T * np.outer(self.units, self.units)


def closed(place: Place) -> list[Axis]:
    """The axes of an angle, or of a direction: half the charge for each of its two."""
    if isinstance(place.factor, CircleFactor):
        unit = float(1 / place.factor.kappa)
        return [Axis(unit, lambda k: float(charge_circle(k)), lambda k: float(charge_circle_slope(k)))]
    if not isinstance(place.factor, SphereFactor):
        return []
    rate = 1.0 if place.factor.antipodal else 2.0
    axis = Axis(1.0, lambda k: 0.5 * charge_sphere(k, rate), lambda k: 0.5 * charge_sphere_slope(k, rate))
    return [axis, axis]


def interval(place: Place) -> Part:
    """A coordinate between two ends."""
    assert isinstance(place.factor, IntervalFactor)
    a, b = (float(end - place.t[0]) for end in (place.factor.low, place.factor.high))
    axis = Axis(
        1.0,
        lambda k: charge_interval(0.0, max(k, 0.0), a, b)[0] + 0.5 * LN_2PI,
        lambda k: charge_interval(0.0, k, a, b)[2] if k > 0 else 0.0,
        lambda k: charge_interval(0.0, max(k, 0.0), a, b)[3],
    )
    return Part((place,), (axis,))


@dataclass(frozen=True)
class Held:
    """A coordinate at an end: the row's objective along it as if it were free, and the charge with its derivatives.

    ``slope`` is g, ``gauss`` and ``bend`` are the two parts of the data's curvature. ``at`` is its place among the
    row's variables.
    """

    place: Place
    at: int
    jets: RowJets
    residual: Array
    scale: float

    @property
    def slope(self) -> float:
        return self.scale * float(self.jets.first[:, self.at] @ self.residual)

    @property
    def gauss(self) -> float:
        return self.scale * float(self.jets.first[:, self.at] @ self.jets.first[:, self.at])

    @property
    def bend(self) -> float:
        return self.scale * float(self.jets.second[:, self.at, self.at] @ self.residual)

    @property
    def exact(self) -> float:
        """K, with the delta of a free coordinate."""
        factor = self.place.factor
        assert isinstance(factor, IntervalFactor)
        return self.gauss + self.bend + factor.ridge(np.array([0.5 * (factor.low + factor.high)]))

    @property
    def charge(self) -> tuple[float, float, float]:
        """C and its derivatives in g and in K."""
        factor, exact = self.place.factor, self.exact
        assert isinstance(factor, IntervalFactor)
        ends = (float(end - self.place.t[0]) for end in (factor.low, factor.high))
        value, by_slope, by_curvature, _ = charge_interval(self.slope, max(exact, 0.0), *ends)
        return value, by_slope, by_curvature if exact > 0 else 0.0


def held_coordinates(problem: Problem, state: State, rho: Rho) -> Iterator[Held]:
    """The supported coordinates that are held."""
    rows = all_free_row_jets(problem, state, rho)
    for place in places(problem, state, rho, supported=True):
        if isinstance(place.factor, IntervalFactor) and not place.factor.moves(place.t):
            jets = rows[place.row]
            at = int(np.flatnonzero(jets.index == place.index[0])[0])
            scale = problem.row_weights[place.row] / rho.dispersion()
            yield Held(place, at, jets, jets.value - problem.data[place.row], scale)


def compact_parts(problem: Problem, state: State, rho: Rho) -> Iterator[Part]:
    """The parts whose coordinates are variables."""
    supported = sorted(places(problem, state, rho, supported=True), key=lambda place: (place.row, place.atom))
    for _, group in groupby(supported, key=lambda place: place.row):
        listed = list(group)
        around = [place for place in listed if closed(place)]
        if around:
            yield Part(tuple(around), tuple(axis for place in around for axis in closed(place)))
        for place in listed:
            if isinstance(place.factor, IntervalFactor):
                if place.factor.moves(place.t):
                    yield interval(place)
            else:
                assert isinstance(place.factor, CircleFactor | SphereFactor | LineFactor | ChoiceFactor)


def compact_blocks(problem: Problem, state: State, rho: Rho) -> Iterator[tuple[Part, Array]]:
    """Each part with its K (n, n)."""
    exact = exact_hessian(problem, state, rho)
    for part in compact_parts(problem, state, rho):
        ridge = np.concatenate([np.full(p.factor.dim, p.factor.ridge(p.t)) for p in part.places])
        yield part, exact[np.ix_(part.index, part.index)] + np.diag(ridge)


def compact_total(problem: Problem, state: State, rho: Rho, matrix: Array) -> float:
    """Sum of the compact terms; ``matrix`` is H."""
    total = 0.0
    for part, exact in compact_blocks(problem, state, rho):
        total += part.charge(exact) - 0.5 * float(np.linalg.slogdet(matrix[np.ix_(part.index, part.index)])[1])
    choices = sum(isinstance(p.factor, ChoiceFactor) for p in places(problem, state, rho, supported=True))
    held = [coordinate.charge[0] for coordinate in held_coordinates(problem, state, rho)]
    return total + sum(held) + 0.5 * LN_2PI * (choices + len(held))


def compact_theta(problem: Problem, state: State, rho: Rho) -> Array:
    """Derivative of all charges in theta (D,), through K.

    With x = z-hat and J its first derivatives, K_ab = w/phi (J_a . J_b + r . x_ab) + prior.
    """
    rows, out = all_row_jets(problem, state, rho), np.zeros(variables_of(problem, state).size)
    for part, exact in compact_blocks(problem, state, rho):
        slope, i = part.charge_slope(exact), part.places[0].row
        jets, scale = rows[i], problem.row_weights[i] / rho.dispersion()
        own = [int(np.flatnonzero(jets.index == a)[0]) for a in part.index]
        residual = jets.value - problem.data[i]
        first, mixed = jets.first[:, own], jets.second[:, own, :]
        change = 2 * np.einsum("ab,pac,pb->c", slope, mixed, first)
        change += np.einsum("ab,pab,pc->c", slope, mixed[:, :, own], jets.first)
        change += np.einsum("ab,p,pabc->c", slope, residual, _third(problem, state, rho, part, own))
        out[jets.index] += scale * change
        prior = np.concatenate([place.factor.third(place.t, place.alpha) for place in part.places])
        out[part.index] += np.diag(slope) * prior
        if len(part.index) == 1:
            out[part.index] += part.axes[0].point_of(float(exact[0, 0]))
    for held in held_coordinates(problem, state, rho):
        out += _held_theta(problem, state, rho, held)
    return out


def _held_theta(problem: Problem, state: State, rho: Rho, held: Held) -> Array:
    """Derivative of one held coordinate's C.

    With x = z-hat, dg = w/phi d(x_j . r) and dK = w/phi d(|x_j|^2 + x_jj . r). Other held coordinates do not move.
    """
    _, by_slope, by_curvature = held.charge
    j, jets = held.at, held.jets
    moving = all_row_jets(problem, state, rho)[held.place.row].first
    third = _third(problem, state, rho, interval(held.place), [j])[:, 0, 0]
    mixed = jets.second[:, j, :] * _moves(problem, state, held.place, jets)
    slope = held.residual @ mixed + jets.first[:, j] @ moving
    curvature = 2 * jets.first[:, j] @ mixed + held.residual @ third + jets.second[:, j, j] @ moving
    out = np.zeros(variables_of(problem, state).size)
    out[jets.index] = held.scale * (by_slope * slope + by_curvature * curvature)
    return out


def _moves(problem: Problem, state: State, place: Place, jets: RowJets) -> NDArray[np.bool_]:
    """(q,) which variables of a row are none that the place's atom holds."""
    held = held_axes(problem.atoms[place.atom], state.coords[place.atom][place.row])
    return ~np.isin(jets.index, variables_of(problem, state).coord[place.atom][place.row][held])


def _third(problem: Problem, state: State, rho: Rho, part: Part, own: list[int]) -> Array:
    """(p, n, n, q): the second derivatives of z-hat in the part's coordinates, differentiated once more."""
    i, p = part.places[0].row, problem.n_outputs
    variables = variables_of(problem, state)
    index = variables.row(i)
    a, da, _ = problem.gate.jets(state.logits[i], state.support[i], rho.log_lambda_sparse)
    da = da[:, variables.free[i]]
    position = {int(v): at for at, v in enumerate(index)}
    out = np.zeros((p, len(own), len(own), len(index)))
    # atoms add up, so no second derivative has coordinates of two
    for k in sorted(set(part.atoms)):
        atom, decoder = problem.atoms[k], state.decoders[k]
        coords = [position[int(v)] for v in variables.coord[k][i]]
        among = [at for at, other in enumerate(part.atoms) if other == k]
        local = [coords.index(own[at]) for at in among]
        jets = atom.jets(state.coords[k][i], 3)
        assert jets.d3 is not None
        bend = basis_jets(atom, state.coords[k][i]).d2[np.ix_(local, local)]
        block = np.zeros((p, len(local), len(local), len(index)))
        block[..., : da.shape[1]] = np.einsum("abm,mp,j->pabj", bend, decoder, da[k])
        third = np.einsum("abcm,mp->pabc", jets.d3[np.ix_(local, local)], decoder)
        slopes = (jets.d1 @ decoder).T
        for first, second in _spheres(part, k, local):
            # d3 is symmetric; the derivative of a covariant Hessian on the unit sphere is not:
            # grad_c Hess_ab = d3_abc - 1/3 (2 g_ab F_c - g_bc F_a - g_ca F_b)
            pair = [local[first], local[second]]
            flat, gradient = np.eye(2), slopes[:, pair]
            turned = -2 / 3 * np.einsum("ab,pc->pabc", flat, gradient)
            turned += 1 / 3 * np.einsum("bc,pa->pabc", flat, gradient)
            turned += 1 / 3 * np.einsum("ca,pb->pabc", flat, gradient)
            third[np.ix_(range(p), [first, second], [first, second], pair)] += turned
        block[..., coords] = a[k] * third
        still = held_axes(atom, state.coords[k][i])
        block[..., [coords[axis] for axis in still]] = 0.0
        for m, c in np.ndindex(atom.width, p):
            block[c, :, :, position[int(variables.border[k][m, c])]] = a[k] * bend[..., m]
        out[np.ix_(range(p), among, among, range(len(index)))] = block
    return out


def _spheres(part: Part, k: int, local: list[int]) -> Iterator[tuple[int, int]]:
    """Where the two axes of each sphere of an atom are among its axes of a part."""
    at = 0
    for place in part.places:
        if place.atom == k:
            if isinstance(place.factor, SphereFactor):
                yield at, at + 1
            at += place.factor.dim
    assert at == len(local)


def compact_rho(problem: Problem, state: State, rho: Rho) -> Array:
    """Derivative of all charges in the flat rho at fixed theta, through K."""
    rows, out = all_row_jets(problem, state, rho), np.zeros(len(rho.to_flat()))
    slopes = problem.gate.log_slopes(problem.n_atoms, rho.log_lambda_sparse)
    pull = reconstruct_slope(problem, state, rho)
    for part, exact in compact_blocks(problem, state, rho):
        slope, i = part.charge_slope(exact), part.places[0].row
        jets, scale = rows[i], problem.row_weights[i] / rho.dispersion()
        own = [int(np.flatnonzero(jets.index == a)[0]) for a in part.index]
        residual = jets.value - problem.data[i]
        first, second = jets.first[:, own], jets.second[:, own, :][:, :, own]
        gauss, bend = first.T @ first, np.tensordot(residual, second, axes=1)
        out[-1] -= scale * np.sum(slope * (gauss + bend))
        own_slopes = np.array([slopes[k] for k in part.atoms])
        moved = (own_slopes[:, None] + own_slopes) * gauss + own_slopes * bend
        moved += np.tensordot(pull[i], second, axes=1)
        out[0] += scale * np.sum(slope * moved)
        for place in part.places:
            if place.alpha is not None:
                own = np.isin(part.index, place.index)
                out[place.ard] += np.diag(slope)[own] @ np.atleast_1d(place.factor.curvature(place.t, place.alpha))
    for held in held_coordinates(problem, state, rho):
        _, by_slope, by_curvature = held.charge
        out[-1] -= by_slope * held.slope + by_curvature * (held.gauss + held.bend)
        # the gate's scale is in x_j and in x_jj once, and in the residual
        own, along = slopes[held.place.atom], held.scale * pull[held.place.row]
        slope = own * held.slope + along @ held.jets.first[:, held.at]
        curvature = own * (2 * held.gauss + held.bend) + along @ held.jets.second[:, held.at, held.at]
        out[0] += by_slope * slope + by_curvature * curvature
    return out
