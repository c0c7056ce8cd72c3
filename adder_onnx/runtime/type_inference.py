"""Types and shapes that onnx cannot infer, asked of onnxruntime.

onnx knows no operators of onnxruntime's own domains, so nothing behind one of them has a type, and
the plan could not cut the graph there. onnxruntime knows the types of all values that are outputs.
"""

from __future__ import annotations

import re
from typing import Any

import onnx
import onnx_ir as ir

from adder_onnx.errors import ModelError
from adder_onnx.ops import MIN_OPSET, function_bodies
from adder_onnx.runtime.onnxruntime_library import import_onnxruntime
from adder_onnx.runtime.onnxruntime_step import CPU_PROVIDER, one_line

__all__ = ["complete_types"]

_TENSOR = re.compile(r"tensor\((\w+)\)")


def complete_types(model: ir.Model) -> None:
    """Gives every value of the main graph that has none its type and shape.

    Raises:
        ModelError: onnxruntime refuses the model.
    """
    missing = {
        value.name: value
        for node in model.graph
        for value in node.outputs
        if value.name and value.type is None
    }
    if not missing:
        return
    proto = ir.to_proto(model)
    outputs = {output.name for output in proto.graph.output}
    proto.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in missing if name not in outputs
    )
    proto.functions.extend(function_bodies(max(model.opset_imports.get("", 0), MIN_OPSET)))
    for output in _describe_outputs(proto):
        value = missing.get(output.name)
        match = _TENSOR.fullmatch(output.type)
        if value is not None and match is not None:
            value.type = ir.TensorType(_data_type(match[1]))
            value.shape = ir.Shape(output.shape)


def _describe_outputs(proto: onnx.ModelProto) -> Any:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1  # nothing is run
    try:
        session = ort.InferenceSession(
            proto.SerializeToString(),
            options,
            providers=[CPU_PROVIDER],
            enable_fallback=0,
        )
    except Exception as error:  # onnxruntime's errors have no common base but Exception
        raise ModelError(f"onnxruntime refuses the model: {one_line(error)}") from error
    return session.get_outputs()


def _data_type(name: str) -> ir.DataType:
    """``float`` and ``double`` have the names of C, the others those of ONNX."""
    return ir.DataType[name.upper()]
