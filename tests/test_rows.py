"""Rows from files and streams: the same numbers as from memory, to the last bit, and errors that name the file."""

from __future__ import annotations

import gc
import os
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

import sae_rs
from planted import fitted_mean, fitted_one, fitted_two, one_circle, two_circles
from reference.atoms import Atom, Circle, Line, Sphere
from reference.gates import IBP, Gate, Softmax, Threshold
from sae_rs import ConvergenceWarning, ManifoldSAE, _core, fit_data, memory, reml, rows
from sae_rs.problem import Problem
from sae_rs.readers import read_matrix
from sae_rs.rows import FileRows, open_rows, spooled
from sae_rs.validation import as_matrix
from strategies import Recipe
from test_core_against_reference import core_rho

Array = NDArray[np.float64]

N_ROWS = 300
"""Two full chunks of 128 rows, and a part of a third."""

CASES: dict[str, tuple[tuple[Atom, ...], Gate]] = {
    "softmax": ((Circle(1), Line()), Softmax()),
    "threshold": ((Sphere(1), Circle(2)), Threshold(0.2, 0.8)),
    "ibp": ((Circle(1), Circle(1)), IBP(logit_precision=0.5)),
}
DTYPES = ("<f4", ">f4", "<f8", ">f8")


# Terms --------------------------------------------------------------------------------------------------------------


def case(name: str, dtype: str) -> tuple[Array, dict[str, Any], Any]:
    """Rows that `dtype` holds exactly, the other arguments of a term of them, and strengths."""
    atoms, gate = CASES[name]
    recipe = Recipe(atoms, gate, n=N_ROWS, p=5, weighted=True, full_support=False, log_lambda_sparse=-1.0, seed=3)
    problem, state, rho = recipe.build()
    arguments = {
        "atoms": [atom.spec() for atom in atoms],
        "gate": gate.spec(len(atoms)),
        "logits": state.logits,
        "coords": list(state.coords),
        "decoders": list(state.decoders),
        "support": state.support,
        "weights": problem.weights,
    }
    return (problem.data + 3.0).astype(dtype).astype(np.float64), arguments, core_rho(rho)


def in_file(X: Array, dtype: str, path: Path, offset: int = 13) -> _core.RowFile:
    path.write_bytes(b"\xff" * offset + X.astype(dtype).tobytes() + b"\xff" * 5)
    return _core.RowFile(str(path), offset, dtype, (X.shape[0], X.shape[1]))


def same_term(one: Any, other: Any) -> None:
    for mine, theirs in zip([*one.decoders, *one.coords], [*other.decoders, *other.coords], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for name in ("logits", "gates", "support", "mean"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def same_evaluation(one: Any, other: Any) -> None:
    assert np.isfinite(one.value)
    assert one.value == other.value
    assert one.inner.status == other.inner.status
    assert one.inner.iterations == other.inner.iterations
    np.testing.assert_array_equal(one.gradient, other.gradient)
    same_term(one.term, other.term)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_a_file_gives_the_numbers_of_memory(name: str, dtype: str, tmp_path: Path) -> None:
    X, arguments, rho = case(name, dtype)
    memory = _core.SaeManifoldTerm(X, **arguments)
    file = _core.SaeManifoldTerm(in_file(X, dtype, tmp_path / "rows"), **arguments)
    assert memory.loss(rho) == file.loss(rho)
    for max_inner in (1, 30):
        same_evaluation(*(term.evaluate(rho, max_inner=max_inner) for term in (memory, file)))
    (refreshed, moved), (other, also) = memory.refreshed(rho), file.refreshed(rho)
    assert moved == also
    same_term(refreshed, other)


@pytest.mark.parametrize("elimination", ["primal", "dual", "complement"])
@pytest.mark.parametrize("name", CASES)
def test_rows_made_anew_give_the_numbers_of_rows_that_are_kept(name: str, elimination: str, tmp_path: Path) -> None:
    X, arguments, rho = case(name, "<f8")
    source = in_file(X, "<f8", tmp_path / "rows")
    terms = [_core.SaeManifoldTerm(source, **arguments, keep_rows=keep) for keep in (True, False)]
    terms.append(_core.SaeManifoldTerm(X, **arguments, keep_rows=False))
    options = {"max_inner": 20, "elimination": elimination, "traces": True}
    kept, *made = (term.evaluate(rho, **options) for term in terms)
    for evaluation in made:
        same_evaluation(kept, evaluation)
        np.testing.assert_array_equal(kept.edf, evaluation.edf)


@pytest.mark.parametrize("keep", [True, False])
def test_threads_change_no_bit(keep: bool, tmp_path: Path) -> None:
    X, arguments, rho = case("softmax", "<f4")
    term = _core.SaeManifoldTerm(in_file(X, "<f4", tmp_path / "rows"), **arguments, keep_rows=keep)
    same_evaluation(*(term.evaluate(rho, max_inner=30, threads=threads) for threads in (1, 2)))


def test_seeds_from_a_file_are_those_from_memory(tmp_path: Path) -> None:
    X = two_circles()[0].astype(np.float32).astype(np.float64)
    source = in_file(X, "<f4", tmp_path / "rows")
    arguments = [[sae_rs.Circle(1).spec()] * 2, sae_rs.Softmax().spec(2)]
    for (term, rho), (other, also) in zip(
        *(_core.SaeManifoldTerm.seeds(x, *arguments) for x in (X, source)), strict=True
    ):
        same_term(term, other)
        np.testing.assert_array_equal(rho.to_flat(), also.to_flat())


def test_a_term_refuses_files_that_it_cannot_use(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    X, arguments, _ = case("softmax", "<f8")
    with pytest.raises(OSError, match=re.escape(str(path))):
        _core.RowFile(str(path), 0, "<f8", (3, 2))
    source = in_file(X, "<f8", path, offset=0)
    with pytest.raises(OSError, match=r"do not fit its \d+ bytes"):
        _core.RowFile(str(path), 8, "<f8", X.shape)
    with pytest.raises(OSError, match="do not fit"):
        _core.RowFile(str(path), 0, "<f8", (2**62, 2**62))
    with pytest.raises(ValueError, match="dtype must be"):
        _core.RowFile(str(path), 0, "<f2", (3, 2))
    bad = X.copy()
    bad[200, 3] = np.nan
    with pytest.raises(ValueError, match=re.escape("[200, 3]")):
        _core.SaeManifoldTerm(in_file(bad, "<f8", tmp_path / "bad"), **arguments)
    path.unlink()
    with pytest.raises(OSError, match=re.escape(str(path))):
        _core.SaeManifoldTerm(source, **arguments)


READS: dict[str, Callable[[Any, Any], Any]] = {
    "evaluate": lambda term, rho: term.evaluate(rho, max_inner=2),
    "refreshed": lambda term, rho: term.refreshed(rho),
    "loss": lambda term, rho: term.loss(rho),
    "reml_criterion": lambda term, rho: term.reml_criterion(rho),
    "criterion_as_atoms": lambda term, rho: term.criterion_as_atoms(rho),
    "analytic_outer_rho_gradient": lambda term, rho: term.analytic_outer_rho_gradient(rho),
    "logdet_theta_adjoint": lambda term, rho: term.logdet_theta_adjoint(rho),
    "assemble_arrow_schur": lambda term, rho: term.assemble_arrow_schur(rho),
}


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("name", READS)
def test_a_file_that_shrinks_under_a_term_is_an_error(name: str, keep: bool, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    X, arguments, rho = case("softmax", "<f8")
    term = _core.SaeManifoldTerm(in_file(X, "<f8", path, offset=0), **arguments, keep_rows=keep)
    # at an optimum, where all of them have a value
    term = term.evaluate(rho, gradient=False).term
    READS[name](term, rho)
    os.truncate(path, X.nbytes // 2)
    with pytest.raises(OSError, match=f"rows could not be read: {re.escape(str(path))}"):
        READS[name](term, rho)
    # and an error is of the call that met it alone
    path.write_bytes(X.tobytes())
    READS[name](term, rho)


# What rows are opened from ------------------------------------------------------------------------------------------


def contents(X: object) -> Array:
    """Rows of whatever a fit may be given, as a fit sees them."""
    opened = as_matrix(X)
    return opened[:] if isinstance(opened, FileRows) else np.asarray(opened, dtype=np.float64)


@pytest.fixture
def table() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)


def test_paths_of_every_format(table: NDArray[np.float32], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", table)
    np.savez(tmp_path / "a.npz", table)
    safetensors.numpy.save_file({"x": table}, tmp_path / "a.safetensors")
    suffixes = [".npy", ".npz", ".safetensors"]
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        pass
    else:
        parquet.write_table(pyarrow.table({"x": list(table)}), tmp_path / "a.parquet")
        suffixes.append(".parquet")
    for suffix in suffixes:
        path = (tmp_path / "a").with_suffix(suffix)
        for name in (path, str(path)):
            np.testing.assert_array_equal(contents(name), table)
            assert as_matrix(name).dtype == np.float32
    for suffix in (".npy", ".safetensors"):
        assert isinstance(open_rows((tmp_path / "a").with_suffix(suffix)), FileRows)
    # one of several
    both = {"x": table, "y": np.arange(5, dtype=np.int8), "z": table[::-1].astype(np.float64)}
    safetensors.numpy.save_file(both, tmp_path / "b.safetensors")
    for name in ("x", "z"):
        np.testing.assert_array_equal(contents(read_matrix(tmp_path / "b.safetensors", name)), both[name])
    with pytest.raises(ValueError, match=r"holds 3 arrays \(x, y, z\): choose one"):
        as_matrix(tmp_path / "b.safetensors")
    # of other dtypes, and without rows
    safetensors.numpy.save_file({"x": np.arange(6).reshape(3, 2)}, tmp_path / "i.safetensors")
    np.testing.assert_array_equal(contents(tmp_path / "i.safetensors"), np.arange(6).reshape(3, 2))
    safetensors.numpy.save_file({"x": table[:0]}, tmp_path / "e.safetensors")
    assert as_matrix(tmp_path / "e.safetensors").shape == (0, 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_file_of_any_byte_order_is_read_where_it_lies(dtype: str, table: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", table.astype(dtype))
    opened = open_rows(tmp_path / "a.npy")
    assert isinstance(opened, FileRows)
    assert opened.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(opened.loaded(), table)
    np.testing.assert_array_equal(opened[:], table)


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    for X, error, message in (
        (tmp_path / "none.npy", FileNotFoundError, "none.npy"),
        (tmp_path / "a.csv", ValueError, "unknown file type '.csv'"),
        (tmp_path / "short.npy", ValueError, "short.npy is not a readable .npy file"),
        (tmp_path / "objects.npy", ValueError, "objects.npy is not a readable .npy file"),
        (tmp_path / "flat.npy", ValueError, "X must be two-dimensional (rows, columns), got shape (4,)"),
        (tmp_path / "text.npy", ValueError, "X must hold real numbers"),
    ):
        np.save(tmp_path / "short.npy", np.ones((50, 3)))
        os.truncate(tmp_path / "short.npy", 500)
        np.save(tmp_path / "objects.npy", np.array([[{}]]), allow_pickle=True)
        np.save(tmp_path / "flat.npy", np.ones(4))
        np.save(tmp_path / "text.npy", np.array([["a", "b"]]))
        for path in (X, str(X)):
            with pytest.raises(error, match=re.escape(message)):
                as_matrix(path)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_maps(mode: Any, table: NDArray[np.float32], tmp_path: Path) -> None:
    path, offset = tmp_path / "rows", 4103
    path.write_bytes(b"\0" * offset + table.tobytes())
    mapped = np.memmap(path, np.float32, mode, offset, table.shape)
    expected = table.copy()
    if mode != "r":
        mapped[7, 1] = expected[7, 1] = 42.0
    for part in (slice(None), slice(5, 31), slice(7, 8), slice(39, None)):
        opened = open_rows(mapped[part])
        # what was written to a private map is in no file
        assert isinstance(opened, FileRows) == (mode != "c")
        np.testing.assert_array_equal(contents(mapped[part]), expected[part])
    # slices of slices, and other views that lie in the file row after row
    np.testing.assert_array_equal(contents(mapped[5:31][3:9]), expected[8:14])
    np.testing.assert_array_equal(contents(mapped.reshape(20, 6)), expected.reshape(20, 6))
    np.testing.assert_array_equal(contents(mapped.view(np.ndarray)), expected)


def test_a_new_map_is_written_before_it_is_read(table: NDArray[np.float32], tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "rows", np.float32, "w+", 0, table.shape)
    mapped[:] = table
    assert isinstance(open_rows(mapped), FileRows)
    np.testing.assert_array_equal(contents(mapped), table)


def test_a_map_that_does_not_lie_row_after_row_is_an_array(table: NDArray[np.float32], tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(table.tobytes())
    mapped = np.memmap(path, np.float32, "r", 0, table.shape)
    maps = {
        "Fortran order": np.memmap(path, np.float32, "r", 0, table.shape, order="F"),
        "integers": np.memmap(path, np.int32, "r", 0, table.shape),
        "half": np.memmap(path, np.float16, "r", 0, table.shape),
        "one dimension": np.memmap(path, np.float32, "r"),
        "every other": mapped[::2],
        "columns": mapped[:, 1:],
        "backwards": mapped[::-1],
        "chosen": mapped[[1, 5, 2]],
        "sums": mapped + 1,
        "copy": mapped.copy(),
        "empty": mapped[3:3],
    }
    for name, view in maps.items():
        assert not isinstance(open_rows(view), FileRows), name
        np.testing.assert_array_equal(np.asarray(open_rows(view)), np.asarray(view))
    np.save(tmp_path / "f.npy", np.asfortranarray(table))
    np.testing.assert_array_equal(contents(tmp_path / "f.npy"), table)


@pytest.mark.skipif(os.name == "nt", reason="files that are open stay")
def test_a_map_outlives_its_path(table: NDArray[np.float32], tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(table.tobytes())
    mapped = np.memmap(path, np.float32, "r", 0, table.shape)
    path.unlink()
    np.testing.assert_array_equal(contents(mapped), table)
    path.write_bytes((table + 1).tobytes())
    np.testing.assert_array_equal(contents(mapped), table)


@pytest.mark.parametrize("offset", [0, 11])
def test_rows_of_a_file_are_taken_as_those_of_an_array(offset: int, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(rows, "BLOCK_BYTES", 7 * 3 * 8)
    X = np.random.default_rng(0).standard_normal((40, 3))
    path = tmp_path / "rows"
    path.write_bytes(b"\0" * offset + X.tobytes())
    opened = FileRows(path, offset, np.dtype(np.float64), X.shape)
    assert len(opened) == 40
    assert opened.itemsize == 8
    mask = X[:, 0] > 0.0
    for part in (
        3,
        -1,
        np.int64(5),
        slice(None),
        slice(3, 20),
        slice(-4, None),
        slice(30, 99),
        slice(9, 3),
        slice(2, 30, 5),
        slice(None, None, -1),
        mask,
        ~mask,
        np.zeros(40, dtype=bool),
        np.array([39, 0, 7, 7, -2]),
        [5, 1],
        np.zeros(0, dtype=int),
    ):
        taken = opened[part]
        assert taken.dtype == np.float64
        np.testing.assert_array_equal(taken, X[part])
    np.testing.assert_array_equal(opened.loaded(), X)
    for beyond in (40, -41, [3, 40], mask[:-1]):
        with pytest.raises(IndexError):
            opened[beyond]
    np.testing.assert_allclose(rows.column_mean(opened), X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(rows.column_variance(opened), X.var(axis=0).mean(), rtol=1e-12)
    np.testing.assert_array_equal(rows.column_mean(opened), rows.column_mean(X))


def test_rows_of_a_file_that_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    X = np.ones((40, 3))
    path.write_bytes(X.tobytes())
    opened = FileRows(path, 0, X.dtype, X.shape)
    os.truncate(path, 20 * 3 * 8)
    np.testing.assert_array_equal(opened[:20], X[:20])
    for part in (slice(None), slice(18, 22), 30, [1, 25], slice(0, 40, 3)):
        with pytest.raises(OSError, match=f"{re.escape(str(path))}.*shorter"):
            opened[part]
    with pytest.raises(OSError, match="shorter"):
        opened.loaded()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        opened[0]


# Streams ------------------------------------------------------------------------------------------------------------


class Loader:
    """Batches with a length, as loaders of training data have it."""

    def __init__(self, parts: list[Array]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Array]:
        return iter(self.parts)


def test_streams(table: NDArray[np.float32]) -> None:
    parts = [table[:7], table[7:7], table[7:8], table[8:]]
    for stream in (iter(parts), (part for part in parts), map(np.asarray, parts), Loader(parts), iter(table)):
        opened = open_rows(stream)
        assert isinstance(opened, FileRows)
        assert opened.dtype == np.float32
        np.testing.assert_array_equal(opened[:], table)
    np.testing.assert_array_equal(contents(row.tolist() for row in table), table)
    np.testing.assert_array_equal(contents(np.asfortranarray(part) for part in parts), table)
    big = open_rows(part.astype(">f4") for part in parts)
    assert isinstance(big, FileRows)
    assert big.dtype == np.float32
    np.testing.assert_array_equal(big[:], table)


def test_one_buffer_filled_again_and_again(table: NDArray[np.float32]) -> None:
    buffer = np.empty((4, 3))

    def stream() -> Iterator[Array]:
        for start in range(0, 40, 4):
            buffer[:] = table[start : start + 4]
            yield buffer

    np.testing.assert_array_equal(contents(stream()), table)


def test_a_wider_block_widens_the_stream(monkeypatch: Any) -> None:
    monkeypatch.setattr(rows, "BLOCK_BYTES", 5 * 3 * 8)
    rng = np.random.default_rng(0)
    single = rng.standard_normal((23, 3)).astype(np.float32)
    for double in (rng.standard_normal((4, 3)), np.full((1, 3), 2**24 + 1)):
        opened = open_rows(iter([single, double, single[:2]]))
        assert isinstance(opened, FileRows)
        assert opened.dtype == np.float64
        np.testing.assert_array_equal(opened[:], np.concatenate([single, double, single[:2]]))
    # a block without rows decides nothing
    assert as_matrix(iter([np.empty((0, 3)), single])).dtype == np.float32


def test_streams_that_are_no_matrix(table: NDArray[np.float32], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    masked = np.ma.masked_array(table, mask=table > 1.0)
    for parts, message in (
        ([], "X is a stream without rows"),
        ([table[:0]], "X is a stream without rows"),
        ([table, table[:, :2]], "block 1 has 2 columns, but the first has 3"),
        ([table[0], table[1, :1]], "block 1 has 1 columns, but the first has 3"),
        ([table, table.astype(str)], "block 1 is no matrix of real numbers"),
        ([table, table > 0.0], "block 1 is no matrix of real numbers"),
        ([table + 1j], "block 0 is no matrix of real numbers"),
        ([table[None]], "block 0 is no matrix of real numbers: shape (1, 40, 3)"),
        (list(table[:, 0]), "block 0 is no matrix of real numbers: shape ()"),
        ([None], "block 0 is no matrix of real numbers"),
        ([[[1.0, 2.0], [3.0]]], "block 0 cannot be read as an array"),
        ([table, masked], "block 1 has masked values"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            spooled(iter(parts))
        assert not list(tmp_path.iterdir())

    def breaks() -> Iterator[Array]:
        yield table
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spooled(breaks())
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="at least 1 column"):
        ManifoldSAE(1).fit(iter([[], []]))


def test_the_file_of_a_stream_goes_with_its_rows(table: Array, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    opened = spooled(iter([table]))
    part = opened[:3]
    assert len(list(tmp_path.iterdir())) == 1
    del opened
    gc.collect()
    assert not list(tmp_path.iterdir())
    np.testing.assert_array_equal(part, table[:3])


# Fits and encodings -------------------------------------------------------------------------------------------------


def same_fit(one: ManifoldSAE, other: ManifoldSAE) -> None:
    assert one.evidence_ == other.evidence_
    assert one.explained_variance_ == other.explained_variance_
    assert one.dispersion_ == other.dispersion_
    assert one.certificate_ == other.certificate_
    for name in ("gates_", "support_", "mean_"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for mine, theirs in zip([*one.coords_, *one.decoders_], [*other.coords_, *other.decoders_], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    mine, theirs = one.reconstruct(), other.reconstruct()
    assert mine.dtype == theirs.dtype
    np.testing.assert_array_equal(mine, theirs)


SOURCES: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "text": str,
    "map": lambda path: np.load(path, mmap_mode="r"),
    "stream": lambda path: iter(np.array_split(np.load(path), 5)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("source", SOURCES)
def test_few_rows_are_fitted_as_the_array_is(source: str, dtype: Any, tmp_path: Path) -> None:
    X = one_circle()[0].astype(dtype)
    np.save(tmp_path / "a.npy", X)
    options: dict[str, Any] = {"atom": sae_rs.Circle(1), "max_outer": 5}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fits = [ManifoldSAE(1, **options).fit(x) for x in (X, SOURCES[source](tmp_path / "a.npy"))]
    same_fit(*fits)
    assert fits[1].reconstruct().dtype == dtype


@pytest.fixture
def little_is_much(monkeypatch: Any) -> None:
    """Samples are drawn from 100 rows on, so that a file of little more is fitted as one of very many."""
    for module in (fit_data, memory, reml):
        monkeypatch.setattr(module, "SAMPLE_ABOVE", 100)
    for module in (memory, reml):
        monkeypatch.setattr(module, "SAMPLE_ROWS", 60)
    monkeypatch.setattr(rows, "BLOCK_BYTES", 32 * 8 * 8)


@pytest.mark.parametrize(("n_atoms", "scale"), [(0, 1), (2, 1), (64, 1), (65, 2), (1024, 16)])
def test_samples_have_64_rows_for_each_of_many_atoms(n_atoms: int, scale: int) -> None:
    assert memory.sample_scale(n_atoms) == scale
    assert scale * memory.SAMPLE_ROWS >= 64 * n_atoms


def unloaded(monkeypatch: Any) -> None:
    def refuse(_: FileRows) -> None:
        raise AssertionError("all rows were loaded")

    monkeypatch.setattr(FileRows, "loaded", refuse)


@pytest.mark.usefixtures("little_is_much")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("source", SOURCES)
def test_many_rows_are_fitted_as_the_array_is(source: str, weighted: bool, tmp_path: Path, monkeypatch: Any) -> None:
    X = two_circles(150)[0].astype(np.float32)
    np.save(tmp_path / "a.npy", X)
    weights = np.random.default_rng(0).uniform(0.5, 2.0, 150) if weighted else None
    options: dict[str, Any] = {"atom": sae_rs.Circle(1), "max_outer": 5, "n_init": 2}
    unloaded(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fits = [ManifoldSAE(2, **options).fit(x, weights) for x in (X, SOURCES[source](tmp_path / "a.npy"))]
    same_fit(*fits)
    same_evaluation(*(fit.term_.evaluate(fit.rho_, max_inner=2) for fit in fits))


@pytest.mark.usefixtures("little_is_much")
def test_many_rows_of_which_some_weigh_nothing(tmp_path: Path) -> None:
    X = two_circles(150)[0].astype(np.float32)
    np.save(tmp_path / "a.npy", X)
    weights = np.where(np.arange(150) % 7 == 0, 0.0, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fits = [ManifoldSAE(2, sae_rs.Circle(1), max_outer=3).fit(x, weights) for x in (X, tmp_path / "a.npy")]
    same_fit(*fits)


@pytest.mark.usefixtures("little_is_much")
def test_what_has_to_be_in_memory_is_loaded(tmp_path: Path) -> None:
    X = one_circle(120)[0]
    np.save(tmp_path / "a.npy", X)
    path = tmp_path / "a.npy"
    same_fit(ManifoldSAE(0).fit(X), ManifoldSAE(0).fit(path))
    metric = sae_rs.RowMetric(np.broadcast_to(np.eye(6), (120, 6, 6)).copy(), "fisher")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        one, other = (ManifoldSAE(1, sae_rs.Circle(1), max_outer=2).fit(x, metric=metric) for x in (X, path))
        same_fit(one, other)
        same_fit(*(ManifoldSAE("auto", "circle", max_atoms=1, max_outer=2).fit(x) for x in (X, path)))


def test_a_fit_that_has_no_room_to_keep_its_rows_is_the_same(tmp_path: Path) -> None:
    X = two_circles(300)[0]
    np.save(tmp_path / "a.npy", X)
    atoms = [sae_rs.Circle(1)] * 2
    budget = memory.check_memory(None, *X.shape, atoms).bytes - 1
    assert not memory.check_memory(budget, *X.shape, atoms).keep_rows
    options: dict[str, Any] = {"atom": sae_rs.Circle(1), "max_outer": 2, "n_init": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        kept = ManifoldSAE(2, **options).fit(X)
        for source in (X, tmp_path / "a.npy"):
            same_fit(kept, ManifoldSAE(2, memory_budget=budget, **options).fit(source))


@pytest.mark.usefixtures("little_is_much")
def test_a_fit_of_a_file_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    X = one_circle(120)[0]
    np.save(tmp_path / "a.npy", X)
    mark = tmp_path / "mark"
    options: dict[str, Any] = {"atom": sae_rs.Circle(1), "max_outer": 4, "checkpoint_every": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        whole = ManifoldSAE(1, checkpoint=mark, **options).fit(tmp_path / "a.npy")
        # the digest is of the values, wherever they come from
        for source in (X, tmp_path / "a.npy", iter(np.array_split(X, 3))):
            same_fit(whole, ManifoldSAE(1, **options).fit(source, resume=mark))


@pytest.mark.usefixtures("little_is_much")
@pytest.mark.parametrize("when", ["sample", "whole"])
@pytest.mark.parametrize("harm", ["shorter", "gone"])
def test_a_file_that_goes_while_it_is_fitted_is_an_error(harm: str, when: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, two_circles(600)[0])
    stages: list[str] = []

    def spoil(progress: Any) -> None:
        # all rows have a start of their own after the search on the sample
        reached = when == "sample" or (progress.stage == "start" and "search" in stages)
        stages.append(progress.stage)
        if reached and harm == "shorter":
            os.truncate(path, 20000)
        elif reached:
            path.unlink(missing_ok=True)

    found = ManifoldSAE(2, sae_rs.Circle(1), max_outer=5, n_init=1, callback=spoil)
    with pytest.raises(OSError, match=r"a\.npy"):
        found.fit(path)
    assert not hasattr(found, "coords_")


@pytest.mark.usefixtures("little_is_much")
def test_values_that_are_no_numbers_are_found_in_a_file(tmp_path: Path) -> None:
    X = one_circle(150)[0]
    X[140, 2] = np.inf
    np.save(tmp_path / "a.npy", X)
    with pytest.raises(ValueError, match=re.escape("the first is X[140, 2] = inf")):
        ManifoldSAE(1).fit(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=re.escape("the first is X[140, 2] = inf")):
        ManifoldSAE(1).fit(iter(X))
    np.save(tmp_path / "b.npy", np.ones((150, 6)))
    with pytest.raises(ValueError, match="all 150 rows are equal"):
        ManifoldSAE(1).fit(tmp_path / "b.npy")


@pytest.mark.parametrize("fitted", [fitted_one, fitted_mean])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("source", SOURCES)
def test_encoding(source: str, dtype: Any, fitted: Callable[[], ManifoldSAE], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("sae_rs.encoding.ENCODED_ROWS", 11)
    monkeypatch.setattr(rows, "BLOCK_BYTES", 9 * 6 * 8)
    found = fitted()
    X = one_circle(40, seed=5)[0].astype(dtype)
    np.save(tmp_path / "a.npy", X)

    def given() -> Any:
        return SOURCES[source](tmp_path / "a.npy")

    expected, encoding = found.encode(X), found.encode(given())
    assert len(encoding) == 40
    for name in ("gates", "logits", "support", "objective", "status"):
        np.testing.assert_array_equal(getattr(encoding, name), getattr(expected, name))
    for mine, theirs in zip(encoding.coords, expected.coords, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(found.transform(given()), expected.gates)
    assert found.score(given()) == found.score(X)
    back = found.reconstruct(given())
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, found.reconstruct(X))


def test_encoding_in_parts_changes_no_bit(monkeypatch: Any) -> None:
    found, X = fitted_two(), two_circles(70, seed=4)[0]
    whole = found.encode(X)
    monkeypatch.setattr("sae_rs.encoding.ENCODED_BYTES", 8 * 8 * 9)
    parts = found.encode(X)
    for name in ("gates", "logits", "support", "objective", "status"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    for mine, theirs in zip(whole.coords, parts.coords, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_weights_of_rows_in_a_file(tmp_path: Path) -> None:
    X = one_circle()[0]
    X[3] *= 40.0
    np.save(tmp_path / "a.npy", X)
    expected = sae_rs.huber_weights(X)
    assert expected.min() < 0.5
    for given in (tmp_path / "a.npy", iter(X)):
        np.testing.assert_array_equal(sae_rs.huber_weights(given), expected)


def test_rows_to_encode_are_checked_wherever_they_come_from(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 7)))
    for X in (tmp_path / "a.npy", iter(np.ones((4, 7)))):
        with pytest.raises(ValueError, match="X has 7 columns, but the model was fitted on 6"):
            fitted_one().encode(X)
    with pytest.raises(ValueError, match="without rows"):
        fitted_one().encode(iter([]))


def test_the_file_of_a_stream_goes_when_it_is_encoded_or_fitted(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    X = two_circles()[0]
    fitted_two().encode(iter(X))
    fitted_two().score(iter(X))
    fitted_two().reconstruct(iter(X))
    ManifoldSAE(0).fit(iter(X))
    gc.collect()
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::sae_rs.ConvergenceWarning")
def test_a_plan_that_changes_after_the_start_changes_no_number(monkeypatch: Any) -> None:
    rng = np.random.default_rng(0)
    n_atoms, p, n = 12, 8, 300
    planes = np.linalg.qr(rng.standard_normal((n_atoms, p, 2)))[0].transpose(0, 2, 1)
    circle, angle = rng.integers(n_atoms, size=n), rng.uniform(0.0, 2.0 * np.pi, n)
    X = np.einsum("ij,ijp->ip", np.column_stack([np.cos(angle), np.sin(angle)]), planes[circle])
    X += 0.05 * rng.standard_normal(X.shape)
    circle_kind, gate = sae_rs.Circle(harmonics=1), sae_rs.ThresholdGate()
    assert memory.is_crowded(p, [circle_kind] * n_atoms, gate)

    def fitted() -> ManifoldSAE:
        return ManifoldSAE(n_atoms, circle_kind, gate=gate, max_outer=2).fit(X)

    kept = fitted()
    planned: list[bool] = []

    def anew(problem: Problem, _: _core.SaeManifoldTerm) -> Problem:
        planned.append(problem.keep_rows)
        return replace(problem, keep_rows=False)

    monkeypatch.setattr(reml, "_planned", anew)
    made_anew = fitted()
    assert planned == [True]
    assert made_anew.evidence_ == kept.evidence_
    np.testing.assert_array_equal(made_anew.gates_, kept.gates_)
