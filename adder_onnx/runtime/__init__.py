"""Execution: sessions, the steps of a plan, devices."""

from adder_onnx.runtime.session import InferenceSession, NodeArg

__all__ = ["InferenceSession", "NodeArg"]
