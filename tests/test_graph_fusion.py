"""Each fusing rule, and the cases that look like it but are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from adder_onnx import InferenceSession
from adder_onnx.graph.adder_node import mark_adder_nodes
from adder_onnx.graph.fusion import fuse_epilogues
from adder_onnx.graph.loading import load_graph
from adder_onnx.graph.plan import ChainStep, OnnxruntimeStep, make_plan
from adder_onnx.ops import DOMAIN
from adder_onnx.ops.reference import adder_conv as reference
from tests.models import adder_conv, make_model, node, oracle

RNG = np.random.default_rng(0)
W = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
V = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
PER_FILTER = RNG.standard_normal((4, 1, 1)).astype(np.float32)
NORM = {
    "gamma": RNG.uniform(0.5, 2, 4).astype(np.float32),
    "beta": RNG.standard_normal(4).astype(np.float32),
    "mean": RNG.standard_normal(4).astype(np.float32),
    "var": RNG.uniform(0.5, 2, 4).astype(np.float32),
}
Y = ["N", 4, 6, 6]


def norm(x: str, y: str, **attributes: Any) -> onnx.NodeProto:
    return node("BatchNormalization", [x, *NORM], y, **attributes)


def check(
    nodes: list[onnx.NodeProto],
    fused: list[str],
    left: list[str],
    outputs: dict[str, Any] | None = None,
    **constants: NDArray[Any],
) -> None:
    """The epilogues hold exactly ``fused``, onnxruntime runs ``left``, and the answers agree."""
    used = {name for n in nodes for name in n.input}
    values = {"W": W, "V": V, **NORM, **constants}
    inputs: dict[str, Any] = {"X": ["N", 3, 8, 8], "R": Y, "row": ["N", 4, 1, 6]}
    model = make_model(
        nodes,
        {name: shape for name, shape in inputs.items() if name in used},
        outputs or {"Y": Y},
        {name: value for name, value in values.items() if name in used},
    )
    plan = make_plan(load_graph(model))
    chains = [n for s in plan.steps if isinstance(s, ChainStep) for n in s.nodes]
    assert [name for n in chains for name in n.fused] == fused
    standard = [name for s in plan.steps if isinstance(s, OnnxruntimeStep) for name in s.nodes]
    assert sorted(standard) == sorted(left)
    feed = {
        value.name: RNG.standard_normal([2, *inputs[value.name][1:]]).astype(np.float32)
        for value in model.graph.input
    }
    expected = oracle(model, feed)
    for fuse in (True, False):
        results = InferenceSession(model.SerializeToString(), fuse=fuse).run(None, feed)
        for result, truth in zip(results, expected, strict=True):
            np.testing.assert_allclose(result, truth, rtol=1e-5, atol=1e-5)


def test_batch_normalization() -> None:
    check([adder_conv("X", "W", "A"), norm("A", "Y", epsilon=0.1)], ["n_Y"], [])


def test_mul_and_add_per_filter() -> None:
    for op_type in ("Mul", "Add"):
        for inputs in (["A", "c"], ["c", "A"]):
            nodes = [adder_conv("X", "W", "A"), node(op_type, inputs, "Y")]
            check(nodes, ["n_Y"], [], c=PER_FILTER)
            check(nodes, ["n_Y"], [], c=PER_FILTER[None])


def test_affine_operators_compose_in_their_order() -> None:
    check(
        [
            adder_conv("X", "W", "A"),
            node("Add", ["A", "c"], "B"),
            norm("B", "C"),
            node("Mul", ["C", "c"], "D"),
            node("Relu", ["D"], "Y"),
        ],
        ["n_B", "n_C", "n_D", "n_Y"],
        [],
        c=PER_FILTER,
    )


def test_residual_and_relu() -> None:
    for inputs in (["B", "R"], ["R", "B"]):
        check(
            [
                adder_conv("X", "W", "A"),
                norm("A", "B"),
                node("Add", inputs, "C"),
                node("Relu", ["C"], "Y"),
            ],
            ["n_B", "n_C", "n_Y"],
            [],
        )


def test_add_of_two_adder_outputs_is_fused_into_one() -> None:
    check(
        [
            adder_conv("X", "W", "A"),
            norm("A", "B"),
            adder_conv("X", "V", "C"),
            node("Add", ["B", "C"], "D"),
            node("Relu", ["D"], "Y"),
        ],
        ["n_B", "n_D", "n_Y"],
        [],
    )


def test_residual_that_is_computed_after_the_adder_node() -> None:
    """The node moves behind its residual."""
    check(
        [
            adder_conv("X", "W", "A"),
            node("Exp", ["R"], "E"),
            node("Add", ["A", "E"], "Y"),
        ],
        ["n_Y"],
        ["n_E"],
    )


def test_nothing_is_fused_into_an_output_of_the_graph() -> None:
    check(
        [adder_conv("X", "W", "A"), node("Relu", ["A"], "Y")],
        [],
        ["n_Y"],
        outputs={"Y": Y, "A": Y},
    )


def test_nothing_is_fused_past_a_second_consumer() -> None:
    check(
        [
            adder_conv("X", "W", "A"),
            node("Relu", ["A"], "B"),
            node("Exp", ["A"], "C"),
            node("Add", ["B", "C"], "Y"),
        ],
        [],
        ["n_B", "n_C", "n_Y"],
    )
    check(
        [adder_conv("X", "W", "A"), node("Add", ["A", "A"], "Y")],
        [],
        ["n_Y"],
    )


def test_batch_normalization_in_training_mode_is_left() -> None:
    training = onnx.helper.make_node(
        "BatchNormalization",
        ["A", *NORM],
        ["Y", "running_mean", "running_var"],
        "n_Y",
        training_mode=1,
    )
    model = make_model(
        [adder_conv("X", "W", "A"), training],
        {"X": ["N", 3, 8, 8]},
        {"Y": Y},
        {"W": W, **NORM},
    )
    plan = make_plan(load_graph(model))
    assert [n.fused for s in plan.steps if isinstance(s, ChainStep) for n in s.nodes] == [()]


def test_batch_normalization_with_computed_parameters_is_left() -> None:
    nodes = [
        adder_conv("X", "W", "A"),
        node("Abs", ["k"], "beta2"),
        node("BatchNormalization", ["A", "gamma", "beta2", "mean", "var"], "Y"),
    ]
    model = make_model(
        nodes,
        {"X": ["N", 3, 8, 8], "k": [4]},
        {"Y": Y},
        {"W": W, **{k: v for k, v in NORM.items() if k != "beta"}},
    )
    plan = make_plan(load_graph(model))
    assert [n.fused for s in plan.steps if isinstance(s, ChainStep) for n in s.nodes] == [()]


@pytest.mark.parametrize(
    "constant",
    [
        np.float32(3.0).reshape(()),
        np.full((1, 1, 1), 3, np.float32),
        RNG.standard_normal(6).astype(np.float32),
        RNG.standard_normal((4, 6, 1)).astype(np.float32),
        RNG.standard_normal((4, 6, 6)).astype(np.float32),
    ],
)
@pytest.mark.parametrize("op_type", ["Mul", "Add"])
def test_constants_that_are_not_one_per_filter_are_left(
    op_type: str, constant: NDArray[Any]
) -> None:
    check([adder_conv("X", "W", "A"), node(op_type, ["A", "c"], "Y")], [], ["n_Y"], c=constant)


def test_add_that_broadcasts_is_left() -> None:
    check([adder_conv("X", "W", "A"), node("Add", ["A", "row"], "Y")], [], ["n_Y"])


def test_what_follows_a_residual_or_a_relu() -> None:
    check(
        [
            adder_conv("X", "W", "A"),
            node("Relu", ["A"], "B"),
            node("Add", ["B", "R"], "Y"),
        ],
        ["n_B"],
        ["n_Y"],
    )
    check(
        [adder_conv("X", "W", "A"), node("Add", ["A", "R"], "B"), norm("B", "Y")],
        ["n_B"],
        ["n_Y"],
    )
    check(
        [adder_conv("X", "W", "A"), node("Relu", ["A"], "B"), norm("B", "Y")],
        ["n_B"],
        ["n_Y"],
    )
    check(
        [
            adder_conv("X", "W", "A"),
            node("Relu", ["A"], "B"),
            node("Mul", ["B", "c"], "Y"),
        ],
        ["n_B"],
        ["n_Y"],
        c=PER_FILTER,
    )


SIX, ZERO = np.array(6, np.float32), np.array(0, np.float32)


def test_clip() -> None:
    """ReLU6 and its one-sided relatives; bounds may be missing."""
    for inputs in (["A", "low", "high"], ["A", "low"], ["A", "", "high"], ["A"]):
        nodes = [adder_conv("X", "W", "A"), node("Clip", inputs, "Y")]
        check(nodes, ["n_Y"], [], low=-10 * np.ones((), np.float32), high=ZERO)
    check(
        [
            adder_conv("X", "W", "A"),
            norm("A", "B"),
            node("Add", ["B", "R"], "C"),
            node("Clip", ["C", "low", "high"], "Y"),
        ],
        ["n_B", "n_C", "n_Y"],
        [],
        low=ZERO,
        high=SIX,
    )


def test_clip_whose_lower_bound_is_above_the_upper() -> None:
    """The operator then gives the upper one everywhere."""
    nodes = [adder_conv("X", "W", "A"), node("Clip", ["A", "low", "high"], "Y")]
    check(nodes, ["n_Y"], [], low=SIX, high=ZERO)


def test_clip_that_is_left() -> None:
    """With computed bounds, behind another clip, and where the adder's output is a bound."""
    check(
        [
            adder_conv("X", "W", "A"),
            node("ReduceMax", ["X"], "high", keepdims=0),
            node("Clip", ["A", "low", "high"], "Y"),
        ],
        [],
        ["n_Y", "n_high"],
        low=ZERO,
    )
    check(
        [
            adder_conv("X", "W", "A"),
            node("Relu", ["A"], "B"),
            node("Clip", ["B", "low", "high"], "Y"),
        ],
        ["n_B"],
        ["n_Y"],
        low=ZERO,
        high=SIX,
    )
    check(
        [
            adder_conv("X", "W", "A"),
            node("Clip", ["A", "low", "high"], "B"),
            node("Add", ["B", "R"], "Y"),
        ],
        ["n_B"],
        ["n_Y"],
        low=ZERO,
        high=SIX,
    )


def test_clips_do_not_follow_each_other() -> None:
    """Not even where the first has one bound only."""
    for second in ([node("Relu", ["B"], "Y")], [node("Clip", ["B", "low"], "Y")]):
        for first in (["A", "", "high"], ["A", "low2", "high"]):
            check(
                [adder_conv("X", "W", "A"), node("Clip", first, "B"), *second],
                ["n_B"],
                ["n_Y"],
                low=ZERO,
                low2=-2 * SIX,
                high=-SIX,
            )


def test_clip_with_attributes_as_before_opset_11() -> None:
    graph = onnx.helper.make_graph(
        [adder_conv("X", "W", "A"), node("Clip", ["A"], "Y", min=-9.0, max=-1.0)],
        "old",
        [onnx.helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])],
        [onnx.helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, Y)],
        [onnx.numpy_helper.from_array(W, "W")],
    )
    opsets = [onnx.helper.make_opsetid("", 10), onnx.helper.make_opsetid(DOMAIN, 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = InferenceSession(model.SerializeToString())
    (chain,) = [s for s in session.plan.steps if isinstance(s, ChainStep)]
    assert chain.nodes[0].fused == ("n_Y",)
    x = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)
    expected = np.clip(reference(x, W), -9, -1)
    np.testing.assert_allclose(session.run(None, {"X": x})[0], expected, rtol=1e-5)


def test_relu_before_an_adder_node_is_not_its_epilogue() -> None:
    check([node("Relu", ["X"], "A"), adder_conv("A", "W", "Y")], [], ["n_A"])


def test_operators_in_a_subgraph_are_left() -> None:
    """The Relu inside the branch is the only user of A, but it runs only sometimes."""
    branches = {}
    for name, op_type in (("then_branch", "Relu"), ("else_branch", "Constant")):
        inputs = ["A"] if op_type == "Relu" else []
        extra = {} if inputs else {"value": onnx.numpy_helper.from_array(W[:1])}
        branches[name] = onnx.helper.make_graph(
            [node(op_type, inputs, f"{name}_y", **extra)],
            name,
            [],
            [onnx.helper.make_tensor_value_info(f"{name}_y", onnx.TensorProto.FLOAT, None)],
        )
    model = make_model(
        [adder_conv("X", "W", "A"), node("If", ["flag"], "Y", **branches)],
        {"X": ["N", 3, 8, 8]},
        {"Y": [None] * 4},
        {"W": W, "flag": np.array(True)},
    )
    plan = make_plan(load_graph(model))
    assert [n.fused for s in plan.steps if isinstance(s, ChainStep) for n in s.nodes] == [()]


def test_clip_with_a_bound_that_is_no_scalar_is_left() -> None:
    nodes = [adder_conv("X", "W", "A"), node("Clip", ["A", "low"], "Y")]
    constants = {"W": W, "low": np.zeros(2, np.float32)}
    model = make_model(nodes, {"X": ["N", 3, 8, 8]}, {"Y": Y}, constants)
    plan = make_plan(load_graph(model))
    assert [n.fused for s in plan.steps if isinstance(s, ChainStep) for n in s.nodes] == [()]


def residuals(x: list[Any], r: list[Any]) -> int:
    """How many residuals the plan of X -> AdderConv -> + R has, for these declared shapes."""
    nodes = [adder_conv("X", "W", "A", pads=[1, 1, 1, 1]), node("Add", ["A", "R"], "Y")]
    model = make_model(nodes, {"X": x, "R": r}, {"Y": [None] * 4}, {"W": W})
    plan = make_plan(load_graph(model))
    return sum(
        n.residual is not None for s in plan.steps if isinstance(s, ChainStep) for n in s.nodes
    )


def test_unknown_dimensions_are_not_equal() -> None:
    nodes = [adder_conv("X", "W", "A", pads=[1, 1, 1, 1]), node("Add", ["A", "R"], "Y")]
    inputs = {"X": ["N", 3, 8, 8], "R": ["N", 4, 8, 8]}
    graph = load_graph(make_model(nodes, inputs, {"Y": ["N", 4, 8, 8]}, {"W": W})).graph
    mark_adder_nodes(graph)
    for value in (graph[0].outputs[0], graph.inputs[1]):
        value.shape = ir.Shape([None, 4, 8, 8])
    assert fuse_epilogues(graph) == 0
    for value in (graph[0].outputs[0], graph.inputs[1]):
        value.shape = ir.Shape(["N", 4, 8, 8])
    assert fuse_epilogues(graph) == 1


def test_residual_needs_a_shape_that_is_known_to_be_equal() -> None:
    assert residuals(["N", 3, 8, 8], ["N", 4, 8, 8]) == 1
    assert residuals(["N", 3, "H", "W"], ["N", 4, "H", "W"]) == 1
    assert residuals(["N", 3, 8, 8], ["M", 4, 8, 8]) == 0
    assert residuals(["N", 3, "H", "W"], ["N", 4, "W", "H"]) == 0
    assert residuals([None, 3, 8, 8], [None, 4, 8, 8]) == 0
    assert residuals([2, 3, 8, 8], [1, 4, 8, 8]) == 0
    assert residuals([1, 3, 8, 8], [4, 8, 8]) == 0
    assert residuals([4, 3, 4, 4], [4, 4, 4]) == 0


def test_a_constant_is_no_residual() -> None:
    """A chain takes images, and constants only as parameters."""
    r = RNG.standard_normal((2, 4, 6, 6)).astype(np.float32)
    model = make_model(
        [adder_conv("X", "W", "A"), node("Add", ["A", "r"], "Y")],
        {"X": [2, 3, 8, 8]},
        {"Y": [2, 4, 6, 6]},
        {"W": W, "r": r},
    )
    feed = {"X": RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)}
    session = InferenceSession(model.SerializeToString())
    assert [s.nodes for s in session.plan.steps if isinstance(s, OnnxruntimeStep)] == [("n_Y",)]
    np.testing.assert_allclose(session.run(None, feed)[0], oracle(model, feed)[0], rtol=1e-5)


def test_operators_of_other_domains_are_left() -> None:
    model = make_model(
        [adder_conv("X", "W", "A"), node("Relu", ["A"], "Y")],
        {"X": ["N", 3, 8, 8]},
        {"Y": Y},
        {"W": W},
    )
    graph = load_graph(model).graph
    mark_adder_nodes(graph)
    graph[1].domain = "com.example"
    assert fuse_epilogues(graph) == 0
    graph[1].domain = ""
    assert fuse_epilogues(graph) == 1


def test_batch_normalization_that_also_gives_statistics_is_left() -> None:
    """Before opset 14 there was no training_mode: further outputs meant training."""
    graph = onnx.helper.make_graph(
        [
            adder_conv("X", "W", "A"),
            onnx.helper.make_node(
                "BatchNormalization", ["A", *NORM], ["Y", "m", "v", "sm", "sv"], "n_Y"
            ),
            node("Identity", ["m"], "M"),
        ],
        "old",
        [onnx.helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])],
        [
            onnx.helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, Y),
            onnx.helper.make_tensor_value_info("M", onnx.TensorProto.FLOAT, [4]),
        ],
        [onnx.numpy_helper.from_array(a, n) for n, a in {"W": W, **NORM}.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 9), onnx.helper.make_opsetid(DOMAIN, 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    plan = make_plan(load_graph(model))
    assert [n.fused for s in plan.steps if isinstance(s, ChainStep) for n in s.nodes] == [()]


def test_subtraction_and_division_are_left() -> None:
    """They are not rules: the order of the operands matters."""
    for op_type in ("Sub", "Div"):
        check(
            [adder_conv("X", "W", "A"), node(op_type, ["A", "c"], "Y")],
            [],
            ["n_Y"],
            c=PER_FILTER,
        )
