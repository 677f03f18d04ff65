"""Compiled core: arrays in, arrays out. All arrays are float64 in C order unless a type says otherwise."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ArrowSchur",
    "Evaluation",
    "ExchangeError",
    "InnerReport",
    "Order1",
    "Order2",
    "RowFile",
    "SaeManifoldRho",
    "SaeManifoldTerm",
    "SaeReconstructionRowProgram",
    "SaeRowLayout",
    "Tower4",
    "basis",
    "basis_jets",
    "encode_rows",
    "plan",
    "roughness",
]

_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]
_Spec = Mapping[str, Any]

@final
class SaeManifoldRho:
    """Log strengths of a fit: ``[ln λ_sparse | ln λ_1 ... ln λ_K | ARD log-precisions | ln φ]``.

    With `fixed_dispersion`, or without a `log_dispersion` (φ = 1), ln φ is no entry of the flat vector.
    """

    def __new__(
        cls,
        log_lambda_sparse: float = ...,
        log_lambda_smooth: Sequence[float] = ...,
        log_ard: Sequence[Sequence[float]] | None = ...,
        ard_sharing: str = ...,
        log_dispersion: float | None = ...,
        fixed_dispersion: bool = ...,
    ) -> SaeManifoldRho: ...
    def with_fixed_dispersion(self) -> SaeManifoldRho: ...
    @staticmethod
    def with_per_atom_smooth(
        log_lambda_sparse: float, log_lambda_smooth: Sequence[float], log_dispersion: float
    ) -> SaeManifoldRho: ...
    @staticmethod
    def new_shared_ard(
        log_lambda_sparse: float,
        log_lambda_smooth: Sequence[float],
        log_ard: Sequence[float],
        coord_dims: Sequence[int],
        log_dispersion: float,
    ) -> SaeManifoldRho: ...
    @property
    def log_lambda_sparse(self) -> float: ...
    @property
    def log_lambda_smooth(self) -> _Floats: ...
    @property
    def log_ard(self) -> list[_Floats]: ...
    @property
    def ard_sharing(self) -> str: ...
    @property
    def log_dispersion(self) -> float | None: ...
    @property
    def fixed_dispersion(self) -> bool: ...
    def to_flat(self) -> _Floats: ...
    def from_flat(self, flat: _Floats) -> SaeManifoldRho: ...
    def seed_scaled_by_dispersion(self, phi: float) -> SaeManifoldRho: ...
    def seed_scaled_by_dispersion_for_assignment(self, phi: float, learnable_alpha: bool = ...) -> SaeManifoldRho: ...
    def lambda_sparse(self) -> float: ...
    def lambda_smooth_vec(self) -> _Floats: ...
    def lambda_smooth_for(self, k: int) -> float: ...
    def max_ard_axes(self) -> int: ...
    def dispersion(self) -> float: ...
    def __len__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class SaeRowLayout:
    """Which inner variables each row really has: logits of its active atoms first, then their coordinates."""

    @staticmethod
    def from_dense_weights(
        a: _Floats,
        cap: int,
        cutoff: float,
        coord_dims: Sequence[int],
        coord_offsets_full: Sequence[int] | None = ...,
    ) -> SaeRowLayout: ...
    @staticmethod
    def from_jumprelu(
        logits: _Floats,
        contribution: _Floats,
        threshold: float,
        temperature: float,
        cap: int,
        cutoff: float,
        coord_dims: Sequence[int],
        coord_offsets_full: Sequence[int] | None = ...,
    ) -> SaeRowLayout: ...
    @staticmethod
    def from_active_atoms(
        lists: Sequence[Sequence[int]], coord_dims: Sequence[int], coord_offsets_full: Sequence[int] | None = ...
    ) -> SaeRowLayout: ...
    @property
    def n_rows(self) -> int: ...
    @property
    def active_atoms(self) -> list[list[int]]: ...
    @property
    def coord_starts(self) -> list[list[int]]: ...
    @property
    def coord_dims(self) -> list[int]: ...
    @property
    def coord_offsets_full(self) -> list[int]: ...
    def row_q_active(self, i: int) -> int: ...
    def expand_row(self, i: int, v: _Floats) -> _Floats: ...

@final
class InnerReport:
    """How an inner solve ended."""

    @property
    def status(self) -> str: ...
    @property
    def iterations(self) -> int: ...
    @property
    def cg_iterations(self) -> int: ...
    @property
    def decrement(self) -> float: ...

@final
class Evaluation:
    """The criterion V at one ρ, its gradient, its parts and the inner state it was taken at.

    With ``traces=True``, or with the gradient, it also has `explicit_gradient` (∂V/∂ρ at fixed inner variables),
    `fellner_schall` (where such a step goes), both in the order of the flat ρ, and what they are made of, with X the
    inverse that ∂V/∂ρ traces: `edf`, per atom tr X (λ_k S_k/φ ⊗ I), the part of p·rank(S_k) rough directions that the
    prior holds; `axis_variances`, per ARD entry of the flat ρ the sum of X over its coordinates, each times the part of
    the prior's curvature that is in H (1 on a line, max(cos, 0) on a circle); `data_edf`, tr X H_data; `roughness`, per
    atom tr(B_kᵀ S_k B_k). Without them these are empty, `data_edf` is None.
    """

    @property
    def value(self) -> float: ...
    @property
    def gradient(self) -> _Floats: ...
    @property
    def explicit_gradient(self) -> _Floats: ...
    @property
    def fellner_schall(self) -> _Floats: ...
    @property
    def edf(self) -> _Floats: ...
    @property
    def axis_variances(self) -> _Floats: ...
    @property
    def data_edf(self) -> float | None: ...
    @property
    def roughness(self) -> _Floats: ...
    @property
    def parts(self) -> dict[str, float]: ...
    @property
    def inner(self) -> InnerReport: ...
    @property
    def residual(self) -> float: ...
    @property
    def gradient_exact(self) -> bool: ...
    @property
    def standard_error(self) -> float | None: ...
    @property
    def elimination(self) -> str: ...
    @property
    def term(self) -> SaeManifoldTerm: ...

@final
class ArrowSchur:
    """The joint curvature and gradient in arrow form: one block a row, one border of decoders."""

    def htt(self, i: int) -> _Floats: ...
    def gt(self, i: int) -> _Floats: ...
    def htbeta(self, i: int) -> _Floats: ...
    @property
    def hbb(self) -> _Floats: ...
    @property
    def gb(self) -> _Floats: ...
    def dense(self) -> _Floats: ...

@final
class RowFile:
    """A float32 or float64 matrix (n, p) in a file, row after row, from byte `offset` on.

    `dtype` is "<f4", ">f4", "<f8" or ">f8". Raises OSError for a file that cannot be opened or is too short.
    """

    def __new__(cls, path: str, offset: int, dtype: str, shape: tuple[int, int]) -> RowFile: ...
    @property
    def shape(self) -> tuple[int, int]: ...

@final
class SaeManifoldTerm:
    """The problem and one inner state of it; a value object, safe to copy."""

    def __new__(
        cls,
        X: _Floats | RowFile,
        atoms: Sequence[_Spec],
        gate: _Spec,
        logits: _Floats,
        coords: Sequence[_Floats],
        decoders: Sequence[_Floats],
        *,
        support: _Bools | None = ...,
        weights: _Floats | None = ...,
        center: bool = ...,
        evidence: str = ...,
        arc_length: bool = ...,
        metric: _Floats | None = ...,
        keep_rows: bool = ...,
        exchange: Any | None = ...,
    ) -> SaeManifoldTerm: ...
    @property
    def evidence(self) -> str: ...
    @property
    def roughness(self) -> list[_Floats]: ...
    @property
    def n_rows(self) -> int: ...
    @property
    def n_outputs(self) -> int: ...
    @property
    def n_atoms(self) -> int: ...
    @property
    def mean(self) -> _Floats: ...
    @property
    def logits(self) -> _Floats: ...
    @property
    def coords(self) -> list[_Floats]: ...
    @property
    def decoders(self) -> list[_Floats]: ...
    @property
    def gates(self) -> _Floats: ...
    @property
    def support(self) -> _Bools: ...
    @staticmethod
    def seeds(
        X: _Floats | RowFile,
        atoms: Sequence[_Spec],
        gate: _Spec,
        *,
        weights: _Floats | None = ...,
        center: bool = ...,
        evidence: str = ...,
        arc_length: bool = ...,
        metric: _Floats | None = ...,
        n_init: int = ...,
        random_state: int = ...,
        routing: _Floats | None = ...,
        threads: int | None = ...,
        exchange: Any | None = ...,
    ) -> list[tuple[SaeManifoldTerm, SaeManifoldRho]]: ...
    def with_decoder_ranks(self, ranks: list[int | None]) -> SaeManifoldTerm: ...
    @property
    def decoder_ranks(self) -> list[int | None]: ...
    def refreshed(self, rho: SaeManifoldRho, *, threads: int | None = ...) -> tuple[SaeManifoldTerm, int]: ...
    def column_scores(self, rho: SaeManifoldRho) -> _Floats: ...
    def sparsity_floor(self, rho: SaeManifoldRho, lower: float, upper: float) -> float | None: ...
    def loss(self, rho: SaeManifoldRho) -> dict[str, float]: ...
    def evaluate(
        self,
        rho: SaeManifoldRho,
        *,
        tol: float = ...,
        max_inner: int = ...,
        elimination: str = ...,
        gradient: bool = ...,
        traces: bool = ...,
        threads: int | None = ...,
    ) -> Evaluation: ...
    def reml_criterion(self, rho: SaeManifoldRho) -> float: ...
    def criterion_as_atoms(self, rho: SaeManifoldRho) -> dict[str, float]: ...
    def analytic_outer_rho_gradient(self, rho: SaeManifoldRho) -> _Floats: ...
    def logdet_theta_adjoint(self, rho: SaeManifoldRho) -> _Floats: ...
    def assemble_arrow_schur(self, rho: SaeManifoldRho, layout: SaeRowLayout | None = ...) -> ArrowSchur: ...
    def plan(self, memory_budget: int | None = ...) -> dict[str, Any]: ...
    def __copy__(self) -> SaeManifoldTerm: ...
    def __deepcopy__(self, _memo: Any) -> SaeManifoldTerm: ...

@final
class Order1:
    """Value and gradient over N primaries, of several columns or of one."""

    @property
    def value(self) -> _Floats: ...
    @property
    def gradient(self) -> _Floats: ...
    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Order1: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Order2:
    """Value, gradient and Hessian over N primaries, of several columns or of one."""

    @property
    def value(self) -> _Floats: ...
    @property
    def gradient(self) -> _Floats: ...
    @property
    def hessian(self) -> _Floats: ...
    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Order2: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Tower4:
    """Value and all derivatives to the fourth order over N primaries, of one column."""

    @property
    def value(self) -> _Floats: ...
    @property
    def gradient(self) -> _Floats: ...
    @property
    def hessian(self) -> _Floats: ...
    @property
    def t3(self) -> _Floats: ...
    @property
    def t4(self) -> _Floats: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class SaeReconstructionRowProgram:
    """One row's reconstruction and its derivatives in the row's logits and coordinates."""

    def __new__(
        cls,
        phi: Sequence[_Floats],
        d_phi: Sequence[_Floats],
        d2_phi: Sequence[_Floats],
        decoder: Sequence[_Floats],
        logits: _Floats,
        *,
        gate: str = ...,
        inverse_temperature: float = ...,
        gate_scale: _Floats | None = ...,
        gate_shift: _Floats | None = ...,
        logit_slots: Sequence[int | None] | None = ...,
        coord_slots: Sequence[Sequence[int | None]] | None = ...,
        n_primaries: int | None = ...,
    ) -> SaeReconstructionRowProgram: ...
    @property
    def n_atoms(self) -> int: ...
    @property
    def n_outputs(self) -> int: ...
    @property
    def n_primaries(self) -> int: ...
    @property
    def channels(self) -> list[tuple[int, int]]: ...
    def reconstruction_column(self, c: int) -> Tower4: ...
    def reconstruction_all_columns_packed(self) -> Order2: ...
    def beta_border_order1_packed(self, channels: Sequence[tuple[int, int]] | None = ...) -> Order1: ...
    @staticmethod
    def aligned(rows: Sequence[SaeReconstructionRowProgram]) -> bool: ...
    @staticmethod
    def reconstruction_column_batch4(rows: Sequence[SaeReconstructionRowProgram], c: int) -> list[Tower4]: ...
    @staticmethod
    def reconstruction_all_columns_packed_batch4(rows: Sequence[SaeReconstructionRowProgram]) -> list[Order2]: ...
    @staticmethod
    def beta_border_order1_packed_batch4(
        rows: Sequence[SaeReconstructionRowProgram], channels: Sequence[tuple[int, int]] | None = ...
    ) -> list[Order1]: ...

class ExchangeError(RuntimeError):
    """Processes that share a fit could not go on together."""

def basis(atom: _Spec, t: _Floats) -> _Floats: ...
def basis_jets(atom: _Spec, t: _Floats) -> tuple[_Floats, _Floats, _Floats, _Floats]: ...
def encode_rows(
    X: _Floats,
    mean: _Floats,
    atoms: Sequence[_Spec],
    gate: _Spec,
    decoders: Sequence[_Floats],
    rho: SaeManifoldRho,
    *,
    evidence: str = ...,
    column_scores: Sequence[float] | _Floats | None = ...,
    threads: int | None = ...,
) -> tuple[_Floats, list[_Floats], _Floats, _Bools, _Floats, NDArray[np.uint8]]: ...
def roughness(atom: _Spec) -> _Floats: ...
def plan(
    n_rows: int,
    n_outputs: int,
    *,
    atom_widths: Sequence[int],
    atom_dims: Sequence[int],
    atom_ambients: Sequence[int],
    free_logits: int,
    active: float,
    tied: bool,
    copies: int = ...,
    memory_budget: int | None = ...,
) -> dict[str, Any]: ...
