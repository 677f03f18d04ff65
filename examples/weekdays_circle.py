"""The week as a circle: one atom on real activations, and where each day lies on it."""

import numpy as np

import sae_rs

days = sae_rs.datasets.load_weekdays()
model = sae_rs.ManifoldSAE(n_atoms=1, atom="circle").fit(days.X)
print(model.summary())

angle = model.coords_[0][:, 0]
means = {
    name: np.angle(np.exp(1j * angle[days.labels == label]).mean()) % (2 * np.pi)
    for label, name in enumerate(days.label_names)
}
print("\nmean angle of each day, in degrees:")
for name in sorted(means, key=means.__getitem__):
    print(f"  {name:<10} {np.degrees(means[name]):6.1f}")
