"""Where the native library lies that a stock onnxruntime takes our operators from."""

from __future__ import annotations

import ctypes
from pathlib import Path

from adder_onnx.errors import MissingDependencyError
from adder_onnx.kernels.cpu import _native

__all__ = ["get_include", "get_library_path"]

_NAMES = ("libadder_onnx.so", "libadder_onnx.dylib", "adder_onnx.dll", "libadder_onnx.dll")


def get_library_path() -> str:
    """The path of the library, for onnxruntime's ``SessionOptions.register_custom_ops_library``.

    Sessions made with such options execute the operators of ai.addernet in our kernels, on a CPU,
    in every language that onnxruntime has. The same file has the C interface of ``adder_onnx.h``,
    which lies in the folder `get_include`.

    Raises:
        MissingDependencyError: adder-onnx was built without onnxruntime's headers.
    """
    folder = Path(_native.__file__).parents[1] / "library"
    for name in _NAMES:
        path = folder / name
        if path.exists():
            if not hasattr(ctypes.CDLL(str(path)), "RegisterCustomOps"):
                break
            return str(path)
    raise MissingDependencyError(
        "this adder-onnx was built without operators for other onnxruntimes: install it again with "
        "the variable ADDER_ONNX_ORT_INCLUDE naming the folder of onnxruntime_c_api.h"
    )


def get_include() -> str:
    """The folder of ``adder_onnx.h``, the library's C interface."""
    from adder_onnx import kernels

    return str(Path(str(kernels.__file__)).parent / "library")
