"""Sparse dictionaries of curved atoms for neural-network activations, chosen by marginal likelihood.

Start with `ManifoldSAE`; `load` reads what its ``save`` wrote; `datasets` has real activations to try it on. The
low-level names (`SaeManifoldTerm`, `SaeManifoldRho`, `SaeRowLayout`) open up the criterion that a fit minimises, and
`SaeReconstructionRowProgram` the derivatives of one row.
"""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("sae-rs")

from . import cluster, datasets
from ._core import (
    Order1,
    Order2,
    SaeManifoldRho,
    SaeManifoldTerm,
    SaeReconstructionRowProgram,
    SaeRowLayout,
    Tower4,
)
from .atoms import (
    Circle,
    Cylinder,
    Duchon,
    FiniteSet,
    KleinBottle,
    Line,
    Mobius,
    Patch,
    Poincare,
    Precomputed,
    ProjectivePlane,
    Segment,
    Sphere,
    Torus,
)
from .diagnostics import GradientCheck, check_gradient
from .dictionary import Curve
from .encoding import Encoding
from .exceptions import ClusterError, ConvergenceWarning, FoldWarning, NotFittedError
from .gates import (
    IBP,
    FrozenRouting,
    GeometricSchedule,
    LinearSchedule,
    ReciprocalSchedule,
    Softmax,
    ThresholdGate,
)
from .growth import GrowthStep
from .io import load
from .metrics import RowMetric
from .model import ManifoldSAE
from .reml import Certificate, FitProgress
from .weights import huber_weights

__all__ = [
    "IBP",
    "Certificate",
    "Circle",
    "ClusterError",
    "ConvergenceWarning",
    "Curve",
    "Cylinder",
    "Duchon",
    "Encoding",
    "FiniteSet",
    "FitProgress",
    "FoldWarning",
    "FrozenRouting",
    "GeometricSchedule",
    "GradientCheck",
    "GrowthStep",
    "KleinBottle",
    "Line",
    "LinearSchedule",
    "ManifoldSAE",
    "Mobius",
    "NotFittedError",
    "Order1",
    "Order2",
    "Patch",
    "Poincare",
    "Precomputed",
    "ProjectivePlane",
    "ReciprocalSchedule",
    "RowMetric",
    "SaeManifoldRho",
    "SaeManifoldTerm",
    "SaeReconstructionRowProgram",
    "SaeRowLayout",
    "Segment",
    "Softmax",
    "Sphere",
    "ThresholdGate",
    "Torus",
    "Tower4",
    "__version__",
    "check_gradient",
    "cluster",
    "datasets",
    "huber_weights",
    "load",
]
