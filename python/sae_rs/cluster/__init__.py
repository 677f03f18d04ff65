"""Work on a Dask cluster: fits whose rows are shared out among the workers, and rows encoded or scored in blocks.

Dask is imported when a function is called: ``pip install 'sae-rs[dask]'``.
"""

from .blocks import encode, score, transform
from .fits import fit

__all__ = ["encode", "fit", "score", "transform"]
