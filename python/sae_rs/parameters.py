"""Constructor arguments in the manner of scikit-learn, so that pipelines and ``clone`` work without depending on it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core import SaeManifoldRho
from .atoms import Atom
from .gates import Gate
from .strengths import rho_fields

if TYPE_CHECKING:
    from typing_extensions import Self


class Parameters:
    """Base of an estimator whose constructor only stores its arguments under their own names."""

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return sorted(name for name in inspect.signature(cls).parameters)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments by name; `deep` changes nothing, because none of them is an estimator."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Change constructor arguments by name; an unknown name is refused before anything changes."""
        known = self._parameter_names()
        for name in params:
            if name not in known:
                raise ValueError(f"unknown parameter {name!r}; {type(self).__name__} has {', '.join(known)}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        parameters = inspect.signature(type(self)).parameters
        changed = [
            f"{name}={getattr(self, name)!r}"
            for name, parameter in parameters.items()
            if repr(getattr(self, name)) != repr(parameter.default)
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        # Called by scikit-learn alone, so the import finds it loaded.
        utils = importlib.import_module("sklearn.utils")
        return utils.Tags(
            estimator_type=None,
            target_tags=utils.TargetTags(required=False),
            transformer_tags=utils.TransformerTags(preserves_dtype=[]),
            input_tags=utils.InputTags(),
        )


def encode_parameter(value: Any) -> Any:
    """Write a parameter as JSON values; objects become mappings of one key, which `sae_rs.io` reads."""
    if isinstance(value, Atom):
        return {"atom": value.spec()}
    if isinstance(value, Gate):
        return {"gate": value.fields()}
    if isinstance(value, SaeManifoldRho):
        return {"rho": rho_fields(value)}
    if isinstance(value, Mapping):
        return {str(name): encode_parameter(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode_parameter(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    # A random generator has no place in a file: the seeds of a finished fit are of no more use.
    return None
