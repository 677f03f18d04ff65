"""Rows per second of the row program at 8 primaries, 64 outputs and 4 atoms, one row at a time and four at a time.

Run it as ``python benchmarks/jets.py``; it needs Cargo. Both paths run the same text in the same process, in turns, and
into arrays that are there already. Nothing is asserted.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMAND = ("cargo", "run", "--quiet", "--release", "--package", "sae-core", "--example", "jets_throughput")
DECODERS = {"shared": "one for all rows, as in a fit", "own": "each row its own"}


def main() -> None:
    text = subprocess.run(COMMAND, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    print("| decoders | rows per second, one by one | by four | ratio |")
    print("|---|---:|---:|---:|")
    for line in text.splitlines():
        name, scalar, lanes = line.split()
        print(f"| {DECODERS[name]} | {int(scalar):,} | {int(lanes):,} | {int(lanes) / int(scalar):.2f} |")


if __name__ == "__main__":
    main()
