"""From a plan to a file in which each chain is one node.

1. A model is planned as for our own runtime: what follows adder nodes is fused, chains are cut out,
   and conversions of layout and type go into them.
2. Standard nodes stay as they are in the plan's sub-models.
3. A chain becomes one node of ``ai.addernet``. Its inputs are its images and its weights; its
   attributes ``program`` and ``numbers`` are its description (`runtime.chain_description`), which
   the library executes; and the model has a function body of that name, which everybody else does.
4. Every chain has an operator of its own, ``AdderChain0`` and so on: onnxruntime does not tell
   bodies apart by overloads. The type of its outputs is in its name, where that is not float32.
5. A chain whose weights are computed, or one of more than `MOST_CHAINS`, is called
   ``AdderLayers0`` and so on: the library has no such operator, so that its nodes run one by one.
6. Where a chain gives integers and floats, DequantizeLinear is left to onnxruntime.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from adder_onnx.compilation.body import chain_body
from adder_onnx.errors import InputError
from adder_onnx.graph.adder_node import AdderNode
from adder_onnx.graph.loading import load_graph
from adder_onnx.graph.names import Names
from adder_onnx.graph.plan import ConversionStep, OnnxruntimeStep, Plan, Step, make_plan
from adder_onnx.ops import DOMAIN, function_bodies, write_out_levels
from adder_onnx.runtime.chain import Chain
from adder_onnx.runtime.chain_description import ChainDescription, describe_chain
from adder_onnx.runtime.parts import parts_of

__all__ = ["MOST_CHAINS", "Compiled", "CompiledChain", "compile_model"]

MOST_CHAINS = 64
"""Operators of each type that the library has for chains."""

_OPERATORS = {
    "float32": "AdderChain",
    "float16": "AdderChainFloat16_",
    "uint8": "AdderChainUint8_",
}
_WITHOUT_KERNEL = "AdderLayers"


@dataclass(frozen=True)
class CompiledChain:
    """A chain of a compiled file.

    Attributes:
        operator: of its node.
        nodes: names of the adder and pooling nodes in it.
        inputs: names of its images.
        outputs: names of what it gives.
        description: what the library makes of it; None where the library has no operator for it.
    """

    operator: str
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    description: ChainDescription | None


@dataclass(frozen=True)
class Compiled:
    """A compiled model.

    Attributes:
        model: it.
        chains: what became one node each, in their order.
    """

    model: onnx.ModelProto
    chains: tuple[CompiledChain, ...]


def compile_model(model: onnx.ModelProto) -> Compiled:
    """Makes one node of each chain of a model.

    Args:
        model: a model with adder nodes; it is not changed.

    Returns:
        The compiled model, and what its chains are.

    Raises:
        ModelError: the model is not valid.
        InputError: it has no adder node that our kernels execute.
    """
    graph = load_graph(model)
    plan = make_plan(graph)
    types = {v.name: v for v in _values(graph.graph)}
    file = _File(model, graph, plan)
    for part in parts_of(plan.steps):
        if isinstance(part, OnnxruntimeStep):
            file.add_standard(part)
        else:
            file.add_chain(part)
    if not file.chains:
        raise InputError(
            "the model has no adder nodes that our kernels execute: there is nothing to compile"
        )
    file.describe(types)
    return Compiled(file.proto, tuple(file.chains))


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]


class _File:
    """The compiled model, as far as it is made."""

    def __init__(self, model: onnx.ModelProto, graph: ir.Model, plan: Plan) -> None:
        self.chains: list[CompiledChain] = []
        self._opsets = dict(graph.opset_imports)
        self._opsets.setdefault(DOMAIN, 1)
        self._numbers: dict[str, int] = {}
        self.proto = proto = onnx.ModelProto(
            ir_version=model.ir_version,
            producer_name="adder-onnx",
            domain=model.domain,
            model_version=model.model_version,
            doc_string=model.doc_string,
        )
        proto.metadata_props.extend(model.metadata_props)
        proto.opset_import.extend(helper.make_opsetid(*entry) for entry in self._opsets.items())
        proto.graph.name = model.graph.name or "graph"
        proto.graph.input.extend(plan.inputs)
        proto.graph.output.extend(plan.outputs)
        proto.graph.initializer.extend(
            helper.make_tensor(name, t.data_type, t.dims, t.raw_data, raw=True)
            if t.HasField("raw_data")
            else _renamed(t, name)
            for name, t in plan.constants.items()
        )
        self._names = Names([*(v.name for v in _values(graph.graph)), *graph.graph.initializers])
        self._initializers = set(plan.constants)
        self._functions: dict[str, onnx.FunctionProto] = {}

    def add_standard(self, step: OnnxruntimeStep) -> None:
        self.proto.graph.node.extend(step.model.graph.node)
        for tensor in step.model.graph.initializer:
            if tensor.name not in self._initializers:
                self._initializers.add(tensor.name)
                self.proto.graph.initializer.append(tensor)

    def add_chain(self, steps: list[Step]) -> None:
        steps, left = _with_one_type(steps)
        chain = Chain(steps)
        types = {step.type for step in chain.exits}
        has_kernel = not chain.weights and len(types) == 1
        operator = self._operator(types.pop() if has_kernel else None)
        has_kernel = not operator.startswith(_WITHOUT_KERNEL)
        description = describe_chain(chain) if has_kernel else None
        attributes = {} if description is None else _attributes(description)
        body = chain_body(operator, chain, self._opsets, list(attributes))
        self._functions[operator] = body
        names = tuple(node.name for node in chain.nodes)
        body.doc_string = f"The nodes {', '.join(names)} with all that was fused into them."
        images = tuple(step.value for step in chain.entries)
        node = helper.make_node(
            operator,
            [*images, *self._operands(chain)],
            chain.outputs,
            name=self._names.numbered(operator),
            domain=DOMAIN,
            doc_string=body.doc_string,
            **attributes,
        )
        self.proto.graph.node.extend([node, *left])
        self.chains.append(CompiledChain(operator, names, images, chain.outputs, description))

    def describe(self, values: dict[str | None, ir.Value]) -> None:
        """Adds the function bodies, and the types of all values that have one."""
        nodes = [*self.proto.graph.node, *(n for f in self._functions.values() for n in f.node)]
        own = function_bodies(self._opsets[""], levels=write_out_levels(nodes))
        self.proto.functions.extend([*own, *self._functions.values()])
        ends = {v.name for v in (*self.proto.graph.input, *self.proto.graph.output)}
        for node in self.proto.graph.node:
            for name in node.output:
                value = values.get(name)
                if name and name not in ends and value is not None and value.type is not None:
                    self.proto.graph.value_info.append(ir.serde.serialize_value(value))

    def _operator(self, type_: str | None) -> str:
        """The operator of the next chain, whose outputs have one type."""
        prefix = _WITHOUT_KERNEL if type_ is None else _OPERATORS[type_]
        number = self._numbers.get(prefix, 0)
        if prefix != _WITHOUT_KERNEL and number == MOST_CHAINS:
            return self._operator(None)
        self._numbers[prefix] = number + 1
        return f"{prefix}{number}"

    def _operands(self, chain: Chain) -> list[str]:
        """The inputs of a chain's node beside its images, which become initializers."""
        operands = [
            self._constant(f"{step.value}.table", np.frombuffer(step.quantization.table, np.uint8))
            for step in chain.entries
            if step.quantization is not None and step.quantization.table is not None
        ]
        for node in chain.nodes:
            if not isinstance(node, AdderNode):
                continue
            per_filter = (-1, 1, 1) if node.integers is None else (-1,)
            arrays = {
                "weight": node.weight,
                "scale": node.scale.reshape(per_filter),
                "bias": node.bias.reshape(per_filter),
            }
            for what, array in arrays.items():
                if isinstance(array, str):
                    operands.append(array)
                    continue
                assert isinstance(array, np.ndarray)
                operands.append(self._constant(f"{node.name}.{what}", array))
        return operands

    def _constant(self, name: str, array: NDArray[Any]) -> str:
        """The name of a new initializer: this one, or with a number where it is taken."""
        name = self._names.free(name)
        self._names.take([name])
        self.proto.graph.initializer.append(
            numpy_helper.from_array(np.ascontiguousarray(array), name)
        )
        return name


def _renamed(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def _attributes(description: ChainDescription) -> dict[str, Any]:
    return {"program": description.integers, "numbers": description.floats}


def _with_one_type(steps: list[Step]) -> tuple[list[Step], list[onnx.NodeProto]]:
    """A chain whose outputs have one type, and the DequantizeLinear that make others of them."""
    exits = [s for s in steps if isinstance(s, ConversionStep) and not s.to_kernels]
    if len({step.type for step in exits}) == 1:
        return steps, []
    kept: list[Step] = []
    nodes: list[onnx.NodeProto] = []
    raw = {step.value for step in exits if step.quantization is None}
    for step in steps:
        is_exit = isinstance(step, ConversionStep) and not step.to_kernels
        if not is_exit or step.quantization is None:  # type: ignore[union-attr]
            kept.append(step)
            continue
        assert isinstance(step, ConversionStep)
        q = step.quantization
        assert q is not None
        if q.value not in raw:
            raw.add(q.value)
            kept.append(replace(step, value=q.value, type="uint8", quantization=None))
        nodes += _dequantize(step)
    return kept, nodes


def _dequantize(step: ConversionStep) -> list[onnx.NodeProto]:
    q = step.quantization
    assert q is not None
    parameters = {"scale": np.float32(q.scale), "zero_point": np.uint8(q.zero_point)}
    names = {what: f"{step.value}.{what}" for what in parameters}
    constants = [
        helper.make_node(
            "Constant", [], [names[what]], value=numpy_helper.from_array(np.array(value))
        )
        for what, value in parameters.items()
    ]
    return [
        *constants,
        helper.make_node("DequantizeLinear", [q.value, *names.values()], [step.value]),
    ]
