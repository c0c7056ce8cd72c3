"""The onnxruntime that is installed, and what it prints."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from adder_onnx.dependencies import import_failure
from adder_onnx.errors import InputError
from adder_onnx.native_output import stderr_logged

__all__ = ["import_onnxruntime", "make_ort_value", "print_nothing"]

_SILENT = 4  # of onnxruntime's severities: what is fatal only

_logger = logging.getLogger(__name__)


def import_onnxruntime() -> Any:
    """The onnxruntime module.

    Raises:
        MissingDependencyError: it is not installed.
        BrokenDependencyError: it is, and cannot be imported.
    """
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        raise import_failure(error, "onnxruntime", 'pip install "adder-onnx[cpu]"') from error
    return onnxruntime


def make_ort_value(name: str, result: Any) -> Any:
    """An output of a model as ``OrtValue``, in the CPU's memory.

    Raises:
        InputError: it is no tensor of numbers, which is all that onnxruntime makes them of.
    """
    if not isinstance(result, np.ndarray) or result.dtype.kind in "OSU":
        raise InputError(f"output {name!r} is no tensor of numbers, of which OrtValue are: use run")
    return import_onnxruntime().OrtValue.ortvalue_from_numpy(result)


def print_nothing() -> None:
    """Imports onnxruntime, and has it print nothing in this process, then or later.

    For programs only, whose standard error is theirs: the setting is the process's. What it prints
    while it is imported, of devices that it finds or not, is logged. Where it cannot be imported,
    nothing happens: whoever needs it says so.
    """
    try:
        with stderr_logged("onnxruntime"):
            import onnxruntime
    except (ImportError, OSError) as error:
        _logger.info("onnxruntime cannot be imported: %s", error)
        return
    onnxruntime.set_default_logger_severity(_SILENT)
