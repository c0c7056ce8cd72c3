"""Runs AdderNets exported to ONNX: standard nodes in onnxruntime, adder nodes in our kernels."""

from adder_onnx.errors import AdderError
from adder_onnx.runtime.session import InferenceSession, NodeArg

__all__ = ["AdderError", "InferenceSession", "NodeArg", "__version__"]

__version__ = "0.1.0"
