"""Each rule by which a loop is read as an AdderConv, and graphs where it alone is broken.

The loops are those of the operator's own function body with one thing changed. They compute
something else, or are not what the rules are made for, and must be left as they are: the model then
gives bit for bit what stock onnxruntime makes of it.
"""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnx import helper

import adder_onnx
from adder_onnx.ops import ConvAttributes
from adder_onnx.ops.reference import adder_conv as reference
from tests.inlined import (
    GEOMETRY,
    W,
    X,
    adder_nodes,
    assert_left,
    change,
    inlined,
    insert,
    node_of,
)

RNG = np.random.default_rng(1)


def test_the_body_itself_is_read() -> None:
    model = inlined()
    (node,) = adder_nodes(model)
    assert {name: a.value for name, a in node.attributes.items()} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in GEOMETRY.items()
    }
    (result,) = adder_onnx.InferenceSession(model.SerializeToString()).run(None, {"X": X})
    expected = reference(X, W, ConvAttributes.from_mapping(GEOMETRY))
    np.testing.assert_allclose(result, expected, rtol=1e-6)


# 3. Where an iteration's taps lie.


@pytest.mark.parametrize(
    ("output", "inputs"),
    [
        ("position", ["column", "row"]),
        ("row", ["row_number", "kernel_area"]),
        ("channel", ["t", "kernel_height"]),
        ("row_number", ["t", "kernel_height"]),
        ("column", ["t", "kernel_height"]),
        ("offset", ["position", "kernel"]),
    ],
)
def test_another_order_of_taps_is_left(
    output: str, inputs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        change(node_of(body, "total").attribute[0].g, output, inputs=inputs)

    model = inlined(alter)
    with caplog.at_level(logging.INFO, "adder_onnx"):
        assert not adder_nodes(model)
    assert "is not turned into an adder node" in caplog.text


@pytest.mark.parametrize("offset", ["channel", "batch", "kernel_height", "extent_1"])
def test_a_start_that_is_no_remainder_is_left(
    offset: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Another quotient, a size, a number, a sum."""

    def alter(body: onnx.FunctionProto) -> None:
        graph = node_of(body, "total").attribute[0].g
        insert(graph, "tap_start", helper.make_node("Add", ["batch", "channel"], ["extent_1"]))
        change(graph, "tap_start", inputs=["channel", offset, offset])

    assert_left(inlined(alter), "not taken in the kernel's order", caplog)


@pytest.mark.parametrize("inputs", [["offset"], ["channel", "channel", "offset"]])
def test_a_start_on_another_number_of_axes_is_left(
    inputs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        graph = node_of(body, "total").attribute[0].g
        change(graph, "tap_start", inputs=inputs)
        change(graph, "tap_end", inputs=["extent", "zero"])

    assert_left(inlined(alter), "not taken in the kernel's order", caplog)


def test_other_axes_are_left(caplog: pytest.LogCaptureFixture) -> None:
    model = inlined(lambda body: change(body, "axes", value_ints=[2, 4, 3]))
    assert_left(model, "slices other axes", caplog)


def test_steps_over_channels_are_left(caplog: pytest.LogCaptureFixture) -> None:
    model = inlined(lambda body: change(body, "steps", inputs=["two", "stride"]))
    assert_left(model, "slices by other steps", caplog)


@pytest.mark.parametrize(
    ("output", "op_type", "inputs"),
    [
        ("extent", "Concat", ["two", "window"]),  # two channels in one iteration
        ("window", "Add", ["window_end", "zero"]),
        ("window_end", "Mul", ["last", "dilation"]),
    ],
)
def test_other_windows_are_left(
    output: str, op_type: str, inputs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = inlined(lambda body: change(body, output, inputs=inputs))
    assert_left(model, "windows of another size", caplog)


# 6. The trip count.


@pytest.mark.parametrize("count", [17, 12])
def test_another_trip_count_is_left(count: int, caplog: pytest.LogCaptureFixture) -> None:
    model = inlined(lambda body: change(body, "taps", "Constant", [], value_int=count))
    assert_left(model, "not the number of taps", caplog, {"X": X})


# 7. The first sum.


def test_a_first_sum_that_is_not_zero_is_left(caplog: pytest.LogCaptureFixture) -> None:
    one = onnx.numpy_helper.from_array(np.asarray(1.0))
    model = inlined(lambda body: change(body, "double_zero", value=one))
    assert_left(model, "first sum is not zero", caplog, {"X": X})


@pytest.mark.parametrize(
    "inputs",
    [
        ["batch", "one", "group_filters", "out_size"],
        ["one", "group", "group_filters", "out_size"],
        ["batch", "group", "filters", "out_size"],
        ["one", "batch", "group", "group_filters", "out_size"],
    ],
)
def test_a_first_sum_of_another_shape_is_left(
    inputs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = inlined(lambda body: change(body, "sum_shape", inputs=inputs))
    assert_left(model, "first sum has another shape", caplog)


def test_a_first_sum_of_zeros_of_another_rank_is_left(caplog: pytest.LogCaptureFixture) -> None:
    zeros = onnx.numpy_helper.from_array(np.zeros((1,) * 6))
    model = inlined(lambda body: change(body, "double_zero", value=zeros))
    assert_left(model, "first sum has another shape", caplog)


def test_a_first_sum_that_was_folded_is_read() -> None:
    a = ConvAttributes.from_mapping(GEOMETRY)
    size = a.output_size((7, 8), (3, 2))

    def alter(body: onnx.FunctionProto) -> None:
        zeros = onnx.numpy_helper.from_array(np.zeros((2, 2, 3, *size)))
        change(body, "first_sum", "Constant", [], value=zeros)

    assert len(adder_nodes(inlined(alter, x=(2, 6, 7, 8)))) == 1
    assert not adder_nodes(inlined(alter, x=("N", 6, 7, 8)))
