"""A dense reference for dictionaries of any atoms under any gate, written to be read beside chapters 1 and 2.

Every matrix is formed explicitly, every derivative is written out by hand and nothing is eliminated, so a formula can
be checked by eye and by finite differences. It is slow and meant for small problems only.

================  ========================================================================================
module            what it holds
================  ========================================================================================
``factors``       the pieces of charts: circle, line, sphere; their moves, priors and compact corrections
``atoms``         one file a kind: basis, jets, roughness, generators, symmetries
``gates``         one file a gate: values, prior, majoriser, normaliser, coupling of rows
``problem``       the fixed data, the inner state, the strengths rho, and the order of the inner variables
``jets``          value, first and second derivatives of one reconstructed row
``priors``        the prior of all coordinates
``objective``     L, its named parts, its gradient in theta and in rho
``curvature``     the curvature H, the exact Hessian A, the derivatives of H, the gauge generators
``conditioning``  the near-null directions of the classic mode
``extended``      linear algebra in extended precision
``evidence``      V and its named terms
``gradient``      the derivatives of V - L, and dV/drho with the implicit term
``solver``        a damped Newton method for the inner optimum
================  ========================================================================================
"""

from .curvature import (
    InfeasibleError,
    curvature,
    curvature_rho,
    curvature_theta,
    exact_hessian,
    gauge,
    log_det,
    pin_orbits,
)
from .evidence import evidence, evidence_terms
from .gradient import evidence_rho, evidence_theta, implicit_gradient, log_det_adjoint
from .objective import gradient_theta, loss, loss_parts, loss_rho, mixed_theta_rho, reconstruct
from .problem import Problem, Rho, State, Variables
from .solver import Solution, solve

__all__ = [
    "InfeasibleError",
    "Problem",
    "Rho",
    "Solution",
    "State",
    "Variables",
    "curvature",
    "curvature_rho",
    "curvature_theta",
    "evidence",
    "evidence_rho",
    "evidence_terms",
    "evidence_theta",
    "exact_hessian",
    "gauge",
    "gradient_theta",
    "implicit_gradient",
    "log_det",
    "log_det_adjoint",
    "loss",
    "loss_parts",
    "loss_rho",
    "mixed_theta_rho",
    "pin_orbits",
    "reconstruct",
    "solve",
]
