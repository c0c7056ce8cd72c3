"""Execution: sessions, the steps of a plan, devices."""

from adder_onnx.runtime.description import ModelMetadata, NodeArg
from adder_onnx.runtime.run_control import RunControl
from adder_onnx.runtime.session import InferenceSession

__all__ = ["InferenceSession", "ModelMetadata", "NodeArg", "RunControl"]
