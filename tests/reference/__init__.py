"""A dense reference for circle atoms under the softmax gate, written to be read beside chapter 1 of the mathematics.

Every matrix is formed explicitly, every derivative is written out by hand, nothing is eliminated and nothing is cached,
so a formula can be checked by eye and by finite differences. It is slow and meant for small problems only.

=============  ===========================================================================================
module         what it holds
=============  ===========================================================================================
``problem``    the fixed data, the inner state, the strengths rho, and the order of the inner variables
``basis``      the circle basis, its derivatives, the roughness Gram, the rotation generator
``gate``       softmax values and derivatives, the entropy prior, its majoriser, its normaliser
``ard``        the von Mises prior on the angles
``jets``       value, first and second derivatives of one reconstructed row
``objective``  L, its named parts, its gradient in theta and in rho
``curvature``  the curvature H, the exact Hessian A, the derivatives of H, the gauge generators
``evidence``   V and its named terms
``gradient``   the derivatives of V - L, and dV/drho with the implicit term
``solver``     a damped Newton method for the inner optimum
=============  ===========================================================================================
"""

from .curvature import curvature, curvature_rho, curvature_theta, exact_hessian, gauge, log_det, pin_orbits
from .evidence import evidence, evidence_terms
from .gradient import evidence_rho, evidence_theta, implicit_gradient, log_det_adjoint
from .objective import gradient_theta, loss, loss_parts, loss_rho, mixed_theta_rho, reconstruct
from .problem import Problem, Rho, State, Variables
from .solver import Solution, solve

__all__ = [
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
