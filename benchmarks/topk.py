"""A TopK sparse autoencoder in NumPy, for comparison."""

from __future__ import annotations

import numpy as np
from common import FloatArray

# Rows of a batch at most; fewer where an epoch would otherwise have only a few steps.
BATCH, LEAST_BATCH, STEPS = 256, 16, 20
EPOCHS = 600
# Training ends when this many epochs have not brought the loss down by this share.
PATIENCE, LEAST_GAIN = 40, 1e-3
# Every so many epochs, up to a last one, latents that no row has used are pointed at rows that are explained badly.
REVIVE_EVERY, REVIVE_UNTIL = 5, 150
# Learning rates worth trying on rows of unit mean square length.
RATES = (1e-2, 3e-3)
BETAS, FLOOR = (0.9, 0.999), 1e-8


def _units(rows: FloatArray) -> FloatArray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


class TopK:
    """A sparse autoencoder whose code keeps its largest positive entries: ``x̂ = b + topk(relu((x − b) E + e)) D``.

    Trained with Adam on the mean squared error of rows brought to unit mean square length. Rows of D (latents, p) are
    unit vectors, and E (p, latents) starts as its transpose.
    """

    def __init__(self, n_latents: int, active: int, rate: float, seed: int) -> None:
        self.n_latents, self.active, self.rate = n_latents, active, rate
        self.rng = np.random.default_rng(seed)
        self.epochs = 0

    def code(self, rows: FloatArray) -> FloatArray:
        code = np.maximum((rows - self.b) @ self.E + self.e, 0.0)
        if self.active < self.n_latents:
            drop = np.argpartition(code, -self.active, axis=1)[:, : -self.active]
            np.put_along_axis(code, drop, 0.0, axis=1)
        return np.asarray(code)

    def reconstruct(self, rows: FloatArray) -> FloatArray:
        code = self.code((rows - self.shift) / self.scale)
        return np.asarray(self.shift + self.scale * (self.b + code @ self.D))

    def fit(self, rows: FloatArray) -> TopK:
        self.shift = rows.mean(axis=0)
        self.scale = float(np.sqrt(np.square(rows - self.shift).sum(axis=1).mean()))
        X = (rows - self.shift) / self.scale
        n, p = X.shape
        # directions of rows are a better start than random ones
        start = X[self.rng.choice(n, self.n_latents, replace=n < self.n_latents)]
        self.D = _units(start + 0.1 / np.sqrt(p) * self.rng.standard_normal(start.shape))
        self.E, self.e, self.b = self.D.T.copy(), np.zeros(self.n_latents), np.zeros(p)
        moments = {name: (np.zeros_like(getattr(self, name)), np.zeros_like(getattr(self, name))) for name in "DEeb"}
        steps, best, since = 0, np.inf, 0
        size = min(BATCH, max(LEAST_BATCH, n // STEPS))
        for epoch in range(EPOCHS):
            total, used = 0.0, np.zeros(self.n_latents, dtype=bool)
            order = self.rng.permutation(n)
            # falls to a tenth over the course, so that the end is no matter of the step
            rate = self.rate * 0.1 ** (epoch / EPOCHS)
            for first in range(0, n, size):
                batch = X[order[first : first + size]]
                code = self.code(batch)
                residual = self.b + code @ self.D - batch
                total += float(np.square(residual).sum())
                used |= (code > 0.0).any(axis=0)
                into = residual * (2.0 / len(batch))
                back = (into @ self.D.T) * (code > 0.0)
                slopes = {
                    "D": code.T @ into,
                    "E": (batch - self.b).T @ back,
                    "e": back.sum(axis=0),
                    "b": into.sum(axis=0) - self.E @ back.sum(axis=0),
                }
                # along the sphere of unit rows
                slopes["D"] -= np.sum(slopes["D"] * self.D, axis=1, keepdims=True) * self.D
                steps += 1
                for name, slope in slopes.items():
                    first_moment, second_moment = moments[name]
                    first_moment += (1.0 - BETAS[0]) * (slope - first_moment)
                    second_moment += (1.0 - BETAS[1]) * (slope**2 - second_moment)
                    mean = first_moment / (1.0 - BETAS[0] ** steps)
                    spread = np.sqrt(second_moment / (1.0 - BETAS[1] ** steps)) + FLOOR
                    setattr(self, name, getattr(self, name) - rate * mean / spread)
                self.D = _units(self.D)
            self.epochs = epoch + 1
            revived = 0
            if epoch % REVIVE_EVERY == REVIVE_EVERY - 1 and epoch < REVIVE_UNTIL:
                revived = self._revive(X, ~used, moments)
            loss = total / n
            if loss < best * (1.0 - LEAST_GAIN):
                best, since = loss, 0
            elif not revived:
                since += 1
            if since >= PATIENCE:
                break
        return self

    def _revive(
        self,
        X: FloatArray,
        unused: np.ndarray[tuple[int], np.dtype[np.bool_]],
        moments: dict[str, tuple[FloatArray, FloatArray]],
    ) -> int:
        """Point unused latents at residuals, drawn by their squares; returns how many there were."""
        count = int(unused.sum())
        if not count:
            return 0
        residual = X - self.b - self.code(X) @ self.D
        weight = np.square(residual).sum(axis=1)
        rows = residual[self.rng.choice(len(X), count, p=weight / weight.sum())]
        self.D[unused] = _units(rows)
        self.E[:, unused] = self.D[unused].T
        self.e[unused] = 0.0
        for moment in moments["D"]:
            moment[unused] = 0.0
        for moment in moments["E"]:
            moment[:, unused] = 0.0
        for moment in moments["e"]:
            moment[unused] = 0.0
        return count
