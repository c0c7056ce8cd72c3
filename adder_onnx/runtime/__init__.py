"""Execution: sessions, the steps of a plan, devices; and what a session gives beside arrays."""

from adder_onnx.graph.plan import ChainStep, ConversionStep, OnnxruntimeStep, Plan
from adder_onnx.runtime.chain import ChainMemory
from adder_onnx.runtime.description import ModelMetadata, NodeArg
from adder_onnx.runtime.interruption.run_control import RunControl
from adder_onnx.runtime.io_binding import IOBinding
from adder_onnx.runtime.session import InferenceSession
from adder_onnx.runtime.times import PartTimes, RunTimes, Span

__all__ = [
    "ChainMemory",
    "ChainStep",
    "ConversionStep",
    "IOBinding",
    "InferenceSession",
    "ModelMetadata",
    "NodeArg",
    "OnnxruntimeStep",
    "PartTimes",
    "Plan",
    "RunControl",
    "RunTimes",
    "Span",
]
