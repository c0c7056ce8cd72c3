"""Calibration ``output``: a layer at a time, in the order of the graph, by what its output loses.

The float network and the quantized one are run side by side, each value from the values before it.
So a layer's range, weights and bias are chosen with the input that the quantized layers before it
really give, and may take back what these have changed. docs/quantisation.md derives each choice.
"""

from adder_onnx.quantization.reconstruction.network import Reconstruction, reconstruct

__all__ = ["Reconstruction", "reconstruct"]
