"""What a user may count on: real activations, planted circles, symmetries, evidences, gradients, interrupts.

Every test fits with default arguments unless its name or a comment says otherwise. Long ones are skipped unless the
environment has ``SAE_RS_SLOW=1``.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

import sae_rs
from sae_rs import Circle, ConvergenceWarning, ManifoldSAE, check_gradient

FloatArray = NDArray[np.float64]

slow = pytest.mark.skipif(os.environ.get("SAE_RS_SLOW") != "1", reason="takes minutes; SAE_RS_SLOW=1 runs it")


@pytest.fixture(autouse=True)
def _no_warning_unless_tested() -> Iterator[None]:
    """Convergence is asserted where it is promised; elsewhere the best state is what is looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


# Data


@dataclass(frozen=True, eq=False)
class Planted:
    """Rows near circles in orthogonal planes, one circle a row."""

    X: FloatArray
    angle: FloatArray
    which: NDArray[np.int64]


@functools.cache
def circles(n_circles: int, n: int, p: int, noise: float, seed: int) -> Planted:
    """Rows (n, p) near `n_circles` unit circles through the rows in turn; none gives noise alone."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    error = noise * rng.standard_normal((n, p))
    which = np.arange(n) % max(n_circles, 1)
    if n_circles == 0:
        return Planted(error, angle, which)
    planes = np.linalg.qr(rng.standard_normal((p, 2 * n_circles)))[0].T.reshape(n_circles, 2, p)
    rows = np.einsum("nd,ndp->np", np.column_stack([np.cos(angle), np.sin(angle)]), planes[which])
    return Planted(rows + error, angle, which)


def dictionary(n_circles: int) -> Planted:
    """The data on which routing is judged."""
    return circles(n_circles, 200 * n_circles, 4 * n_circles, 0.05, 0)


@functools.cache
def planted_circle() -> tuple[FloatArray, FloatArray]:
    """200 rows of width 12 near one circle whose two axes are not orthogonal, and their angles."""
    rng = np.random.default_rng(0)
    axes = rng.standard_normal((2, 12))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    angle = rng.uniform(0.0, 2.0 * np.pi, 200)
    return np.column_stack([np.cos(angle), np.sin(angle)]) @ axes + 0.02 * rng.standard_normal((200, 12)), angle


@functools.cache
def two_harmonics() -> FloatArray:
    """160 rows in four columns near a curve of two harmonics."""
    t = np.linspace(0.0, 2.0 * np.pi, 160, endpoint=False)
    curve = np.column_stack([np.sin(t), np.cos(t), 0.35 * np.sin(2 * t), 0.35 * np.cos(2 * t)])
    return curve + 0.03 * np.random.default_rng(7).standard_normal(curve.shape)


def leading_components(X: NDArray[Any], rank: int) -> FloatArray:
    """Scores (n, rank) of centred rows."""
    centred = np.asarray(X, dtype=np.float64) - np.mean(X, axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    scores: FloatArray = left[:, :rank] * singular[:rank]
    return scores


# Fits, made once


@functools.cache
def fit_words(name: str) -> ManifoldSAE:
    return ManifoldSAE(n_atoms=1, atom="circle").fit(getattr(sae_rs.datasets, f"load_{name}")().X)


@functools.cache
def fit_planted_circle() -> ManifoldSAE:
    return ManifoldSAE(n_atoms=1).fit(planted_circle()[0])


@functools.cache
def fit_dictionary(n_circles: int) -> ManifoldSAE:
    return ManifoldSAE(n_atoms=n_circles).fit(dictionary(n_circles).X)


# Measures


def circular_distance(a: FloatArray, b: FloatArray) -> FloatArray:
    distance: FloatArray = np.abs(np.angle(np.exp(1j * (a - b))))
    return distance


def circular_correlation(a: FloatArray, b: FloatArray) -> float:
    """1 when two sets of angles differ by a rotation and perhaps a reflection alone."""
    return max(abs(np.exp(1j * (a - b)).mean()), abs(np.exp(1j * (a + b)).mean()))


def explained_by_components(X: NDArray[Any], rank: int) -> float:
    squares = np.linalg.svd(X - X.mean(axis=0, dtype=np.float64), compute_uv=False) ** 2
    return float(squares[:rank].sum() / squares.sum())


def supported_distance(a: ManifoldSAE, b: ManifoldSAE, order: Any = slice(None)) -> float:
    """Largest circular distance between coordinates of two fits of the same rows, where the first uses them."""
    return max(
        float(np.max(circular_distance(s[order], t)[a.support_[order, k]], initial=0.0))
        for k, (s, t) in enumerate(zip(a.coords_, b.coords_, strict=True))
    )


# Words on a ring


class TestWords:
    @pytest.mark.parametrize("name", ["weekdays", "months"])
    def test_fit(self, name: str) -> None:
        rows, model = getattr(sae_rs.datasets, f"load_{name}")(), fit_words(name)
        assert model.converged_
        assert model.explained_variance_ >= explained_by_components(rows.X, 5)

    @pytest.mark.parametrize("name", ["weekdays", "months"])
    def test_words_stand_in_calendar_order(self, name: str) -> None:
        labels = getattr(sae_rs.datasets, f"load_{name}")().labels
        phases = np.exp(1j * fit_words(name).coords_[0][:, 0])
        means = np.array([phases[labels == k].mean() for k in range(labels.max() + 1)])
        order = np.argsort(np.angle(means))
        steps = np.unique(np.diff(order, append=order[0]) % len(order))
        assert steps.tolist() in ([1], [len(order) - 1])
        if name == "weekdays":
            assert np.abs(means).min() >= 0.99

    def test_defaults_are_a_circle_of_three_harmonics(self) -> None:
        assert Circle() == Circle(harmonics=3)
        assert fit_words("weekdays").decoders_[0].shape == (7, 384)


# Planted curves


class TestPlanted:
    @pytest.mark.parametrize("seed", range(10))
    def test_a_small_stretched_circle_converges(self, seed: int) -> None:
        # unequal directions leave the angle's parametrisation weakly determined: a long curved valley for a solve
        rng = np.random.default_rng(seed)
        directions, angle = rng.standard_normal((2, 8)), rng.uniform(0.0, 2.0 * np.pi, 100)
        X = np.c_[np.cos(angle), np.sin(angle)] @ directions + 0.05 * rng.standard_normal((100, 8))
        assert ManifoldSAE(n_atoms=1).fit(X).converged_

    def test_circle(self) -> None:
        model, (_, angle) = fit_planted_circle(), planted_circle()
        assert model.converged_
        assert model.explained_variance_ >= 0.995
        assert circular_correlation(model.coords_[0][:, 0], angle) >= 0.998
        assert np.sqrt(model.dispersion_) == pytest.approx(0.02, rel=0.05)

    def test_curve_of_two_harmonics(self) -> None:
        model = ManifoldSAE(n_atoms=1, atom=Circle(harmonics=2)).fit(two_harmonics())
        assert model.converged_
        assert model.explained_variance_ >= 0.995

    @pytest.mark.parametrize("n_circles", [2, 3, pytest.param(6, marks=slow)])
    def test_dictionary(self, n_circles: int) -> None:
        data, model = dictionary(n_circles), fit_dictionary(n_circles)
        assert model.converged_
        chosen = model.gates_.argmax(axis=1)
        counts = np.array([[np.sum(chosen[data.which == j] == k) for k in range(n_circles)] for j in range(n_circles)])
        _, atom_of = linear_sum_assignment(-counts)
        assert np.mean(chosen == atom_of[data.which]) >= 0.99
        for circle, k in enumerate(atom_of):
            rows = data.which == circle
            assert circular_correlation(model.coords_[k][rows, 0], data.angle[rows]) >= 0.99
        assert model.explained_variance_ == pytest.approx(self.ceiling(data, n_circles), abs=0.01)

    @staticmethod
    def ceiling(data: Planted, n_circles: int) -> float:
        """Explained variance of least squares with the true gates and angles."""
        own = np.column_stack([f(h * data.angle) for h in range(4) for f in (np.cos, np.sin)])
        design = np.hstack([(data.which == k)[:, None] * own for k in range(n_circles)])
        centred = data.X - data.X.mean(axis=0)
        residual = centred - design @ np.linalg.lstsq(design, centred, rcond=None)[0]
        return float(1.0 - np.square(residual).sum() / np.square(centred).sum())


# Symmetries


def _rotation(p: int) -> FloatArray:
    return np.linalg.qr(np.random.default_rng(11).standard_normal((p, p)))[0]


SAME_FIT: dict[str, Callable[[FloatArray], FloatArray]] = {
    "scaled_down": lambda X: 1e-3 * X,
    "scaled_up": lambda X: 1e3 * X,
    "rotated": lambda X: X @ _rotation(X.shape[1]),
}


class TestSymmetries:
    @pytest.mark.parametrize("change", SAME_FIT)
    @pytest.mark.parametrize("n_circles", [1, 2])
    def test_scaled_or_rotated(self, n_circles: int, change: str) -> None:
        X, before = self.case(n_circles)
        after = ManifoldSAE(n_atoms=n_circles).fit(SAME_FIT[change](X))
        gain = {"scaled_down": np.log(1e-3), "scaled_up": np.log(1e3), "rotated": 0.0}[change] * X.size
        assert after.converged_
        np.testing.assert_array_equal(after.support_, before.support_)
        assert supported_distance(before, after) <= 1e-5
        np.testing.assert_allclose(after.gates_, before.gates_, atol=1e-5)
        assert after.evidence_ - before.evidence_ == pytest.approx(gain, abs=1e-4)

    @pytest.mark.parametrize("n_circles", [1, 2])
    def test_permuted_rows(self, n_circles: int) -> None:
        X, before = self.case(n_circles)
        order = np.random.default_rng(12).permutation(len(X))
        after = ManifoldSAE(n_atoms=n_circles).fit(X[order])
        assert after.converged_
        np.testing.assert_array_equal(after.support_, before.support_[order])
        assert supported_distance(before, after, order) <= 1e-5
        np.testing.assert_allclose(after.gates_, before.gates_[order], atol=1e-5)
        assert after.evidence_ == pytest.approx(before.evidence_, abs=1e-4)

    @staticmethod
    def case(n_circles: int) -> tuple[FloatArray, ManifoldSAE]:
        if n_circles == 1:
            return planted_circle()[0], fit_planted_circle()
        return dictionary(n_circles).X, fit_dictionary(n_circles)


# Encoding, files, threads


FITS: dict[str, Callable[[], tuple[Any, ManifoldSAE]]] = {
    "weekdays": lambda: (sae_rs.datasets.load_weekdays().X, fit_words("weekdays")),
    "months": lambda: (sae_rs.datasets.load_months().X, fit_words("months")),
    "planted_circle": lambda: (planted_circle()[0], fit_planted_circle()),
    "two_circles": lambda: (dictionary(2).X, fit_dictionary(2)),
    "three_circles": lambda: (dictionary(3).X, fit_dictionary(3)),
}


class TestEncoding:
    @pytest.mark.parametrize("name", FITS)
    def test_training_rows_give_the_fit(self, name: str) -> None:
        X, model = FITS[name]()
        encoding = model.encode(X)
        assert not encoding.status.any()
        np.testing.assert_array_equal(encoding.support, model.support_)
        for k, t in enumerate(encoding.coords):
            used = model.support_[:, k]
            assert circular_distance(t, model.coords_[k])[used].max() <= 1e-6
        np.testing.assert_allclose(encoding.gates, model.gates_, atol=1e-6)

    @pytest.mark.parametrize("name", ["weekdays", "two_circles"])
    def test_a_file_keeps_every_bit(self, name: str, tmp_path: Path) -> None:
        X, model = FITS[name]()
        before = model.encode(X)
        model.save(tmp_path / "model.safetensors")
        after = sae_rs.load(tmp_path / "model.safetensors").encode(X)
        for one, other in zip(
            [before.gates, before.logits, before.support, before.objective, *before.coords],
            [after.gates, after.logits, after.support, after.objective, *after.coords],
            strict=True,
        ):
            assert one.tobytes() == other.tobytes()

    @pytest.mark.parametrize("n_circles", [1, 2])
    def test_threads_change_no_bit(self, n_circles: int) -> None:
        X = circles(n_circles, 700, 9, 0.1, 3).X
        one, two = (ManifoldSAE(n_atoms=n_circles, n_jobs=jobs).fit(X) for jobs in (1, 2))
        assert one.evidence_ == two.evidence_
        assert one.certificate_ == two.certificate_
        assert one.rho_.to_flat().tobytes() == two.rho_.to_flat().tobytes()
        for a, b in zip(
            [one.gates_, one.support_, one.mean_, *one.coords_, *one.decoders_],
            [two.gates_, two.support_, two.mean_, *two.coords_, *two.decoders_],
            strict=True,
        ):
            assert a.tobytes() == b.tobytes()
        assert one.encode(X).coords[0].tobytes() == two.encode(X).coords[0].tobytes()


# Gradients and eliminations


ELIMINATIONS = ("primal", "dual", "complement")


@functools.cache
def gradient_case(name: str) -> ManifoldSAE:
    """Fits small enough for the finite differences of every elimination."""
    if name == "weekdays":
        # its leading directions: the border of a primal elimination is as wide as the outputs
        return ManifoldSAE(n_atoms=1).fit(leading_components(sae_rs.datasets.load_weekdays().X, 12))
    if name == "two_harmonics":
        return ManifoldSAE(n_atoms=1, atom=Circle(harmonics=2)).fit(two_harmonics())
    if name == "two_circles":
        return ManifoldSAE(n_atoms=2, atom=Circle(harmonics=1)).fit(circles(2, 60, 8, 0.1, 0).X)
    return fit_planted_circle()


def random_strengths(model: ManifoldSAE, draw: int) -> sae_rs.SaeManifoldRho:
    """Strengths up to one unit off the fitted ones, in every entry."""
    fitted = np.asarray(model.rho_.to_flat())
    return model.rho_.from_flat(fitted + np.random.default_rng([5, draw]).uniform(-1.0, 1.0, len(fitted)))


class TestGradient:
    @pytest.mark.parametrize("elimination", ELIMINATIONS)
    @pytest.mark.parametrize("name", ["weekdays", "planted_circle", "two_harmonics", "two_circles"])
    def test_matches_converged_differences(self, name: str, elimination: str) -> None:
        self.check(name, elimination, range(2))

    @slow
    @pytest.mark.parametrize("elimination", ELIMINATIONS)
    @pytest.mark.parametrize("name", ["weekdays", "planted_circle", "two_harmonics", "two_circles"])
    def test_matches_converged_differences_at_many_strengths(self, name: str, elimination: str) -> None:
        self.check(name, elimination, range(2, 20))

    @staticmethod
    def check(name: str, elimination: str, draws: range) -> None:
        model = gradient_case(name)
        errors = {}
        for draw in draws:
            found = check_gradient(model.term_, random_strengths(model, draw), elimination=elimination)
            errors[draw] = found.relative_error
        assert max(errors.values()) <= 1e-6, errors


class TestEliminations:
    @pytest.mark.parametrize("name", ["weekdays", "planted_circle", "two_harmonics", "two_circles"])
    @pytest.mark.parametrize("draw", [0, 1, 2])
    def test_agree(self, name: str, draw: int) -> None:
        """ln|H|, one step of the inner solve, and the gradient."""
        model = gradient_case(name)
        # all compared at one state: the optimum of these strengths
        rho = random_strengths(model, draw)
        term = model.term_.evaluate(rho, gradient=False).term
        elsewhere = random_strengths(model, draw + 100)
        here = [term.evaluate(rho, max_inner=0, elimination=e) for e in ELIMINATIONS]
        # at other strengths the state is no optimum, and one iteration moves it
        stepped = [term.evaluate(elsewhere, max_inner=1, elimination=e, gradient=False).term for e in ELIMINATIONS]
        assert [evaluation.elimination for evaluation in here] == list(ELIMINATIONS)
        for other, moved in zip(here[1:], stepped[1:], strict=True):
            assert other.parts["log_det"] == pytest.approx(here[0].parts["log_det"], rel=1e-9)
            assert other.value == pytest.approx(here[0].value, rel=1e-9)
            # strengths are off the fitted ones, so the gradient of V is not small
            scale = np.abs(here[0].gradient).max()
            np.testing.assert_allclose(other.gradient, here[0].gradient, rtol=1e-9, atol=1e-9 * scale)
            self.assert_same_step(term, stepped[0], moved)

    @staticmethod
    def assert_same_step(before: Any, one: Any, other: Any) -> None:
        turns = [circular_distance(a, b) for a, b in zip(one.coords, other.coords, strict=True)]
        lengths = [circular_distance(a, b) for a, b in zip(one.coords, before.coords, strict=True)]
        assert max(t.max() for t in turns) <= 1e-9 * max(t.max() for t in lengths)
        for new, twin, old in (
            (np.concatenate(one.decoders), np.concatenate(other.decoders), np.concatenate(before.decoders)),
            (one.logits, other.logits, before.logits),
        ):
            assert np.abs(new - twin).max() <= 1e-9 * np.abs(new - old).max()


# The choice of K


def lowest_evidence(n_circles: int, seed: int, largest: int) -> tuple[int, dict[int, float]]:
    X = circles(n_circles, 120, 18, 0.1, seed).X
    evidences = {k: ManifoldSAE(n_atoms=k).fit(X).evidence_ for k in range(largest + 1)}
    return min(evidences, key=lambda k: evidences[k]), evidences


class TestEvidence:
    @pytest.mark.parametrize("n_circles", [0, 1, 2])
    def test_chooses_the_number_of_circles(self, n_circles: int) -> None:
        chosen, evidences = lowest_evidence(n_circles, 0, 2)
        assert chosen == n_circles, evidences

    @slow
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("n_circles", [0, 1, 2])
    def test_chooses_the_number_of_circles_among_more(self, n_circles: int, seed: int) -> None:
        chosen, evidences = lowest_evidence(n_circles, seed, 3)
        assert chosen == n_circles, evidences


# Large fits


MEMORY = """
import numpy as np
import sae_rs

def peak():
    # not getrusage, which carries over the peak of the process that started this one
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

# what a small fit takes is the interpreter's
sae_rs.ManifoldSAE(n_atoms=1).fit(np.random.default_rng(1).standard_normal((60, 5)))
before = peak()
"""

LARGE_DATA = """
import numpy as np
import sae_rs

rng = np.random.default_rng(0)
plane = np.linalg.qr(rng.standard_normal((64, 2)))[0].T
angle = rng.uniform(0.0, 2.0 * np.pi, 100_000)
X = rng.standard_normal((100_000, 64))
X *= 0.05
for rows in range(0, len(X), 1000):
    t = angle[rows : rows + 1000]
    X[rows : rows + 1000] += np.column_stack([np.cos(t), np.sin(t)]) @ plane
"""

INTERRUPTED_FIT = (
    LARGE_DATA
    + """
import signal
# a shell starts background jobs with the signal ignored, and children inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)
model = sae_rs.ManifoldSAE(n_atoms=3, callback=lambda event: event.evaluation == 1 and print("state", flush=True))
print("ready", flush=True)
try:
    model.fit(X)
except KeyboardInterrupt:
    print("interrupted", sorted(name for name in vars(model) if name not in model.get_params()), flush=True)
else:
    print("finished", model.certificate_.status, flush=True)
"""
)

MEASURED_FIT = (
    MEMORY
    + LARGE_DATA
    + """
model = sae_rs.ManifoldSAE(n_atoms=1).fit(X)
print(model.converged_, (peak() - before) / X.nbytes, flush=True)
"""
)


class TestLargeFits:
    @pytest.mark.skipif(sys.platform == "win32", reason="SIGINT reaches a child process on POSIX systems only")
    @pytest.mark.parametrize("with_state", [False, True])
    def test_interrupt_ends_a_fit_at_once_and_leaves_no_trace(self, with_state: bool) -> None:
        """The first before there is a state; the second where the first is still about to see one on all rows."""
        with subprocess.Popen([sys.executable, "-c", INTERRUPTED_FIT], stdout=subprocess.PIPE, text=True) as child:
            try:
                assert child.stdout is not None
                assert child.stdout.readline() == "ready\n"
                if with_state:
                    assert child.stdout.readline() == "state\n"
                    child.send_signal(signal.SIGINT)
                time.sleep(0.3)
                pressed = time.monotonic()
                child.send_signal(signal.SIGINT)
                answer = child.stdout.readline()
                waited = time.monotonic() - pressed
            finally:
                child.kill()
        assert answer == "interrupted []\n"
        # one second is the promise; the rest is room for a busy machine
        assert waited < 2.0

    @slow
    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory where Linux keeps it")
    def test_hundred_thousand_rows_fit_in_four_times_their_memory(self) -> None:
        done = subprocess.run([sys.executable, "-c", MEASURED_FIT], capture_output=True, text=True, check=True)
        converged, ratio = done.stdout.split()
        assert converged == "True"
        assert float(ratio) < 4.0
