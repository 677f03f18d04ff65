"""The command line: its files, its output and its errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import sae_rs
from planted import fitted_two, one_circle, two_circles
from sae_rs.cli import main
from sae_rs.readers import read_matrix

X, X2 = one_circle()[0], two_circles()[0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: Any) -> Path:
    """An empty working directory with the rows of two circles in ``acts.npy``."""
    monkeypatch.chdir(tmp_path)
    np.save("acts.npy", X2)
    return tmp_path


def fails(capsys: Any, *arguments: str) -> str:
    """Run a command that must fail; returns its one line on standard error."""
    try:
        status = main(arguments)
    except SystemExit as stop:  # argparse leaves this way
        status = stop.code  # type: ignore[assignment]
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return str(captured.err)


def interrupt_after(evaluations: int) -> Callable[[sae_rs.FitProgress], None]:
    """A callback that stands for Ctrl-C at that evaluation."""

    def callback(event: sae_rs.FitProgress) -> None:
        if event.evaluation == evaluations:
            raise KeyboardInterrupt

    return callback


class TestFitAndEncode:
    def test_files(self, here: Path, capsys: Any) -> None:
        assert main(["fit", "acts.npy", "--atoms", "2", "--kind", "circle", "-o", "m.safetensors"]) == 0
        printed = capsys.readouterr().out
        assert "2 atoms, converged" in printed
        assert "written to m.safetensors" in printed

        np.save("new.npy", X2[:9].astype(np.float32))
        assert main(["encode", "m.safetensors", "new.npy", "-o", "enc.npz"]) == 0
        assert "9 rows encoded, 9 converged, written to enc.npz" in capsys.readouterr().out
        encoding = sae_rs.load("m.safetensors").encode(X2[:9].astype(np.float32))
        with np.load("enc.npz") as arrays:
            assert sorted(arrays) == ["coords_0", "coords_1", "gates", "logits", "objective", "status", "support"]
            np.testing.assert_array_equal(arrays["gates"], encoding.gates)
            np.testing.assert_array_equal(arrays["coords_1"], encoding.coords[1])

    def test_installed_command(self, here: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-c", "from sae_rs.cli import main; raise SystemExit(main())", "--version"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == f"sae-rs {sae_rs.__version__}"


class TestInputs:
    def test_npz(self, here: Path) -> None:
        np.savez("one.npz", a=X)
        np.savez("two.npz", a=X, b=X2)
        np.testing.assert_array_equal(read_matrix(here / "one.npz"), X)
        np.testing.assert_array_equal(read_matrix(here / "two.npz", "b"), X2)
        with pytest.raises(ValueError, match=r"holds 2 arrays \(a, b\): choose one with --key"):
            read_matrix(here / "two.npz")
        with pytest.raises(ValueError, match="has no array 'c'; it has a, b"):
            read_matrix(here / "two.npz", "c")

    def test_safetensors(self, here: Path) -> None:
        safetensors.numpy.save_file({"a": X, "b": X2}, "x.safetensors")
        np.testing.assert_array_equal(read_matrix(here / "x.safetensors", "a"), X)
        with pytest.raises(ValueError, match=r"2 arrays \(a, b\): choose one with --key"):
            read_matrix(here / "x.safetensors")

    def test_parquet(self, here: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({f"c{j}": X[:, j] for j in range(6)}), "columns.parquet")
        parquet.write_table(pyarrow.table({"id": range(60), "acts": X.tolist()}), "lists.parquet")
        np.testing.assert_array_equal(read_matrix(here / "columns.parquet"), X)
        np.testing.assert_array_equal(read_matrix(here / "lists.parquet"), X)
        np.testing.assert_array_equal(read_matrix(here / "lists.parquet", "acts"), X)
        parquet.write_table(pyarrow.table({"acts": [[1.0], [1.0, 2.0]]}), "ragged.parquet")
        with pytest.raises(ValueError, match="have different lengths"):
            read_matrix(here / "ragged.parquet")

    def test_parquet_without_pyarrow(self, here: Path, monkeypatch: Any) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        (here / "x.parquet").write_bytes(b"PAR1")
        with pytest.raises(ImportError, match=r"\.parquet files need pyarrow: pip install 'sae-rs\[parquet\]'"):
            read_matrix(here / "x.parquet")

    def test_npy_is_mapped(self, here: Path) -> None:
        assert isinstance(read_matrix(here / "acts.npy"), np.memmap)

    def test_objects_are_never_unpickled(self, here: Path) -> None:
        np.save("evil.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
        np.savez("evil.npz", a=np.array([{"a": 1}, None], dtype=object))
        for name in ("evil.npy", "evil.npz"):
            with pytest.raises(ValueError, match=f"{name} is not a readable .* file: .*[Oo]bject"):
                read_matrix(here / name)

    @pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.safetensors", "x.parquet"])
    @pytest.mark.parametrize("content", [b"", b"nonsense", bytes(200)])
    def test_damaged(self, here: Path, name: str, content: bytes) -> None:
        if name == "x.parquet":
            pytest.importorskip("pyarrow")
        (here / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} (is not a readable|cannot be read)"):
            read_matrix(here / name)


class TestErrors:
    def test_one_line_and_status_two(self, here: Path, capsys: Any) -> None:
        fit = ("fit", "acts.npy", "-o", "m.safetensors")
        assert "No such file or directory: 'no.npy'" in fails(capsys, "fit", "no.npy", "-o", "m.safetensors")
        assert "unknown file type '.txt'" in fails(capsys, "fit", "acts.txt", "-o", "m.safetensors")
        assert "did you mean 'circle'?" in fails(capsys, *fit, "--kind", "cirle")
        assert "n_atoms must be at least 0, got -1" in fails(capsys, *fit, "--atoms", "-1")
        assert "expected a number of atoms or auto, got 'two'" in fails(capsys, *fit, "--atoms", "two")
        assert "the output must end in .safetensors" in fails(capsys, "fit", "acts.npy", "-o", "m.bin")
        assert "there is no folder nowhere" in fails(capsys, "fit", "acts.npy", "-o", "nowhere/m.safetensors")
        assert "--key does not apply" in fails(capsys, *fit, "--key", "a")
        assert "required" in fails(capsys, "fit", "acts.npy")
        assert "required" in fails(capsys)
        assert not (here / "m.safetensors").exists()

    def test_encode(self, here: Path, capsys: Any) -> None:
        fitted_two().save("m.safetensors")
        np.save("narrow.npy", X2[:, :3])
        assert "X has 3 columns, but the model was fitted on 8" in fails(
            capsys, "encode", "m.safetensors", "narrow.npy", "-o", "enc.npz"
        )
        assert "is not a readable safetensors file" in fails(capsys, "encode", "acts.npy", "acts.npy", "-o", "enc.npz")
        assert "the output must end in .npz" in fails(capsys, "encode", "m.safetensors", "acts.npy", "-o", "enc.txt")

    def test_unconverged_fit_is_written_with_a_warning(self, here: Path, capsys: Any, monkeypatch: Any) -> None:
        fit = sae_rs.ManifoldSAE.fit
        monkeypatch.setattr(sae_rs.ManifoldSAE, "fit", lambda model, X: fit(model.set_params(max_outer=1), X))
        assert main(["fit", "acts.npy", "--atoms", "2", "-o", "m.safetensors"]) == 0
        assert capsys.readouterr().err.startswith("sae-rs: warning: the fit did not converge")
        assert not sae_rs.load("m.safetensors").converged_

    @pytest.mark.parametrize("atoms", ["2", "auto"])
    def test_interrupted_fit_is_written_with_a_status_of_its_own(
        self, atoms: str, here: Path, capsys: Any, monkeypatch: Any
    ) -> None:
        fit = sae_rs.ManifoldSAE.fit
        monkeypatch.setattr(
            sae_rs.ManifoldSAE, "fit", lambda model, X: fit(model.set_params(callback=interrupt_after(5)), X)
        )
        assert main(["fit", "acts.npy", "--atoms", atoms, "-o", "m.safetensors"]) == 130
        captured = capsys.readouterr()
        assert captured.err == "sae-rs: warning: the fit was interrupted; the model holds the best state found\n"
        assert "not converged (interrupted)" in captured.out
        assert "written to m.safetensors" in captured.out
        model = sae_rs.load("m.safetensors")
        assert model.certificate_.status == "interrupted"
        assert model.encode(X2[:9]).gates.shape == (9, len(model.decoders_))

    def test_interrupt_before_there_is_a_state(self, here: Path, capsys: Any, monkeypatch: Any) -> None:
        def interrupt(*arguments: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("sae_rs.problem.Problem.seeds", interrupt)
        assert main(["fit", "acts.npy", "-o", "m.safetensors"]) == 130
        assert capsys.readouterr().err == "sae-rs: interrupted\n"
        assert not (here / "m.safetensors").exists()


class TestDemo:
    def test_tables_and_pictures(self, here: Path, capsys: Any) -> None:
        pytest.importorskip("matplotlib")
        assert main(["demo", "-o", "out"]) == 0
        printed = capsys.readouterr().out
        assert "Monday - Tuesday - Wednesday - Thursday - Friday - Saturday - Sunday" in printed
        assert "5 principal components" in printed
        pictures = sorted(picture.name for picture in Path("out").iterdir())
        assert pictures == [*(f"dictionary_{k}.png" for k in range(3)), "months.png", "weekdays.png"]
        # the one circle of the days in the dictionary of both
        assert any(
            line.endswith(": " + ", ".join(sae_rs.datasets.load_weekdays().label_names))
            for line in printed.splitlines()
        )

    def test_interrupt_ends_it(self, here: Path, capsys: Any, monkeypatch: Any) -> None:
        pytest.importorskip("matplotlib")
        fit = sae_rs.ManifoldSAE.fit
        monkeypatch.setattr(
            sae_rs.ManifoldSAE, "fit", lambda model, X: fit(model.set_params(callback=interrupt_after(2)), X)
        )
        assert main(["demo", "-o", "out"]) == 130
        assert capsys.readouterr().err == "sae-rs: interrupted\n"
        assert not list(Path("out").iterdir())
