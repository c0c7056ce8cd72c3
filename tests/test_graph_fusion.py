"""Each fusing rule, and the cases that look like it but are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from adder_onnx import InferenceSession
from adder_onnx.graph.loading import load_graph
from adder_onnx.graph.plan import ChainStep, OnnxruntimeStep, make_plan
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


def test_subtraction_and_division_are_left() -> None:
    """They are not rules: the order of the operands matters."""
    for op_type in ("Sub", "Div"):
        check(
            [adder_conv("X", "W", "A"), node(op_type, ["A", "c"], "Y")],
            [],
            ["n_Y"],
            c=PER_FILTER,
        )
