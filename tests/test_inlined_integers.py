"""Each rule by which an inlined body is read as a QLinearAdderConv, and where it alone is broken.

As in test_inlined_layer.py. Results are integers, and must be the same bits in any case.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import adder_onnx
from adder_onnx.graph.plan import ChainStep
from adder_onnx.inspection.report import inspect_model
from adder_onnx.ops import DOMAIN, VERSION, function_bodies
from tests.inlined import (
    TOOLS,
    WRITTEN_OUT,
    Change,
    adder_nodes,
    assert_left,
    by_onnxruntime,
    change,
    inlined_by_onnx_ir,
    insert,
    no_change,
)
from tests.integer_chains import random_chain

RNG = np.random.default_rng(0)
CONSTANTS: dict[str, NDArray[Any]] = {
    "W": RNG.integers(0, 256, (4, 3, 3, 3), np.uint8),
    "x_scale": np.asarray(np.float32(0.03)),
    "x_zero_point": np.asarray(np.uint8(3)),
    "scale": np.array([1, 0.7, -0.9, 1.3], np.float32),
    "bias": np.array([70, 60, -65, 90], np.float32),
    "z_scale": np.asarray(np.float32(0.07)),
    "z_zero_point": np.asarray(np.uint8(2)),
    "y_scale": np.asarray(np.float32(0.11)),
    "y_zero_point": np.asarray(np.uint8(5)),
}
X = RNG.integers(0, 256, (2, 3, 6, 6), np.uint8)
Z = RNG.integers(0, 256, (2, 4, 4, 4), np.uint8)
FEED = {"X": X, "Z": Z}
ORDER = (
    *("X", "W", "x_scale", "x_zero_point", "scale", "bias"),
    *("Z", "z_scale", "z_zero_point", "y_scale", "y_zero_point"),
)


def model_of(
    alter: Change = no_change,
    *,
    constants: dict[str, NDArray[Any]] | None = None,
    inputs: dict[str, Any] | None = None,
    clip_min: float = 0.0,
    bits: int = 8,
    levels: Sequence[int] | None = None,
    output_type: int = TensorProto.UINT8,
) -> onnx.ModelProto:
    """One QLinearAdderConv, whose body has a change in it; with levels, perhaps none, that of such.

    As in `WRITTEN_OUT`, an attribute without a value is written, too.
    """
    known = CONSTANTS if constants is None else constants
    shapes = {"X": ["N", 3, 6, 6], "Z": ["N", 4, 4, 4]} if inputs is None else inputs
    node = helper.make_node(
        "QLinearAdderConv",
        list(ORDER),
        ["Y"],
        "q",
        domain=DOMAIN,
        clip_min=clip_min,
        bits=bits,
        **{**WRITTEN_OUT, "kernel_shape": [3, 3]},
    )
    if levels is not None:
        node.attribute.append(
            helper.make_attribute("levels", levels, attr_type=onnx.AttributeProto.INTS)
        )
    types = {name: helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in CONSTANTS.items()}
    graph = helper.make_graph(
        [node],
        "test",
        [
            helper.make_tensor_value_info(name, types.get(name, TensorProto.UINT8), shape)
            for name, shape in shapes.items()
        ],
        [helper.make_tensor_value_info("Y", output_type, [None] * 4)],
        [onnx.numpy_helper.from_array(a, n) for n, a in known.items() if n not in shapes],
    )
    functions = function_bodies(18, levels=levels is not None)
    alter(next(f for f in functions if f.name == "QLinearAdderConv"))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)


def altered(alter: Change, **arguments: Any) -> onnx.ModelProto:
    return inlined_by_onnx_ir(model_of(alter, **arguments))


def kernels_of(model: onnx.ModelProto) -> int:
    """How many integer nodes run in our kernels."""
    steps = adder_onnx.InferenceSession(model.SerializeToString()).plan.steps
    chains = [step for step in steps if isinstance(step, ChainStep)]
    return sum(node.type == "uint8" for chain in chains for node in chain.nodes)


def assert_same(model: onnx.ModelProto, original: onnx.ModelProto, feed: dict[str, Any]) -> None:
    """Our kernels run all of both, with stock onnxruntime's results, and these vary."""
    assert kernels_of(model) == kernels_of(original) > 0
    results = adder_onnx.InferenceSession(model.SerializeToString()).run(None, feed)
    for result, expected in zip(results, by_onnxruntime(original, feed), strict=True):
        assert len(np.unique(expected)) > 2
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(("clip_min", "bits"), [(0.0, 8), (-math.inf, 8), (0.0, 5)])
def test_every_tool(tool: str, clip_min: float, bits: int) -> None:
    original = model_of(clip_min=clip_min, bits=bits)
    model = TOOLS[tool](original)
    (node,) = adder_nodes(model)
    assert node.op_type == "QLinearAdderConv"
    assert node.attributes["bits"].value == bits
    assert node.attributes["clip_min"].value == clip_min
    assert_same(model, original, FEED)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("missing", ["zero points", "residual", "all"])
def test_what_does_nothing_may_be_missing(tool: str, missing: str) -> None:
    """Optimizers remove an addition of zero and a product with one."""
    constants, inputs = dict(CONSTANTS), {"X": ["N", 3, 6, 6], "Z": ["N", 4, 4, 4]}
    feed = dict(FEED)
    if missing in ("zero points", "all"):
        for name in ("x_zero_point", "z_zero_point", "y_zero_point"):
            constants[name] = np.asarray(np.uint8(0))
    if missing in ("residual", "all"):
        del inputs["Z"], feed["Z"]
        constants |= {"Z": np.asarray(np.uint8(0)), "z_zero_point": np.asarray(np.uint8(0))}
    if missing == "all":
        constants |= {"z_scale": np.asarray(np.float32(1)), "y_scale": np.asarray(np.float32(1))}
    original = model_of(constants=constants, inputs=inputs, clip_min=-math.inf)
    assert_same(TOOLS[tool](original), original, feed)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(("scale", "bias"), [(1, 5000), (-1, 0)])
def test_one_filter(tool: str, scale: float, bias: float) -> None:
    """Whose scale and bias are single elements, which an optimizer may remove."""
    constants = {
        **CONSTANTS,
        "W": CONSTANTS["W"][:1],
        "x_scale": np.asarray(np.float32(1)),
        "scale": np.asarray([scale], np.float32),
        "bias": np.asarray([bias], np.float32),
        "y_scale": np.asarray(np.float32(17)),
    }
    original = model_of(constants=constants, inputs={"X": ["N", 3, 6, 6], "Z": ["N", 1, 4, 4]})
    assert_same(TOOLS[tool](original), original, {"X": X, "Z": Z[:, :1]})


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tool", ["onnx", "onnxruntime all"])
def test_chains(tool: str, seed: int) -> None:
    """Of several nodes, with residuals between them."""
    original, feed = random_chain(seed)
    assert_same(TOOLS[tool](original), original, feed)


@pytest.mark.parametrize(
    ("output", "inputs"),
    [
        ("scaled", ["factor_of_filter", "minus_sum"]),
        ("biased", ["bias_of_filter", "scaled"]),
        ("sum", ["residual", "biased"]),
        ("residual", ["z_scale", "shifted_z"]),
        ("activated", ["lowest", "sum"]),
        ("moved", ["float_y_zero", "rounded"]),
        ("above", ["none", "moved"]),
        ("between", ["highest", "above"]),
    ],
)
def test_operands_may_be_exchanged(output: str, inputs: list[str]) -> None:
    model = altered(lambda body: change(body, output, inputs=inputs))
    assert_same(model, model_of(), FEED)


def test_both_bounds_may_be_a_clip() -> None:
    model = altered(lambda body: change(body, "between", "Clip", ["moved", "none", "highest"]))
    assert_same(model, model_of(), FEED)


@pytest.mark.parametrize(
    "inputs", [["moved", "one", "highest"], ["moved", "none", "levels"], ["moved", "none"]]
)
def test_other_clips_are_left(inputs: list[str], caplog: pytest.LogCaptureFixture) -> None:
    model = altered(lambda body: change(body, "between", "Clip", inputs))
    assert_left(model, "not clipped", caplog, FEED)


# 1. The zero point and the weight.


@pytest.mark.parametrize("name", ["W", "x_zero_point"])
def test_parameters_that_are_inputs_are_left(name: str, caplog: pytest.LogCaptureFixture) -> None:
    array = CONSTANTS[name]
    inputs = {"X": ["N", 3, 6, 6], "Z": ["N", 4, 4, 4], name: list(array.shape)}
    model = altered(no_change, inputs=inputs)
    assert_left(model, "not understood", caplog, {**FEED, name: array})


def test_a_zero_point_that_is_no_byte_makes_it_floats() -> None:
    half = onnx.numpy_helper.from_array(np.asarray(np.float32(2.5)))
    model = altered(lambda body: change(body, "float_x_zero", "Constant", [], value=half))
    (node,) = adder_nodes(model)
    assert node.op_type == "AdderConv"


def test_an_image_of_bytes_with_a_weight_of_floats_is_one_of_floats() -> None:
    def alter(body: onnx.FunctionProto) -> None:
        value = onnx.numpy_helper.from_array(RNG.standard_normal((4, 3, 3, 3)).astype(np.float32))
        change(body, "shifted_w", "Constant", [], value=value)

    (node,) = adder_nodes(altered(alter))
    assert node.op_type == "AdderConv"


def test_a_weight_that_reaches_beyond_bytes_is_one_of_floats() -> None:
    def alter(body: onnx.FunctionProto) -> None:
        value = onnx.numpy_helper.from_array(np.full((4, 3, 3, 3), 253, np.float32))
        change(body, "shifted_w", "Constant", [], value=value)

    (node,) = adder_nodes(altered(alter))
    assert node.op_type == "AdderConv"


def test_a_difference_the_other_way_round_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """Zero point less value: distances are not those of bytes."""
    model = altered(lambda body: change(body, "shifted_x", inputs=["float_x_zero", "float_x"]))
    assert_left(model, "not understood", caplog, FEED)


# 2. What follows the sum.


@pytest.mark.parametrize(
    ("output", "op_type", "inputs"),
    [
        ("scaled", "Div", ["minus_sum", "factor_of_filter"]),
        ("biased", "Sub", ["scaled", "bias_of_filter"]),
        ("sum", "Sub", ["biased", "residual"]),
        ("activated", "Min", ["sum", "lowest"]),
        ("activated", "Max", ["sum", "lowest", "y_scale"]),
        ("quotient", "Mul", ["activated", "y_scale"]),
        ("quotient", "Div", ["y_scale", "activated"]),
        ("rounded", "Floor", ["quotient"]),
        ("moved", "Sub", ["rounded", "float_y_zero"]),
        ("moved", "Mul", ["rounded", "float_y_zero"]),
        ("above", "Max", ["moved", "one"]),
        ("above", "Abs", ["moved"]),
        ("between", "Min", ["above", "levels"]),
        ("between", "Abs", ["above"]),
        ("shifted_z", "Add", ["float_z", "float_z_zero"]),
        ("residual", "Div", ["shifted_z", "z_scale"]),
    ],
)
def test_another_operator_is_left(
    output: str, op_type: str, inputs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = altered(lambda body: change(body, output, op_type, inputs))
    assert_left(model, "is not turned into", caplog, FEED)


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ("lowest", np.float32(1)),
        ("lowest", np.zeros((4, 1, 1), np.float32)),
        ("highest", np.float32(254)),
        ("highest", np.float32(1)),
        ("highest", np.float32(511)),
        ("float_y_zero", np.float32(0.5)),
        ("float_y_zero", np.float32(256)),
        ("factor_of_filter", np.full((1, 1, 4), 0.03, np.float32)),
        ("factor_of_filter", np.float32(0.03)),
        ("bias_of_filter", np.full((2, 4, 1, 1), 70, np.float32)),
        ("residual", np.float32(3)),
        ("residual", np.zeros((4, 1, 1), np.float32)),
        ("float_z_zero", np.full((4, 1, 1), 2, np.float32)),
        ("float_z_zero", np.float32(2.5)),
    ],
)
def test_other_constants_are_left(
    output: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tensor = onnx.numpy_helper.from_array(np.asarray(value))
    model = altered(lambda body: change(body, output, "Constant", [], value=tensor))
    assert_left(model, "is not turned into", caplog, FEED)


def test_a_residual_scale_that_is_an_input_is_left(caplog: pytest.LogCaptureFixture) -> None:
    inputs = {"X": ["N", 3, 6, 6], "Z": ["N", 4, 4, 4], "z_scale": []}
    model = altered(no_change, inputs=inputs)
    feed = {**FEED, "z_scale": CONSTANTS["z_scale"]}
    assert_left(model, "residual's scale is not constant", caplog, feed)


@pytest.mark.parametrize("shape", [["N", 4, 1, 1], ["K", 4, 4, 4], None])
def test_a_residual_of_another_shape_is_left(
    shape: list[Any] | None, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be broadcast."""
    model = altered(no_change, inputs={"X": ["N", 3, 6, 6], "Z": shape})
    feed = {"X": X, "Z": Z[:, :, :1, :1] if shape != ["K", 4, 4, 4] else Z[:1]}
    reason = "may have another shape" if shape else "is unknown"
    assert_left(model, reason, caplog, feed)


def test_an_inspection_that_fixes_sizes_may_recognise_more() -> None:
    """A residual of another batch, for all that is known, has the same where both are 1."""
    model = altered(no_change, inputs={"X": ["N", 3, 6, 6], "Z": ["K", 4, 4, 4]})
    report = inspect_model(model.SerializeToString())
    assert [(node.op, node.is_adder) for node in report.nodes] == [
        ("ai.addernet.QLinearAdderConv", True)
    ]


def test_a_residual_of_floats_is_left(caplog: pytest.LogCaptureFixture) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        change(body, "float_z", to=TensorProto.FLOAT16)
        wide = helper.make_node("Cast", ["float_z"], ["wide_z"], to=TensorProto.FLOAT)
        insert(body, "shifted_z", wide)
        change(body, "shifted_z", inputs=["wide_z", "float_z_zero"])

    assert_left(altered(alter), "residual is not a uint8 value", caplog, FEED)


@pytest.mark.parametrize("to", [TensorProto.INT8, TensorProto.INT32])
def test_a_result_of_another_type_is_left(to: int, caplog: pytest.LogCaptureFixture) -> None:
    model = altered(
        lambda body: change(body, "Y", to=to), output_type=to, constants={**CONSTANTS}, bits=7
    )
    assert_left(model, "not cast to uint8", caplog, FEED)


INNER = ("minus_sum", "scaled", "biased", "sum", "activated", "quotient", "rounded", "moved")


@pytest.mark.parametrize("part", [*INNER, "above", "between"])
def test_inner_values_that_are_outputs_are_left(
    part: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = altered(no_change)
    value = helper.make_tensor_value_info(part, TensorProto.FLOAT, [None] * 4)
    model.graph.output.append(value)
    assert_left(model, "used elsewhere, too", caplog, FEED)


def test_a_sum_that_is_used_twice_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """By two casts of the double sum, of which one ends in a QLinearAdderConv."""
    model = altered(no_change)
    cast = helper.make_node("Cast", ["double_y"], ["S"], to=TensorProto.FLOAT)
    model.graph.node.append(cast)
    model.graph.node.append(helper.make_node("Abs", ["S"], ["A"]))
    model.graph.output.append(helper.make_tensor_value_info("A", TensorProto.FLOAT, [None] * 4))
    assert_left(model, "the sum is used more than once", caplog, FEED)
