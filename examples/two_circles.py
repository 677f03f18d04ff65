"""Your own array: two circles in different planes, one of them active in each row."""

import numpy as np

import sae_rs

rng = np.random.default_rng(0)
n, width, noise = 400, 12, 0.05
angle = rng.uniform(0.0, 2.0 * np.pi, n)
which = np.arange(n) % 2
planes = np.linalg.qr(rng.standard_normal((width, 4)))[0].T.reshape(2, 2, width)
ring = np.column_stack([np.cos(angle), np.sin(angle)])
X = np.einsum("nd,ndp->np", ring, planes[which]) + noise * rng.standard_normal((n, width))

models = {n_atoms: sae_rs.ManifoldSAE(n_atoms=n_atoms).fit(X) for n_atoms in (0, 1, 2)}
print("evidence (lower is better):", {k: round(model.evidence_, 1) for k, model in models.items()})

model = models[2]
print(model.summary())
routing = np.argmax(model.gates_, axis=1)
print(f"\nrows sent to the right circle: {max(np.mean(routing == which), np.mean(routing != which)):.1%}")

new = X[:5] + noise * rng.standard_normal((5, width))
encoding = model.encode(new)
print("gates of five new rows:\n", encoding.gates.round(3))
print("largest change by encoding and decoding:", float(np.abs(model.decode(encoding) - new).max().round(3)))
