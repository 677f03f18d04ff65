"""The command ``sae-rs``: fit, encode, and a demonstration on the data sets of the package."""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from . import __version__
from .files import write_atomically
from .io import load
from .model import ManifoldSAE
from .readers import SUFFIXES, read_matrix
from .stopping import INTERRUPTED

USAGE_ERROR = 2
# What a shell reports for a process that Ctrl-C ended.
INTERRUPT_STATUS = 130


class _Parser(argparse.ArgumentParser):
    """Parser whose errors are one line, like all errors of the command."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: error: {message}\n")


def _n_atoms(text: str) -> int | str:
    """A number of atoms, or "auto"."""
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number of atoms or auto, got {text!r}") from None


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = _Parser(prog="sae-rs", description="Sparse dictionaries of curved atoms, chosen by marginal likelihood.")
    parser.add_argument("--version", action="version", version=f"sae-rs {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    formats = ", ".join(SUFFIXES)

    fit = commands.add_parser("fit", help="fit a dictionary to the rows of a file and write the model")
    fit.add_argument("input", type=Path, help=f"rows to fit ({formats})")
    fit.add_argument("--atoms", type=_n_atoms, default=8, metavar="K", help="number of atoms, or auto (default: 8)")
    fit.add_argument("--kind", default="circle", help="kind of the atoms (default: circle)")
    fit.add_argument("--seed", type=int, default=0, help="seed of the starting points (default: 0)")
    fit.add_argument("--key", help="which array or column of the input, when it has several")
    fit.add_argument("-o", "--output", type=Path, required=True, help="model to write (.safetensors)")
    fit.set_defaults(run=run_fit)

    encode = commands.add_parser("encode", help="encode the rows of a file with a model")
    encode.add_argument("model", type=Path, help="model that fit wrote")
    encode.add_argument("input", type=Path, help=f"rows to encode ({formats})")
    encode.add_argument("--key", help="which array or column of the input, when it has several")
    encode.add_argument("-o", "--output", type=Path, required=True, help="arrays to write (.npz)")
    encode.set_defaults(run=run_encode)

    demo = commands.add_parser("demo", help="fit the weekdays and months of the package, print tables, draw pictures")
    demo.add_argument("-o", "--output", type=Path, default=Path("demo_output"), metavar="DIR", help="where pictures go")
    demo.set_defaults(run=run_demo)
    return parser


def run_fit(arguments: argparse.Namespace) -> int:
    """Fit, write the model and print its summary; an interrupted fit is written too, but has its own exit status."""
    _check_output(arguments.output, ".safetensors")
    model = ManifoldSAE(
        n_atoms=arguments.atoms,
        atom=arguments.kind,
        random_state=arguments.seed,
        progress=True if sys.stderr.isatty() else None,
    )
    model.fit(read_matrix(arguments.input, arguments.key))
    model.save(arguments.output)
    print(model.summary())
    print(f"\nwritten to {arguments.output}")
    return INTERRUPT_STATUS if model.certificate_.status == INTERRUPTED else 0


def run_encode(arguments: argparse.Namespace) -> int:
    """Encode and write gates, coords_0, coords_1, ..., logits, support, objective and status."""
    _check_output(arguments.output, ".npz")
    model = load(arguments.model)
    encoding = model.encode(read_matrix(arguments.input, arguments.key))
    content = io.BytesIO()
    coords = {f"coords_{k}": t for k, t in enumerate(encoding.coords)}
    np.savez(
        content,
        gates=encoding.gates,
        logits=encoding.logits,
        support=encoding.support,
        objective=encoding.objective,
        status=encoding.status,
        **coords,  # type: ignore[arg-type]
    )
    write_atomically(arguments.output, content.getvalue())
    converged = int(np.count_nonzero(encoding.status == 0))
    print(f"{len(encoding)} rows encoded, {converged} converged, written to {arguments.output}")
    return 0


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the demonstration."""
    from .demo import run

    run(arguments.output)
    return 0


def _check_output(path: Path, suffix: str) -> None:
    """Refuse an output that cannot be written before the work that it is to hold."""
    if path.suffix.lower() != suffix:
        raise ValueError(f"{path}: the output must end in {suffix}")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns
    -------
    int
        The exit status: 0; 2 after an error, told in one line on standard error; 130 after Ctrl-C.
    """
    arguments = build_parser().parse_args(argv)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            status = int(arguments.run(arguments))
        for warning in caught:
            if issubclass(warning.category, UserWarning):
                print(f"sae-rs: warning: {_one_line(warning.message)}", file=sys.stderr)
    except (ValueError, OSError, ImportError, MemoryError) as error:
        print(f"sae-rs: error: {_one_line(error)}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("sae-rs: interrupted", file=sys.stderr)
        return INTERRUPT_STATUS
    return status


def _one_line(message: object) -> str:
    return " ".join(str(message).split()) or type(message).__name__
