"""The plan: the ordered list of steps that executes a graph."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

import onnx
import onnx_ir as ir

from adder_onnx.errors import ModelError
from adder_onnx.graph.adder_node import (
    AdderNode,
    adder_node,
    is_adder_node,
    mark_adder_nodes,
    value_name,
)
from adder_onnx.graph.borders import (
    Quantization,
    absorb_quantization,
    is_border_node,
    quantization_of,
)
from adder_onnx.graph.fusion import fuse_epilogues
from adder_onnx.graph.partition import Part, node_inputs, partition, subgraphs
from adder_onnx.graph.pools import PoolNode, absorb_pools, is_pool_node, pool_node
from adder_onnx.ops import DOMAIN, MIN_OPSET, function_bodies

__all__ = [
    "ChainNode",
    "ChainStep",
    "ConversionStep",
    "OnnxruntimeStep",
    "Plan",
    "Step",
    "make_plan",
]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OnnxruntimeStep:
    """Standard nodes that onnxruntime executes as one sub-model.

    Attributes:
        model: the sub-model; its inputs and outputs carry the graph's value names.
        inputs: names of the values it takes.
        outputs: names of the values it gives.
        nodes: names of its nodes.
    """

    model: onnx.ModelProto = field(repr=False)
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True)
class ConversionStep:
    """A change of layout, and perhaps of type, at the border between onnxruntime and the kernels.

    Attributes:
        value: name of the value outside, (N, C, H, W).
        to_kernels: True from (N, C, H, W) to channels-last, False back.
        type: ``float32``, ``float16`` or ``uint8``: that of the value outside.
        quantization: makes a float32 value outside a uint8 one inside, or back; None where both
            are the same value of the graph.
    """

    value: str
    to_kernels: bool
    type: str = "float32"
    quantization: Quantization | None = None

    @property
    def inside(self) -> str:
        """Name of the value inside, channels-last."""
        return self.value if self.quantization is None else self.quantization.value

    @property
    def type_inside(self) -> str:
        """The type of the value inside, as the graph has it."""
        return self.type if self.quantization is None else "uint8"


ChainNode = AdderNode | PoolNode


@dataclass(frozen=True)
class ChainStep:
    """Adder nodes, and MaxPool nodes between them, that run as one native call.

    Attributes:
        nodes: in the order in which they run.
        inputs: names of the values it takes, channels-last.
        outputs: names of the values it gives, channels-last.
        weights: names of the computed weights it takes, (M, C/group, kH, kW).
    """

    nodes: tuple[ChainNode, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...] = ()


Step = OnnxruntimeStep | ConversionStep | ChainStep


@dataclass(frozen=True)
class Plan:
    """How a graph is executed.

    Attributes:
        steps: in the order in which they run.
        inputs: the graph's inputs.
        outputs: the graph's outputs.
        constants: outputs of the graph that are constants, by name.
    """

    steps: tuple[Step, ...]
    inputs: tuple[onnx.ValueInfoProto, ...]
    outputs: tuple[onnx.ValueInfoProto, ...]
    constants: dict[str, onnx.TensorProto] = field(repr=False)

    def without_weights(self) -> Plan:
        """The same plan, once the kernels have packed the weights."""
        return replace(
            self,
            steps=tuple(
                replace(step, nodes=tuple(node.without_weight() for node in step.nodes))
                if isinstance(step, ChainStep)
                else step
                for step in self.steps
            ),
        )


def make_plan(model: ir.Model, *, fuse: bool = True) -> Plan:
    """Makes the plan of a graph that `load_graph` has prepared; the graph is changed.

    Args:
        model: the graph.
        fuse: whether what follows an adder node is fused into its epilogue.

    Raises:
        ModelError: a value's type cannot be inferred where the plan needs it.
    """
    graph = model.graph
    for node in mark_adder_nodes(graph):
        _logger.warning(
            "node %r is executed by onnxruntime through its function body, which is slow: our "
            "kernels take %s",
            node.name,
            "QLinearAdderConv with constant parameters, outside control flow, whose "
            "output has a positive, finite scale"
            if node.op_type == "QLinearAdderConv"
            else "float32 and float16 images that are no constants, outside control flow, and a "
            "known number of filters",
        )
    if fuse:
        fuse_epilogues(graph)
    absorb_pools(graph)
    absorb_quantization(graph)
    steps: list[Step] = []
    parts = [(part, _entering(part)) for part in partition(graph)]
    needed = set(graph.outputs).union(*(inputs for _, inputs in parts))
    for part, inputs in parts:
        outputs = [value for node in part.nodes for value in node.outputs if value in needed]
        if part.is_chain:
            steps += _chain_steps(part, inputs, outputs)
        else:
            steps.append(_onnxruntime_step(model, part, inputs, outputs))
    return Plan(
        tuple(steps),
        tuple(map(_value_info, graph.inputs)),
        tuple(map(_value_info, graph.outputs)),
        {
            value_name(value): ir.to_proto(value.const_value)
            for value in graph.outputs
            if value.producer() is None and value.const_value is not None
        },
    )


def _entering(part: Part) -> list[ir.Value]:
    """The values that a part takes from others or from the graph's inputs, each once."""
    inside = {value for node in part.nodes for value in node.outputs}
    return list(
        dict.fromkeys(
            value
            for node in part.nodes
            for value in node_inputs(node)
            if value not in inside and not value.is_initializer()
        )
    )


def _chain_steps(part: Part, inputs: list[ir.Value], outputs: list[ir.Value]) -> list[Step]:
    """A chain between the conversions of what enters and leaves it."""
    nodes = [node for node in part.nodes if is_adder_node(node) or is_pool_node(node)]
    borders = [node for node in part.nodes if is_border_node(node)]
    taken = {value for node in nodes for value in (node.inputs[0], *node.inputs[2:])}
    weights = {value for node in nodes for value in node.inputs[1:2]}
    enter = [_conversion(value, to_kernels=True) for value in inputs if value in taken]
    for node in borders:
        if node.op_type == "QuantizeLinear":
            assert node.inputs[0] is not None
            enter.append(_conversion(node.inputs[0], to_kernels=True, node=node))
    dequantize = {n.outputs[0]: n for n in borders if n.op_type == "DequantizeLinear"}
    leave = [_conversion(v, to_kernels=False, node=dequantize.get(v)) for v in outputs]
    chain = ChainStep(
        tuple(pool_node(node) if is_pool_node(node) else adder_node(node) for node in nodes),
        tuple(step.inside for step in enter),
        tuple(step.inside for step in leave),
        tuple(value_name(value) for value in inputs if value in weights),
    )
    return [*enter, chain, *leave]


def _conversion(
    value: ir.Value, *, to_kernels: bool, node: ir.Node | None = None
) -> ConversionStep:
    """The conversion of a value outside, by a border node where there is one."""
    quantization = None if node is None else quantization_of(node)
    return ConversionStep(value_name(value), to_kernels, _numpy_type(value), quantization)


def _numpy_type(value: ir.Value) -> str:
    assert value.dtype is not None
    return str(value.dtype.numpy())


def _onnxruntime_step(
    model: ir.Model, part: Part, inputs: list[ir.Value], outputs: list[ir.Value]
) -> OnnxruntimeStep:
    initializers = dict.fromkeys(
        value for node in part.nodes for value in node_inputs(node) if value.is_initializer()
    )
    proto = onnx.ModelProto(ir_version=model.ir_version, producer_name="adder-onnx")
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.graph.name = model.graph.name or "graph"
    proto.graph.node.extend(ir.to_proto(node) for node in part.nodes)
    proto.graph.input.extend(_value_info(value) for value in inputs)
    proto.graph.output.extend(_value_info(value) for value in outputs)
    for value in initializers:
        assert value.const_value is not None
        tensor = proto.graph.initializer.add()
        ir.serde.serialize_tensor_into(tensor, value.const_value)
        tensor.name = value_name(value)
    if any(_uses_our_domain(node) for node in part.nodes):
        opset = model.opset_imports.get("", 0)
        if opset < MIN_OPSET:
            raise ModelError(
                f"the model imports opset {opset}, and the body of {DOMAIN} needs {MIN_OPSET}: "
                "convert the model with onnx.version_converter"
            )
        proto.functions.extend(function_bodies(opset))
    return OnnxruntimeStep(
        proto,
        tuple(map(value_name, inputs)),
        tuple(map(value_name, outputs)),
        tuple(node.name or "" for node in part.nodes),
    )


def _uses_our_domain(node: ir.Node) -> bool:
    return node.domain == DOMAIN or any(
        inner.domain == DOMAIN for graph in subgraphs(node) for inner in graph.all_nodes()
    )


def _value_info(value: ir.Value) -> onnx.ValueInfoProto:
    if value.type is None:
        raise ModelError(
            f"the type of value {value.name!r} cannot be inferred; add it to the model's value_info"
        )
    return ir.serde.serialize_value(value)
