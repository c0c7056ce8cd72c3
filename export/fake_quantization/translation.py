"""Rounding in ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript
from numpy.typing import NDArray

from adder_onnx.export.fake_quantization import operators as _operators  # noqa: F401 (registers)
from adder_onnx.quantization.few_levels import entry_of
from adder_onnx.quantization.ranges import Quantization

__all__ = ["translate_rounding"]

_op = onnxscript.opset18


def translate_rounding(
    x: Any, scale: float, zero_point: int, bits: int, levels: Sequence[int] = ()
) -> Any:
    """``adder_onnx::quantize_dequantize`` as QuantizeLinear and DequantizeLinear.

    QuantizeLinear itself clips to 8 bits; a Clip before it does so to fewer. Levels are made by a
    table behind it.
    """
    q = Quantization(np.float32(scale), zero_point, bits, tuple(levels))
    parameters = _constant(q.scale), _constant(np.uint8(zero_point))
    if levels:
        fine, table = entry_of(q)
        x = _op.QuantizeLinear(x, _constant(fine.scale), _constant(np.uint8(fine.zero_point)))
        indices: Any = _op.Cast(x, to=ir.DataType.INT32)
        integers = _op.Gather(_constant(table), indices)
        return _op.DequantizeLinear(integers, *parameters)
    if bits < 8:
        x = _op.Clip(x, _constant(np.float32(q.low)), _constant(np.float32(q.high)))
    return _op.DequantizeLinear(_op.QuantizeLinear(x, *parameters), *parameters)


def _constant(value: np.generic | NDArray[np.uint8]) -> Any:
    return _op.Constant(value=ir.to_proto(ir.tensor(np.asarray(value))))
