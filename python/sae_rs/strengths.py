"""Log strengths as plain values, so that they can be copied, pickled and stored."""

from __future__ import annotations

import copyreg
from typing import Any

import numpy as np

from ._core import SaeManifoldRho


def rho_fields(rho: SaeManifoldRho) -> dict[str, Any]:
    """Constructor arguments that make an equal `rho`, as Python numbers, lists and text."""
    fields = {
        "log_lambda_sparse": rho.log_lambda_sparse,
        "log_lambda_smooth": np.asarray(rho.log_lambda_smooth).tolist(),
        "log_ard": [np.asarray(block).tolist() for block in rho.log_ard],
        "ard_sharing": rho.ard_sharing,
        "log_dispersion": rho.log_dispersion,
    }
    if rho.fixed_dispersion and rho.log_dispersion is not None:
        fields["fixed_dispersion"] = True
    return fields


def _rebuild(fields: dict[str, Any]) -> SaeManifoldRho:
    return SaeManifoldRho(**fields)


# An estimator is cloned and pickled with its parameters, and `rho` is one of them.
copyreg.pickle(SaeManifoldRho, lambda rho: (_rebuild, (rho_fields(rho),)))
