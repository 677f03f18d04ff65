"""Files of this package: safetensors containers whose header holds a versioned, checked text beside the tensors."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from .files import write_atomically

T = TypeVar("T")


@dataclass(frozen=True)
class Container:
    """One kind of file.

    Attributes
    ----------
    format : str
        What its header calls it.
    version : int
        Raised when an older reader would misread a new file.
    entry : str
        Entry of the header that holds the text.
    called : str
        What stands before the path in messages.
    foreign, damaged : str
        What is said of a file that is none of this kind, and of one that has lost something.
    """

    format: str
    version: int
    entry: str
    called: str
    foreign: str
    damaged: str

    def write(self, path: str | os.PathLike[str], body: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
        """Write in one step: a reader finds the file before or this one, whole."""
        contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        text = json.dumps(body)
        metadata = {
            "format": self.format,
            "format_version": str(self.version),
            "package_version": version("sae-rs"),
            "checksum": checksum(text, contiguous),
            self.entry: text,
        }
        write_atomically(path, safetensors.numpy.save(contiguous, metadata))

    def read(self, path: str | os.PathLike[str], rebuild: Callable[[Any, dict[str, NDArray[Any]]], T]) -> T:
        """What `rebuild` makes of the text and the tensors.

        Raises
        ------
        ValueError
            When the file is damaged, is of another kind, or has a newer format.
        OSError
            When it cannot be read, `FileNotFoundError` when there is none.
        """
        # Opened here first so that a missing file or a directory gives the usual error of the system.
        with open(path, "rb"):
            pass
        try:
            with safetensors.safe_open(os.fspath(Path(path)), framework="numpy") as file:
                metadata = file.metadata() or {}
                self._check_header(metadata, path)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except (safetensors.SafetensorError, TypeError) as error:
            raise ValueError(f"{self.called}{path} is not a readable safetensors file: {error}") from error
        try:
            if checksum(metadata[self.entry], tensors) != metadata["checksum"]:
                raise ValueError("its checksum does not match its contents")
            return rebuild(json.loads(metadata[self.entry]), tensors)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            what = f"missing {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{self.called}{path} {self.damaged}: {what}") from error

    def _check_header(self, metadata: Mapping[str, str], path: str | os.PathLike[str]) -> None:
        if metadata.get("format") != self.format:
            raise ValueError(f"{path} {self.foreign}: its header does not name the format {self.format!r}")
        found = metadata.get("format_version", "")
        if not found.isdecimal() or int(found) < 1:
            raise ValueError(f"{self.called}{path} {self.damaged}: format_version is {found!r}")
        if int(found) > self.version:
            raise ValueError(
                f"{self.called}{path} has format version {found}, written by sae_rs"
                f" {metadata.get('package_version', '?')}; this version reads up to {self.version}: update sae_rs"
            )


def checksum(text: str, tensors: Mapping[str, NDArray[Any]]) -> str:
    """Digest of a header's text and all tensors; it finds damage, it does not authenticate."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype.name} {tensors[name].shape}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()
