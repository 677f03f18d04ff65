"""Atom kinds, one file each: a basis on a chart, its jets, its roughness, and the motions that change no fit."""

from .base import Atom, Generator, Jets, Symmetry
from .circle import Circle
from .cylinder import Cylinder
from .duchon import Duchon
from .finite_set import FiniteSet
from .klein_bottle import KleinBottle
from .line import Line
from .mobius import Mobius
from .patch import Patch
from .poincare import Poincare
from .projective_plane import ProjectivePlane
from .segment import Segment
from .sphere import Sphere
from .torus import Torus

__all__ = [
    "Atom",
    "Circle",
    "Cylinder",
    "Duchon",
    "FiniteSet",
    "Generator",
    "Jets",
    "KleinBottle",
    "Line",
    "Mobius",
    "Patch",
    "Poincare",
    "ProjectivePlane",
    "Segment",
    "Sphere",
    "Symmetry",
    "Torus",
]
