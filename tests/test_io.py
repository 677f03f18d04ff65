"""Files: an exact round trip, and a clear refusal of anything else."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import sae_rs
from planted import fitted_mean, fitted_one, fitted_two, one_circle, two_circles
from sae_rs import Circle, ManifoldSAE, SaeManifoldRho, Softmax
from sae_rs.containers import checksum
from sae_rs.files import write_atomically

X, X2 = one_circle()[0], two_circles()[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def reload(model: ManifoldSAE, path: Path) -> ManifoldSAE:
    model.save(path)
    return sae_rs.load(path)


class TestRoundTrip:
    @pytest.mark.parametrize(("fitted", "rows"), [(fitted_mean, X), (fitted_one, X), (fitted_two, X2)])
    def test_identical_bits(self, fitted: Any, rows: Any, path: Path) -> None:
        model, again = fitted(), reload(fitted(), path)
        before, after = model.encode(rows), again.encode(rows)
        for name in ("gates", "logits", "support", "objective", "status"):
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
        for one, other in zip(before.coords, after.coords, strict=True):
            np.testing.assert_array_equal(one, other)
        for name in ("gates_", "support_", "mean_"):
            np.testing.assert_array_equal(getattr(model, name), getattr(again, name))
            assert getattr(model, name).dtype == getattr(again, name).dtype
        for name in ("evidence_", "evidence_parts_", "dispersion_", "converged_", "certificate_", "n_features_in_"):
            assert getattr(model, name) == getattr(again, name)
        assert again.explained_variance_ == model.explained_variance_
        np.testing.assert_array_equal(model.rho_.to_flat(), again.rho_.to_flat())
        np.testing.assert_array_equal(model.reconstruct(), again.reconstruct())
        assert again.summary() == model.summary()

    def test_curve(self, path: Path) -> None:
        again = reload(fitted_two(), path)
        for before, after in zip(fitted_two().curve(1), again.curve(1), strict=True):
            np.testing.assert_array_equal(before, after)

    def test_float32(self, path: Path) -> None:
        model = ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1)).fit(X.astype(np.float32))
        again = reload(model, path)
        assert again.reconstruct().dtype == np.float32
        np.testing.assert_array_equal(model.reconstruct(), again.reconstruct())

    def test_parameters(self, path: Path) -> None:
        rho = SaeManifoldRho(log_lambda_smooth=[-4.0, -4.0], log_dispersion=-5.0)
        model = ManifoldSAE(
            n_atoms=np.int64(2),  # type: ignore[arg-type]
            atom=[Circle(harmonics=1), "circle"],
            gate=Softmax(temperature=1.0),
            rho=rho,
            tol=1e-5,
            memory_budget="2GiB",
            callback=lambda event: None,
        ).fit(X2)
        again = reload(model, path)
        expected = {**model.get_params(), "callback": None, "rho": None}
        assert {**again.get_params(), "rho": None} == expected
        np.testing.assert_array_equal(again.rho.to_flat(), rho.to_flat())  # type: ignore[union-attr]

    def test_term_is_not_stored(self, path: Path) -> None:
        again = reload(fitted_one(), path)
        with pytest.raises(AttributeError, match="it holds the training rows, which are not stored"):
            _ = again.term_
        assert not hasattr(again, "term_")

    def test_second_save_writes_the_same(self, path: Path) -> None:
        checksums = []
        for model in (fitted_two(), reload(fitted_two(), path)):
            model.save(path)
            with safetensors.safe_open(path, framework="numpy") as file:
                checksums.append(file.metadata()["checksum"])
        assert checksums[0] == checksums[1]

    def test_no_training_rows_in_the_file(self, path: Path) -> None:
        fitted_one().save(path)
        assert not any(tensor.shape == X.shape for tensor in safetensors.numpy.load_file(path).values())


class TestRefused:
    def test_missing_file(self, path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            sae_rs.load(path)

    def test_directory(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="directory"):
            sae_rs.load(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"nonsense", b"\x80\x04K\x01.", b"PK\x03\x04" + bytes(64)])
    def test_not_safetensors(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a readable safetensors file"):
            sae_rs.load(path)

    @pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
    def test_foreign(self, path: Path, metadata: Any) -> None:
        safetensors.numpy.save_file({"weight": np.ones((2, 2))}, path, metadata)
        with pytest.raises(ValueError, match=r"was not written by ManifoldSAE\.save"):
            sae_rs.load(path)

    def test_newer(self, path: Path) -> None:
        change_header(path, lambda metadata: metadata.update(format_version="2", package_version="9.0"))
        with pytest.raises(ValueError, match=r"has format version 2, written by sae_rs 9\.0; .* reads up to 1: update"):
            sae_rs.load(path)

    @pytest.mark.parametrize("found", ["", "one", "-1", "0"])
    def test_damaged_version(self, path: Path, found: str) -> None:
        change_header(path, lambda metadata: metadata.update(format_version=found))
        with pytest.raises(ValueError, match=f"format_version is '{found}'"):
            sae_rs.load(path)

    def test_damaged_tensor(self, path: Path) -> None:
        fitted_one().save(path)
        content = bytearray(path.read_bytes())
        content[-20] ^= 1
        path.write_bytes(bytes(content))
        with pytest.raises(ValueError, match=r"damaged .* its checksum does not match"):
            sae_rs.load(path)

    def test_damaged_parameters(self, path: Path) -> None:
        change_header(path, lambda metadata: metadata.update(model=metadata["model"].replace("circle", "square")))
        with pytest.raises(ValueError, match=r"damaged .* its checksum does not match"):
            sae_rs.load(path)

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (lambda body, tensors: body.pop("evidence"), "missing 'evidence'"),
            (lambda body, tensors: tensors.pop("decoder.0"), "missing 'decoder.0'"),
            (lambda body, tensors: tensors.update(mean=np.ones(3)), "expected"),
            (lambda body, tensors: tensors.update(gates=np.ones((60, 1), np.float32)), "expected"),
            (lambda body, tensors: tensors["mean"].fill(np.nan), "not finite"),
            (lambda body, tensors: body["atoms"][0].update(kind="square"), "unknown atom kind 'square'"),
            (lambda body, tensors: body["atoms"][0].update(harmonics=-1), "harmonics must be an integer"),
            (lambda body, tensors: body["gate"].update(kind="hard"), "unknown gate 'hard'"),
            (lambda body, tensors: body.update(dtype="float16"), "dtype is 'float16'"),
            (lambda body, tensors: body["parameters"].update(surprise=1), "surprise"),
            (lambda body, tensors: body["parameters"].update(atom={"eval": "1"}), "unknown parameter object 'eval'"),
            (lambda body, tensors: body["rho"].update(log_lambda_smooth=[1.0, 2.0]), "."),
        ],
    )
    def test_inconsistent(self, path: Path, edit: Any, message: str, monkeypatch: Any) -> None:
        """Files with a right checksum and wrong contents, as a faulty writer would make them."""
        fitted_one().save(path)
        tensors = safetensors.numpy.load_file(path)
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata())
        body = json.loads(metadata["model"])
        edit(body, tensors)
        metadata["model"] = json.dumps(body)
        metadata["checksum"] = checksum(metadata["model"], tensors)
        safetensors.numpy.save_file(tensors, path, metadata)
        with pytest.raises(ValueError, match=r"is a damaged sae_rs\.ManifoldSAE file") as caught:
            sae_rs.load(path)
        assert message in str(caught.value)

    def test_every_truncation(self, path: Path) -> None:
        fitted_one().save(path)
        content = path.read_bytes()
        for size in range(0, len(content), max(1, len(content) // 97)):
            path.write_bytes(content[:size])
            with pytest.raises(ValueError, match="safetensors"):
                sae_rs.load(path)

    def test_random_damage(self, path: Path) -> None:
        """A flipped byte anywhere gives a ValueError, or lies where it changes nothing that is read."""
        fitted_one().save(path)
        content = path.read_bytes()
        rng = np.random.default_rng(0)
        for place in rng.integers(len(content), size=200):
            damaged = bytearray(content)
            damaged[place] ^= int(rng.integers(1, 256))
            path.write_bytes(bytes(damaged))
            try:
                again = sae_rs.load(path)
            except ValueError:
                continue
            np.testing.assert_array_equal(again.mean_, fitted_one().mean_)


def change_header(path: Path, edit: Any) -> None:
    """Save a model and edit the metadata of its file in place."""
    fitted_one().save(path)
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    edit(header["__metadata__"])
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])


class TestAtomicWrite:
    def test_failure_keeps_the_old_file(self, path: Path, monkeypatch: Any) -> None:
        path.write_bytes(b"old")

        def fail(*arguments: Any) -> None:
            raise OSError("disk is full")

        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="disk is full"):
            write_atomically(path, b"new")
        assert path.read_bytes() == b"old"
        assert list(path.parent.iterdir()) == [path]

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            fitted_one().save(tmp_path / "missing" / "model.safetensors")
