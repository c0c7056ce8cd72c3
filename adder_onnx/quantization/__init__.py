"""Post-training quantization of adder nodes to few bits."""

from adder_onnx.quantization.quantize import Quantized, quantize
from adder_onnx.quantization.rewrite import NodeSummary
from adder_onnx.quantization.sensitivity import Sensitivity

__all__ = ["NodeSummary", "Quantized", "Sensitivity", "quantize"]
