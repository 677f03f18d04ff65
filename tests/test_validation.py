"""Every refusal names what is wrong, and nothing usable is refused."""

from __future__ import annotations

import re
import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from planted import fitted_one, one_circle
from sae_rs import (
    IBP,
    Circle,
    Cylinder,
    Duchon,
    FiniteSet,
    FoldWarning,
    FrozenRouting,
    KleinBottle,
    Line,
    ManifoldSAE,
    Mobius,
    NotFittedError,
    Patch,
    Poincare,
    Precomputed,
    ProjectivePlane,
    SaeManifoldRho,
    Segment,
    Softmax,
    Sphere,
    ThresholdGate,
    Torus,
)
from sae_rs.atoms import Atom
from sae_rs.memory import (
    check_memory,
    estimate_bytes,
    format_bytes,
    is_crowded,
    parse_memory_budget,
    plan_rows,
)
from sae_rs.validation import CHUNK_BYTES, check_finite, check_training_rows, check_weights

X = one_circle()[0]


def refuses(message: str, X: Any = X, weights: Any = None, **parameters: Any) -> None:
    """Check that a fit is refused with `message` in the error, and leaves the estimator unfitted."""
    model = ManifoldSAE(**{"n_atoms": 1, **parameters})
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(X, weights)
    assert not hasattr(model, "coords_")


class TestRows:
    def test_not_two_dimensional(self) -> None:
        refuses("X must be two-dimensional (rows, columns), got shape (5,); for a single row", np.ones(5))
        refuses("got shape (2, 3, 4)", np.ones((2, 3, 4)))
        refuses("got shape ()", np.float64(1.0))

    def test_fewer_than_two_rows(self) -> None:
        refuses("X must have at least 2 rows, got shape (1, 6)", X[:1])
        refuses("X must have at least 2 rows, got shape (0, 6)", X[:0])

    def test_no_columns(self) -> None:
        refuses("X must have at least 1 column, got shape (60, 0)", X[:, :0])

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, value: float) -> None:
        bad = X.copy()
        bad[[3, 7, 7], [4, 0, 5]] = value
        refuses(f"X has 3 values that are not finite (NaN or infinity); the first is X[3, 4] = {value}", bad)
        refuses(f"X has 1 value that is not finite (NaN or infinity); the first is X[0, 0] = {value}", _one(value))

    def test_first_not_finite_value_beyond_the_first_chunk(self) -> None:
        rows = np.zeros((CHUNK_BYTES // 8, 2), dtype=np.float32)
        rows[-2, 1] = rows[-1, 0] = np.nan
        message = f"has 2 values that are not finite (NaN or infinity); the first is X[{len(rows) - 2}, 1] = nan"
        with pytest.raises(ValueError, match=re.escape(message)):
            check_finite(rows)

    def test_zero_variance(self) -> None:
        refuses("X has zero variance: all 9 rows are equal", np.tile(X[0], (9, 1)))

    @pytest.mark.parametrize("n_atoms", [0, 1])
    def test_zero_variance_of_the_rows_that_count(self, n_atoms: int) -> None:
        rows = np.concatenate([np.tile(X[0], (9, 1)), X[1:2]])
        message = "X has zero variance: all 9 rows of positive weight are equal"
        refuses(message, rows, (np.arange(10) < 9).astype(float), n_atoms=n_atoms)

    @pytest.mark.parametrize("scale", [1e-120, 1e160])
    def test_variance_beyond_float64(self, scale: float) -> None:
        refuses("outside the range of float64 squares: rescale X", X * scale)

    @pytest.mark.parametrize("dtype", [complex, object, str, bool, "datetime64[s]"])
    def test_dtypes_that_are_not_real_numbers(self, dtype: Any) -> None:
        rows = np.ones((9, 3)).astype(int).astype(dtype)
        refuses(f"X must hold real numbers (float or integer), got dtype {rows.dtype}", rows)

    def test_ragged_lists(self) -> None:
        refuses("X cannot be read as an array", [[1.0, 2.0], [3.0]])

    def test_sparse(self) -> None:
        refuses("X is a sparse matrix; dense rows are needed: pass X.toarray()", sparse.csr_array(X))
        refuses("X is a sparse matrix", sparse.csr_matrix(X))

    def test_masked(self) -> None:
        refuses("X is a masked array with 1 masked values", np.ma.masked_equal(X, X[2, 2]))


def _one(value: float) -> NDArray[np.float64]:
    bad = X.copy()
    bad[0, 0] = value
    return bad


class TestAccepted:
    """All these hold the same numbers, so all fits agree."""

    @pytest.mark.parametrize(
        "variant",
        [
            X.tolist(),
            np.asfortranarray(X),
            np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
            X[::-1][::-1],
            X.astype(">f8"),
            X.astype(np.longdouble),
        ],
        ids=["list", "fortran", "strided", "negative strides", "big endian", "long double"],
    )
    def test_same_fit(self, variant: Any) -> None:
        model = ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1)).fit(variant)
        np.testing.assert_array_equal(model.coords_[0], fitted_one().coords_[0])

    def test_read_only_is_not_changed(self) -> None:
        rows = X.copy()
        rows.flags.writeable = False
        ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1)).fit(rows)
        np.testing.assert_array_equal(rows, X)

    def test_memory_map(self, tmp_path: Any) -> None:
        np.save(tmp_path / "rows.npy", X)
        rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
        model = ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1)).fit(rows)
        np.testing.assert_array_equal(model.coords_[0], fitted_one().coords_[0])

    def test_array_protocol(self) -> None:
        class Tensor:
            """Something like a tensor of another library."""

            def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
                return np.asarray(X, dtype=dtype)

        model = ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1)).fit(Tensor())  # type: ignore[arg-type]
        np.testing.assert_array_equal(model.coords_[0], fitted_one().coords_[0])

    def test_torch(self) -> None:
        torch = pytest.importorskip("torch")
        model = ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1)).fit(torch.from_numpy(X))
        np.testing.assert_array_equal(model.coords_[0], fitted_one().coords_[0])

    def test_integers(self) -> None:
        data = check_training_rows(np.round(100 * X).astype(np.int16))
        assert data.values.dtype == np.float64
        assert data.dtype == np.float64

    def test_float64_is_not_copied(self) -> None:
        rows = np.random.default_rng(0).standard_normal((20_000, 64))
        tracemalloc.start()
        data = check_training_rows(rows)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert np.shares_memory(data.values, rows)
        assert peak < rows.nbytes / 2

    def test_mean_variance(self) -> None:
        rows = np.random.default_rng(0).standard_normal((50_000, 5)) + 7.0
        assert check_training_rows(rows).mean_variance == pytest.approx(np.var(rows, axis=0).mean(), rel=1e-12)


class TestWeights:
    def test_shape(self) -> None:
        refuses("weights must have shape (60,), one for each row of X, got (59,)", weights=np.ones(59))
        refuses("got (60, 1)", weights=np.ones((60, 1)))
        refuses("got ()", weights=1.0)

    def test_values(self) -> None:
        refuses("weights has 1 entries that are not finite; the first is weights[5]", weights=_weights(5, np.nan))
        refuses("weights has 1 entries that are not finite", weights=_weights(5, np.inf))
        refuses("weights has 1 entries that are negative; the first is weights[2] = -1.0", weights=_weights(2, -1.0))
        refuses("weights must be positive for at least 2 rows, got 0", weights=np.zeros(60))
        refuses("weights must hold real numbers, got dtype", weights=np.ones(60, dtype=complex))

    @pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
    def test_only_ratios_matter(self, scale: float) -> None:
        weights = check_weights(scale * np.array([0.0, 1.0, 3.0]), 3)
        np.testing.assert_allclose(weights, [0.0, 0.75, 2.25], rtol=1e-14)  # type: ignore[arg-type]


def _weights(row: int, value: float) -> NDArray[np.float64]:
    weights = np.ones(60)
    weights[row] = value
    return weights


class TestOptions:
    @pytest.mark.parametrize("value", [-1, np.int64(-3)])
    def test_negative_n_atoms(self, value: Any) -> None:
        refuses(f"n_atoms must be at least 0, got {value}", n_atoms=value)

    @pytest.mark.parametrize("value", [True, 2.0, "two", None, 1.5])
    def test_n_atoms_not_an_integer(self, value: Any) -> None:
        refuses(f"n_atoms must be an integer, got {value!r}", n_atoms=value)

    def test_unknown_atom(self) -> None:
        refuses("unknown atom kind 'cirle': did you mean 'circle'?", atom="cirle")
        refuses("unknown atom kind 'Circle': did you mean 'circle'?", atom="Circle")
        refuses("atom must be an object, not the class Circle: write Circle()", atom=Circle)
        refuses("atom must be a kind name or an atom object such as Circle(), got int", atom=3)
        refuses("atom is a list of 2 but n_atoms is 1", atom=["circle", Circle()])
        refuses(
            "atom is a list of 2 but n_atoms is 3: give one entry for each atom", n_atoms=3, atom=["circle", "line"]
        )
        refuses("atom is a list of 0 but n_atoms is 1", atom=[])
        refuses("unknown atom kind 'ring'", n_atoms=2, atom=["circle", "ring"])

    def test_unknown_gate(self) -> None:
        refuses("unknown gate 'sofmax': did you mean 'softmax'?", gate="sofmax")
        refuses("Known gates: 'softmax', 'ibp', 'threshold', 'frozen'", gate="relu")
        refuses("gate must be an object, not the class Softmax: write Softmax()", gate=Softmax)
        refuses("gate must be a name or a gate object such as Softmax(), got NoneType", gate=None)

    @pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None])
    def test_harmonics(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"Circle: harmonics must be an integer of at least 1, got"):
            Circle(harmonics=value)

    @pytest.mark.parametrize(
        ("kind", "name", "least"),
        [
            (Torus, "harmonics", 1),
            (Cylinder, "harmonics", 1),
            (Cylinder, "degree", 1),
            (KleinBottle, "harmonics", 2),
            (Mobius, "harmonics", 2),
            (Mobius, "degree", 1),
            (Patch, "dim", 1),
            (Patch, "degree", 1),
            (Sphere, "degree", 1),
            (ProjectivePlane, "degree", 2),
            (Poincare, "dim", 1),
            (FiniteSet, "size", 2),
            (Segment, "degree", 1),
        ],
    )
    def test_fields_of_kinds(self, kind: Any, name: str, least: int) -> None:
        for value in (0, -1, least - 1, 1.0, True, "3", None, np.float64(2.0)):
            with pytest.raises(ValueError, match=rf"{kind.__name__}: {name} must be an integer (of at|from {least})"):
                kind(**{name: value})
        atom = kind(**{name: np.int64(least)})
        assert type(getattr(atom, name)) is int

    def test_bases_too_wide(self) -> None:
        for kind, fields, message in [
            (Torus, {"harmonics": 45}, "Torus: harmonics must be an integer from 1 to 44, got 45"),
            (KleinBottle, {"harmonics": 64}, "KleinBottle: harmonics must be an integer from 2 to 63, got 64"),
            (Patch, {"dim": 9}, "Patch: dim must be an integer from 1 to 8, got 9"),
            (Patch, {"dim": 8, "degree": 9}, "would have 24310 basis functions, more than 8192"),
            (Cylinder, {"harmonics": 2000, "degree": 4}, "would have 20005 basis functions, more than 8192"),
            (Segment, {"degree": 65}, "Segment: degree must be an integer from 1 to 64, got 65"),
            (Sphere, {"degree": 33}, "Sphere: degree must be an integer from 1 to 32, got 33"),
            (ProjectivePlane, {"degree": 34}, "ProjectivePlane: degree must be an integer from 2 to 32, got 34"),
            (ProjectivePlane, {"degree": 3}, "ProjectivePlane: degree must be even, got 3"),
            (Poincare, {"dim": 7}, "Poincare: dim must be an integer from 1 to 6, got 7"),
            (FiniteSet, {"size": 1025}, "FiniteSet: size must be an integer from 2 to 1024, got 1025"),
            (Mobius, {"harmonics": 4096, "degree": 1}, "would have 8193 basis functions, more than 8192"),
        ]:
            with pytest.raises(ValueError, match=re.escape(message)):
                kind(**fields)

    def test_fields_that_a_kind_does_not_have(self) -> None:
        with pytest.raises(TypeError):
            Line(harmonics=1)  # type: ignore[call-arg]
        refuses("unknown atom kind 'cilinder': did you mean 'cylinder'?", atom="cilinder")
        refuses("unknown atom kind 'klein': did you mean 'line'?", atom="klein")

    @pytest.mark.parametrize("name", ["temperature", "logit_precision"])
    @pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, True, "1"])
    def test_softmax(self, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=f"Softmax: {name} must be a positive finite number, got"):
            Softmax(**{name: value})

    def test_evidence_and_outer(self) -> None:
        refuses("evidence must be 'laplace' or 'quasi_laplace', got 'aic'", evidence="aic")
        refuses("outer must be 'auto' or 'bfgs' or 'efs' or 'efs+bfgs', got 'adam'", outer="adam")
        refuses("roughness must be 'coordinate' or 'arc_length', got True", roughness=True)

    @pytest.mark.parametrize("name", ["n_init", "max_outer", "max_inner"])
    def test_counts(self, name: str) -> None:
        refuses(f"{name} must be at least 1, got 0", **{name: 0})
        refuses(f"{name} must be an integer, got 1.5", **{name: 1.5})

    @pytest.mark.parametrize("value", [0.0, -1e-6, np.nan, "small"])
    def test_tol(self, value: Any) -> None:
        refuses(f"tol must be a positive finite number, got {value!r}", tol=value)

    def test_others(self) -> None:
        refuses("center must be True or False, got 'yes'", center="yes")
        refuses("random_state must be at least 0, got -1", random_state=-1)
        refuses("random_state must be an integer, got 'seed'", random_state="seed")
        refuses("n_jobs must be None, -1 (all cores) or an integer of at least 1, got 0", n_jobs=0)
        refuses("progress must be None, a bool or a callable, got 'bar'", progress="bar")
        refuses("callback must be None or a callable, got True", callback=True)

    def test_rho(self) -> None:
        refuses("rho must have shape (3,) for 1 atoms (ln λ_sparse, 1 × ln λ, ln φ), got (2,)", rho=[0.0, 0.0])
        refuses("rho has 1 values that are not finite; the first is rho[1] = nan", rho=[0.0, np.nan, 0.0])
        refuses("rho must be a SaeManifoldRho or a flat vector", rho="big")
        two = SaeManifoldRho(log_lambda_smooth=[0.0, 0.0], log_dispersion=-3.0)
        refuses("rho.log_lambda_smooth must have shape (1,), one for each atom, got (2,)", rho=two)
        short = SaeManifoldRho(log_lambda_smooth=[0.0], log_ard=[[0.0]], log_dispersion=-3.0)
        refuses("rho.log_ard[0] must have 0 or 2 entries, got 1", rho=short, atom=Cylinder(harmonics=1))
        refuses("rho.log_ard[0] must be empty: the prior on a sphere has no precisions", rho=short, atom="sphere")

    def test_too_few_rows(self) -> None:
        refuses("X has 5 rows, too few for 8 atoms: at least 8 are needed", X[:5], n_atoms=8)
        refuses("X has 5 rows, too few for the basis of atom 0, Circle(harmonics=3): at least 7 are needed", X[:5])
        light = np.r_[np.ones(6), np.zeros(54)]
        refuses("X has 6 rows of positive weight, too few for the basis of atom 0, Circle(harmonics=3)", weights=light)
        for atom, width in [
            (Torus(), 25),
            (Cylinder(), 10),
            (KleinBottle(), 13),
            (Patch(2), 6),
            (Sphere(degree=3), 16),
            (ProjectivePlane(), 6),
            (Poincare(3), 10),
            (Duchon.spread(12, 2), 12),
            (FiniteSet(5), 5),
            (table(), 3),
        ]:
            few = X[: width - 1]
            refuses(
                f"X has {width - 1} rows, too few for the basis of atom 0, {atom}: at least {width}", few, atom=atom
            )


class TestSplines:
    @pytest.mark.parametrize(
        ("centers", "message"),
        [
            ([-1.0, 0.0, 0.0, 1.0], "centers 1 and 2 coincide"),
            ([[0.0, 1.0], [1.0, 0.0], [0.5, 0.2]] * 4, "centers 0 and 3 coincide"),
            ([0.0, 1.0], "centers has 2 rows: in 1 dimensions the 2 polynomials need at least 3 centres"),
            ([0.0, 1.0, np.nan], "centers must be finite; entry [2, 0] is NaN"),
            (
                np.column_stack([np.arange(8.0)] * 2),
                "centers lie on a curve on which some polynomial of degree 2 vanishes",
            ),
            (np.eye(9)[:, :7], "centers need between 1 and 6 columns, got 7"),
            (np.zeros((2, 2, 2)), "centers must have shape (C, d), got (2, 2, 2)"),
            ([], "centers must have shape (C, d), got (0, 1)"),
            (None, "centers must have shape (C, d), got ()"),
            ("ten", "centers cannot be read as an array"),
            (2, "centers must be an integer of at least 3, got 2"),
            (True, "centers must be an integer of at least 3, got True"),
        ],
    )
    def test_centers(self, centers: Any, message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(f"Duchon: {message}")):
            Duchon(centers)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0, 1), "n_centers must be an integer of at least 1, got 0"),
            ((2.5, 1), "n_centers must be an integer of at least 1, got 2.5"),
            ((10, 0), "dim must be an integer of at least 1, got 0"),
            ((10, 7), "centers need between 1 and 6 columns, got 7"),
        ],
    )
    def test_spread(self, arguments: Any, message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(f"Duchon: {message}")):
            Duchon.spread(*arguments)


GRID = np.linspace(-4.0, 4.0, 33)
VALUES = np.column_stack([np.ones_like(GRID), np.tanh(GRID), np.tanh(GRID) ** 2])


def table(**changes: Any) -> Precomputed:
    """Three functions on a line, with some arguments changed."""
    return Precomputed(**{"axes": [GRID], "values": VALUES, **changes})


class Straight:
    """1 and t with their derivatives, in the form that `Precomputed.tabulated` reads."""

    dim = 1

    def basis(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack([np.ones(len(t)), t])

    def jacobian(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.tile([[0.0], [1.0]], (len(t), 1, 1))

    def hessian(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.zeros((len(t), 2, 1, 1))


def straight(**changes: Any) -> Straight:
    """Such an object with some attributes changed."""
    source = Straight()
    vars(source).update(changes)
    return source


class TestTables:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"roughness": np.diag([0.0, 1.0, -1.0])},
                "roughness must be positive semi-definite; its smallest eigenvalue is -1",
            ),
            (
                {"roughness": [[0.0, 0.0, 0.0], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]]},
                "roughness must be symmetric; entry (2, 1) is 0 and (1, 2) is 0.5",
            ),
            ({"roughness": np.eye(2)}, "roughness must have shape (3, 3), got (2, 2)"),
            ({"roughness": np.diag([0.0, np.nan, 1.0])}, "roughness must be finite; entry (1, 1) is nan"),
            ({"values": VALUES[:-1]}, "values must have shape (33, M), got (32, 3)"),
            ({"values": VALUES[:, :0]}, "values must have shape (33, M), got (33, 0)"),
            ({"values": np.full((33, 3), np.inf)}, "values must be finite; entry (0, 0) is inf"),
            ({"axes": [GRID[::-1]]}, "axes[0] must increase"),
            ({"axes": [GRID[:5]], "values": VALUES[:5]}, "axes[0] needs at least 6 points, got 5"),
            ({"axes": [GRID[:, None]]}, "axes[0] must have 1 dimensions, got shape (33, 1)"),
            ({"axes": [GRID] * 4}, "axes must list 1 to 3 grids, one for each coordinate, got 4"),
            ({"axes": 5}, "axes must list 1 to 3 grids, one for each coordinate, got 5"),
            ({"periods": [0.0]}, "a period must be a positive number or None, got 0.0"),
            ({"periods": ["turn"]}, "a period must be a positive number or None, got 'turn'"),
            ({"periods": [8.0]}, "axes[0] spans 8, not less than its period 8: leave out the end"),
            ({"periods": [8.0, None]}, "periods must list 1 numbers or None, one for each coordinate"),
        ],
    )
    def test_grids(self, changes: Any, message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(f"Precomputed: {message}")):
            table(**changes)

    @pytest.mark.parametrize(
        ("changes", "options", "message"),
        [
            ({"hessian": None}, {}, "the object needs hessian(t) -> (n, M, d, d) for coordinates t (n, d); second"),
            ({"jacobian": None}, {}, "the object needs jacobian(t) -> (n, M, d)"),
            ({"basis": None}, {}, "the object needs basis(t) -> (n, M)"),
            ({"dim": 4}, {}, "the object's dim must be an integer from 1 to 3, got 4"),
            ({"hessian": lambda t: np.ones((len(t), 2, 1, 1))}, {}, "hessian(t) is off by 1 at t = "),
            ({"hessian": lambda t: np.ones((len(t), 2))}, {}, "hessian(t) must have shape (64, M, 1, 1)"),
            ({"basis": lambda t: np.full((len(t), 2), np.nan)}, {}, "basis(t) has values that are not finite"),
            ({"roughness": np.diag([0.0, -1.0])}, {}, "roughness must be positive semi-definite"),
            ({}, {"n_points": 5}, "n_points must be an integer of at least 6, got 5"),
            ({}, {"n_points": 30.0}, "n_points must be an integer of at least 6, got 30.0"),
            ({}, {"lower": np.nan}, "lower must be a finite number or 1 of them, got nan"),
            ({}, {"upper": [1.0, 2.0]}, "upper must be a finite number or 1 of them, got [1.0, 2.0]"),
            ({}, {"lower": 3, "upper": -3}, "lower must be below upper in every coordinate, got 3 and -3"),
        ],
    )
    def test_objects(self, changes: Any, options: Any, message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(f"Precomputed: {message}")):
            Precomputed.tabulated(straight(**changes), **options)

    def test_an_object_that_is_complete(self) -> None:
        assert Precomputed.tabulated(straight()).width == 2


class TestGates:
    @pytest.mark.parametrize(
        ("gate", "name"),
        [
            (IBP, "alpha"),
            (IBP, "temperature"),
            (IBP, "logit_precision"),
            (ThresholdGate, "temperature"),
            (ThresholdGate, "logit_precision"),
        ],
    )
    @pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, True, "1", None])
    def test_positive_numbers(self, gate: Any, name: str, value: Any) -> None:
        message = f"{gate.__name__}: {name} must be a positive finite number, got {value!r}"
        with pytest.raises(ValueError, match=re.escape(message)):
            gate(**{name: value})

    @pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
    def test_top_k(self, value: Any) -> None:
        message = f"Softmax: top_k must be None or an integer of at least 1, got {value!r}"
        with pytest.raises(ValueError, match=re.escape(message)):
            Softmax(top_k=value)

    def test_gates_that_do_not_suit_the_atoms(self) -> None:
        refuses("top_k must be at most the number of atoms, 2, got 3", n_atoms=2, gate=Softmax(top_k=3))
        for gate in (IBP, ThresholdGate):
            refuses("ungated names atom 2, but there are 2 atoms", n_atoms=2, gate=gate(ungated=(2,)))
        frozen = FrozenRouting(np.ones((59, 2)))
        refuses("gates must have shape (60, 2) for these rows and atoms, got (59, 2)", n_atoms=2, gate=frozen)


class TestFolds:
    @pytest.mark.filterwarnings("ignore::sae_rs.ConvergenceWarning")
    def test_a_circle_in_one_column_is_warned_of(self) -> None:
        message = r"X has 1 column, in which atom 0, Circle\(harmonics=1\), can only close by folding back on itself"
        with pytest.warns(FoldWarning, match=message):
            ManifoldSAE(1, Circle(harmonics=1), max_outer=1).fit(X[:, :1])

    @pytest.mark.parametrize(("columns", "atom"), [(2, Circle(harmonics=1)), (1, Line()), (1, Segment())])
    def test_nothing_is_said_where_nothing_folds(self, columns: int, atom: Atom) -> None:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            ManifoldSAE(1, atom, max_outer=1).fit(X[:, :columns])
        assert not any("folding" in str(one.message) for one in said)


class TestMemory:
    @pytest.mark.parametrize(
        ("budget", "size"),
        [(None, None), (10, 10), ("10", 10), ("500MB", 500_000_000), ("2GiB", 2**31), ("1.5 kib", 1536), ("3k", 3000)],
    )
    def test_parse(self, budget: Any, size: int | None) -> None:
        assert parse_memory_budget(budget) == size

    @pytest.mark.parametrize("budget", [0, -5, "", "lots", "2XB", 1.5, True])
    def test_refused(self, budget: Any) -> None:
        message = f'memory_budget must be None, a number of bytes or text such as "2GiB", got {budget!r}'
        refuses(message, memory_budget=budget)

    def test_over_budget(self) -> None:
        refuses("the fit of 60 x 6 values by 1 atoms needs about", memory_budget=1000)
        refuses("over memory_budget='1kB' (1000 B)", memory_budget="1kB")

    def test_estimate_comes_from_shapes_alone(self) -> None:
        atoms = (Circle(),) * 64
        assert estimate_bytes(10**9, 10**4, atoms) > 10**13
        with pytest.raises(ValueError, match="over memory_budget"):
            check_memory("1TiB", 10**9, 10**4, atoms)

    def test_a_sample_is_not_planned_beside_a_copy_that_comes_after_it(self) -> None:
        atoms = (Circle(),) * 8
        few, many = ((n, 64) for n in (30_000, 31_000))
        # the sample, which is tried with all atoms in every row, takes more than all rows with one atom each
        assert check_memory(None, *few, atoms).bytes == check_memory(None, *many, atoms).bytes
        # float32 rows are widened before it is drawn
        widened = [check_memory(None, *shape, atoms, copies=2).bytes for shape in (few, many)]
        assert widened[1] - widened[0] == 8 * 1000 * 64

    def test_a_thousand_circles_with_few_atoms_a_row_take_less_than_8_gib(self) -> None:
        atoms, gate = (Circle(),) * 1024, ThresholdGate()
        assert is_crowded(256, atoms, gate)
        assert not is_crowded(256, atoms, Softmax())
        assert not is_crowded(160, atoms[:64], gate)
        assert is_crowded(2000, atoms[:65], gate)
        for size in (
            estimate_bytes(40_000, 256, atoms, gate),
            plan_rows(40_000, 256, atoms, gate, active=4.0, tied=True).bytes,
        ):
            # such a fit was seen to take 3.3 GiB up to its first gradient, and 4.7 after it
            assert 3.3 * 2**30 < size < 8 * 2**30

    def test_within_budget(self) -> None:
        ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1), memory_budget="1GiB").fit(X)

    def test_format(self) -> None:
        assert [format_bytes(size) for size in (5, 2048, 3 * 2**29)] == ["5 B", "2.0 KiB", "1.5 GiB"]


class TestFitted:
    @pytest.mark.parametrize(
        "call",
        [
            lambda model: model.encode(X),
            lambda model: model.transform(X),
            lambda model: model.reconstruct(),
            lambda model: model.score(X),
            lambda model: model.curve(0),
            lambda model: model.summary(),
            lambda model: model.save("model.safetensors"),
            lambda model: model.plot(),
            lambda model: model.term_,
            lambda model: model.inverse_transform(np.ones((1, 1)), [np.ones((1, 1))]),
        ],
    )
    def test_before_fit(self, call: Any) -> None:
        with pytest.raises(NotFittedError, match="this ManifoldSAE is not fitted yet: call fit before"):
            call(ManifoldSAE())

    def test_not_fitted_error_is_both(self) -> None:
        assert issubclass(NotFittedError, ValueError)
        assert issubclass(NotFittedError, AttributeError)

    @pytest.mark.parametrize("method", ["encode", "transform", "reconstruct", "score"])
    def test_wrong_rows(self, method: str) -> None:
        call = getattr(fitted_one(), method)
        with pytest.raises(ValueError, match="X has 5 columns, but the model was fitted on 6"):
            call(X[:, :5])
        with pytest.raises(ValueError, match=re.escape("for a single row pass X.reshape(1, -1)")):
            call(X[0])
        with pytest.raises(ValueError, match=re.escape("the first is X[0, 0] = nan")):
            call(_one(np.nan))

    def test_wrong_code(self) -> None:
        decode = fitted_one().inverse_transform
        good = np.ones((3, 1))
        for message, gates, coords in [
            ("gates must have shape (m, 1), got (3, 2)", np.ones((3, 2)), [good]),
            ("gates must have shape (m, 1), got (3,)", np.ones(3), [good]),
            ("coords must be a list of 1 arrays, one for each atom, got 2", good, [good, good]),
            ("coords[0] must have shape (3, 1), got (2, 1)", good, [good[:2]]),
            ("coords[0] must be finite", good, [good * np.nan]),
            ("gates must be finite", good * np.inf, [good]),
        ]:
            with pytest.raises(ValueError, match=re.escape(message)):
                decode(gates, coords)

    @pytest.mark.parametrize("k", [1, -1, 0.0, True, "0"])
    def test_wrong_atom(self, k: Any) -> None:
        with pytest.raises(ValueError, match=re.escape(f"k must be the index of an atom (from 0 to 0), got {k!r}")):
            fitted_one().curve(k)

    def test_score_of_one_row(self) -> None:
        with pytest.raises(ValueError, match="score needs at least 2 different rows"):
            fitted_one().score(X[:1])
