"""Runs AdderNets exported to ONNX: standard nodes in onnxruntime, adder nodes in our kernels.

    import adder_onnx

    session = adder_onnx.InferenceSession("resnet20.onnx")
    (logits,) = session.run(None, {"input": images})

What is public are the names in ``__all__`` of these modules; all others may change at any time.

| module | what it is for |
| --- | --- |
| `adder_onnx` | `InferenceSession` |
| `adder_onnx.errors` | what is raised for what a caller can mend |
| `adder_onnx.memory` | how much memory may be taken |
| `adder_onnx.runtime` | what a session gives beside arrays: its plan, times, memory, bindings |
| `adder_onnx.metadata` | what a model says of itself: preprocessing, labels |
| `adder_onnx.evaluation` | data sets and accuracy |
| `adder_onnx.quantization` | adder nodes of few bits |
| `adder_onnx.compilation` | files and a library for a stock onnxruntime |
| `adder_onnx.inspection` | what each node costs |
| `adder_onnx.inspection.profile` | where the time of a run goes |
| `adder_onnx.ray` | images by the million: a step of a pipeline of Ray Data, a service |
| `adder_onnx.ops` | the operators: schemas and function bodies |
| `adder_onnx.export` | the layer for PyTorch, and from PyTorch to ONNX |
| `adder_onnx.export.resnet` | the reference implementation's networks |
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from adder_onnx.errors import AdderError

if TYPE_CHECKING:
    from adder_onnx.compilation.library import get_include, get_library_path
    from adder_onnx.runtime.session import InferenceSession, NodeArg

__all__ = [
    "AdderError",
    "InferenceSession",
    "NodeArg",
    "__version__",
    "get_include",
    "get_library_path",
]

__version__ = "0.1.0"
"""The version of the package."""


_PLACES = {
    "InferenceSession": "adder_onnx.runtime.session",
    "NodeArg": "adder_onnx.runtime.session",
    "get_include": "adder_onnx.compilation.library",
    "get_library_path": "adder_onnx.compilation.library",
}


def __getattr__(name: str) -> Any:
    """Imports the session, which takes most of a second, once it is asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(_PLACES[name]), name)
    return globals()[name]


def __dir__() -> list[str]:
    return __all__
