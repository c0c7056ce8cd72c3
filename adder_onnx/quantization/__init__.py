"""Post-training quantization of adder nodes to few bits."""

from adder_onnx.quantization.quantize import Quantized, quantize

__all__ = ["Quantized", "quantize"]
