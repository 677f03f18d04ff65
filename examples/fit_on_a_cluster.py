"""A fit whose rows are shared out among the workers of a Dask cluster: here two processes of this machine."""

import tempfile
from pathlib import Path

import numpy as np

import sae_rs
from sae_rs import cluster


def main() -> None:
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        print("this example needs Dask: pip install 'sae-rs[dask]'")
        return
    rng = np.random.default_rng(0)
    angle, which = rng.uniform(0.0, 2.0 * np.pi, 2000), rng.integers(2, size=2000)
    planes = np.linalg.qr(rng.standard_normal((16, 4)))[0].T.reshape(2, 2, 16)
    circles = np.einsum("nd,ndp->np", np.column_stack([np.cos(angle), np.sin(angle)]), planes[which])
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as processes,
        Client(processes) as client,
    ):
        path = Path(directory) / "rows.npy"
        np.save(path, circles + 0.05 * rng.standard_normal(circles.shape))
        shared = cluster.fit(sae_rs.ManifoldSAE(n_atoms=2), path, client)
        print(shared.summary())
        alone = sae_rs.ManifoldSAE(n_atoms=2).fit(path)
        same = shared.evidence_ == alone.evidence_ and np.array_equal(shared.gates_, alone.gates_)
        print(f"evidence and gates equal those of one process: {same}")


# processes of a cluster import the script that starts them
if __name__ == "__main__":
    main()
