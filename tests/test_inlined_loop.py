"""What a loop over taps sums, and what becomes of it: rules 1, 2, 8 of `layer`, each broken alone.

As in test_inlined_layer.py.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import adder_onnx
from adder_onnx.graph.inlined.loop import sums_distances
from adder_onnx.graph.loading import load_graph
from tests.inlined import (
    GEOMETRY,
    X,
    adder_nodes,
    assert_left,
    by_onnxruntime,
    change,
    inlined,
    insert,
    node_of,
)

RNG = np.random.default_rng(1)


# 1. One carried double, and the whole trip count.


def test_a_loop_that_carries_more_is_left() -> None:
    def alter(body: onnx.FunctionProto) -> None:
        loop = node_of(body, "total")
        loop.input.append("double_zero")
        loop.output.append("second")
        graph = loop.attribute[0].g
        graph.input.append(helper.make_tensor_value_info("more_in", TensorProto.DOUBLE, []))
        graph.output.append(helper.make_tensor_value_info("more_out", TensorProto.DOUBLE, []))
        graph.node.append(helper.make_node("Identity", ["more_in"], ["more_out"]))

    model = inlined(alter)
    assert not adder_nodes(model)


def test_a_sum_in_float32_is_left(caplog: pytest.LogCaptureFixture) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        change(body, "double_x", to=TensorProto.FLOAT)
        change(body, "double_w", to=TensorProto.FLOAT)
        change(body, "double_zero", value=onnx.numpy_helper.from_array(np.float32(0)))
        graph = node_of(body, "total").attribute[0].g
        for value in (graph.input[2], graph.output[1]):
            value.type.tensor_type.elem_type = TensorProto.FLOAT

    assert_left(inlined(alter), "does not sum in double", caplog, {"X": X})


def test_a_loop_that_may_end_early_is_left(caplog: pytest.LogCaptureFixture) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        graph = node_of(body, "total").attribute[0].g
        graph.node.insert(0, helper.make_node("Less", ["t", "group_scalar"], ["is_early"]))
        change(graph, "go_out", inputs=["is_early"])

    assert_left(inlined(alter), "may end early", caplog, {"X": X})


def test_a_loop_that_may_not_begin_is_left(caplog: pytest.LogCaptureFixture) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        change(body, "go", value=onnx.numpy_helper.from_array(np.asarray(False)))

    assert_left(inlined(alter), "may not begin", caplog, {"X": X})


def test_a_condition_that_is_absent_or_constantly_true_is_none() -> None:
    def absent(body: onnx.FunctionProto) -> None:
        node_of(body, "total").input[1] = ""

    def true_inside(body: onnx.FunctionProto) -> None:
        change(node_of(body, "total").attribute[0].g, "go_out", inputs=["go"])

    for alter in (absent, true_inside):
        assert len(adder_nodes(inlined(alter))) == 1


# 2. The absolute value of the difference of taps, subtracted.


@pytest.mark.parametrize(
    ("output", "op_type", "inputs"),
    [
        ("sum_out", "Add", ["sum_in", "distance"]),
        ("sum_out", "Sub", ["distance", "sum_in"]),
        ("sum_out", "Sub", ["tap_w", "distance"]),
        ("distance", "Neg", ["difference"]),
        ("difference", "Add", ["tap_x", "tap_w"]),
    ],
)
def test_other_sums_are_left(output: str, op_type: str, inputs: list[str]) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        change(node_of(body, "total").attribute[0].g, output, op_type, inputs)

    model = inlined(alter)
    assert not adder_nodes(model)
    assert not any(map(sums_distances, load_graph(model).graph))
    (result,) = adder_onnx.InferenceSession(model.SerializeToString()).run(None, {"X": X})
    np.testing.assert_array_equal(result, by_onnxruntime(model, {"X": X})[0])


def test_operands_of_the_difference_may_be_exchanged() -> None:
    model = inlined(lambda body: change(body, "difference", inputs=["tap_w", "tap_x"]))
    assert len(adder_nodes(model)) == 1


def test_copies_are_seen_through() -> None:
    def alter(body: onnx.FunctionProto) -> None:
        graph = node_of(body, "total").attribute[0].g
        for inner, op_type, of in (
            (graph, "Identity", "tap_x"),
            (graph, "Identity", "distance"),
            (body, "Dropout", "padded"),
            (body, "Dropout", "total"),
            (body, "Identity", "double_y"),
        ):
            nodes = list(inner.node)
            for node in nodes:
                if of in node.input:
                    node.input[:] = [f"copy_{of}" if i == of else i for i in node.input]
            place = next(i for i, node in enumerate(nodes) if of in node.output)
            inner.node.insert(place + 1, helper.make_node(op_type, [of], [f"copy_{of}"]))

    model = inlined(alter)
    assert len(adder_nodes(model)) == 1


def test_dropout_in_training_mode_is_no_copy(caplog: pytest.LogCaptureFixture) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        change(body, "padded_size", inputs=["double_x"])  # which leaves its shape as it is
        change(body, "grouped_x", inputs=["dropped", "x_shape"])
        yes = onnx.numpy_helper.from_array(np.asarray(True))
        dropout = helper.make_node("Dropout", ["double_x", "", "training"], ["dropped"])
        insert(body, "x_shape", helper.make_node("Constant", [], ["training"], value=yes))
        insert(body, "x_shape", dropout)

    assert_left(inlined(alter), "the image's type", caplog)


def test_taps_from_inside_the_body_are_left(caplog: pytest.LogCaptureFixture) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        graph = node_of(body, "total").attribute[0].g
        graph.node.insert(0, helper.make_node("Neg", ["grouped_w"], ["negative_w"]))
        change(graph, "tap_w", inputs=["negative_w", "t"])

    assert_left(inlined(alter), "from inside of its body", caplog, {"X": X})


def test_two_slices_are_left(caplog: pytest.LogCaptureFixture) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        change(node_of(body, "total").attribute[0].g, "difference", inputs=["tap_x", "tap_x"])

    assert_left(inlined(alter), "does not subtract taps", caplog, {"X": X})


def test_a_gather_on_another_axis_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """Of as many filters as taps, both axes fit."""

    def alter(body: onnx.FunctionProto) -> None:
        change(node_of(body, "total").attribute[0].g, "tap_w", axis=2)

    w, x = RNG.standard_normal((6, 1, 3, 2)), RNG.standard_normal((2, 1, 7, 8))
    geometry = {**GEOMETRY, "group": 1}
    model = inlined(alter, geometry=geometry, w=w.astype(np.float32), x=("N", 1, "H", "W"))
    assert_left(model, "on another axis", caplog, {"X": x.astype(np.float32)})


def test_a_gather_in_another_order_is_left(caplog: pytest.LogCaptureFixture) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        graph = node_of(body, "total").attribute[0].g
        insert(graph, "tap_w", helper.make_node("Mod", ["t", "six"], ["other_t"]))
        change(graph, "tap_w", inputs=["grouped_w", "other_t"])
        insert(body, "total", helper.make_node("Constant", [], ["six"], value_int=6))

    assert_left(inlined(alter), "does not gather by iteration", caplog, {"X": X})


# 8. The result.


def test_a_result_in_another_order_is_left(caplog: pytest.LogCaptureFixture) -> None:
    model = inlined(lambda body: change(body, "y_shape", inputs=["batch", "out_size", "filters"]))
    assert_left(model, "reshaped to another shape", caplog, {"X": X})


def test_a_result_of_another_rank_is_left(caplog: pytest.LogCaptureFixture) -> None:
    model = inlined(lambda body: change(body, "y_shape", inputs=["batch", "minus_one"]))
    del model.graph.output[0].type.tensor_type.shape.dim[2:]
    assert_left(model, "reshaped to another rank", caplog, {"X": X})


def test_a_result_that_is_not_reshaped_is_left(caplog: pytest.LogCaptureFixture) -> None:
    model = inlined(lambda body: change(body, "double_y", "Abs", ["total"]))
    model.graph.output[0].type.tensor_type.shape.dim.add()
    assert_left(model, "something else than a Reshape", caplog, {"X": X})


def test_a_result_that_gives_the_shape_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """The Reshape takes the loop's result, but as its second input."""

    def alter(body: onnx.FunctionProto) -> None:
        change(body, "double_y", inputs=["double_x", "as_shape"])
        cast = helper.make_node("Cast", ["total"], ["as_shape"], to=TensorProto.INT64)
        insert(body, "double_y", cast)

    assert_left(inlined(alter), "something else than a Reshape", caplog)


def test_a_result_of_integers_is_left(caplog: pytest.LogCaptureFixture) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        change(body, "Y", "Cast", ["double_y"], to=TensorProto.INT32)

    model = inlined(alter, output_type=TensorProto.INT32)
    assert_left(model, "a type that AdderConv does not have", caplog, {"X": X})


def test_a_sum_that_is_an_output_is_left(caplog: pytest.LogCaptureFixture) -> None:
    model = inlined()
    model.graph.output.append(
        helper.make_tensor_value_info("total", TensorProto.DOUBLE, [None] * 5)
    )
    assert_left(model, "used elsewhere, too", caplog, {"X": X})


def test_a_sum_that_is_used_twice_is_left(caplog: pytest.LogCaptureFixture) -> None:
    model = inlined()
    model.graph.node.append(helper.make_node("Abs", ["total"], ["Z"]))
    model.graph.output.append(helper.make_tensor_value_info("Z", TensorProto.DOUBLE, [None] * 5))
    assert_left(model, "used elsewhere, too", caplog, {"X": X})


def test_a_double_result_that_is_an_output_is_one_of_double() -> None:
    """And what is cast of it stays a Cast."""
    model = inlined()
    name = "double_y"
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None] * 4))
    (node,) = adder_nodes(model)
    assert node.outputs[0].name == name
    assert node.outputs[0].is_graph_output()
    results = adder_onnx.InferenceSession(model.SerializeToString()).run(None, {"X": X})
    for result, expected in zip(results, by_onnxruntime(model, {"X": X}), strict=True):
        np.testing.assert_array_equal(result, expected)


def use_inside_if(model: onnx.ModelProto, then: str, otherwise: str, node: onnx.NodeProto) -> None:
    """Adds an output Z that is a node of one value or another, chosen by a constant."""
    branches = {}
    for branch, value in (("then_branch", then), ("else_branch", otherwise)):
        inner = onnx.NodeProto()
        inner.CopyFrom(node)
        inner.input[:], inner.output[:] = [value], [f"{branch}_out"]
        output = helper.make_tensor_value_info(f"{branch}_out", TensorProto.FLOAT, None)
        branches[branch] = helper.make_graph([inner], branch, [], [output])
    condition = onnx.numpy_helper.from_array(np.asarray(True), "condition")
    model.graph.initializer.append(condition)
    model.graph.node.append(helper.make_node("If", ["condition"], ["Z"], **branches))
    model.graph.output.append(helper.make_tensor_value_info("Z", TensorProto.FLOAT, None))


@pytest.mark.parametrize("part", ["total", "double_y"])
def test_a_result_used_inside_control_flow_is_left(
    part: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = inlined()
    if part == "total":  # used there alone
        del model.graph.node[-2:]
        del model.graph.output[0]
    cast = helper.make_node("Cast", [""], [""], to=TensorProto.FLOAT)
    use_inside_if(model, part, "double_x", cast)
    assert_left(model, "used inside control flow", caplog, {"X": X})


def test_a_result_under_two_names_is_left(caplog: pytest.LogCaptureFixture) -> None:
    model = inlined()
    cast = helper.make_node("Cast", ["double_y"], ["Z"], to=TensorProto.FLOAT)
    model.graph.node.append(cast)
    model.graph.output.append(helper.make_tensor_value_info("Z", TensorProto.FLOAT, [None] * 4))
    assert_left(model, "under several names", caplog, {"X": X})


def test_a_result_that_is_cast_twice_is_one() -> None:
    model = inlined()
    y = model.graph.output[0].name
    name = "double_y"
    del model.graph.output[0]
    model.graph.node.append(helper.make_node("Cast", [name], ["y_2"], to=TensorProto.FLOAT))
    model.graph.node.append(helper.make_node("Mul", [y, "y_2"], ["Z"]))
    model.graph.output.append(helper.make_tensor_value_info("Z", TensorProto.FLOAT, [None] * 4))
    assert len(adder_nodes(model)) == 1
    (result,) = adder_onnx.InferenceSession(model.SerializeToString()).run(None, {"X": X})
    np.testing.assert_allclose(result, by_onnxruntime(model, {"X": X})[0], rtol=1e-6)
