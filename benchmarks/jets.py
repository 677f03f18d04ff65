"""Rows per second of the row program at 8 primaries, 64 outputs and 4 atoms, one row at a time and four at a time.

    python benchmarks/jets.py

It needs Cargo. Both paths run the same text in the same process, in turns, each into arrays that are there already. The
whole takes seconds, so that ``--quick`` only leaves the file as it is.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from common import Report, parser, table

ROOT = Path(__file__).parent.parent
COMMAND = ("cargo", "run", "--quiet", "--release", "--package", "sae-core", "--example", "jets_throughput")
DECODERS = {"shared": "one for all rows, as in a fit", "own": "each row its own"}


def main() -> None:
    arguments = parser(__doc__).parse_args()
    if shutil.which(COMMAND[0]) is None:
        print("This benchmark needs Cargo.")
        return
    report = Report("jets", "The row program", arguments.quick)
    text = subprocess.run(COMMAND, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    lines = []
    for line in text.splitlines():
        name, scalar, lanes = line.split()
        lines.append([DECODERS[name], f"{int(scalar):,}", f"{int(lanes):,}", f"{int(lanes) / int(scalar):.2f}"])
    head = ["decoders", "rows per second, one by one", "by four", "ratio"]
    report.add(table("8 primaries, 64 outputs, 4 atoms", head, lines))


if __name__ == "__main__":
    main()
