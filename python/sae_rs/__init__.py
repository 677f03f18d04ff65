"""Sparse dictionaries of curved atoms for neural-network activations, chosen by marginal likelihood.

Start with `ManifoldSAE`; `load` reads what its ``save`` wrote; `datasets` has real activations to try it on. The
low-level names (`SaeManifoldTerm`, `SaeManifoldRho`, `SaeRowLayout`) open up the criterion that a fit minimises.
"""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("sae-rs")

from . import datasets
from ._core import SaeManifoldRho, SaeManifoldTerm, SaeRowLayout
from .atoms import (
    Circle,
    Cylinder,
    Duchon,
    FiniteSet,
    KleinBottle,
    Line,
    Patch,
    Poincare,
    Precomputed,
    ProjectivePlane,
    Sphere,
    Torus,
)
from .diagnostics import GradientCheck, check_gradient
from .encoding import Encoding
from .exceptions import ConvergenceWarning, NotFittedError
from .gates import Softmax
from .io import load
from .model import Curve, ManifoldSAE
from .reml import Certificate, FitProgress

__all__ = [
    "Certificate",
    "Circle",
    "ConvergenceWarning",
    "Curve",
    "Cylinder",
    "Duchon",
    "Encoding",
    "FiniteSet",
    "FitProgress",
    "GradientCheck",
    "KleinBottle",
    "Line",
    "ManifoldSAE",
    "NotFittedError",
    "Patch",
    "Poincare",
    "Precomputed",
    "ProjectivePlane",
    "SaeManifoldRho",
    "SaeManifoldTerm",
    "SaeRowLayout",
    "Softmax",
    "Sphere",
    "Torus",
    "__version__",
    "check_gradient",
    "datasets",
    "load",
]
