"""Small ONNX models for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from adder_onnx.ops import DOMAIN, VERSION, function_bodies
from adder_onnx.ops.reference import AdderConv

Shape = Sequence[int | str | None]

RNG = np.random.default_rng(0)
W1 = RNG.standard_normal((20, 3, 3, 3)).astype(np.float32)
W2 = RNG.standard_normal((20, 20, 3, 3)).astype(np.float32)
K = RNG.standard_normal((3, 3, 1, 1)).astype(np.float32)


def adder_conv(x: str, w: str, y: str, **attributes: Any) -> onnx.NodeProto:
    """An AdderConv node called ``n_`` and its output."""
    return helper.make_node("AdderConv", [x, w], [y], f"n_{y}", domain=DOMAIN, **attributes)


def node(op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    """A standard node called ``n_`` and its output."""
    return helper.make_node(op_type, inputs, [output], f"n_{output}", **attributes)


def make_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Shape],
    outputs: dict[str, Shape],
    constants: dict[str, np.ndarray[Any, Any]] | None = None,
    *,
    elem_type: int = TensorProto.FLOAT,
    opset: int = 18,
    bodies: bool = True,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A checked model; all inputs and outputs are of one element type."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, elem_type, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, elem_type, s) for n, s in outputs.items()],
        [onnx.numpy_helper.from_array(a, n) for n, a in (constants or {}).items()],
    )
    others = [*domains, *(f.domain for f in functions)]
    imports = {"": opset, DOMAIN: VERSION, **dict.fromkeys(others, 1)}
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(d, v) for d, v in imports.items()],
        functions=[*functions, *(function_bodies(opset) if bodies else [])],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    return model


def oracle(
    model: onnx.ModelProto, feed: dict[str, np.ndarray[Any, Any]]
) -> list[np.ndarray[Any, Any]]:
    """The outputs by onnx's reference evaluator, our operator by its NumPy reference."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    kept = [f for f in bare.functions if f.domain != DOMAIN]
    del bare.functions[:]
    bare.functions.extend(kept)
    return ReferenceEvaluator(bare, new_ops=[AdderConv]).run(None, feed)  # type: ignore[return-value]


def network() -> onnx.ModelProto:
    """Stem, two adder layers with a residual, head; batch, height and width symbolic."""
    return make_model(
        [
            node("Conv", ["X", "K"], "S"),
            adder_conv("S", "W1", "A", pads=[1, 1, 1, 1]),
            node("Relu", ["A"], "B"),
            adder_conv("B", "W2", "C", pads=[1, 1, 1, 1]),
            node("Add", ["C", "B"], "D"),
            node("GlobalAveragePool", ["D"], "E"),
            node("Flatten", ["E"], "Y"),
        ],
        {"X": ["N", 3, "H", "W"]},
        {"Y": ["N", 20]},
        {"W1": W1, "W2": W2, "K": K},
    )


def normalized_network() -> onnx.ModelProto:
    """The same with batch normalisation between the first layer and its Relu.

    Without it nothing passes the Relu, since distances are negative: the output of `network` does
    not depend on its input.
    """
    found = network()
    norm = node("BatchNormalization", ["A", "gamma", "beta", "mean", "variance"], "normalized")
    values = {
        "gamma": np.linspace(0.5, 1.5, 20),
        "beta": np.linspace(-0.2, 0.5, 20),
        "mean": np.full(20, -30.0),
        "variance": np.full(20, 16.0),
    }
    found.graph.node[2].input[0] = "normalized"
    found.graph.node.insert(2, norm)
    found.graph.initializer.extend(
        onnx.numpy_helper.from_array(value.astype(np.float32), name)
        for name, value in values.items()
    )
    onnx.checker.check_model(found)
    return found


def image(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.asarray(RNG.standard_normal(shape)).astype(np.float32)
