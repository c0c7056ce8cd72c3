"""A PyTorch model as ONNX, with AdderConv nodes and their function body."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import onnx
import onnx_ir as ir
import onnxscript
import torch
from onnx_ir.passes import common as passes
from torch import nn

from adder_onnx.errors import ExportError
from adder_onnx.export.naming import name_after_modules
from adder_onnx.ops import DOMAIN, VERSION, ConvAttributes, function_bodies

__all__ = ["DEFAULT_OPSET", "IR_VERSION", "OPSETS", "export_model"]

DEFAULT_OPSET = 18
OPSETS = range(18, 24)
"""Versions of the standard operator set that can be asked for."""

IR_VERSION = 10
"""The highest that onnxruntime 1.18 to 1.26 read; later ones read it too."""

_OPSET = onnxscript.values.Opset(DOMAIN, VERSION)


def _translate(
    x: Any,
    weight: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Any:
    """``adder_onnx::adder_conv2d`` as an AdderConv node with all attributes written out."""
    a = ConvAttributes(
        strides=(stride[0], stride[1]),
        pads=(padding[0], padding[1], padding[0], padding[1]),
        dilations=(dilation[0], dilation[1]),
        group=groups,
    )
    return _OPSET.AdderConv(
        x,
        weight,
        auto_pad=a.auto_pad,
        dilations=list(a.dilations),
        group=a.group,
        kernel_shape=list(weight.shape[2:]),
        pads=list(a.pads),
        strides=list(a.strides),
    )


def export_model(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    *,
    opset: int = DEFAULT_OPSET,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """Exports a model that maps images to logits.

    The file has one input ``input`` (batch, C, H, W) and one output ``logits``, both float32 and
    with a symbolic batch; every value's type and shape is written; names come from the modules.

    Args:
        model: in evaluation mode, on the CPU, float32.
        input_shape: C, H and W of the input.
        opset: version of the standard operator set, one of `OPSETS`.
        metadata: entries of ``metadata_props``.

    Raises:
        ExportError: PyTorch cannot export the model, or the opset is not known.
    """
    if opset not in OPSETS:
        raise ExportError(f"opset {opset} is not known; choose {OPSETS[0]} to {OPSETS[-1]}")
    exported = _torch_export(model, input_shape, opset)
    graph = exported.graph
    name_after_modules(graph, model)
    passes.ClearMetadataAndDocStringPass()(exported)
    for value in (*graph.initializers.values(), *graph.inputs, *graph.outputs):
        value.metadata_props.clear()
    graph.name = "model"
    exported.ir_version = IR_VERSION
    exported.producer_name = "adder-onnx"
    exported.producer_version = None
    exported.metadata_props.clear()
    exported.metadata_props.update(metadata or {})
    exported.opset_imports[DOMAIN] = VERSION

    proto = ir.to_proto(exported)
    if any(node.domain == DOMAIN for node in proto.graph.node):
        proto.functions.extend(function_bodies(opset, ("AdderConv",)))
    # Other programs have no inference function for our operators: types and shapes go in the file.
    proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _torch_export(model: nn.Module, input_shape: tuple[int, int, int], opset: int) -> ir.Model:
    table: dict[Any, Any] = {torch.ops.adder_onnx.adder_conv2d.default: _translate}
    # One warns that torchvision's operators are missing, the other of what is raised as well.
    logs = [logging.getLogger("torch.onnx"), logging.getLogger("torch.export")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A batch of 1 would be taken for a constant.
            example = torch.zeros(2, *input_shape)
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                custom_translation_table=table,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["input"],
                output_names=["logits"],
                opset_version=opset,
                verbose=False,
            )
    except Exception as error:  # torch.onnx raises many kinds, some of them private
        raise ExportError(
            f"PyTorch cannot export the model with inputs of {input_shape}: {_line(error)}"
        ) from error
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
    assert program is not None
    result: ir.Model = program.model
    return result


def _line(error: Exception) -> str:
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    return (str(root).strip().splitlines() or [type(root).__name__])[0]
