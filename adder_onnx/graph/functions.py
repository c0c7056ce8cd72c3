"""Putting the bodies of local functions in the place of their calls.

The result is that of onnx_ir's own pass, names included, but the time that it takes grows with the
number of nodes only, however many functions there are and however often they are called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from adder_onnx.errors import ModelError
from adder_onnx.graph.names import Names
from adder_onnx.graph.partition import subgraphs

__all__ = ["inline_functions"]

_Id = tuple[str, str, str]
"""Domain, name and overload of a function."""


def inline_functions(model: ir.Model) -> None:
    """Inlines all local functions; there are none afterwards.

    Args:
        model: one that `calls` found no fault with.

    Raises:
        ModelError: functions import other versions of operators than the model, or do not fit their
            calls.
    """
    if model.functions:
        _Inliner(model).inline(model.graph)
        model.functions.clear()


class _Inliner:
    def __init__(self, model: ir.Model) -> None:
        self._functions = model.functions
        self._opsets = model.opset_imports
        self._values, self._nodes = Names(first=2), Names(first=2)

    def inline(self, graph: ir.Graph) -> None:
        """Inlines all calls in a graph, those of inlined functions included."""
        self._values.take(value.name for value in graph.inputs)
        self._values.take(graph.initializers)
        for node in graph:
            self._nodes.take([node.name or None])
            self._values.take(value.name for value in node.outputs)
        for node in graph:  # the nodes of an inlined body come next
            function = self._functions.get(node.op_identifier())
            if function is not None:
                self._replace(graph, node, function)
                continue
            for inner in subgraphs(node):
                self.inline(inner)

    def _replace(self, graph: ir.Graph, call: ir.Node, function: ir.Function) -> None:
        self._check_call(call, function)
        attributes = {
            attribute.name: attribute
            for attribute in function.attributes.values()
            if attribute.value is not None
        } | dict(call.attributes)
        inputs = [*call.inputs, *[None] * (len(function.inputs) - len(call.inputs))]
        copy = _Copy(self, call, attributes)
        copy.values.update(zip(function.inputs, inputs, strict=True))
        nodes = [copy.node(node) for node in function]
        # What has no name is an output that the call leaves out.
        wanted = [i for i, value in enumerate(call.outputs) if value.name]
        old = [call.outputs[i] for i in wanted]
        new = [self._result(call, copy.values.get(function.outputs[i]), nodes) for i in wanted]
        ir.convenience.replace_nodes_and_values(graph, call, [call], nodes, old, new)

    def _result(self, call: ir.Node, value: ir.Value | None, nodes: list[ir.Node]) -> ir.Value:
        """What takes the place, and the name, of a call's output: one of the copied nodes gives it.

        For an input of the function it is a copy.
        """
        if value is None:
            raise ModelError(f"{_call(call)} has an output that nothing gives")
        producer = value.producer()
        if producer is not None and producer.graph is None:
            return value
        identity = ir.Node("", "Identity", [value])
        self.name(identity)
        nodes.append(identity)
        return identity.outputs[0]

    def _check_call(self, call: ir.Node, function: ir.Function) -> None:
        for domain, version in function.opset_imports.items():
            if self._opsets.setdefault(domain, version) != version:
                raise ModelError(
                    f"function {_called(function.identifier())} imports version {version} of the "
                    f"domain {domain!r}, and the model version {self._opsets[domain]}"
                )
        for what, given, known in (
            ("inputs", call.inputs, function.inputs),
            ("outputs", call.outputs, function.outputs),
        ):
            if len(given) > len(known):
                raise ModelError(
                    f"{_call(call)} has {len(given)} {what}, and the function {len(known)}"
                )
        for attribute in call.attributes.values():
            if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
                raise ModelError(f"{_call(call)} has a graph as attribute, which is not supported")

    def name(self, node: ir.Node) -> None:
        """Gives names of their own to a new node and its outputs."""
        node.name = self._nodes.free(node.name or "node")
        for value in node.outputs:
            value.name = self._values.free(value.name or "val")


class _Copy:
    """Copies a body's nodes for one call.

    Attributes:
        values: what stands for the body's values; None for an input that the call leaves out.
    """

    def __init__(self, inliner: _Inliner, call: ir.Node, attributes: Mapping[str, ir.Attr]) -> None:
        self.values: dict[ir.Value, ir.Value | None] = {}
        self._inliner = inliner
        self._call = call
        self._attributes = attributes

    def node(self, node: ir.Node) -> ir.Node:
        new = ir.Node(
            node.domain,
            node.op_type,
            [None if value is None else self._value(value) for value in node.inputs],
            [new for old in node.attributes.values() if (new := self._attribute(old)) is not None],
            overload=node.overload,
            num_outputs=len(node.outputs),
            version=node.version,
            name=node.name,
            doc_string=node.doc_string,
            metadata_props={**self._call.metadata_props, **node.metadata_props},
        )
        for old_value, new_value in zip(node.outputs, new.outputs, strict=True):
            self.values[old_value] = new_value
            _describe_alike(old_value, new_value)
        self._inliner.name(new)
        return new

    def _value(self, value: ir.Value) -> ir.Value | None:
        if value not in self.values:
            raise ModelError(
                f"{_call(self._call)}: the function takes {value.name!r} from outside of it"
            )
        return self.values[value]

    def _attribute(self, attribute: ir.Attr) -> ir.Attr | None:
        """An attribute of the copy; None where it is one of the function that nobody gives."""
        name, doc_string = attribute.name, attribute.doc_string
        if not attribute.is_ref():
            graphs: ir.Graph | Sequence[ir.Graph]
            if attribute.type == ir.AttributeType.GRAPH:
                graphs = self._graph(attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                graphs = [self._graph(graph) for graph in attribute.as_graphs()]
            else:
                return attribute
            return ir.Attr(name, attribute.type, graphs, doc_string=doc_string)
        given = self._attributes.get(attribute.ref_attr_name or "")
        if given is None:
            return None
        if given.is_ref():
            raise ModelError(f"{_call(self._call)} refers to an attribute that nobody gives")
        return ir.Attr(name, given.type, given.value, doc_string=given.doc_string)

    def _graph(self, graph: ir.Graph) -> ir.Graph:
        inputs = [self._inner(value) for value in graph.inputs]
        initializers = [self._inner(value) for value in graph.initializers.values()]
        nodes = [self.node(node) for node in graph]
        outputs = [self._value(value) for value in graph.outputs]
        given = [value for value in outputs if value is not None]
        if len(given) < len(outputs):
            raise ModelError(f"{_call(self._call)} leaves out an input that is an inner output")
        new = ir.Graph(
            inputs,
            given,
            nodes=nodes,
            initializers=initializers,
            doc_string=graph.doc_string,
            opset_imports=graph.opset_imports.copy(),
            name=graph.name,
        )
        new.metadata_props.update(graph.metadata_props)
        return new

    def _inner(self, value: ir.Value) -> ir.Value:
        """The copy of a graph's input or initializer, of which one may be both."""
        known = self.values.get(value)
        if known is None:
            known = self.values[value] = ir.Value(name=value.name)
            _describe_alike(value, known)
        return known


def _describe_alike(old: ir.Value, new: ir.Value) -> None:
    new.name = old.name
    new.shape = None if old.shape is None else old.shape.copy()
    new.type = old.type
    new.const_value = old.const_value
    new.doc_string = old.doc_string
    new.metadata_props.update(old.metadata_props)


def _call(node: ir.Node) -> str:
    return f"node {node.name!r}, a call of the function {_called(node.op_identifier())},"


def _called(name: _Id) -> str:
    domain, op_type, overload = name
    return f"{domain}.{op_type}{':' if overload else ''}{overload}"
