"""The estimator: fit a dictionary of curved atoms, encode and decode rows, look at the result."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core, checkpoints, reml
from .atoms import Atom, resolve_atoms, resolve_kinds
from .checkpoints import Checkpoints
from .encoding import Encoding, check_code, decode_atom, decode_rows, encode_with
from .exceptions import ConvergenceWarning, NotFittedError
from .fitted_rows import FittedRows
from .gates import Gate, resolve_gate
from .growth import GrowthStep, check_growth, grow
from .memory import SAMPLE_ABOVE, check_memory, parse_memory_budget
from .metrics import RowMetric
from .parameters import Parameters, encode_parameter
from .problem import Problem
from .progress import listening
from .rows import FileRows, Rows, blocks, column_mean
from .search import Search
from .stopping import INTERRUPTED
from .training import TrainingSummary, metric_explained_variance, summarise_training
from .validation import (
    as_matrix,
    check_choice,
    check_decoder_rank,
    check_integer,
    check_n_atoms,
    check_n_jobs,
    check_new_rows,
    check_positive,
    check_random_state,
    check_rho,
    check_rows_suffice,
    check_scales,
    check_training_rows,
    check_weights,
    result_dtype,
    row_chunks,
)

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


class ManifoldSAE(Parameters):
    """Sparse dictionary of curved atoms, its strengths chosen by marginal likelihood.

    A row is modelled as ``mean + Σ_k a_k · γ_k(t_k) + noise``: gates a say how much of each atom it uses, coordinates t
    where on the atom it lies. Smoothness, sparsity and noise are found by minimising the Laplace evidence.

    Parameters
    ----------
    n_atoms : int or "auto", default 8
        K. 0 is the mean-only model, so that evidences can be compared with it. "auto" lets the dictionary grow by
        moves that lower the evidence (births, deaths, merges, exchanges of a kind); ``growth_`` is the path.
    atom : str, Atom or list of K of them, default "circle"
        Kind of the atoms. With ``n_atoms="auto"`` a list names the kinds that each new atom is chosen from.
    gate : str or Gate, default "softmax"
        How gates follow from logits.
    evidence : {"laplace", "quasi_laplace"}
        Criterion that chooses the strengths: the marginal likelihood, or the classic criterion at a fixed dispersion φ
        = 1, which compares strengths but not numbers of atoms.
    outer : {"bfgs", "efs", "efs+bfgs"}
        Minimiser of the criterion: quasi-Newton with the exact gradient, Fellner-Schall steps to their fixed point, or
        a few of those first.
    rho : SaeManifoldRho, array-like of shape (2 + K,), or None
        Starting strengths; None takes them from the seeds. With ``evidence="quasi_laplace"`` its ``log_dispersion`` is
        the fixed one.
    n_init : int, default 4
        Seeds that are tried; the best one goes on.
    max_outer, max_inner : int, default 100 and 200
        Limits of the outer evaluations and of the inner iterations of each.
    tol : float, default 1e-6
        Tolerance of the outer gradient.
    center : bool, default True
        Subtract the column means; when False ``mean_`` is zero.
    roughness : {"coordinate", "arc_length"}, default "coordinate"
        What the bending of curves is measured against. With "arc_length" S is re-weighted by the speed of each basis
        function's rows, and the weights are renewed between searches.
    max_atoms : int, default 32
        No dictionary of ``n_atoms="auto"`` has more.
    decoder_rank : int, "auto" or None, default None
        Rank r of every decoder, ``B_k = C_k U_kᵀ`` with an orthonormal frame U_k: an atom then lies in r output
        directions, and counts as many in the evidence. "auto" takes the rank that the first guess shows, where p ≥ 12
        and it is at most 3/4 p. Frames are chosen, not integrated over: compare evidences at one rank. None leaves
        decoders full.
    random_state : int, numpy Generator or RandomState, or None, default 0
        Seed of the starting points; the same seed gives the same fit. None draws a fresh one.
    n_jobs : int or None
        Threads of fitting and encoding; None and −1 use all cores. The result does not depend on it.
    memory_budget : int, str or None
        Bytes beyond the caller's own data, or text such as "2GiB". Where linearised rows do not fit they are made
        anew in each pass; a problem that does not fit even so is refused before anything is allocated, or, of more
        rows than a sample, once the sample has shown how many atoms a row uses.
    progress : None, bool or callable
        True shows a progress bar (tqdm) or lines on standard error; a callable gets each `FitProgress`.
    callback : callable or None
        Gets each `FitProgress`; returning True stops the fit with its best state.
    checkpoint : path or None
        File to which a fit writes where it stands, for ``fit(X, resume=...)``; it always holds one whole checkpoint.
        The search is then made of segments, so its end differs from that without checkpoints by what the tolerance
        leaves open.
    checkpoint_every : int, default 5
        Outer iterations between two checkpoints.

    Attributes
    ----------
    coords_ : list of K ndarray of shape (n, d_k)
        Coordinates of the training rows: angles in radians, in [0, 2π) unless the kind says otherwise, and real
        numbers.
    gates_ : ndarray of shape (n, K)
        Gates of the training rows, exactly 0 off the support.
    support_ : ndarray of shape (n, K), bool
        Atoms that each row uses.
    decoders_ : list of K ndarray of shape (M_k, p)
        Decoders.
    mean_ : ndarray of shape (p,)
        Column means that were subtracted.
    evidence_ : float
        Negative log marginal likelihood in nats; lower is better, comparable between K and between kinds. With
        ``evidence="quasi_laplace"`` the classic criterion, which is comparable at one K and one φ only.
    evidence_parts_ : dict of str to float
        Its named terms.
    rho_ : SaeManifoldRho
        Strengths found.
    dispersion_ : float
        Noise variance φ.
    converged_ : bool
        Whether the fit converged.
    certificate_ : Certificate
        The numbers behind ``converged_``.
    explained_variance_ : float
        ``1 − Σ‖x − x̂‖² / Σ‖x − column mean‖²`` on the training rows.
    metric_explained_variance_ : float or None
        The same with ``‖U_iᵀ ·‖²`` of the metric that was given to ``fit``; None without one.
    growth_ : tuple of GrowthStep
        The dictionaries that ``n_atoms="auto"`` tried; empty for a given number.
    n_features_in_ : int
        p.
    term_ : SaeManifoldTerm
        The fitted problem and state; not stored in files or pickles, and absent for ``n_atoms=0``.

    Examples
    --------
    >>> import sae_rs
    >>> X = sae_rs.datasets.load_weekdays().X
    >>> model = sae_rs.ManifoldSAE(n_atoms=1, atom="circle").fit(X)
    >>> model.coords_[0].shape
    (140, 1)
    """

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
    certificate_: reml.Certificate
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

    def __init__(
        self,
        n_atoms: int | str = 8,
        atom: str | Atom | Sequence[str | Atom] = "circle",
        gate: str | Gate = "softmax",
        *,
        evidence: str = "laplace",
        outer: str = "bfgs",
        rho: _core.SaeManifoldRho | ArrayLike | None = None,
        n_init: int = 4,
        max_outer: int = 100,
        max_inner: int = 200,
        tol: float = 1e-6,
        center: bool = True,
        roughness: str = "coordinate",
        max_atoms: int = 32,
        decoder_rank: int | str | None = None,
        random_state: int | np.random.Generator | np.random.RandomState | None = 0,
        n_jobs: int | None = None,
        memory_budget: int | str | None = None,
        progress: bool | Callable[[reml.FitProgress], object] | None = None,
        callback: Callable[[reml.FitProgress], object] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 5,
    ) -> None:
        self.n_atoms = n_atoms
        self.atom = atom
        self.gate = gate
        self.evidence = evidence
        self.outer = outer
        self.rho = rho
        self.n_init = n_init
        self.max_outer = max_outer
        self.max_inner = max_inner
        self.tol = tol
        self.center = center
        self.roughness = roughness
        self.max_atoms = max_atoms
        self.decoder_rank = decoder_rank
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.memory_budget = memory_budget
        self.progress = progress
        self.callback = callback
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every

    # Fitting ---------------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Rows,
        weights: ArrayLike | None = None,
        *,
        metric: RowMetric | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> ManifoldSAE:
        """Fit the dictionary to rows.

        Parameters
        ----------
        X : array-like of shape (n, p), path, or iterable of array-like
            Real finite numbers; computed in float64, a float64 array in C order is not copied on the way in. A path
            names a .npy, .npz, .safetensors or .parquet file. An iterable that is no array and no sequence is a stream
            of blocks (m, p) or of rows (p,), written to a temporary file. Of more than 16384 rows those of a .npy or
            .safetensors file, an `np.memmap` in C order or a stream are not loaded but read a part at a time, in
            most fits: see docs/fitting.md.
        weights : array-like of shape (n,), optional
            Non-negative row weights; only their ratios matter. A row of weight 0 plays no part in the fit and is
            encoded after it, as a new row would be.
        metric : RowMetric, optional
            A metric of each row's residual. In mode "whitened" it stands in the likelihood; new rows, rows of weight 0
            and the standard deviations of curves do not know it. In either mode ``metric_explained_variance_`` is the
            explained variance as it measures it.
        resume : path, optional
            A checkpoint of a fit of the same rows with the same settings: this fit goes on from there, to the end that
            one would have come to, bit for bit.

        Returns
        -------
        ManifoldSAE
            The estimator itself.

        Raises
        ------
        ValueError
            For data, weights or options that cannot be used; the message names the one at fault. For a checkpoint that
            is damaged, or is of other data or settings; the message names what differs.
        OSError
            When a checkpoint cannot be read or written, or rows cannot be read from their file.
        KeyboardInterrupt
            At a Ctrl-C before there is a state with a finite evidence, and at a second one; the estimator is then as
            it was. Any other ends the fit with its best state, its status "interrupted".

        Warns
        -----
        ConvergenceWarning
            When the fit ended early; the best state is kept and ``converged_`` is False.
        """
        array = as_matrix(X)
        n_atoms = check_n_atoms(self.n_atoms)
        kinds = resolve_kinds(self.atom) if n_atoms is None else ()
        # a dictionary that grows has at least to have room for one atom of each kind
        atoms = kinds if n_atoms is None else resolve_atoms(self.atom, n_atoms)
        gate = resolve_gate(self.gate)
        check_choice(self.evidence, "evidence", ["laplace", "quasi_laplace"])
        check_choice(self.outer, "outer", ["bfgs", "efs", "efs+bfgs"])
        check_choice(self.roughness, "roughness", ["coordinate", "arc_length"])
        if not isinstance(self.center, (bool, np.bool_)):
            raise ValueError(f"center must be True or False, got {self.center!r}")
        max_atoms = check_integer(self.max_atoms, "max_atoms", 0)
        if n_atoms is None:
            check_growth(self.evidence, self.rho, gate)
        rho = check_rho(self.rho, atoms, self.evidence)
        check_scales(atoms, self.evidence)
        n_init = check_integer(self.n_init, "n_init", 1)
        max_outer = check_integer(self.max_outer, "max_outer", 1)
        max_inner = check_integer(self.max_inner, "max_inner", 1)
        tol = check_positive(self.tol, "tol")
        threads = check_n_jobs(self.n_jobs)
        seed = check_random_state(self.random_state)
        n_given, n_columns = array.shape
        whole = n_atoms is None or gate.routing is not None or metric is not None or n_given <= SAMPLE_ABOVE
        if isinstance(array, FileRows):
            copies = 2 if whole else 0
        else:
            # the core has rows of its own, and what is not float64 is widened first
            copies = 1 if array.dtype == np.float64 and array.flags.c_contiguous else 2
        plans = [
            check_memory(
                self.memory_budget,
                n_given,
                n_columns,
                own,
                gate.sized(len(own)) if n_atoms is None else gate,
                copies=copies,
            )
            for own in ([(kind,) for kind in kinds] if n_atoms is None else [atoms])
        ]
        decoder_rank = check_decoder_rank(self.decoder_rank, array.shape[1])
        if isinstance(array, FileRows) and whole:
            array = array.loaded()
        data = check_training_rows(array)
        if n_atoms is not None:
            check_rows_suffice(len(data.values), atoms)
            if atoms:
                gate.check(len(data.values), n_atoms)
        row_weights = check_weights(weights, len(data.values))
        if metric is not None and not isinstance(metric, RowMetric):
            raise ValueError(f"metric must be a sae_rs.RowMetric or None, got {type(metric).__name__}")
        factors = None if metric is None else metric.checked(*data.values.shape)
        fitted = FittedRows.of(data.values, row_weights, gate)
        if n_atoms is not None:
            check_rows_suffice(len(fitted.values), atoms, "rows of positive weight")

        if n_atoms is None and max_atoms:
            # what no atom could be fitted to is refused before work starts, as it is for a given number
            narrowest = min(kinds, key=lambda kind: kind.width)
            check_rows_suffice(len(fitted.values), [narrowest], "rows of positive weight")
            gate.sized(1).check(len(fitted.values), 1)

        def admitted(dictionary: tuple[Atom, ...]) -> bool:
            try:
                sized = gate.sized(len(dictionary))
                check_memory(self.memory_budget, n_given, n_columns, dictionary, sized, copies=copies)
                check_rows_suffice(len(fitted.values), dictionary, "rows of positive weight")
            except ValueError:
                return False
            return True

        whitening = fitted.part(factors) if metric is not None and metric.mode == "whitened" else None
        marks = self._checkpoints(n_atoms, seed, fitted, whitening, resume)
        if marks is not None:
            seed = marks.identity.seed
        with listening(self.progress, self.callback) as listener:
            if n_atoms is None:
                none = Problem(
                    fitted.values,
                    (),
                    gate.sized(1).settled,
                    fitted.weights,
                    bool(self.center),
                    self.evidence,
                    self.roughness == "arc_length",
                    decoder_rank,
                    whitening,
                )
                like = Search(
                    none,
                    outer=self.outer,
                    max_outer=max_outer,
                    max_inner=max_inner,
                    tol=tol,
                    threads=threads,
                    progress=listener,
                )
                grown = grow(like, gate, kinds, admitted, max_atoms, n_init, seed)
                result, atoms, path = grown.result, grown.atoms, grown.path
                gate = gate.sized(len(atoms))
            else:
                result, path = (
                    reml.fit_dictionary(
                        fitted.values,
                        atoms,
                        gate,
                        evidence=self.evidence,
                        outer=self.outer,
                        arc_length=self.roughness == "arc_length",
                        decoder_rank=decoder_rank,
                        weights=fitted.weights,
                        keep_rows=plans[0].keep_rows,
                        memory_budget=parse_memory_budget(self.memory_budget),
                        metric=whitening,
                        rho=rho,
                        n_init=n_init,
                        max_outer=max_outer,
                        max_inner=max_inner,
                        tol=tol,
                        center=bool(self.center),
                        random_state=seed,
                        threads=threads,
                        progress=listener,
                        marks=marks,
                    ),
                    (),
                )
        n_rows, n_columns = data.values.shape
        term = result.term
        if term is None:
            mean = column_mean(fitted.values) if self.center else np.zeros(n_columns)
            gates, logits = np.zeros((n_rows, 0)), np.zeros((n_rows, 0))
            support, decoders = np.zeros((n_rows, 0), dtype=bool), []
            coords: list[FloatArray] = []
        else:
            mean, decoders = np.array(term.mean), [np.array(decoder) for decoder in term.decoders]

            def encoded(rows: FloatArray) -> Encoding:
                return encode_with(
                    rows,
                    mean,
                    atoms,
                    gate.settled,
                    decoders,
                    result.rho,
                    term.column_scores(result.rho),
                    self.evidence,
                    threads,
                )

            gates, logits, support, coords = fitted.all_rows(term, atoms, data.values, encoded)
        dispersion = float(result.rho.dispersion())
        training = summarise_training(
            data.values,
            mean,
            atoms,
            decoders,
            gates,
            coords,
            weights=row_weights,
            smoothness=np.asarray(result.rho.lambda_smooth_vec()),
            roughness=[] if term is None else [np.asarray(gram) for gram in term.roughness],
            dispersion=dispersion,
            mean_variance=data.mean_variance,
            edf=result.edf,
        )
        # One update, after everything that can fail or be interrupted: the estimator is never half fitted.
        self.__dict__.update(
            coords_=coords,
            gates_=gates,
            support_=support,
            decoders_=decoders,
            mean_=mean,
            evidence_=float(result.value),
            evidence_parts_={name: float(value) for name, value in result.parts.items()},
            rho_=result.rho,
            dispersion_=dispersion,
            converged_=bool(result.converged),
            certificate_=result.certificate,
            explained_variance_=training.explained_variance,
            metric_explained_variance_=None
            if factors is None
            else metric_explained_variance(data.values, mean, atoms, decoders, gates, coords, row_weights, factors),
            growth_=path,
            n_features_in_=n_columns,
            _atoms=atoms,
            # the temperature of an annealed gate is now the last of its schedule
            _gate=gate.settled,
            _evidence=self.evidence,
            _dtype=data.dtype,
            _logits=logits,
            _column_scores=np.zeros(0) if term is None else np.asarray(term.column_scores(result.rho)),
            _training=training,
            _term=term,
        )
        if not self.converged_:
            how = "was interrupted" if result.status == INTERRUPTED else f"did not converge (status {result.status!r})"
            warnings.warn(f"the fit {how}; the model holds the best state found", ConvergenceWarning, stacklevel=2)
        return self

    def _checkpoints(
        self,
        n_atoms: int | None,
        seed: int,
        fitted: FittedRows,
        whitening: FloatArray | None,
        resume: str | os.PathLike[str] | None,
    ) -> Checkpoints | None:
        """Where the fit writes where it stands and goes on from; None without either."""
        for name, value in (("checkpoint", self.checkpoint), ("resume", resume)):
            if value is not None and not isinstance(value, (str, os.PathLike)):
                raise ValueError(f"{name} must be a path or None, got {value!r}")
        every = check_integer(self.checkpoint_every, "checkpoint_every", 1)
        if self.checkpoint is None and resume is None:
            return None
        if n_atoms is None:
            raise ValueError("n_atoms='auto' has no checkpoints: use checkpoint and resume with a number of atoms")
        saved = None if resume is None else checkpoints.read(resume)
        settings = {
            **{name: value for name, value in self.get_params().items() if name not in checkpoints.FREE_PARAMETERS},
            "checkpoint_every": every,
            "random_state": seed,
        }
        if saved is not None and not isinstance(self.random_state, (int, np.integer)):
            # a seed that was drawn is part of the fit that goes on
            settings["random_state"] = seed = saved.identity.seed
        identity = checkpoints.identity_of(
            {name: encode_parameter(value) for name, value in settings.items()},
            seed,
            fitted.values,
            fitted.weights,
            whitening,
        )
        if saved is not None:
            assert resume is not None
            identity.check(saved.identity, os.fspath(resume))
        return checkpoints.Checkpoints(self.checkpoint, every, identity, saved)

    def fit_transform(self, X: Rows, y: object = None, *, weights: ArrayLike | None = None) -> FloatArray:
        """Fit and return the gates (n, K) of the training rows; `y` is ignored, as pipelines pass it."""
        return self.fit(X, weights).gates_.copy()

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
        sd = np.sqrt(np.einsum("gm,mn,gn->g", basis, self._training.covariances[k], basis))
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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model to a safetensors file; `sae_rs.load` reads it back bit for bit."""
        from .io import save

        self._check_fitted("save")
        save(self, path)

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
