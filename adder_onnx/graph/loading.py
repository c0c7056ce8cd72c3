"""Reading and validating an ONNX model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from adder_onnx.errors import ModelError
from adder_onnx.graph.checks.attributes import check_attributes
from adder_onnx.graph.checks.calls import check_calls
from adder_onnx.graph.checks.fatal import check_survivable
from adder_onnx.graph.checks.foreign import last_line, refusals
from adder_onnx.graph.checks.sizes import check_countable
from adder_onnx.graph.functions import inline_functions
from adder_onnx.graph.inlined.restoration import restore_adder_nodes
from adder_onnx.graph.names import Names
from adder_onnx.graph.reading import read_model
from adder_onnx.ops import DOMAIN, MIN_OPSET, VERSION, function_bodies, has_levels

__all__ = ["check_valid", "load_graph", "read_model"]

_WEIGHT_BYTES = 4096
"""Constants above this size are weights: nothing but a kernel looks into them."""

_INVALID = "the model is not valid ONNX"

_logger = logging.getLogger(__name__)


def load_graph(model: onnx.ModelProto) -> ir.Model:
    """Validates a model and brings it into the form that the other passes expect.

    1. The model passes onnx's checker, imports our operators in a version known here, and has no
       node that libraries do not survive (`attributes`, `fatal`).
    2. Function bodies that the file carries for our operators are dropped, with a warning where
       one differs from ours; all other local functions are inlined, where that does not take too
       much (`calls`).
    3. Types and shapes are inferred (without data propagation: a Range to 2**62 would hang it).
    4. Initializers are constants: they are no longer inputs, and Constant nodes have become
       initializers. Unused nodes are gone.
    5. Adder nodes that another tool replaced by their function bodies are nodes again, where that
       is safe; a warning says how many are not.
    6. Every node of the main graph has a name of its own.

    Raises:
        ModelError: the model is invalid; where onnx says so, the message is its own first line.
    """
    weights = {t.name: t for t in model.graph.initializer if t.ByteSize() > _WEIGHT_BYTES}
    checked = _without(weights, model)
    check_valid(checked)
    with refusals(_INVALID):
        for tensor in weights.values():
            onnx.checker.check_tensor(tensor)
    version = {entry.domain: entry.version for entry in checked.opset_import}.get(DOMAIN)
    if version not in (None, VERSION):
        raise ModelError(
            f"the model imports {DOMAIN} version {version}; this adder-onnx knows {VERSION}: "
            "install a newer one"
        )
    _drop_our_bodies(checked)
    check_calls(checked)

    with refusals(_INVALID):
        graph = ir.from_proto(checked)
    if graph.functions:
        inline_functions(graph)
        with refusals(_INVALID):
            inlined = ir.to_proto(graph)
        check_valid(inlined)  # a call may leave out what a node of the body needs
    check_attributes(graph)
    _check_operators_known(graph)
    has_adder_nodes = any(node.domain == DOMAIN for node in graph.graph.all_nodes())
    with refusals(_INVALID):
        passes.RemoveInitializersFromInputsPass()(graph)
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
        passes.RemoveUnusedNodesPass()(graph)
    _name_nodes(graph.graph)
    _type_fused_nodes(graph.graph)
    inferred = _infer_shapes(graph)
    _put_in({n: ir.serde.deserialize_tensor(t) for n, t in weights.items()}, inferred.graph)
    restored = restore_adder_nodes(inferred, has_adder_nodes)
    if restored:
        inferred = _infer_again(inferred)
    check_countable(inferred)
    check_survivable(inferred)
    return inferred


def _infer_again(model: ir.Model) -> ir.Model:
    """The model with what is known of shapes now that nodes were replaced."""
    _name_nodes(model.graph)
    for node in model.graph:
        if onnx.defs.has(node.op_type, node.domain):
            for value in node.outputs:
                # A symbol for a dimension that was unknown would stand beside the known one.
                if not value.is_graph_output() and value.shape and not value.shape.is_static():
                    value.shape = None
    weights = _take_out(model.graph)
    inferred = _infer_shapes(model)
    _put_in(weights, inferred.graph)
    return inferred


def _take_out(graph: ir.Graph) -> dict[str, ir.TensorProtocol]:
    """Turns weights into inputs; `_put_in` undoes it."""
    weights = {}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > _WEIGHT_BYTES:
            weights[name] = tensor
            del graph.initializers[name]
            value.const_value = None
            graph.inputs.append(value)
    return weights


def _without(weights: Mapping[str, onnx.TensorProto], model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model where weights are inputs: checks and inference need not their values.

    Each of them copies the model, more than once, which would take several times its size.
    """
    copy = onnx.ModelProto()
    _copy_fields(model, copy, "graph")
    _copy_fields(model.graph, copy.graph, "initializer")
    inputs = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name not in weights:
            copy.graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            copy.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return copy


def _copy_fields(source: Any, target: Any, but: str) -> None:
    """Copies all fields of a message that are set, but one."""
    for field, value in source.ListFields():
        if field.name == but:
            continue
        if hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        elif hasattr(value, "CopyFrom"):
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def _put_in(weights: Mapping[str, ir.TensorProtocol], graph: ir.Graph) -> None:
    """Turns the inputs that stand for weights into constants; those that nobody uses are gone."""
    stand_ins = [value for value in graph.inputs if value.name in weights]
    inputs = [value for value in graph.inputs if value.name not in weights]
    graph.inputs.clear()
    graph.inputs.extend(inputs)
    for value in stand_ins:
        if value.uses() or value.is_graph_output():
            assert value.name is not None
            value.const_value = weights[value.name]
            graph.initializers[value.name] = value


def _name_nodes(graph: ir.Graph) -> None:
    names = Names(node.name or None for node in graph)
    seen: set[str] = set()
    for node in graph:
        name = node.name or node.op_type
        if name in seen or not node.name:
            name = names.numbered(name)
        node.name = name
        seen.add(name)


def check_valid(model: onnx.ModelProto) -> None:
    """Checks a model as onnx does, but that inputs and outputs may be of unknown rank.

    Raises:
        ModelError: it is not valid; the message is onnx's own first line.
    """
    ends = [*model.graph.input, *model.graph.output]
    if any(_lacks_shape(value) for value in ends):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        model, ends = copy, [*copy.graph.input, *copy.graph.output]
    for value in ends:
        # onnx wants a shape here, onnxruntime does without; the checker does not look into it.
        if _lacks_shape(value):
            value.type.tensor_type.shape.SetInParent()
    with refusals(_INVALID):
        onnx.checker.check_model(model)


def _lacks_shape(value: onnx.ValueInfoProto) -> bool:
    type_ = value.type
    return type_.HasField("tensor_type") and not type_.tensor_type.HasField("shape")


def _drop_our_bodies(model: onnx.ModelProto) -> None:
    opset = {entry.domain: entry.version for entry in model.opset_import}.get("", MIN_OPSET)
    nodes = [*model.graph.node, *(node for f in model.functions for node in f.node)]
    ours: dict[str, list[list[onnx.NodeProto]]] = {}
    for levels in (True,) if has_levels(nodes) else (True, False):
        for body in function_bodies(max(opset, MIN_OPSET), levels=levels):
            ours.setdefault(body.name, []).append(list(body.node))
    kept = []
    for function in model.functions:
        if function.domain != DOMAIN or function.name not in ours:
            kept.append(function)  # of a compiled file, a chain's body among them
        elif list(function.node) not in ours[function.name]:
            _logger.warning(
                "the file's own body of %s.%s differs from this version's and is not used: "
                "domain and version define the meaning",
                DOMAIN,
                function.name,
            )
    del model.functions[:]
    model.functions.extend(kept)


def _check_operators_known(model: ir.Model) -> None:
    """Refuses operators that neither onnx nor onnxruntime's own domains define."""
    for node in model.graph.all_nodes():
        domain = "" if node.domain == "ai.onnx" else node.domain
        known = domain.startswith("com.microsoft") or onnx.defs.has(node.op_type, domain)
        if not known:
            raise ModelError(
                f"node {node.name!r} uses the operator {node.domain}.{node.op_type}, which is "
                "neither a standard operator nor one of ours, and the file has no function body "
                "for it"
            )


def _type_fused_nodes(graph: ir.Graph) -> None:
    """Gives a type to what onnxruntime's optimizer has fused or laid out anew.

    onnx does not know these operators. FusedConv has its weight's type; those of the layout NCHWc
    are there for float32 only.
    """
    for node in graph:
        if node.domain == "com.microsoft.nchwc":
            type_: ir.TypeProtocol | None = ir.TensorType(ir.DataType.FLOAT)
        elif (node.domain, node.op_type) == ("com.microsoft", "FusedConv"):
            weight = node.inputs[1] if len(node.inputs) > 1 else None
            type_ = None if weight is None else weight.type
        else:
            continue
        if node.outputs[0].type is None:
            node.outputs[0].type = type_


def _infer_shapes(model: ir.Model) -> ir.Model:
    # Contrib operators have no schema in onnx, which strict mode does not forgive.
    strict = not any(node.domain.startswith("com.") for node in model.graph.all_nodes())
    with refusals("shapes or types contradict each other", last_line):
        inferred = onnx.shape_inference.infer_shapes(
            ir.to_proto(model), check_type=True, strict_mode=strict, data_prop=False
        )
        return ir.from_proto(inferred)
