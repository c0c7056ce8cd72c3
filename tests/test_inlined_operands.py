"""The image and the weight of a loop over taps: rules 4 and 5 of `layer`, each broken alone.

As in test_inlined_layer.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

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
    inlined_by_onnx_ir,
    insert,
)
from tests.models import adder_conv, make_model

RNG = np.random.default_rng(1)


# 4. The image.


def test_other_padding_is_left(caplog: pytest.LogCaptureFixture) -> None:
    model = inlined(lambda body: change(body, "padded", mode="reflect"))
    assert_left(model, "something else than zeros", caplog, {"X": X})


def test_padding_by_a_value_is_left(caplog: pytest.LogCaptureFixture) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        value = onnx.numpy_helper.from_array(np.asarray(2.0))
        insert(body, "padded", helper.make_node("Constant", [], ["fill"], value=value))
        change(body, "padded", inputs=["double_x", "pads", "fill"])

    assert_left(inlined(alter), "something else than zeros", caplog, {"X": X})


def test_padding_by_a_zero_that_is_written_out_is_read() -> None:
    def alter(body: onnx.FunctionProto) -> None:
        value = onnx.numpy_helper.from_array(np.asarray(0.0))
        insert(body, "padded", helper.make_node("Constant", [], ["fill"], value=value))
        change(body, "padded", inputs=["double_x", "pads", "fill"])

    assert len(adder_nodes(inlined(alter))) == 1


def test_padding_of_axes_that_are_named_is_left(caplog: pytest.LogCaptureFixture) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        four = helper.make_node("Constant", [], ["all_axes"], value_ints=[0, 1, 3, 2])
        insert(body, "padded", four)
        change(body, "padded", inputs=["double_x", "pads", "", "all_axes"])

    assert_left(inlined(alter), "pads other axes", caplog)


@pytest.mark.parametrize("order", [0, 1, 4, 5])
def test_padding_of_batch_or_channels_is_left(order: int, caplog: pytest.LogCaptureFixture) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        inputs = ["zero", "zero", "begin", "zero", "zero", "end"]
        inputs[order if order < 2 else order - 1] = "one"
        change(body, "pads", inputs=inputs)

    assert_left(inlined(alter), "pads other axes", caplog)


def test_negative_pads_are_left(caplog: pytest.LogCaptureFixture) -> None:
    model = inlined(geometry={**GEOMETRY, "pads": [1, -1, 1, 1]})
    assert_left(model, "cuts the image", caplog, {"X": X})


def test_pads_that_are_computed_are_left(caplog: pytest.LogCaptureFixture) -> None:
    model = inlined(
        lambda body: change(body, "pads", inputs=[*["zero"] * 2, "size", *["zero"] * 2, "size"])
    )
    assert_left(model, "unknown number of zeros", caplog)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_same_padding_of_unknown_sizes_is_read(mode: str) -> None:
    geometry = {**GEOMETRY, "auto_pad": mode, "strides": [2, 3], "pads": [0, 0, 0, 0]}
    model = inlined(geometry=geometry)
    (node,) = adder_nodes(model)
    assert node.attributes["auto_pad"].value == mode
    session = adder_onnx.InferenceSession(model.SerializeToString())
    for height, width in ((7, 8), (6, 11), (3, 3)):
        x = RNG.standard_normal((2, 6, height, width)).astype(np.float32)
        expected = reference(x, W, ConvAttributes.from_mapping(geometry))
        np.testing.assert_allclose(session.run(None, {"X": x})[0], expected, rtol=1e-6)


def test_halves_that_are_mixed_are_left(caplog: pytest.LogCaptureFixture) -> None:
    """SAME_UPPER along one axis, SAME_LOWER along the other."""
    geometry = {**GEOMETRY, "auto_pad": "SAME_UPPER", "strides": [2, 3]}

    def alter(body: onnx.FunctionProto) -> None:
        one_way = onnx.numpy_helper.from_array(np.array([True, False]))
        insert(body, "same_begin", helper.make_node("Constant", [], ["mixed"], value=one_way))
        change(body, "same_begin", inputs=["mixed", "same_smaller", "same_larger"])

    assert_left(inlined(alter, geometry=geometry), "unknown number of zeros", caplog, {"X": X})


def test_an_image_of_another_type_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """float16 of what is summed of float32."""

    def alter(body: onnx.FunctionProto) -> None:
        change(body, "Y", "Cast", ["double_y"], to=TensorProto.FLOAT16)

    w = W.astype(np.float16).astype(np.float32)
    model = inlined(alter, w=w, output_type=TensorProto.FLOAT16)
    assert_left(model, "type is not that of the result", caplog, {"X": X})


def test_an_image_that_was_rounded_to_integers_is_left(caplog: pytest.LogCaptureFixture) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        cast = helper.make_node("Cast", ["X"], ["integers"], to=TensorProto.INT32)
        insert(body, "double_x", cast)
        change(body, "double_x", inputs=["integers"])

    assert_left(inlined(alter), "type is not that of the result", caplog, {"X": 5 * X})


def test_narrower_operands_are_cast() -> None:
    """float32 of float16, as onnxruntime leaves it where the next node has no float16 kernel."""

    def alter(body: onnx.FunctionProto) -> None:
        change(body, "Y", "Cast", ["double_y"], to=TensorProto.FLOAT)

    model = inlined(alter, w=W.astype(np.float16), elem_type=TensorProto.FLOAT16)
    assert len(adder_nodes(model)) == 1
    (result,) = adder_onnx.InferenceSession(model.SerializeToString()).run(
        None, {"X": X.astype(np.float16)}
    )
    a = ConvAttributes.from_mapping(GEOMETRY)
    expected = reference(X.astype(np.float16), W.astype(np.float16), a)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "inputs",
    [
        ["batch", "group_channels", "group", "padded_size"],
        ["group", "batch", "group_channels", "padded_size"],
        ["batch", "group", "group_channels", "size"],
    ],
)
def test_other_groupings_of_the_image_are_left(
    inputs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = inlined(lambda body: change(body, "x_shape", inputs=inputs))
    assert_left(model, "reshaped to another shape", caplog)


def test_an_image_that_is_expanded_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """To the shape of one group: a batch of two becomes one of two by two."""
    w = RNG.standard_normal((6, 6, 3, 2)).astype(np.float32)
    geometry = {**GEOMETRY, "group": 1}
    model = inlined(
        lambda body: change(body, "grouped_x", "Expand", ["padded", "x_shape"]),
        geometry=geometry,
        w=w,
    )
    assert_left(model, "the image is not grouped", caplog)


def test_an_image_of_another_rank_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """Without a Pad nothing says that there are four dimensions."""

    def alter(body: onnx.FunctionProto) -> None:
        change(body, "grouped_x", inputs=["double_x", "x_shape"])
        change(body, "padded_size", inputs=["double_x"])

    for x in (("N", 6, "H"), ("N", 6, "H", "W", 1)):
        assert_left(inlined(alter, x=x), "does not have four dimensions", caplog)
        caplog.clear()
    assert len(adder_nodes(inlined(alter))) == 1


@pytest.mark.parametrize("channels", [6, "C"])
def test_a_batch_that_is_inferred_needs_known_channels(
    channels: int | str, caplog: pytest.LogCaptureFixture
) -> None:
    """12 channels would make twice the batch of it, which AdderConv would not do."""

    def alter(body: onnx.FunctionProto) -> None:
        rest = ["group", "group_channels", "padded_size"]
        change(body, "x_shape", inputs=["minus_one", *rest])

    model = inlined(alter, x=("N", channels, "H", "W"))
    if channels == 6:
        assert len(adder_nodes(model)) == 1
    else:
        assert_left(model, "number of channels is unknown", caplog, {"X": X})


def test_two_dimensions_that_are_inferred_are_left(caplog: pytest.LogCaptureFixture) -> None:
    inputs = ["minus_one", "minus_one", "group_channels", "padded_size"]
    model = inlined(lambda body: change(body, "x_shape", inputs=inputs))
    assert_left(model, "reshaped to an unknown shape", caplog)


def test_a_zero_in_a_shape_is_the_dimension_before() -> None:
    def alter(body: onnx.FunctionProto) -> None:
        change(body, "grouped_x", allowzero=0)
        rest = ["group", "group_channels", "padded_size"]
        change(body, "x_shape", inputs=["zero", *rest])

    model = inlined(alter)
    assert len(adder_nodes(model)) == 1


def test_a_zero_that_is_zero_is_left(caplog: pytest.LogCaptureFixture) -> None:
    rest = ["group", "group_channels", "padded_size"]
    model = inlined(lambda body: change(body, "x_shape", inputs=["zero", *rest]))
    assert_left(model, "reshaped to another shape", caplog)


# 5. The weight.


def test_a_weight_of_unknown_shape_is_left(caplog: pytest.LogCaptureFixture) -> None:
    model = make_model(
        [adder_conv("X", "W", "Y", **GEOMETRY)],
        {"X": ["N", 6, "H", "W"], "W": ["M", 3, 3, 2]},
        {"Y": [None] * 4},
    )
    model = inlined_by_onnx_ir(model)
    assert_left(model, "weight's shape is unknown", caplog, {"X": X, "W": W})


def test_a_weight_that_is_an_input_is_read() -> None:
    model = make_model(
        [adder_conv("X", "W", "Y", **GEOMETRY)],
        {"X": ["N", 6, "H", "W"], "W": [6, 3, 3, 2]},
        {"Y": [None] * 4},
    )
    (node,) = adder_nodes(inlined_by_onnx_ir(model))
    assert [v.name for v in node.inputs if v is not None] == ["X", "W"]


def test_a_weight_that_has_no_representation_is_left(caplog: pytest.LogCaptureFixture) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        value = onnx.numpy_helper.from_array(W.astype(np.float64) * (1 + 1e-12))
        change(body, "double_w", "Constant", [], value=value)

    assert_left(inlined(alter), "cannot be represented in float", caplog, {"X": X})


@pytest.mark.parametrize(
    ("folded", "accepted"),
    [
        (W.reshape(1, 2, 3, 18, 1, 1).astype(np.float64), True),
        (W.reshape(1, 2, 3, 18, 1, 1), False),  # which the body does not gather from
        (W.reshape(2, 1, 3, 18, 1, 1).astype(np.float64), False),
        (W.reshape(1, 2, 3, 3, 6, 1).astype(np.float64), False),
    ],
)
def test_a_weight_that_was_folded(folded: NDArray[Any], accepted: bool) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        change(body, "grouped_w", "Constant", [], value=onnx.numpy_helper.from_array(folded))

    model = inlined(alter)
    if folded.dtype == np.float32:
        with pytest.raises(adder_onnx.AdderError):
            adder_nodes(model)
        return
    nodes = adder_nodes(model)
    assert len(nodes) == accepted
    if accepted:
        value = nodes[0].inputs[1]
        assert value is not None
        assert value.const_value is not None
        np.testing.assert_array_equal(value.const_value.numpy(), W)


@pytest.mark.parametrize(
    "inputs",
    [
        ["one", "group_filters", "group", "minus_one", "one", "one"],
        ["one", "group", "group_filters", "minus_one", "one", "group"],
        ["one", "group", "minus_one", "group_filters", "one", "one"],
        ["group", "one", "group_filters", "minus_one", "one", "one"],
    ],
)
def test_other_groupings_of_the_weight_are_left(inputs: list[str]) -> None:
    assert not adder_nodes(inlined(lambda body: change(body, "w_shape", inputs=inputs)))


def test_a_weight_of_other_filters_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """As four filters of 27 taps, of which the loop takes 18."""

    def alter(body: onnx.FunctionProto) -> None:
        change(body, "w_shape", inputs=["one", "group", "group", "minus_one", "one", "one"])
        change(body, "sum_shape", inputs=["batch", "group", "group", "out_size"])
        change(body, "y_shape", inputs=["batch", "four", "out_size"])

    assert_left(inlined(alter), "the weight is not grouped", caplog, {"X": X})


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ("grouped_w", np.ones((1, 2, 3, 4, 1, 1), np.int64)),
        ("grouped_w", np.ones(36, np.float64)),
        ("w_shape", np.array([6, -1])),
        ("w_shape", np.array([1, -2, -3, 18, 1, 1])),
    ],
)
def test_a_weight_of_a_type_or_rank_that_cannot_be_is_left(
    output: str, value: NDArray[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Beside an operator that onnx does not know, and for which it forgives everything."""
    tensor = onnx.numpy_helper.from_array(value)
    model = inlined(lambda body: change(body, output, "Constant", [], value=tensor))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    gelu = helper.make_node("Gelu", ["X"], ["Z"], domain="com.microsoft")
    model.graph.node.append(gelu)
    total = helper.make_tensor_value_info("total", TensorProto.DOUBLE, [None] * 5)
    model.graph.value_info.append(total)
    model.graph.output.append(helper.make_tensor_value_info("Z", TensorProto.FLOAT, None))
    assert_left(model, "the weight is not grouped", caplog)


def test_a_weight_of_another_kernel_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """The loop takes 3 x 2 pixels, the weight has the same number of taps as 2 x 3."""

    def alter(body: onnx.FunctionProto) -> None:
        change(body, "kernel", "Constant", [], value_ints=[3, 2])

    model = inlined(alter, w=W.reshape(6, 3, 2, 3), geometry={**GEOMETRY, "kernel_shape": [2, 3]})
    assert_left(model, "weight has another kernel", caplog, {"X": X})


def test_taps_that_are_no_multiple_of_the_kernel_are_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        folded = W.reshape(1, 2, 3, 18, 1, 1)[:, :, :, :17].astype(np.float64)
        change(body, "grouped_w", "Constant", [], value=onnx.numpy_helper.from_array(folded))
        change(body, "taps", "Constant", [], value_int=17)

    assert_left(inlined(alter), "does not divide the taps", caplog, {"X": X})
