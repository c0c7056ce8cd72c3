"""The loop over taps: what it sums, how long it runs, and what becomes of its result.

The numbers of the rules are those of `layer`.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from adder_onnx.graph.inlined.expressions import UnknownValueError
from adder_onnx.graph.inlined.matching import DifferentError, require, sole_use
from adder_onnx.graph.inlined.operands import WIDTHS
from adder_onnx.graph.inlined.values import Values, is_copy, is_standard, source

__all__ = ["body_of", "check_control", "outputs_of", "sums_distances", "taps_of"]


def sums_distances(node: ir.Node) -> bool:
    """Whether a node is a loop that subtracts absolute differences from a carried value."""
    try:
        _difference(node)
    except (DifferentError, UnknownValueError):
        return False
    return True


def body_of(loop: ir.Node) -> ir.Graph:
    """The graph of one iteration."""
    return loop.attributes["body"].as_graph()


def check_control(values: Values, loop: ir.Node) -> None:
    """Rule 1: a carried double, and the whole trip count."""
    require(loop.outputs[0].dtype == ir.DataType.DOUBLE, "it does not sum in double")
    body = body_of(loop)
    go_out = source(body.outputs[0])
    require(go_out is body.inputs[1] or _is_true(values, go_out), "it may end early")
    require(loop.inputs[1] is None or _is_true(values, loop.inputs[1]), "it may not begin")


def taps_of(loop: ir.Node) -> tuple[ir.Node, ir.Node]:
    """Rule 2: the Slice that gives an image's taps, and the Gather that gives the weight's."""
    difference = _difference(loop)
    nodes = {}
    for value in difference.inputs:
        node = source(value).producer()
        if node is not None and is_standard(node, "Slice", "Gather"):
            nodes[node.op_type] = node
    require(len(nodes) == 2, "it does not subtract taps")
    body = body_of(loop)
    for node in nodes.values():
        data = source(node.inputs[0])
        producer = data.producer()
        inside = data in body.inputs or (producer is not None and producer.graph is body)
        require(not inside, "it takes taps from inside of its body")
    gather = nodes["Gather"]
    require(gather.attributes.get_int("axis", 0) in (3, -3), "it gathers on another axis")
    require(source(gather.inputs[1]) is body.inputs[0], "it does not gather by iteration")
    return nodes["Slice"], gather


def outputs_of(loop: ir.Node) -> tuple[ir.Node, tuple[ir.Value, ...], ir.DataType]:
    """Rule 8, but for the shape: the Reshape, the values that are Y, and their type."""
    reshape, used = sole_use(loop.outputs[0])
    is_reshaped = is_standard(reshape, "Reshape") and reshape.inputs[0] is used
    require(is_reshaped, "its result is used by something else than a Reshape")
    double_y = reshape.outputs[0]
    copies, casts, as_it_is = [double_y], [], False
    for value in copies:
        as_it_is = as_it_is or value.is_graph_output()
        for node, index in value.uses():
            require(node.graph is loop.graph, "its result is used inside control flow")
            if is_copy(node) and index == 0:
                copies.append(node.outputs[0])
            elif is_standard(node, "Cast", "CastLike") and index == 0:
                casts.append(node.outputs[0])
            else:
                as_it_is = True
    types = {value.dtype for value in casts}
    if as_it_is or len(types) != 1:
        return reshape, (double_y,), ir.DataType.DOUBLE
    type_ = types.pop()
    require(type_ in WIDTHS, "its result is cast to a type that AdderConv does not have")
    assert type_ is not None
    unique = len(casts) == 1 or not any(value.is_graph_output() for value in casts)
    require(unique, "its result is an output of the graph under several names")
    return reshape, tuple(casts), type_


def _difference(loop: ir.Node) -> ir.Node:
    """The Sub whose absolute value the body subtracts from what it carries."""
    require(is_standard(loop, "Loop"), "it is no loop")
    body = body_of(loop)
    counts = (len(loop.inputs), len(loop.outputs), len(body.inputs), len(body.outputs))
    require(counts == (3, 1, 3, 2), "it carries other values")
    total = _producer(body.outputs[1], "Sub")
    require(source(total.inputs[0]) is body.inputs[2], "it does not subtract from what it carries")
    distance = _producer(total.inputs[1], "Abs")
    return _producer(distance.inputs[0], "Sub")


def _producer(value: ir.Value | None, op_type: str) -> ir.Node:
    node = source(value).producer()
    require(is_standard(node, op_type), f"there is no {op_type}")
    assert node is not None
    return node


def _is_true(values: Values, value: ir.Value) -> bool:
    try:
        array = values.array(value)
    except UnknownValueError:
        return False
    return array.dtype == np.bool_ and bool(array.all())
