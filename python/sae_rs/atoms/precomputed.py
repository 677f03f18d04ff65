"""A basis of the caller's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import make_interp_spline

from .. import _core
from .base import FloatArray
from .factors import Angle, Bounded, Real
from .flat import FlatAtom, lattice

MAX_DIM = 3
# Splines of degree five have continuous third derivatives, which the gradient of the evidence needs.
DEGREE = 5
# Points of a table along each coordinate, in one, two and three dimensions: the error falls with their sixth power.
TABLE_POINTS = (257, 49, 21)
# Half-width of the box in which an object is tabulated: rows of a standard normal coordinate lie within.
REACH = 4.0
# Points at which an object's derivatives are compared with those of its table, and how far they may be apart, as a
# part of
# the largest derivative of that order.
CHECKED, AGREE = 64, 1e-3
# Nodes along each coordinate of the mean that the default roughness is, in one, two and three dimensions.
ROUGHNESS_NODES = (1025, 97, 33)


@runtime_checkable
class Basis(Protocol):
    """What `Precomputed.tabulated` reads: a vectorised basis with its derivatives.

    ``third(t)`` (n, M, d, d, d), ``roughness`` (M, M) and ``retract(t)`` (n, d) are used when the object has them.
    """

    dim: int

    def basis(self, t: FloatArray) -> FloatArray:
        """Basis rows (n, M) at coordinates (n, d)."""

    def jacobian(self, t: FloatArray) -> FloatArray:
        """First derivatives (n, M, d)."""

    def hessian(self, t: FloatArray) -> FloatArray:
        """Second derivatives (n, M, d, d)."""


@dataclass(frozen=True, init=False, repr=False)
class Precomputed(FlatAtom):
    """A curve or surface in a basis of the caller's own, given by its values on a grid of one to three coordinates.

    Between the grid's points the basis is the tensor product of quintic splines through the values, with the splines'
    own
    derivatives, so V and its gradient are as exact as for any other kind, a fit needs no calls of the caller's code,
    and the
    model can be stored. A coordinate is an angle of some period, uniform a priori; a bounded number, uniform between
    the ends of its grid; or a real number with a standard normal prior: then a grid should cover at least ±3, and
    beyond it the basis continues by its second Taylor polynomial. A basis is not assumed to follow shifts of its
    coordinates, so there is no gauge.

    Parameters
    ----------
    axes : sequence of d array-likes
        Increasing grid points of each coordinate, at least six. Those of an angle cover one period, without its end.
    values : array-like of shape (n_1, ..., n_d, M)
        The basis at the grid points.
    roughness : array-like of shape (M, M), optional
        Roughness Gram S, symmetric and positive semi-definite; its null space gets the weak prior. By default the
        mean squared
        Hessian over the coordinates' prior.
    periods : sequence of d numbers or None, optional
        The period of each angle, None for a real number. By default all are real.
    bounded : sequence of d bools, optional
        Which numbers end where their grid does. By default none.

    Raises
    ------
    ValueError
        For wrong shapes, values that are not finite, a grid that does not increase, and a roughness that is not
        symmetric or
        not positive semi-definite.

    See Also
    --------
    Precomputed.tabulated : From an object with ``basis``, ``jacobian`` and ``hessian``.

    Examples
    --------
    >>> import numpy as np
    >>> from sae_rs import Precomputed
    >>> t = np.linspace(-4.0, 4.0, 33)
    >>> Precomputed([t], np.column_stack([np.ones_like(t), np.tanh(t), np.tanh(t) ** 2]))
    Precomputed(dim=1, width=3)
    """

    knots: tuple[tuple[float, ...], ...]
    periods: tuple[float | None, ...]
    bounded: tuple[bool, ...]
    coefficients: tuple[float, ...]
    gram: tuple[tuple[float, ...], ...]
    kind: ClassVar[str] = "precomputed"

    def __init__(
        self,
        axes: Sequence[ArrayLike],
        values: ArrayLike,
        roughness: ArrayLike | None = None,
        *,
        periods: Sequence[float | None] | None = None,
        bounded: Sequence[bool] | None = None,
    ) -> None:
        if not isinstance(axes, (Sequence, np.ndarray)):
            raise ValueError(f"Precomputed: axes must list 1 to {MAX_DIM} grids, one for each coordinate, got {axes!r}")
        grid = [_array(f"axes[{k}]", axis, 1) for k, axis in enumerate(axes)]
        if not 1 <= len(grid) <= MAX_DIM:
            raise ValueError(
                f"Precomputed: axes must list 1 to {MAX_DIM} grids, one for each coordinate, got {len(grid)}"
            )
        turns = _periods(periods, len(grid))
        ends = _bounded(bounded, turns)
        for k, (axis, period) in enumerate(zip(grid, turns, strict=True)):
            _check_axis(k, axis, period)
        table = _array("values", values, len(grid) + 1)
        shape = tuple(len(axis) for axis in grid)
        if table.shape[:-1] != shape or table.shape[-1] == 0:
            expected = ", ".join(map(str, shape))
            raise ValueError(f"Precomputed: values must have shape ({expected}, M), got {table.shape}")
        gram = np.zeros((table.shape[-1],) * 2) if roughness is None else _array("roughness", roughness, 2)
        if gram.shape != (table.shape[-1],) * 2:
            raise ValueError(f"Precomputed: roughness must have shape {(table.shape[-1],) * 2}, got {gram.shape}")
        knots = []
        for k, (axis, period) in enumerate(zip(grid, turns, strict=True)):
            points, along = axis, np.moveaxis(table, k, 0)
            if period is not None:
                points, along = np.append(axis, axis[0] + period), np.concatenate([along, along[:1]])
            spline = make_interp_spline(points, along, k=DEGREE, bc_type=None if period is None else "periodic")
            knots.append(tuple(spline.t.tolist()))
            table = np.moveaxis(spline.c, 0, k)
        self._set(tuple(knots), turns, ends, tuple(table.ravel().tolist()), gram)
        if roughness is None:
            self._set(self.knots, turns, ends, self.coefficients, self._mean_bending())

    def _set(
        self,
        knots: tuple[tuple[float, ...], ...],
        periods: tuple[float | None, ...],
        bounded: tuple[bool, ...],
        coefficients: tuple[float, ...],
        gram: FloatArray,
    ) -> None:
        # tuples, so that equal atoms compare and hash alike
        fields = {
            "knots": knots,
            "periods": periods,
            "bounded": bounded,
            "coefficients": coefficients,
            "gram": tuple(map(tuple, gram.tolist())),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        try:
            # the compiled module checks the Gram, and takes off what is rounding in it
            clean = _core.roughness(self.spec())
        except ValueError as error:
            raise ValueError(f"Precomputed: {error}") from None
        object.__setattr__(self, "gram", tuple(map(tuple, clean.tolist())))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Precomputed:
        """Rebuild a table from its splines, as `spec` lists them."""
        made = object.__new__(cls)
        periods = _periods(fields["periods"], len(fields["knots"]))
        made._set(
            tuple(tuple(map(float, axis)) for axis in fields["knots"]),
            periods,
            # files from before coordinates could be bounded do not say so
            _bounded(fields.get("bounded"), periods),
            tuple(map(float, fields["coefficients"])),
            _array("gram", fields["gram"], 2),
        )
        return made

    @classmethod
    def tabulated(
        cls,
        source: Basis,
        *,
        lower: float | Sequence[float] = -REACH,
        upper: float | Sequence[float] = REACH,
        n_points: int | None = None,
        periods: Sequence[float | None] | None = None,
        bounded: Sequence[bool] | None = None,
    ) -> Precomputed:
        """Tabulate an object's basis, and check the object's derivatives against the table's.

        Parameters
        ----------
        source : object
            With ``dim``, ``basis(t)`` (n, M), ``jacobian(t)`` (n, M, d) and ``hessian(t)`` (n, M, d, d) for
            coordinates (n, d);
            also ``third(t)`` (n, M, d, d, d), ``roughness`` (M, M) and ``retract(t)`` (n, d), which are optional.
        lower, upper : float or sequence of d floats
            The box of the real and of the bounded coordinates.
        n_points : int, optional
            Grid points along each coordinate; by default 257, 49 or 21 in one, two or three dimensions.
        periods : sequence of d numbers or None, optional
            The period of each angle, which then runs from 0; None for a real number.
        bounded : sequence of d bools, optional
            Which numbers end at the box. By default none.

        Raises
        ------
        ValueError
            When something is missing or has a wrong shape, and when a derivative disagrees with the basis: it is
            wrong, or
            `n_points` is too small.
        """
        for name, shape in [("basis", "(n, M)"), ("jacobian", "(n, M, d)"), ("hessian", "(n, M, d, d)")]:
            if not callable(getattr(source, name, None)):
                why = "; second derivatives are part of the curvature's own derivative" if name == "hessian" else ""
                raise ValueError(f"Precomputed: the object needs {name}(t) -> {shape} for coordinates t (n, d){why}")
        dim: object = getattr(source, "dim", None)
        if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or not 1 <= dim <= MAX_DIM:
            raise ValueError(f"Precomputed: the object's dim must be an integer from 1 to {MAX_DIM}, got {dim!r}")
        count: object = TABLE_POINTS[dim - 1] if n_points is None else n_points
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count <= DEGREE:
            raise ValueError(f"Precomputed: n_points must be an integer of at least {DEGREE + 1}, got {count!r}")
        turns = _periods(periods, int(dim))
        low, high = _corner("lower", lower, int(dim)), _corner("upper", upper, int(dim))
        # an angle runs over its period instead
        if any(p is None and not low[k] < high[k] for k, p in enumerate(turns)):
            raise ValueError(f"Precomputed: lower must be below upper in every coordinate, got {lower} and {upper}")
        axes = [
            np.linspace(low[k], high[k], count) if p is None else np.linspace(0.0, p, count, endpoint=False)
            for k, p in enumerate(turns)
        ]
        mesh = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        rows = _called("basis", source.basis, mesh.reshape(-1, int(dim)), ())
        roughness = getattr(source, "roughness", None)
        roughness = roughness() if callable(roughness) else roughness
        table = cls(axes, rows.reshape(*mesh.shape[:-1], -1), roughness, periods=turns, bounded=bounded)
        table._check_source(source, axes)
        return table

    def _check_source(self, source: Basis, axes: Sequence[FloatArray]) -> None:
        """Compare an object with its table at points between those of the grid."""
        ends = [(axis[0], axis[-1] if p is None else axis[0] + p) for axis, p in zip(axes, self.periods, strict=True)]
        low, high = np.array(ends).T
        # away from the ends, where a spline has fewest points to rest on
        share = 0.02 + 0.96 * lattice(CHECKED, self.dim)
        t = low + share * (high - low)
        found = _core.basis_jets(self.spec(), t)
        names = ["basis", "jacobian", "hessian", *(["third"] if callable(getattr(source, "third", None)) else [])]
        for order, name in enumerate(names):
            given = _called(name, getattr(source, name), t, (self.dim,) * order)
            if given.shape != found[order].shape:
                raise ValueError(f"Precomputed: {name}(t) must have shape {found[order].shape}, got {given.shape}")
            apart = np.abs(given - found[order]).max(axis=tuple(range(1, order + 2)))
            worst = int(np.argmax(apart))
            if apart[worst] > AGREE * max(np.abs(found[order]).max(), np.abs(found[0]).max()):
                raise ValueError(
                    f"Precomputed: {name}(t) is off by {apart[worst]:.3g} at t = {t[worst].tolist()} from the spline"
                    " through"
                    " the basis: it is not its derivative, or n_points is too small"
                )
        if callable(getattr(source, "retract", None)):
            kept = _called("retract", source.retract, t, ())  # type: ignore[attr-defined]
            if kept.shape != t.shape or np.abs(kept - t).max() > 1e-9 * np.abs(t).max():
                raise ValueError(
                    "Precomputed: retract moves points of the box: coordinates of a table live on a box of real numbers"
                    " and angles; give the periods of the angles"
                )

    @property
    def factors(self) -> tuple[Angle | Bounded | Real, ...]:
        out: list[Angle | Bounded | Real] = []
        for knots, period, ends in zip(self.knots, self.periods, self.bounded, strict=True):
            unbounded = Real() if period is None else Angle(period)
            out.append(Bounded(knots[DEGREE], knots[-DEGREE - 1]) if ends else unbounded)
        return tuple(out)

    @property
    def width(self) -> int:
        return len(self.gram)

    def __repr__(self) -> str:
        return f"Precomputed(dim={self.dim}, width={self.width})"

    def roughness(self) -> FloatArray:
        """The caller's Gram, or the mean squared Hessian over the coordinates' prior."""
        return np.array(self.gram)

    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Variance of the decoded set over the coordinates' prior, as one part."""
        t, weights = self._nodes()
        points = _core.basis(self.spec(), t) @ decoder
        return {"all": float(weights @ np.square(points - weights @ points).sum(axis=1))}

    def _nodes(self) -> tuple[FloatArray, FloatArray]:
        """Points (n, d) and weights (n,) of a mean over the coordinates' prior, within the grid."""
        count = ROUGHNESS_NODES[self.dim - 1]
        lines, weights = [], []
        for knots, period, ends in zip(self.knots, self.periods, self.bounded, strict=True):
            first, last = knots[DEGREE], knots[-DEGREE - 1]
            line = np.linspace(first, last, count, endpoint=period is None)
            weight = np.exp(-0.5 * line**2) if period is None and not ends else np.ones(count)
            if ends:
                # the trapezoidal rule
                weight[[0, -1]] = 0.5
            if not weight.sum() > 0.0:
                weight = np.ones(count)
            lines.append(line)
            weights.append(weight / weight.sum())
        mesh = np.meshgrid(*lines, indexing="ij")
        product = np.ones(())
        for weight in weights:
            product = np.multiply.outer(product, weight)
        return np.stack([m.ravel() for m in mesh], axis=1), product.ravel()

    def _mean_bending(self) -> FloatArray:
        t, weights = self._nodes()
        total = np.zeros((self.width, self.width))
        for start in range(0, len(t), 4096):
            part = slice(start, start + 4096)
            second = _core.basis_jets(self.spec(), t[part])[2]
            total += np.einsum("n,naij,nbij->ab", weights[part], second, second)
        return total


def _array(name: str, value: object, ndim: int) -> FloatArray:
    try:
        array = np.ascontiguousarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Precomputed: {name} cannot be read as an array: {error}") from None
    if array.ndim != ndim:
        raise ValueError(f"Precomputed: {name} must have {ndim} dimensions, got shape {array.shape}")
    if not np.isfinite(array).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"Precomputed: {name} must be finite; entry {first} is {array[first]}")
    return array


def _corner(name: str, value: float | Sequence[float], dim: int) -> FloatArray:
    """A corner of the box of coordinates, from a number for each or one for all."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or array.shape not in ((), (dim,)) or not np.isfinite(array).all():
        raise ValueError(f"Precomputed: {name} must be a finite number or {dim} of them, got {value!r}")
    return np.broadcast_to(array.astype(np.float64), (dim,))


def _periods(periods: Sequence[float | None] | None, dim: int) -> tuple[float | None, ...]:
    if periods is None:
        return (None,) * dim
    if isinstance(periods, str) or not isinstance(periods, Sequence) or len(periods) != dim:
        raise ValueError(
            f"Precomputed: periods must list {dim} numbers or None, one for each coordinate, got {periods!r}"
        )
    for period in periods:
        if period is not None and not (isinstance(period, (int, float, np.number)) and 0.0 < float(period) < np.inf):
            raise ValueError(f"Precomputed: a period must be a positive number or None, got {period!r}")
    return tuple(None if period is None else float(period) for period in periods)


def _bounded(bounded: Sequence[bool] | None, periods: Sequence[float | None]) -> tuple[bool, ...]:
    if bounded is None:
        return (False,) * len(periods)
    known = isinstance(bounded, (Sequence, np.ndarray)) and not isinstance(bounded, str)
    if not known or len(bounded) != len(periods) or not all(isinstance(b, (bool, np.bool_)) for b in bounded):
        raise ValueError(
            f"Precomputed: bounded must list {len(periods)} booleans, one for each coordinate, got {bounded!r}"
        )
    if any(b and period is not None for b, period in zip(bounded, periods, strict=True)):
        raise ValueError("Precomputed: an angle has no ends: give a period or bounded, not both")
    return tuple(map(bool, bounded))


def _check_axis(k: int, axis: FloatArray, period: float | None) -> None:
    if len(axis) <= DEGREE:
        raise ValueError(f"Precomputed: axes[{k}] needs at least {DEGREE + 1} points, got {len(axis)}")
    if not (np.diff(axis) > 0.0).all():
        raise ValueError(f"Precomputed: axes[{k}] must increase")
    if period is not None and axis[-1] - axis[0] >= period:
        raise ValueError(
            f"Precomputed: axes[{k}] spans {axis[-1] - axis[0]:g}, not less than its period {period:g}: leave out"
            " the end"
        )


def _called(name: str, function: Callable[[FloatArray], ArrayLike], t: FloatArray, tail: tuple[int, ...]) -> FloatArray:
    """The result of one of the caller's functions, checked to have a row for each point."""
    array = np.asarray(function(t.copy()), dtype=np.float64)
    if array.ndim != 2 + len(tail) or array.shape[0] != len(t) or array.shape[2:] != tail:
        expected = ", ".join(map(str, (len(t), "M", *tail)))
        raise ValueError(f"Precomputed: {name}(t) must have shape ({expected}) for t {t.shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"Precomputed: {name}(t) has values that are not finite")
    return array
