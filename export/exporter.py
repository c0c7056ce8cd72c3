"""A PyTorch model as ONNX, with AdderConv nodes and their function body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import onnx_ir as ir
import onnxscript
import torch
from onnx_ir.passes import common as passes
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree as pytree

from adder_onnx.errors import ExportError
from adder_onnx.export.capture import capture, error_line, fixed_batch, quiet
from adder_onnx.export.distances import check_distances
from adder_onnx.export.fake_quantization.translation import translate_rounding
from adder_onnx.export.naming import name_after_modules
from adder_onnx.export.outputs import named_outputs
from adder_onnx.ops import DOMAIN, VERSION, ConvAttributes, describe_nodes, function_bodies

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
    batch_size: int | None = None,
) -> onnx.ModelProto:
    """Exports a model of images.

    The file has one input ``input`` (batch, C, H, W), float32, and the model's outputs, named as
    `named_outputs` does. The batch is symbolic where the model's code allows that. Every value's
    type and shape is written; names come from the modules. Each AdderConv node says what it
    computes.

    Args:
        model: in evaluation mode, on the CPU, float32.
        input_shape: C, H and W of the input.
        opset: version of the standard operator set, one of `OPSETS`.
        metadata: entries of ``metadata_props``.
        batch_size: the only one that the file is to take; None for any.

    Raises:
        ExportError: PyTorch cannot export the model, or the opset is not known; a layer computes
            its distances by ``torch.cdist``, which ONNX does not have.
    """
    if opset not in OPSETS:
        raise ExportError(f"opset {opset} is not known; choose {OPSETS[0]} to {OPSETS[-1]}")
    program = capture(model, input_shape, batch_size)
    check_distances(program)
    exported = _to_onnx(program, opset)
    graph = exported.graph
    name_after_modules(graph, model)
    _name_outputs(graph, program)
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
    _infer_and_check(exported)
    proto = ir.to_proto(exported)
    if any(node.domain == DOMAIN for node in proto.graph.node):
        proto.functions.extend(function_bodies(opset, ("AdderConv",)))
        describe_nodes(proto)
    return proto


def _to_onnx(program: ExportedProgram, opset: int) -> ir.Model:
    table: dict[Any, Any] = {
        torch.ops.adder_onnx.adder_conv2d.default: _translate,
        torch.ops.adder_onnx.quantize_dequantize.default: translate_rounding,
    }
    shapes = None if fixed_batch(program) else ({0: torch.export.Dim("batch")},)
    try:
        with quiet():
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                custom_translation_table=table,
                dynamic_shapes=shapes,
                input_names=["input"],
                opset_version=opset,
                verbose=False,
            )
    except Exception as error:  # torch.onnx raises many kinds, some of them private
        raise ExportError(f"PyTorch cannot export the model: {error_line(error)}") from error
    assert exported is not None
    result: ir.Model = exported.model
    return result


def _name_outputs(graph: ir.Graph, program: ExportedProgram) -> None:
    """Calls the outputs as the model does, which also gives each of them a value of its own."""
    names = list(named_outputs(_result(program)))
    if len(names) != len(graph.outputs):
        raise ExportError(
            f"the model gives {len(names)} tensors, but PyTorch exports {len(graph.outputs)}"
        )
    taken = {value.name for node in graph for value in node.outputs} | {*graph.initializers}
    for i, name in enumerate(names):
        value = graph.outputs[i]
        if value.producer() is None or value in graph.outputs[:i]:
            node = ir.node("Identity", [value], name=f"{name}.Identity")
            graph.append(node)
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
            value = graph.outputs[i] = node.outputs[0]
        value.name = f"{name}_output" if name in taken else name


def _result(program: ExportedProgram) -> Any:
    """What the model gives, of tensors without data."""
    *_, last = program.graph.nodes
    specs = program.graph_signature.output_specs
    values = [
        node.meta["val"] if isinstance(node, torch.fx.Node) else node
        for node, spec in zip(last.args[0], specs, strict=True)
        if spec.kind == OutputKind.USER_OUTPUT
    ]
    return pytree.tree_unflatten(values, program.call_spec.out_spec)


def _infer_and_check(model: ir.Model) -> None:
    """Types and shapes of all values: other programs have no inference function for our operators.

    Both leave the weights aside, so that a model may be of any size.

    Raises:
        ExportError: a value has no type, or onnx finds the model invalid.
    """
    passes.ShapeInferencePass(data_prop=False)(model)
    for node in model.graph:
        if any(value.type is None for value in node.outputs if value.name):
            raise ExportError(f"onnx cannot tell the type of what node {node.name} gives")
    try:
        passes.CheckerPass(full_check=True)(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"what PyTorch has exported is not valid ONNX: {error_line(error)}"
        ) from error
