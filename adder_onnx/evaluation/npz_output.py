"""All outputs of a model for the images of a data set, as an ``.npz`` file.

1. Every output is an array (N, …) of its own type, in the order of the images. Images that were
   skipped are left out.
2. It has the output's name; but scores that say the classes are called ``logits``, (N, classes),
   whatever they are and whatever the model calls them.
3. ``labels`` (N,), int64, are those of the data set, where it has any.
4. An output needs a row of the same shape for every image, a type that NumPy has, and a name that
   no other array has. What does not depend on the images is found out before any is read.

Arrays wait in files without names until all images are seen, so that the memory does not grow with
their number, and nothing is left behind, whatever ends the process.
"""

from __future__ import annotations

import logging
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import AdderError, ModelError
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.inference import Outputs
from adder_onnx.evaluation.outputs import Classified, may_have_rows
from adder_onnx.files import open_atomically, open_scratch
from adder_onnx.runtime import InferenceSession, NodeArg

__all__ = ["NpzOutput", "array_names"]

_logger = logging.getLogger(__name__)

_TYPES = frozenset(
    (
        *("tensor(float16)", "tensor(float)", "tensor(double)", "tensor(bool)"),
        *(f"tensor({sign}int{bits})" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    )
)
_LOGITS = "logits"
_LABELS = "labels"
_MOST_NAME_BYTES = 60_000
"""A name in a zip file has less than 2**16 bytes."""

_COPIED_BYTES = 1 << 20


def array_names(
    session: InferenceSession, classified: Classified | None, *, labels: bool
) -> dict[str, str]:
    """The name that each output of a model has in the file, by its name in the model.

    Args:
        session: the model.
        classified: the output that says the classes, if there is one.
        labels: whether the data set has any.

    Raises:
        ModelError: an output cannot be in such a file.
    """
    is_scores = classified is not None and classified.kind != "class numbers"
    scores = classified.name if classified is not None and is_scores else None
    names: dict[str, str] = {}
    for output in session.get_outputs():
        _check_output(session, output)
        names[output.name] = _LOGITS if output.name == scores else output.name
    if labels and _LABELS in names.values():
        raise ModelError(
            f"the model's output {_LABELS} and the labels of the data would have one name in the "
            ".npz file: rename that output, or give the images without labels"
        )
    if list(names.values()).count(_LOGITS) > 1:
        raise ModelError(
            f"the model's output {_LOGITS} and its scores, {scores}, would have one name in the "
            f".npz file, {_LOGITS}: rename the former"
        )
    return names


def _check_output(session: InferenceSession, output: NodeArg) -> None:
    if output.type not in _TYPES:
        raise ModelError(
            f"the model's output {output.name} is {output.type}, which an .npz file cannot hold"
        )
    if "\0" in output.name or len(output.name.encode()) > _MOST_NAME_BYTES:
        raise ModelError(
            f"the model's output {output.name[:20]!r}… has a name that an .npz file cannot hold"
        )
    if not may_have_rows(session, output):
        inputs = ", ".join(str(value.shape) for value in session.get_inputs())
        raise ModelError(
            f"the model's output {output.name} has shape {output.shape} for inputs of shape "
            f"{inputs}: an .npz file needs a row for each image"
        )


class NpzOutput:
    """A file of that kind, which is filled batch by batch; a context that ends with it.

    Args:
        path: of the file.
        names: from `array_names`.
        dataset: what the model is run over.
    """

    def __init__(self, path: Path, names: Mapping[str, str], dataset: Dataset) -> None:
        self._path = path
        self._names = names
        self._labels = dataset.labels
        self._columns: dict[str, _Column] = {}
        self._open_files = ExitStack()

    def __enter__(self) -> NpzOutput:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open_files.close()

    def add(self, numbers: NDArray[np.int64], outputs: Outputs) -> None:
        """Adds what the model gives for the images with these numbers (N,).

        Raises:
            ModelError: rows have another shape than before.
            AdderError: the disk is full.
        """
        arrays = {self._names[name]: array for name, array in outputs.items()}
        if self._labels is not None:
            arrays[_LABELS] = self._labels[numbers]
        for name, array in arrays.items():
            if name not in self._columns:
                column = _Column(name, array.shape[1:], array.dtype, open_scratch(self._path))
                self._open_files.callback(column.close)
                self._columns[name] = column
            try:
                self._columns[name].add(array)
            except OSError as error:
                raise AdderError(f"cannot write {self._path}: {error.strerror or error}") from error

    def write(self) -> None:
        """Writes the file, whole or not at all.

        Raises:
            AdderError: it cannot be written.
        """
        for column in self._columns.values():
            column.warn_unless_finite()
        with open_atomically(self._path) as file, zipfile.ZipFile(file, "w") as archive:
            for name, column in self._columns.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    column.copy_to(member)


class _Column:
    """An array whose rows wait in a file."""

    def __init__(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], file: IO[bytes]
    ) -> None:
        self._name = name
        self._shape = shape
        self._dtype = dtype
        self._file = file
        self._rows = 0
        self._infinite = 0

    def add(self, array: NDArray[Any]) -> None:
        if array.shape[1:] != self._shape:
            raise ModelError(
                f"the model's output {self._name} has shape {list(self._shape)} for the first "
                f"images and {list(array.shape[1:])} for others: an .npz file needs one shape"
            )
        self._file.write(np.ascontiguousarray(array).data)
        self._rows += len(array)
        if array.dtype.kind == "f":
            finite = np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
            self._infinite += len(array) - int(finite.sum())

    def warn_unless_finite(self) -> None:
        """Says of how many images a value is infinite or not a number."""
        if self._infinite:
            _logger.warning(
                "the model's output %s holds values that are not finite for %d of %d images",
                self._name,
                self._infinite,
                self._rows,
            )

    def copy_to(self, member: IO[bytes]) -> None:
        """Copies the array in NumPy's format; its own file is then closed, to free the disk."""
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._rows, *self._shape),
        }
        np.lib.format.write_array_header_1_0(member, header)
        self._file.seek(0)
        shutil.copyfileobj(self._file, member, _COPIED_BYTES)
        self.close()

    def close(self) -> None:
        """Gives the disk back."""
        with suppress(OSError):  # what a full disk has not taken is tried once more
            self._file.close()
