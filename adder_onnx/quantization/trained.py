"""From a model that was trained with rounding in it to integer nodes.

Such a model holds, where training rounds, QuantizeLinear and DequantizeLinear with constant
scalars, before them a Clip for fewer than 8 bits, or between them a Cast and a Gather for few
levels, and AdderConv nodes whose weights are rounded
where they lie in the range of their input. Then

1. a value that is rounded has that scale, and adder nodes take its integers;
2. an adder node whose input is rounded becomes a QLinearAdderConv, its weights the same integers;
3. what these nodes give, or take as a residual, and nobody rounds gets 8 bits, over a range that is
   found by running the model: such values are uint8 in any case;
4. a standard node that takes a rounded value still does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.errors import ModelError
from adder_onnx.graph.adder_node import AdderNode, is_adder_node, value_name
from adder_onnx.graph.linear_quantization import (
    Lookup,
    clip_bounds,
    is_private_clip,
    lookup_of,
    quantization_parameters,
    quantized,
)
from adder_onnx.graph.loading import load_graph
from adder_onnx.quantization.few_levels import leaving_entry
from adder_onnx.quantization.observation import observe
from adder_onnx.quantization.pooling import share_scales
from adder_onnx.quantization.quantize import finish, fused_nodes
from adder_onnx.quantization.ranges import Quantization, choose
from adder_onnx.quantization.rewrite import NodeSummary, can_be_quantized, rewrite
from adder_onnx.quantization.weights import IntegerLayer, weight_of

__all__ = ["Trained", "quantize_trained", "trained_layer"]


@dataclass(frozen=True)
class Trained:
    """The result of `quantize_trained`.

    Attributes:
        model: with QLinearAdderConv nodes, and the bodies of our operators.
        nodes: what became of each adder node that takes rounded values.
        left: names of adder nodes that stay float.
    """

    model: onnx.ModelProto
    nodes: tuple[NodeSummary, ...]
    left: tuple[str, ...]


def quantize_trained(
    model: onnx.ModelProto,
    feeds: Iterable[Mapping[str, NDArray[Any]]],
    *,
    threads: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Trained:
    """Turns adder nodes that take rounded values into integer ones, by the scales in the model.

    Args:
        model: is not changed.
        feeds: inputs that the ranges of values which are not rounded are found on.
        threads: for the runs.
        progress: is called with the number of runs that are over, after each.

    Raises:
        ModelError: no adder node takes a rounded value.
        DataError: there are no inputs, or they make a value infinite or undefined.
    """
    graph = load_graph(model).graph
    rounded = _take_rounded(graph)
    plain = fused_nodes(graph)
    names = [node.name for node in plain if can_be_quantized(node) and node.x in rounded]
    if not names:
        raise ModelError("no AdderConv node takes a rounded value, and none can become an integer")
    final = load_graph(model)
    rounded = _take_rounded(final.graph)
    # What is fused into a node depends on which others are there to take it.
    nodes = fused_nodes(final.graph, names)
    seen = observe(model, nodes, feeds, threads, progress)
    scales = {name: choose(values, 8, "mse") for name, values in seen.histograms.items()}
    trained = {name: pair.quantization for name, pair in rounded.items()}
    scales.update(trained)
    share_scales(final.graph, scales)
    scales.update(trained)  # of a MaxPool's input and output that are both rounded
    _give_back(final.graph, rounded)
    summaries = rewrite(final.graph, scales, lambda n: trained_layer(n, scales[n.x]), names)
    return Trained(
        finish(final, model),
        tuple(summaries),
        tuple(node.name for node in plain if node.name not in names),
    )


def trained_layer(node: AdderNode, quantization: Quantization) -> IntegerLayer:
    """The integers of a node's weights; its bias takes what clamping those beyond the range leaves.

    Rounding is not made up for: training has seen it.

    Args:
        node: with the weights of training.
        quantization: of the node's input.
    """
    exact = weight_of(node).astype(np.float64)
    clamped = np.clip(exact, quantization.low, quantization.high)
    constant = np.abs(exact - clamped).sum(axis=(1, 2, 3))
    bias = node.bias.astype(np.float64) - node.scale.astype(np.float64) * constant
    return IntegerLayer.of(node, quantization, quantization.round(clamped), bias)


_OF_ROUNDING = ("Clip", "QuantizeLinear", "Cast", "Gather")


@dataclass(frozen=True)
class _Rounding:
    """Where a value is rounded.

    Attributes:
        quantization: the levels.
        value: that is rounded.
        result: what is rounded, as float.
    """

    quantization: Quantization
    value: ir.Value
    result: ir.Value


def _take_rounded(graph: ir.Graph) -> dict[str, _Rounding]:
    """Makes nodes take values as they are before they are rounded.

    The rounding itself stays, and with it a use that keeps fusing from going across it.
    """
    found: dict[str, _Rounding] = {}
    for node in list(graph):
        rounding = _rounding(node)
        if rounding is None:
            continue
        before = found.setdefault(value_name(rounding.value), rounding)
        if before.quantization == rounding.quantization:
            for use in list(rounding.result.uses()):
                use.node.replace_input_with(use.idx, rounding.value)
    return found


def _rounding(node: ir.Node) -> _Rounding | None:
    """The rounding that ends with a node, if one does."""
    if (node.domain, node.op_type) != ("", "DequantizeLinear"):
        return None
    integers = node.inputs[0]
    lookup = None if integers is None else lookup_of(integers.producer())
    if lookup is not None:
        return _rounding_by_table(node, lookup)
    quantize = integers.producer() if integers is not None else None
    if quantize is None or (quantize.domain, quantize.op_type) != ("", "QuantizeLinear"):
        return None
    parameters = quantization_parameters(quantize)
    is_uint8 = quantize.outputs[0].dtype == ir.DataType.UINT8
    if parameters is None or parameters != quantization_parameters(node) or not is_uint8:
        return None
    scale, zero_point = parameters
    value, bits = quantize.inputs[0], 8
    assert value is not None
    clip = value.producer()
    if clip is not None and is_private_clip(clip, value):
        low, high = (quantized(bound, scale, zero_point) for bound in clip_bounds(clip))
        if low == 0 and high + 1 in (4, 8, 16, 32, 64, 128):
            bits, value = high.bit_length(), clip.inputs[0]
            assert value is not None
    return _Rounding(Quantization(np.float32(scale), zero_point, bits), value, node.outputs[0])


def _rounding_by_table(node: ir.Node, lookup: Lookup) -> _Rounding | None:
    """The rounding to few levels that ends with a node."""
    quantize = lookup.cast.inputs[0].producer() if lookup.cast.inputs[0] is not None else None
    if quantize is None or (quantize.domain, quantize.op_type) != ("", "QuantizeLinear"):
        return None
    fine, coarse = quantization_parameters(quantize), quantization_parameters(node)
    if fine is None or coarse is None or quantize.outputs[0].dtype != ir.DataType.UINT8:
        return None
    table = np.frombuffer(lookup.table, np.uint8)
    q = leaving_entry(Quantization(np.float32(fine[0]), fine[1], 8), table, *coarse)
    value = quantize.inputs[0]
    return None if q is None or value is None else _Rounding(q, value, node.outputs[0])


def _give_back(graph: ir.Graph, rounded: Mapping[str, _Rounding]) -> None:
    """Makes standard nodes take a rounded value again, where no integer node will give it."""
    for rounding in rounded.values():
        producer = rounding.value.producer()
        if producer is not None and is_adder_node(producer):
            continue
        for use in list(rounding.value.uses()):
            if not is_adder_node(use.node) and not _leads_to(use.node, rounding.result):
                use.node.replace_input_with(use.idx, rounding.result)


def _leads_to(node: ir.Node, result: ir.Value) -> bool:
    """Whether a node is part of a rounding, before its end."""
    while node.outputs[0] is not result:
        uses = list(node.outputs[0].uses())
        if node.op_type not in _OF_ROUNDING or len(uses) != 1:
            return False
        node = uses[0].node
    return True
