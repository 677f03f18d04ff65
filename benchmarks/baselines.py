"""Linear dictionaries that users know, at a given number of decoder rows and of active numbers a row.

Each baseline takes training and test rows, and returns the test rows as it reconstructs them. Where a method has a
setting that matters, a few are tried and the one that explains the *training* rows best is kept.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from common import FloatArray
from topk import RATES, TopK

# Starts of the autoencoder, which ends in different optima.
STARTS = 2
ALPHAS = (0.1, 0.3)


@dataclass(frozen=True)
class Found:
    """Reconstructed test rows, the seconds that the chosen setting took to fit, and which setting that was."""

    rows: FloatArray
    seconds: float
    setting: str


def explained(rows: FloatArray, found: FloatArray, mean: FloatArray) -> float:
    """Share of the variance about the mean of the training rows."""
    return float(1.0 - np.square(rows - found).sum() / np.square(rows - mean).sum())


def _best(
    settings: Iterable[tuple[str, Callable[[], Callable[[FloatArray], FloatArray]]]],
    train: FloatArray,
    test: FloatArray,
) -> Found:
    """Fit every setting, keep the one that explains the training rows best."""
    best, chosen = -np.inf, None
    for name, fit in settings:
        start = time.perf_counter()
        reconstruct = fit()
        taken = time.perf_counter() - start
        value = explained(train, reconstruct(train), train.mean(axis=0))
        if value > best:
            best, chosen = value, (reconstruct, taken, name)
    assert chosen is not None
    reconstruct, taken, name = chosen
    return Found(reconstruct(test), taken, name)


def pca(train: FloatArray, test: FloatArray, n_components: int) -> Found:
    """Principal components."""
    start = time.perf_counter()
    mean = train.mean(axis=0)
    _, _, axes = np.linalg.svd(train - mean, full_matrices=False)
    axes = axes[:n_components]
    taken = time.perf_counter() - start
    return Found(mean + (test - mean) @ axes.T @ axes, taken, "")


def k_means(train: FloatArray, test: FloatArray, n_centroids: int, seed: int) -> Found:
    """The nearest of some centroids; k-means++ and four starts."""
    from sklearn.cluster import KMeans

    start = time.perf_counter()
    model = KMeans(min(n_centroids, len(train)), n_init=4, random_state=seed).fit(train)
    taken = time.perf_counter() - start
    return Found(model.cluster_centers_[model.predict(test)], taken, "4 starts")


def dictionary_learning(train: FloatArray, test: FloatArray, n_rows: int, active: int, seed: int) -> Found:
    """scikit-learn's `MiniBatchDictionaryLearning`; test rows are coded by orthogonal matching pursuit."""
    from sklearn.decomposition import MiniBatchDictionaryLearning

    mean = train.mean(axis=0)
    scale = float(np.sqrt(np.square(train - mean).sum(axis=1).mean()))

    def fit(alpha: float) -> Callable[[FloatArray], FloatArray]:
        with warnings.catch_warnings():
            # least angle regression drops a direction that is nearly another's twin, and says so
            warnings.simplefilter("ignore")
            model: Any = MiniBatchDictionaryLearning(
                n_rows,
                alpha=alpha,
                batch_size=256,
                max_iter=100,
                transform_algorithm="omp",
                transform_n_nonzero_coefs=active,
                random_state=seed,
            ).fit((train - mean) / scale)

        def reconstruct(rows: FloatArray) -> FloatArray:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                codes = model.transform((rows - mean) / scale)
            return np.asarray(mean + scale * (codes @ model.components_))

        return reconstruct

    return _best([(f"alpha {alpha}", partial(fit, alpha)) for alpha in ALPHAS], train, test)


def sparse_autoencoder(train: FloatArray, test: FloatArray, n_latents: int, active: int, seed: int) -> Found:
    """A TopK sparse autoencoder, from the start and at the learning rate that suit the training rows best."""
    trained: dict[str, TopK] = {}

    def fit(name: str, rate: float, start: int) -> Callable[[FloatArray], FloatArray]:
        trained[name] = TopK(n_latents, active, rate, start).fit(train)
        return trained[name].reconstruct

    settings = {f"rate {rate:g}, start {start}": (rate, seed + start) for rate in RATES for start in range(STARTS)}
    found = _best([(name, partial(fit, name, *values)) for name, values in settings.items()], train, test)
    return replace(found, setting=f"{found.setting}, {trained[found.setting].epochs} epochs")
