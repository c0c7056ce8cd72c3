"""Whether a compiled file answers as the file that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from adder_onnx.compilation.library import get_library_path
from adder_onnx.errors import MissingDependencyError, ModelError
from adder_onnx.inspection.dimensions import assume
from adder_onnx.inspection.inputs import random_feed
from adder_onnx.runtime import InferenceSession
from adder_onnx.runtime.onnxruntime_library import import_onnxruntime

__all__ = ["TOLERANCE", "Verification", "verify"]

TOLERANCE = 1e-5
"""Of the largest output, that a compiled file may differ by."""


@dataclass(frozen=True)
class Verification:
    """How far apart two files are.

    Attributes:
        error: the largest difference of an output, relative to its largest value.
        runtime: what executed the compiled file: ``library``, in a stock onnxruntime, or ``ours``.
    """

    error: float
    runtime: str


def verify(
    model: onnx.ModelProto, compiled: onnx.ModelProto, batch_size: int, dims: Mapping[str, int]
) -> Verification:
    """Runs both on random inputs: the compiled file in a stock onnxruntime with our library.

    Where the library has no operators, our own runtime executes both.

    Args:
        model: the original.
        compiled: what was made of it.
        batch_size: for the first dimension of each input, where that has no number.
        dims: numbers for other symbolic dimensions of the inputs, by name.

    Raises:
        ModelError: they differ by more than `TOLERANCE`.
        InputError: no input can be made.
    """
    session = InferenceSession(model.SerializeToString())
    known = InferenceSession(assume(model, batch_size, dims)[0].SerializeToString())
    feed = random_feed(known.get_inputs())
    expected = session.run(None, feed)
    runtime, found = _answers(compiled, feed)
    names = [value.name for value in session.get_outputs()]
    errors = [_error(*values) for values in zip(expected, found, strict=True)]
    for name, error in zip(names, errors, strict=True):
        if not error <= TOLERANCE:
            raise ModelError(
                f"output {name!r} of the compiled model differs by {error:.1e} of its largest "
                f"value, more than {TOLERANCE:g}: please report this, with the model"
            )
    return Verification(max(errors, default=0.0), runtime)


def _answers(
    compiled: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]
) -> tuple[str, list[NDArray[Any]]]:
    data = compiled.SerializeToString()
    try:
        library = get_library_path()
    except MissingDependencyError:
        return "ours", InferenceSession(data).run(None, feed)
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(library)
    providers = ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(data, options, providers=providers)
        return "library", session.run(None, dict(feed))
    except Exception as error:
        raise ModelError(f"onnxruntime does not run the compiled model: {error}") from error


def _error(expected: NDArray[Any], found: NDArray[Any]) -> float:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf")
    if np.array_equal(expected, found, equal_nan=expected.dtype.kind == "f"):
        return 0.0
    difference = np.abs(expected.astype(np.float64) - found.astype(np.float64)).max()
    return float(difference / max(np.abs(expected.astype(np.float64)).max(), 1e-30))
