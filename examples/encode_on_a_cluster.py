"""Rows of a fitted model on a Dask cluster: here two processes of this machine, which read the rows from their file."""

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
    days = sae_rs.datasets.load_weekdays()
    model = sae_rs.ManifoldSAE(n_atoms=1, atom="circle").fit(days.X)
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as processes,
        Client(processes) as client,
    ):
        path = Path(directory) / "days.npy"
        np.save(path, np.tile(days.X, (20, 1)))
        encoding = cluster.encode(model, path, client, block_rows=500)
        print(f"{len(encoding)} rows encoded by {len(client.nthreads())} workers")
        same = np.array_equal(encoding.coords[0], model.encode(path).coords[0])
        print(f"coordinates equal those of one process: {same}")
        print(f"explained variance: {cluster.score(model, path, client, block_rows=500):.4f}")


# processes of a cluster import the script that starts them
if __name__ == "__main__":
    main()
