"""Rounding in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript

from adder_onnx.export.fake_quantization import operators as _operators  # noqa: F401 (registers)
from adder_onnx.quantization.ranges import Quantization

__all__ = ["translate_rounding"]

_op = onnxscript.opset18


def translate_rounding(x: Any, scale: float, zero_point: int, bits: int) -> Any:
    """``adder_onnx::quantize_dequantize`` as QuantizeLinear and DequantizeLinear.

    QuantizeLinear itself clips to 8 bits; a Clip before it does so to fewer.
    """
    levels = Quantization(np.float32(scale), zero_point, bits)
    if bits < 8:
        x = _op.Clip(x, _constant(np.float32(levels.low)), _constant(np.float32(levels.high)))
    parameters = _constant(levels.scale), _constant(np.uint8(zero_point))
    return _op.DequantizeLinear(_op.QuantizeLinear(x, *parameters), *parameters)


def _constant(value: np.generic) -> Any:
    return _op.Constant(value=ir.to_proto(ir.tensor(np.asarray(value))))
