"""Runs AdderNets exported to ONNX: standard nodes in onnxruntime, adder nodes in our kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adder_onnx.errors import AdderError

if TYPE_CHECKING:
    from adder_onnx.runtime.session import InferenceSession, NodeArg

__all__ = ["AdderError", "InferenceSession", "NodeArg", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports the session, which takes most of a second, once it is asked for."""
    if name not in ("InferenceSession", "NodeArg"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from adder_onnx.runtime import session

    return getattr(session, name)


def __dir__() -> list[str]:
    return __all__
