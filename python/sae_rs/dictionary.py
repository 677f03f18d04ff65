"""What a fitted dictionary does: it encodes and decodes rows, draws its atoms and describes itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from .atoms import Atom
from .encoding import Encoding, check_code, decode_atom, decode_rows, encode_with
from .exceptions import NotFittedError
from .gates import Gate
from .growth import GrowthStep
from .reml import Certificate
from .rows import FileRows, Rows, blocks, column_mean
from .training import TrainingSummary
from .validation import as_matrix, check_integer, check_n_jobs, check_new_rows, result_dtype, row_chunks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]


class Curve(NamedTuple):
    """A decoded atom.

    Attributes
    ----------
    grid : ndarray of shape (n_points, d)
        Coordinates: angles evenly spread over their period, real numbers over the range of the training rows.
    points : ndarray of shape (n_points, p)
        Decoded points, the mean added.
    sd : ndarray of shape (n_points,)
        Posterior standard deviation of the points, the same in every output channel, given gates, coordinates and
        the other atoms.
    """

    grid: FloatArray
    points: FloatArray
    sd: FloatArray


def explained_share(residual: float, total: float, shape: tuple[int, ...]) -> float:
    """``1 − residual / total`` of rows of a shape; rows without variance are refused."""
    if total == 0.0:
        raise ValueError(f"score needs at least 2 different rows to have a variance, got shape {shape}")
    return 1.0 - residual / total


class FittedDictionary:
    """Base of `ManifoldSAE`: what it offers once ``fit`` has set its attributes, which are described there."""

    coords_: list[FloatArray]
    gates_: FloatArray
    support_: NDArray[np.bool_]
    decoders_: list[FloatArray]
    mean_: FloatArray
    evidence_: float
    evidence_parts_: dict[str, float]
    rho_: _core.SaeManifoldRho
    dispersion_: float
    converged_: bool
    certificate_: Certificate
    explained_variance_: float
    metric_explained_variance_: float | None
    growth_: tuple[GrowthStep, ...]
    n_features_in_: int
    _atoms: tuple[Atom, ...]
    _gate: Gate
    _evidence: str
    _dtype: np.dtype[Any]
    _logits: FloatArray
    _column_scores: FloatArray
    _training: TrainingSummary
    _term: _core.SaeManifoldTerm | None
    n_jobs: int | None

    @property
    def term_(self) -> _core.SaeManifoldTerm:
        """The fitted problem and state, for the low-level interface."""
        self._check_fitted("term_")
        if self._term is None:
            why = (
                "the mean-only model (n_atoms=0) has none"
                if not self._atoms
                else "it holds the training rows, which are not stored with a saved model: fit again to get it"
            )
            raise AttributeError(f"term_ is not available: {why}")
        return self._term

    # Encoding and decoding -------------------------------------------------------------------------------------------

    def encode(self, X: Rows) -> Encoding:
        """Find gates and coordinates of rows (m, p) under the fitted decoders and strengths.

        Parameters
        ----------
        X : array-like of shape (m, p), path, or iterable of array-like
            Finite rows, as ``fit`` takes them. Of a .npy or .safetensors file, an `np.memmap` in C order or a stream
            256 MiB at most are in memory at a time.

        Returns
        -------
        Encoding

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            For a wrong width or values that are not finite.
        OSError
            When rows cannot be read from their file.
        """
        self._check_fitted("encode")
        rows = check_new_rows(X, self.n_features_in_)
        if self._gate.routing is not None:
            raise ValueError("frozen routing has no gates for new rows: encode needs a gate that finds them")
        if not self._atoms:
            none = np.zeros((len(rows), 0))
            squares = np.zeros(len(rows))
            for own in blocks(rows.shape):
                squares[own] = np.square(rows[own] - self.mean_).sum(axis=1)
            done = np.zeros(len(rows), dtype=np.uint8)
            return Encoding(none, [], none.copy(), none.astype(bool), squares / (2.0 * self.dispersion_), done)
        return encode_with(
            rows,
            self.mean_,
            self._atoms,
            self._gate,
            self.decoders_,
            self.rho_,
            self._column_scores,
            self._evidence,
            check_n_jobs(self.n_jobs),
        )

    def decode(self, encoding: Encoding) -> NDArray[Any]:
        """Rows (m, p) of an `Encoding`, in the dtype of the training data (float32 or float64)."""
        return self.inverse_transform(encoding.gates, encoding.coords)

    def transform(self, X: Rows) -> FloatArray:
        """Gates (m, K) of rows (m, p)."""
        return self.encode(X).gates

    def inverse_transform(self, gates: ArrayLike, coords: Sequence[ArrayLike]) -> NDArray[Any]:
        """Rows (m, p) from gates (m, K) and K coordinate arrays (m, d_k), in the dtype of the training data."""
        self._check_fitted("inverse_transform")
        return self._decode(*check_code(gates, coords, self._atoms), self._dtype)

    def reconstruct(self, X: Rows | None = None) -> NDArray[Any]:
        """Reconstruction of the training rows, or of new rows (m, p), which are encoded first.

        Parameters
        ----------
        X : array-like of shape (m, p), path, or iterable of array-like, optional
            New rows, as ``encode`` takes them.

        Returns
        -------
        ndarray of shape (m, p)
            float32 when the rows are float32, else float64.
        """
        self._check_fitted("reconstruct")
        if X is None:
            return self._decode(self.gates_, self.coords_, self._dtype)
        array = as_matrix(X)
        encoding = self.encode(array)
        return self._decode(encoding.gates, encoding.coords, result_dtype(array))

    def score(self, X: Rows, y: object = None) -> float:
        """Explained variance ``1 − Σ‖x − x̂‖² / Σ‖x − column mean‖²`` of rows (m, p); `y` is ignored."""
        self._check_fitted("score")
        rows = check_new_rows(X, self.n_features_in_)
        residual, total = self._squares(rows, column_mean(rows) if len(rows) else self.mean_)
        return explained_share(residual, total, rows.shape)

    def _squares(self, rows: FloatArray | FileRows, column_means: FloatArray) -> tuple[float, float]:
        """Sums of squares of checked rows about their reconstruction, and about `column_means`."""
        encoding = self.encode(rows)
        residual, total = 0.0, 0.0
        for part in row_chunks(len(rows), rows.shape[1] * 8):
            fitted = self._decode(encoding.gates[part], [t[part] for t in encoding.coords], np.dtype(np.float64))
            residual += float(np.square(rows[part] - fitted).sum())
            total += float(np.square(rows[part] - column_means).sum())
        return residual, total

    def _decode(self, gates: FloatArray, coords: Sequence[FloatArray], dtype: np.dtype[Any]) -> NDArray[Any]:
        return decode_rows(self.mean_, self._atoms, self.decoders_, gates, coords, dtype)

    # Looking at the result -------------------------------------------------------------------------------------------

    def curve(self, k: int, n_points: int = 200) -> Curve:
        """Decode atom `k` on an even grid, with pointwise posterior standard deviations.

        Raises
        ------
        ValueError
            When there is no atom `k` or `n_points` is not a positive integer.
        """
        self._check_fitted("curve")
        self._check_atom(k)
        atom = self._atoms[k]
        n_points = check_integer(n_points, "n_points", 1)
        grid = atom.grid_over(n_points, self.coords_[k][self.support_[:, k]])
        basis = _core.basis(atom.spec(), grid)
        variance = np.einsum("gm,mn,gn->g", basis, self._training.covariances[k], basis)
        # a variance far below the covariance's largest is a difference of larger numbers
        sd = np.sqrt(np.maximum(variance, 0.0))
        return Curve(grid, self.mean_ + decode_atom(atom, self.decoders_[k], grid), sd)

    def summary(self) -> str:
        """Table of the fit and its atoms, as text."""
        from .report import summary

        self._check_fitted("summary")
        return summary(self)

    def plot(self, labels: ArrayLike | None = None) -> Figure:
        """Draw every atom with its rows; needs matplotlib. See `plot_atom`."""
        from .plot import plot

        self._check_fitted("plot")
        return plot(self, labels)

    def plot_atom(self, k: int, labels: ArrayLike | None = None, ax: Axes | None = None) -> Axes:
        """Draw atom `k` and the rows that use it in the plane in which it varies most; needs matplotlib.

        Parameters
        ----------
        k : int
            Which atom.
        labels : array-like of shape (n,), optional
            One label for each training row; names are written at the class means.
        ax : matplotlib Axes, optional
            Where to draw; a new figure when not given.
        """
        from .plot import plot_atom

        self._check_fitted("plot_atom")
        self._check_atom(k)
        return plot_atom(self, k, labels, ax)

    def plot_growth(self, ax: Axes | None = None) -> Axes:
        """Draw the evidence of the dictionaries that ``n_atoms="auto"`` tried; needs matplotlib."""
        from .plot import plot_growth

        self._check_fitted("plot_growth")
        return plot_growth(self, ax)

    def __getstate__(self) -> dict[str, Any]:
        # The term holds a copy of the training rows and belongs to the process that fitted it.
        state = self.__dict__.copy()
        if "_term" in state:
            state["_term"] = None
        return state

    def _check_fitted(self, what: str) -> None:
        if "_training" not in self.__dict__:
            raise NotFittedError(f"this ManifoldSAE is not fitted yet: call fit before {what}")

    def _check_atom(self, k: int) -> None:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 0 <= k < len(self._atoms):
            n_atoms = len(self._atoms)
            valid = f"from 0 to {n_atoms - 1}" if n_atoms else "none: the model has no atoms"
            raise ValueError(f"k must be the index of an atom ({valid}), got {k!r}")
