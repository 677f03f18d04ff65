from dataclasses import dataclass


@dataclass(frozen=True)
class Certificate:
    gradient_norm: float


@dataclass(frozen=True)
class FitProgress:
    stage: str


def fit_dictionary(*a, **k): ...
