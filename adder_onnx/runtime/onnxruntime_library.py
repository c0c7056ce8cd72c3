"""The onnxruntime that is installed, and what it prints."""

from __future__ import annotations

from typing import Any

from adder_onnx.dependencies import import_failure

__all__ = ["import_onnxruntime"]


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
