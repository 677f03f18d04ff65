"""Independent gates: several atoms on a row, none on another, and which of them a fit finds."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

import sae_rs
from sae_rs import IBP, Circle, FrozenRouting, ManifoldSAE, SaeRowLayout, Softmax, ThresholdGate, _core

slow = pytest.mark.skipif(os.environ.get("SAE_RS_SLOW") != "1", reason="SAE_RS_SLOW=1 runs it")

N_CIRCLES, N_ROWS, WIDTH, NOISE = 4, 800, 16, 0.05


@contextmanager
def quiet() -> Iterator[None]:
    """Fits that are cut short say so; here that is no news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
        yield


class Overlapping:
    """Circles in random planes, each active on 40 % of the rows with an amplitude of its own there."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.active = rng.random((N_ROWS, N_CIRCLES)) < 0.4
        self.amplitude = self.active * rng.uniform(0.8, 1.2, (N_ROWS, N_CIRCLES))
        self.angle = rng.uniform(0.0, 2.0 * np.pi, (N_ROWS, N_CIRCLES))
        self.planes = [np.linalg.qr(rng.standard_normal((WIDTH, 2)))[0].T for _ in range(N_CIRCLES)]
        parts = [
            self.amplitude[:, [k]] * np.column_stack([np.cos(self.angle[:, k]), np.sin(self.angle[:, k])]) @ plane
            for k, plane in enumerate(self.planes)
        ]
        self.X: NDArray[np.float64] = np.sum(parts, axis=0) + NOISE * rng.standard_normal((N_ROWS, WIDTH))

    def score(self, model: ManifoldSAE) -> tuple[float, float]:
        """F1 of the supports, and the largest angle between a circle's plane and its atom's, under the best pairing."""

        def f1(order: tuple[int, ...]) -> float:
            found = model.support_[:, list(order)]
            return 2.0 * float(np.sum(found & self.active)) / float(found.sum() + self.active.sum())

        best = max(permutations(range(N_CIRCLES)), key=f1)
        angles = []
        for k, atom in enumerate(best):
            own = np.linalg.svd(model.decoders_[atom][1:3], full_matrices=False)[2]
            cosines = np.linalg.svd(own @ self.planes[k].T)[1]
            angles.append(float(np.arccos(np.clip(cosines.min(), -1.0, 1.0))))
        return f1(best), max(angles)


def check_recovery(gate: object, seed: int) -> ManifoldSAE:
    data = Overlapping(seed)
    model = ManifoldSAE(N_CIRCLES, Circle(harmonics=1), gate).fit(data.X)
    f1, angle = data.score(model)
    assert model.converged_
    assert f1 >= 0.9
    assert angle <= 0.1
    assert abs(np.sqrt(model.dispersion_) / NOISE - 1.0) < 0.05
    return model


class TestOverlappingCircles:
    def test_indian_buffet(self) -> None:
        check_recovery(IBP(), 0)

    def test_threshold_keeps_hard_zeros(self) -> None:
        model = check_recovery(ThresholdGate(), 0)
        assert np.array_equal(model.gates_ == 0.0, ~model.support_)
        assert model.gates_[model.support_].min() >= 0.5
        assert (model.support_.sum(axis=1) == 0).any()

    @slow
    @pytest.mark.parametrize("seed", [1, 2])
    @pytest.mark.parametrize(
        "gate",
        [IBP(), IBP(learnable=False), IBP(energy="plug_in"), ThresholdGate()],
        ids=["learnable", "fixed", "plug-in", "threshold"],
    )
    def test_others(self, gate: object, seed: int) -> None:
        check_recovery(gate, seed)


class TestCirclesThatEveryRowMixes:
    """Circles in random planes, so many on each row: whichever they are, no row shows one alone."""

    @pytest.mark.parametrize(
        ("n_circles", "p", "n", "used"),
        [
            pytest.param(4, 16, 300, 2, id="half of four"),
            pytest.param(6, 18, 400, 2, id="a third of six"),
            pytest.param(8, 24, 600, 2, id="a quarter of eight", marks=slow),
            pytest.param(12, 16, 1000, 2, id="more dimensions than columns", marks=slow),
        ],
    )
    def test_every_plane_is_found(self, n_circles: int, p: int, n: int, used: int) -> None:
        rng = np.random.default_rng(0)
        planes = [np.linalg.qr(rng.standard_normal((p, 2)))[0].T for _ in range(n_circles)]
        X = 0.04 * rng.standard_normal((n, p))
        for row in X:
            for k in rng.choice(n_circles, used, replace=False):
                angle = rng.uniform(0.0, 2.0 * np.pi)
                row += rng.uniform(0.85, 1.15) * np.array([np.cos(angle), np.sin(angle)]) @ planes[k]
        model = ManifoldSAE(n_circles, Circle(), ThresholdGate()).fit(X)
        spans = [np.linalg.svd(decoder[1:3], full_matrices=False)[2] for decoder in model.decoders_]
        cosines = np.array([[np.linalg.svd(plane @ span.T)[1].min() for span in spans] for plane in planes])
        assert model.converged_
        assert np.arccos(np.clip(cosines.max(axis=1), -1.0, 1.0)).max() < 0.1
        assert len(set(cosines.argmax(axis=1))) == n_circles


class TestEncoding:
    @pytest.mark.parametrize("gate", [IBP(), ThresholdGate()], ids=["ibp", "threshold"])
    def test_training_rows_give_the_fit(self, gate: object) -> None:
        data = Overlapping(3)
        X = data.X[:300]
        model = ManifoldSAE(N_CIRCLES, Circle(harmonics=1), gate).fit(X)
        encoding = model.encode(X)
        assert np.mean(np.all(encoding.support == model.support_, axis=1)) > 0.99
        same = np.all(encoding.support == model.support_, axis=1)
        assert np.abs(encoding.gates - model.gates_)[same].max() < 1e-5


class Pairs:
    """Rows that are shares of two of six circles, with a term of the true variables, and supports as given."""

    N_ATOMS, N_ROWS = 6, 200

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        planes = [np.linalg.qr(rng.standard_normal((WIDTH, 2)))[0].T for _ in range(self.N_ATOMS)]
        self.decoders = [np.vstack([np.zeros(WIDTH), plane]) for plane in planes]
        self.angle = rng.uniform(0.0, 2.0 * np.pi, (self.N_ROWS, self.N_ATOMS))
        self.support = np.zeros((self.N_ROWS, self.N_ATOMS), dtype=bool)
        gates = np.zeros(self.support.shape)
        for row in range(self.N_ROWS):
            pair = rng.choice(self.N_ATOMS, 2, replace=False)
            self.support[row, pair] = True
            share = rng.uniform(0.6, 0.8)
            gates[row, pair] = share, 1.0 - share
        points = [
            np.column_stack([np.cos(t), np.sin(t)]) @ plane for t, plane in zip(self.angle.T, planes, strict=True)
        ]
        parts = [gates[:, [k]] * points[k] for k in range(self.N_ATOMS)]
        self.X = np.sum(parts, axis=0) + NOISE * rng.standard_normal((self.N_ROWS, WIDTH))
        # as far above those of other atoms as below: the prior has no other wish at such a strength
        ratio = np.log(np.where(self.support, gates, 1.0))
        centred = ratio - ratio.sum(axis=1, keepdims=True) / 2.0
        self.logits = np.where(self.support, centred, 0.0)
        self.logits -= self.logits[:, [-1]]
        self.rho = self.strengths(-6.0)

    def strengths(self, log_sparse: float) -> _core.SaeManifoldRho:
        return _core.SaeManifoldRho.with_per_atom_smooth(log_sparse, [0.0] * self.N_ATOMS, 2.0 * np.log(NOISE))

    def term(
        self, support: NDArray[np.bool_], top_k: int | None = 2, evidence: str = "laplace"
    ) -> _core.SaeManifoldTerm:
        return _core.SaeManifoldTerm(
            self.X,
            [Circle(harmonics=1).spec()] * self.N_ATOMS,
            Softmax(top_k=top_k).spec(self.N_ATOMS),
            self.logits,
            [self.angle[:, [k]] for k in range(self.N_ATOMS)],
            self.decoders,
            support=support,
            center=False,
            evidence=evidence,
        )


class TestSoftmaxTopK:
    def test_a_small_share_keeps_its_place(self) -> None:
        """Its logit lies below those of atoms that the row does not use and no data see."""
        data = Pairs(0)
        outside = np.where(data.support, -np.inf, data.logits).max(axis=1)
        assert np.all(np.where(data.support, data.logits, np.inf).min(axis=1) < outside)
        term = data.term(data.support)
        here = term.evaluate(data.rho, max_inner=0, gradient=False)
        after = term.refreshed(data.rho)[0].evaluate(data.rho, max_inner=0, gradient=False)
        assert np.mean(np.all(np.asarray(after.term.support) == data.support, axis=1)) > 0.9
        assert after.value < here.value

    def test_a_refresh_finds_pairs(self) -> None:
        data = Pairs(1)
        elsewhere = np.zeros_like(data.support)
        elsewhere[:, :2] = True
        found = np.asarray(data.term(elsewhere).refreshed(data.rho)[0].support)
        assert np.mean(np.all(found == data.support, axis=1)) > 0.9

    @pytest.mark.parametrize("top_k", [None, 2])
    def test_the_classic_criterion_finds_pairs(self, top_k: int | None) -> None:
        """Its logits have no Gaussian that a determinant could be relative to."""
        data = Pairs(1)
        elsewhere = np.zeros_like(data.support)
        elsewhere[:, :2] = True
        rho = data.strengths(0.0).with_fixed_dispersion()
        found = np.asarray(data.term(elsewhere, top_k, "quasi_laplace").refreshed(rho)[0].support)
        # without a bound others may come along
        assert np.mean(np.all(found >= data.support, axis=1)) > 0.9

    @pytest.mark.parametrize("log_sparse", [-6.0, 0.0, 2.0, 3.0, 4.0])
    @pytest.mark.parametrize("top_k", [2, 3])
    def test_no_unused_atom_overshadows_a_row(self, log_sparse: float, top_k: int) -> None:
        """A row whose prior sees one atom that the data do not would mix others at no cost."""
        data = Pairs(3)
        elsewhere = np.zeros_like(data.support)
        elsewhere[:, :2] = True
        term = data.term(elsewhere, top_k)
        for _ in range(3):
            term = term.refreshed(data.strengths(log_sparse))[0]
            logits, used = np.asarray(term.logits), np.asarray(term.support)
            outside = np.where(used, -np.inf, logits).max(axis=1)
            # nine parts to one
            assert np.all(outside <= np.where(used, logits, -np.inf).max(axis=1) + np.log(9.0) + 1e-9)

    def test_decoders_of_zero_end(self) -> None:
        data = Pairs(4)
        data.decoders = [0.0 * decoder for decoder in data.decoders]
        rho = _core.SaeManifoldRho.with_per_atom_smooth(-8.0, [0.0] * Pairs.N_ATOMS, -60.0)
        found = np.asarray(data.term(data.support).refreshed(rho)[0].support)
        assert found.sum(axis=1).max() <= 2

    def test_a_fit_finds_pairs(self) -> None:
        data = Pairs(2)
        model = ManifoldSAE(Pairs.N_ATOMS, Circle(harmonics=1), Softmax(top_k=2), random_state=0).fit(data.X)
        assert model.converged_
        assert model.explained_variance_ > 0.9
        # which rows an atom is used on, under the best pairing
        together = data.support.T.astype(float) @ model.support_
        assert sum(together[rows].max() for rows in range(Pairs.N_ATOMS)) > 0.9 * data.support.sum()

    def test_rows_use_no_more(self) -> None:
        data = Overlapping(4)
        with quiet():
            model = ManifoldSAE(N_CIRCLES, Circle(harmonics=1), Softmax(top_k=2), max_outer=5).fit(data.X[:200])
        assert model.support_.sum(axis=1).max() <= 2
        assert np.allclose(model.gates_.sum(axis=1), 1.0)
        assert model.encode(data.X[200:260]).support.sum(axis=1).max() <= 2

    def test_out_of_range(self) -> None:
        with pytest.raises(ValueError, match="top_k must be None or an integer of at least 1, got 0"):
            Softmax(top_k=0)
        with pytest.raises(ValueError, match="top_k must be at most the number of atoms, 2, got 3"):
            ManifoldSAE(2, gate=Softmax(top_k=3)).fit(Overlapping(0).X)


class TestFrozenRouting:
    def test_gates_stay_and_circles_are_found(self) -> None:
        data = Overlapping(5)
        model = ManifoldSAE(N_CIRCLES, Circle(harmonics=1), FrozenRouting(data.amplitude)).fit(data.X)
        assert model.converged_
        assert np.array_equal(model.gates_, data.amplitude)
        f1, angle = data.score(model)
        assert f1 == 1.0
        assert angle < 0.05
        with pytest.raises(ValueError, match="frozen routing has no gates for new rows"):
            model.encode(data.X)

    def test_bad_gates(self) -> None:
        with pytest.raises(ValueError, match="gates must have shape \\(n, K\\)"):
            FrozenRouting(np.ones(3))
        with pytest.raises(ValueError, match="entry \\(1, 0\\) is nan"):
            FrozenRouting([[1.0], [np.nan]])
        with pytest.raises(ValueError, match="atom 1 has gate 0 on every row"):
            FrozenRouting([[1.0, 0.0], [1.0, 0.0]])
        with pytest.raises(ValueError, match="gates must have shape \\(800, 4\\)"):
            ManifoldSAE(4, gate=FrozenRouting(np.ones((5, 4)))).fit(Overlapping(0).X)


class TestUngated:
    def test_an_atom_without_a_gate_is_on_every_row(self) -> None:
        rng = np.random.default_rng(0)
        n = 200
        angle = rng.uniform(0.0, 2.0 * np.pi, (n, 2))
        active = rng.random(n) < 0.5
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        X = np.hstack([circle[:, 0], active[:, None] * circle[:, 1], np.zeros((n, 2))])
        X = X + 0.03 * rng.standard_normal(X.shape)
        model = ManifoldSAE(2, Circle(harmonics=1), ThresholdGate(ungated=(0,))).fit(X)
        assert model.converged_
        assert np.array_equal(model.gates_[:, 0], np.ones(n))
        assert np.array_equal(model.support_[:, 1], active)

    def test_an_atom_that_is_not_there(self) -> None:
        with pytest.raises(ValueError, match="ungated names atom 7"):
            ManifoldSAE(2, gate=IBP(ungated=(7,))).fit(Overlapping(0).X)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IBP(alpha=0.0), "alpha must be a positive finite number, got 0.0"),
        (lambda: IBP(alpha=-1.0), "alpha must be a positive finite number, got -1.0"),
        (lambda: IBP(energy="other"), "energy must be 'ordered' or 'plug_in', got 'other'"),
        (lambda: IBP(learnable=1), "learnable must be True or False, got 1"),
        (lambda: IBP(ungated=(0, 0)), "ungated names an atom twice"),
        (lambda: ThresholdGate(temperature=0.0), "temperature must be a positive finite number, got 0.0"),
        (lambda: ThresholdGate(threshold=np.nan), "threshold must be a finite number"),
        (lambda: ThresholdGate(ungated=3), "ungated must be a tuple of atom indices, got 3"),
        (lambda: Softmax(temperature=-2), "temperature must be a positive finite number, got -2"),
        (lambda: ManifoldSAE(gate="frozen").fit(np.eye(4)), "write FrozenRouting\\(gates\\)"),
        (lambda: ManifoldSAE(gate="treshold").fit(np.eye(4)), "did you mean 'threshold'"),
    ],
)
def test_bad_parameters_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_files_keep_the_gate(tmp_path: object) -> None:
    X = Overlapping(6).X[:120]
    with quiet():
        model = ManifoldSAE(2, Circle(harmonics=1), IBP(alpha=2.0, ungated=(1,)), max_outer=2).fit(X)
    path = f"{tmp_path}/model.safetensors"
    model.save(path)
    again = sae_rs.load(path)
    assert again._gate == model._gate
    assert np.array_equal(again.encode(X).gates, model.encode(X).gates)


class TestJumpReluLayout:
    def test_worked_case(self) -> None:
        logits = np.array([[1.0, 0.5, -0.3, -20.0, -25.0, -30.0]])
        sigmoid = 1.0 / (1.0 + np.exp(-logits))
        pull = sigmoid * (1.0 - sigmoid)
        layout = SaeRowLayout.from_jumprelu(logits, pull, 0.0, 1.0, 6, 1e-3, [1] * 6)
        assert list(layout.active_atoms[0]) == [0, 1, 2]
        assert layout.row_q_active(0) == 6
        capped = SaeRowLayout.from_jumprelu(logits, pull, 0.0, 1.0, 2, 1e-3, [1] * 6)
        assert list(capped.active_atoms[0]) == [0, 1]

    def test_bad_input(self) -> None:
        table = np.zeros((2, 3))
        with pytest.raises(ValueError, match="temperature positive, got 0 and 0"):
            SaeRowLayout.from_jumprelu(table, table, 0.0, 0.0, 1, 0.1, [1] * 3)
        with pytest.raises(ValueError, match="contribution has shape"):
            SaeRowLayout.from_jumprelu(table, table[:1], 0.0, 1.0, 1, 0.1, [1] * 3)
