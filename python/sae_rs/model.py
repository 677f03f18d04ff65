"""The estimator: its parameters, and how it is fitted."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core, checkpoints, fitting
from .atoms import Atom
from .dictionary import FittedDictionary
from .exceptions import ConvergenceWarning
from .fit_attributes import attributes
from .fit_data import FitData
from .gates import Gate
from .metrics import RowMetric
from .parameters import Parameters
from .progress import listening
from .rows import Rows
from .search import FitProgress
from .settings import FitSettings
from .stopping import INTERRUPTED
from .validation import as_matrix

FloatArray = NDArray[np.float64]


class ManifoldSAE(FittedDictionary, Parameters):
    """Sparse dictionary of curved atoms, its strengths chosen by marginal likelihood.

    A row is modelled as ``mean + Σ_k a_k · γ_k(t_k) + noise``: gates a say how much of each atom it uses, coordinates t
    where on the atom it lies. Smoothness, sparsity and noise are found by minimising the Laplace evidence.

    Parameters
    ----------
    n_atoms : int or "auto", default 8
        K. 0 is the mean-only model, so that evidences can be compared with it. "auto" lets the dictionary grow by
        moves that lower the evidence (births, deaths, merges, exchanges of a kind), with gates that do not depend on
        each other from an atom for every group of independent components; ``growth_`` is the path.
    atom : str, Atom or list of K of them, default "circle"
        Kind of the atoms. With ``n_atoms="auto"`` a list names the kinds that each new atom is chosen from.
    gate : str or Gate, default "softmax"
        How gates follow from logits.
    evidence : {"laplace", "quasi_laplace"}
        Criterion that chooses the strengths: the marginal likelihood, or the classic criterion at a fixed dispersion φ
        = 1, which compares strengths but not numbers of atoms.
    outer : {"auto", "bfgs", "efs", "efs+bfgs"}
        Minimiser of the criterion: quasi-Newton with the exact gradient, Fellner-Schall steps to their fixed point, or
        a few of those first. "auto" takes a few first where log-determinants are estimated, whose gradient is dear.
    rho : SaeManifoldRho, array-like of shape (2 + K,), or None
        Starting strengths; None takes them from the seeds. With ``evidence="quasi_laplace"`` its ``log_dispersion`` is
        the fixed one.
    n_init : int, default 4
        Seeds that are tried; the best one goes on.
    max_outer, max_inner : int, default 100 and 200
        Limits of the outer iterations, each of which allows the fit 2 evaluations and 10 inner iterations, and of the
        inner iterations of one evaluation. Thirty conjugate gradients beyond 60 an inner iteration count as another.
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

    def __init__(
        self,
        n_atoms: int | str = 8,
        atom: str | Atom | Sequence[str | Atom] = "circle",
        gate: str | Gate = "softmax",
        *,
        evidence: str = "laplace",
        outer: str = "auto",
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
        progress: bool | Callable[[FitProgress], object] | None = None,
        callback: Callable[[FitProgress], object] | None = None,
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
        settings = FitSettings.checked(self, array.shape[1])
        data = FitData.checked(array, weights, metric, settings)
        marks = checkpoints.of_fit(self, settings, data, resume)
        with listening(self.progress, self.callback) as listener:
            found = fitting.run(settings, data, marks, listener)
        # One update, after everything that can fail or be interrupted: the estimator is never half fitted.
        return self._take(attributes(found, data, settings))

    def _take(self, found: Mapping[str, Any]) -> ManifoldSAE:
        """Become what a fit has found; warn when it did not converge."""
        self.__dict__.update(found)
        if not self.converged_:
            status = self.certificate_.status
            how = "was interrupted" if status == INTERRUPTED else f"did not converge (status {status!r})"
            # of the caller of `fit`
            warnings.warn(f"the fit {how}; the model holds the best state found", ConvergenceWarning, stacklevel=3)
        return self

    def fit_transform(self, X: Rows, y: object = None, *, weights: ArrayLike | None = None) -> FloatArray:
        """Fit and return the gates (n, K) of the training rows; `y` is ignored, as pipelines pass it."""
        return self.fit(X, weights).gates_.copy()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model to a safetensors file; `sae_rs.load` reads it back bit for bit."""
        from .io import save

        self._check_fitted("save")
        save(self, path)
