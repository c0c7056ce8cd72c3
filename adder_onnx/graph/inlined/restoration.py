"""Turning inlined adder nodes back into nodes, and saying where that is not possible.

A file carries for every adder node the function body that says what it does, in standard operators,
and optimizers and inliners put that body in the node's place. The file then still computes the
same, but by a loop over single taps, some forty times slower than our kernels. `layer` and
`integers` have the rules by which such a loop becomes an AdderConv or a QLinearAdderConv again; the
node has all attributes written out, and takes the place of the nodes that gave its output.

Where a loop stays, one warning says how many do, and what to do about it; each loop's difference
from what is expected is logged as information. So is a model that says it is an AdderNet and
holds no adder node at all.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from adder_onnx.graph.inlined.expressions import UnknownValueError
from adder_onnx.graph.inlined.integers import read_integer_layer
from adder_onnx.graph.inlined.layer import Layer, read_layer
from adder_onnx.graph.inlined.loop import body_of, sums_distances
from adder_onnx.graph.inlined.matching import DifferentError, require
from adder_onnx.graph.inlined.values import Values
from adder_onnx.graph.names import Names
from adder_onnx.ops import DOMAIN, VERSION, ConvAttributes

__all__ = ["restore_adder_nodes"]

_INLINED = "_inlfunc_"
"""How names begin that onnxruntime gives to what it inlines."""

_ADVICE = (
    "an optimizer or inliner has rewritten the file. Use it as adder-export or adder-quantize "
    "wrote it, and optimize nothing before: the runtime does"
)

_logger = logging.getLogger(__name__)


def restore_adder_nodes(model: ir.Model, has_adder_nodes: bool) -> int:
    """Turns every loop that the rules allow back into an adder node; warns of those that stay.

    Args:
        model: with types and shapes inferred, and all constants initializers; it is changed.
        has_adder_nodes: whether it came with some, though nobody may use what they compute.

    Returns:
        How many nodes there are now in the place of loops.
    """
    loops = [node for node in model.graph.all_nodes() if sums_distances(node)]
    restored = _restore_loops(model.graph, loops) if loops else []
    if restored:
        model.opset_imports[DOMAIN] = VERSION
        _remove_loops(model, restored)
        _rename_inlined(model.graph)
        _logger.info("%d inlined adder nodes were turned back into nodes", len(restored))
    left = len(loops) - len(restored)
    if left:
        _logger.warning(
            "%d %s in standard operators, some 40 times slower than our kernels: %s",
            left,
            "loop computes an adder layer" if left == 1 else "loops compute adder layers",
            _ADVICE,
        )
    elif not restored and not has_adder_nodes:
        _warn_without_adder_nodes(model)
    return len(restored)


def _restore_loops(graph: ir.Graph, loops: Sequence[ir.Node]) -> list[ir.Node]:
    """Puts nodes beside all loops that can be read, which nobody uses then; returns these."""
    values, constants = Values(), _Constants(graph)
    names = Names(node.name for node in graph)
    restored = []
    for loop in loops:
        try:
            require(loop.graph is graph, "it is inside control flow")
            _restore(values, loop, constants, names)
            restored.append(loop)
        except (DifferentError, UnknownValueError) as difference:
            _logger.info("loop %r is not turned into an adder node: %s", loop.name, difference)
    return restored


def _remove_loops(model: ir.Model, loops: Sequence[ir.Node]) -> None:
    """Removes loops that nobody uses, and then what their bodies took from outside."""
    remove = RemoveUnusedNodesPass()
    remove(model)
    for loop in loops:
        for node in body_of(loop).all_nodes():
            for i in range(len(node.inputs)):
                node.replace_input_with(i, None)
    remove(model)


def _rename_inlined(graph: ir.Graph) -> None:
    """Renames what onnxruntime named while it inlined: it gives the same names again.

    It would do so where a body of ours is inlined anew, and then refuse the model.
    """
    taken, public = _names(graph), {*graph.inputs, *graph.outputs}
    for value in _values(graph):
        name = value.name or ""
        if name.startswith(_INLINED) and value not in public:
            value.name = taken.free(f"inlined{name}")


def _warn_without_adder_nodes(model: ir.Model) -> None:
    architecture = model.metadata_props.get("ai.addernet.architecture")
    if architecture is None and DOMAIN not in model.opset_imports:
        return
    _logger.warning(
        "the file %s, but has no adder node, nor one in standard operators that is recognised: %s",
        f"imports {DOMAIN}" if architecture is None else f"says it is the AdderNet {architecture}",
        _ADVICE,
    )


def _restore(values: Values, loop: ir.Node, constants: _Constants, names: Names) -> None:
    layer = read_layer(values, loop)
    integers = read_integer_layer(values, layer)
    attributes = _attributes(layer.attributes, layer.kernel_shape)
    if integers is None:
        inputs = tuple(_of_type(values, value, layer) for value in (layer.x, layer.w))
        node = _make_node("AdderConv", inputs, attributes, layer.outputs, constants, names)
        _take_place(node, layer.outputs, layer.last)
    else:
        attributes |= {"bits": integers.bits, "clip_min": integers.clip_min}
        if integers.levels:
            attributes["levels"] = integers.levels
        outputs = (integers.output,)
        node = _make_node(
            "QLinearAdderConv", integers.inputs, attributes, outputs, constants, names
        )
        _take_place(node, outputs, integers.last)
    node.metadata_props.update(loop.metadata_props)
    values.define_shape(node.outputs[0], layer.shape)


def _of_type(
    values: Values, value: ir.Value | NDArray[Any], layer: Layer
) -> ir.Value | NDArray[Any]:
    """A value in the layer's type: itself, cast where it is constant, or behind a Cast."""
    if not isinstance(value, ir.Value) or value.dtype == layer.type:
        return value
    try:
        return values.array(value).astype(layer.type.numpy())
    except UnknownValueError:
        pass
    cast = ir.node("Cast", [value], {"to": layer.type})
    cast.outputs[0].type = ir.TensorType(layer.type)
    assert layer.last.graph is not None
    layer.last.graph.insert_before(layer.last, cast)
    return cast.outputs[0]


def _attributes(attributes: ConvAttributes, kernel_shape: tuple[int, int]) -> dict[str, Any]:
    return {
        "auto_pad": attributes.auto_pad,
        "dilations": attributes.dilations,
        "group": attributes.group,
        "kernel_shape": kernel_shape,
        "pads": attributes.pads,
        "strides": attributes.strides,
    }


def _make_node(
    op_type: str,
    inputs: Sequence[ir.Value | NDArray[Any]],
    attributes: dict[str, Any],
    outputs: Sequence[ir.Value],
    constants: _Constants,
    names: Names,
) -> ir.Node:
    """A node named as adder-export does: its output's name without the ``_output``."""
    name = (outputs[0].name or "").removesuffix("_output") or op_type
    name = names.free(name)
    return ir.Node(
        DOMAIN,
        op_type,
        [v if isinstance(v, ir.Value) else constants.value(v, name) for v in inputs],
        ir.convenience.convert_attributes(attributes),
        name=name,
    )


def _take_place(node: ir.Node, outputs: Sequence[ir.Value], last: ir.Node) -> None:
    """Puts a node behind another one, and its output in the place of values."""
    assert last.graph is not None
    last.graph.insert_after(last, node)
    new = node.outputs[0]
    name, new.type = outputs[0].name, outputs[0].type
    for old in outputs:
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        old.name = None
    new.name = name


class _Constants:
    """Adds constants to a graph; equal ones are one."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._found: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._names = _names(graph)

    def value(self, array: NDArray[Any], owner: str) -> ir.Value:
        """The constant with these elements; a new one is named after the node ``owner``."""
        digest = hashlib.sha256(np.ascontiguousarray(array).data).digest()
        key = (str(array.dtype), array.shape, digest)
        if key not in self._found:
            name = self._names.free(f"{owner}.constant")
            tensor = ir.tensor(array, name=name)
            self._found[key] = ir.Value(
                name=name,
                shape=ir.Shape(array.shape),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
            self._graph.initializers[name] = self._found[key]
        return self._found[key]


def _values(graph: ir.Graph) -> list[ir.Value]:
    """All values of a graph and the graphs in it."""
    found = dict.fromkeys((*graph.inputs, *graph.initializers.values()))
    for node in graph.all_nodes():
        for value in (*node.inputs, *node.outputs):
            if value is not None:
                found[value] = None
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                found.update(dict.fromkeys(attribute.as_graph().inputs))
    return list(found)


def _names(graph: ir.Graph) -> Names:
    return Names(value.name for value in _values(graph))
