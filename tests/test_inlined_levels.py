"""The table by which a QLinearAdderConv rounds where nodes may have levels, read from its body.

As in test_inlined_integers.py, whose model this has.
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

from adder_onnx.graph.inlined.matching import DifferentError
from adder_onnx.graph.inlined.output_tables import LAST_PLACE, Outputs, read_table
from tests.inlined import TOOLS, Change, adder_nodes, assert_left, change, insert, no_change
from tests.integer_layers import some_levels
from tests.test_inlined_integers import (
    CONSTANTS,
    FEED,
    RNG,
    altered,
    assert_same,
    model_of,
)

LEVELS = (0, 2, 3, 7, 40, 90, 255)


def rounding(levels: Sequence[int] = LEVELS, alter: Change = no_change, **own: Any) -> Any:
    return altered(alter, levels=levels, **own)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("clip_min", [0.0, -math.inf])
@pytest.mark.parametrize("levels", [LEVELS, (20, 21), tuple(range(1, 17))])
def test_every_tool(tool: str, clip_min: float, levels: tuple[int, ...]) -> None:
    original = model_of(clip_min=clip_min, levels=levels)
    model = TOOLS[tool](original)
    (node,) = adder_nodes(model)
    assert node.op_type == "QLinearAdderConv"
    assert node.attributes["levels"].value == levels
    assert node.attributes["bits"].value == levels[-1].bit_length()
    assert node.attributes["clip_min"].value == clip_min
    if len(levels) > 2:
        assert_same(model, original, FEED)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("bits", [8, 5, 3])
def test_a_node_without_levels_in_the_same_body(tool: str, bits: int) -> None:
    original = model_of(levels=(), bits=bits)
    model = TOOLS[tool](original)
    (node,) = adder_nodes(model)
    assert "levels" not in node.attributes
    assert node.attributes["bits"].value == bits
    assert_same(model, original, FEED)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("zero_point", [0, 30, 255])
def test_zero_points(tool: str, zero_point: int) -> None:
    """Optimizers remove an addition of zero, and a quotient by one."""
    constants = {
        **CONSTANTS,
        "y_zero_point": np.asarray(np.uint8(zero_point)),
        "y_scale": np.asarray(np.float32(1 if zero_point == 0 else 0.2)),
    }
    levels = (*LEVELS[:-1], 200, 230, 255)
    original = model_of(constants=constants, levels=levels, clip_min=-math.inf)
    (node,) = adder_nodes(TOOLS[tool](original))
    assert node.attributes["levels"].value == levels
    assert_same(TOOLS[tool](original), original, FEED)


@pytest.mark.parametrize(
    ("output", "inputs"),
    [
        ("doubled", ["two", "quotient"]),
        ("quarters", ["floor", "ceiling"]),
        ("moved", ["zero_quarters", "quarters"]),
        ("between", ["last_place", "above"]),
    ],
)
def test_operands_may_be_exchanged(output: str, inputs: list[str]) -> None:
    model = rounding(alter=lambda body: change(body, output, inputs=inputs))
    assert_same(model, model_of(levels=LEVELS), FEED)


@pytest.mark.parametrize(
    ("output", "op_type", "inputs"),
    [
        ("doubled", "Add", ["quotient", "two"]),
        ("ceiling", "Floor", ["doubled"]),
        ("ceiling", "Round", ["doubled"]),
        ("floor", "Round", ["doubled"]),
        ("floor", "Ceil", ["doubled"]),
        ("quarters", "Sub", ["ceiling", "floor"]),
        ("quarters", "Max", ["ceiling", "floor"]),
        ("quarters", "Add", ["ceiling", "four"]),
        ("moved", "Sub", ["quarters", "zero_quarters"]),
        ("is_above", "Less", ["moved", "none"]),
        ("is_above", "Greater", ["none", "moved"]),
        ("is_above", "Greater", ["quarters", "none"]),
        ("above", "Where", ["is_above", "none", "moved"]),
        ("above", "Where", ["is_above", "quarters", "none"]),
        ("above", "Abs", ["moved"]),
        ("between", "Max", ["above", "last_place"]),
    ],
)
def test_another_operator_is_left(
    output: str, op_type: str, inputs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = rounding(alter=lambda body: change(body, output, op_type, inputs))
    assert_left(model, "is not turned into", caplog)


@pytest.mark.parametrize("output", ["is_above", "above"])
def test_another_least_place_is_left(output: str, caplog: pytest.LogCaptureFixture) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        insert(body, output, helper.make_node("Constant", [], ["other"], value_float=4.0))
        of = {"is_above": ["moved", "other"], "above": ["is_above", "moved", "other"]}
        change(body, output, inputs=of[output])

    assert_left(rounding(alter=alter), "not compared with 0", caplog, FEED)


def test_a_place_that_is_chosen_by_another_comparison_is_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        insert(body, "above", helper.make_node("Not", ["is_above"], ["is_below"]))
        change(body, "above", inputs=["is_below", "moved", "none"])

    assert_left(rounding(alter=alter), "another comparison decides", caplog, FEED)


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ("zero_quarters", 4 * 256),
        ("zero_quarters", -4),
        ("zero_quarters", 22),
        ("last_place", 1019),
    ],
)
def test_other_constants_are_left(
    output: str, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    tensor = onnx.numpy_helper.from_array(np.asarray(np.float32(value)))
    model = rounding(alter=lambda body: change(body, output, "Constant", [], value=tensor))
    assert_left(model, "is not turned into", caplog, FEED)


def test_another_factor_is_left(caplog: pytest.LogCaptureFixture) -> None:
    model = rounding(alter=lambda body: change(body, "doubled", inputs=["quotient", "four"]))
    assert_left(model, "the quotient is not doubled", caplog, FEED)


def test_places_of_bytes_are_left(caplog: pytest.LogCaptureFixture) -> None:
    """Which is what a Gather does not take; behind them are integers again."""

    def alter(body: onnx.FunctionProto) -> None:
        change(body, "place", to=TensorProto.INT16)
        wide = helper.make_node("Cast", ["place"], ["wide"], to=TensorProto.INT32)
        insert(body, "Y", wide)
        change(body, "Y", inputs=["table", "wide"])

    assert_left(rounding(alter=alter), "a place is no integer", caplog, FEED)


def test_a_table_that_an_input_is_part_of_is_left(caplog: pytest.LogCaptureFixture) -> None:
    inputs = {"X": ["N", 3, 6, 6], "Z": ["N", 4, 4, 4], "y_zero_point": []}
    model = rounding(inputs=inputs)
    feed = {**FEED, "y_zero_point": CONSTANTS["y_zero_point"]}
    assert_left(model, "is not turned into", caplog, feed)


def test_rows_of_a_table_are_left(caplog: pytest.LogCaptureFixture) -> None:
    def alter(body: onnx.FunctionProto) -> None:
        insert(body, "Y", helper.make_node("Unsqueeze", ["table", "first_axis"], ["row"]))
        insert(body, "Y", helper.make_node("Gather", ["row", "place"], ["rows"], axis=1))
        change(body, "Y", "Squeeze", ["rows", "first_axis"])

    assert_left(rounding(alter=alter), "there is no Gather", caplog, FEED)


def test_a_table_of_another_type_is_left(caplog: pytest.LogCaptureFixture) -> None:
    model = rounding(
        alter=lambda body: change(body, "table", to=TensorProto.FLOAT16),
        output_type=TensorProto.FLOAT16,
    )
    assert_left(model, "outputs are not a table of bytes", caplog, FEED)


@pytest.mark.parametrize(
    "part", ["doubled", "ceiling", "floor", "quarters", "moved", "is_above", "above", "between"]
)
def test_inner_values_that_are_outputs_are_left(
    part: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = rounding()
    type_ = TensorProto.BOOL if part == "is_above" else TensorProto.FLOAT
    model.graph.output.append(helper.make_tensor_value_info(part, type_, [None] * 4))
    assert_left(model, "is not turned into", caplog, FEED)


@pytest.mark.parametrize("part", ["doubled", "moved", "place"])
def test_inner_values_that_are_used_elsewhere_are_left(
    part: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = rounding()
    model.graph.node.append(helper.make_node("Abs", [part], ["A"]))
    type_ = TensorProto.INT32 if part == "place" else TensorProto.FLOAT
    model.graph.output.append(helper.make_tensor_value_info("A", type_, [None] * 4))
    assert_left(model, "is not turned into", caplog, FEED)


def table_of(levels: Sequence[int]) -> NDArray[np.uint8]:
    """By distances, of two equal ones the first."""
    values = np.arange(LAST_PLACE + 1)[:, None] / 4
    nearest = np.abs(values - np.asarray(levels)).argmin(axis=1)
    table: NDArray[np.uint8] = np.asarray(levels, np.uint8)[nearest]
    return table


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_table_of_levels_is_read(bits: int) -> None:
    for _ in range(20):
        levels = some_levels(RNG, bits)
        found = read_table(table_of(levels), 7)
        assert found == Outputs(max(2, levels[-1].bit_length()), levels)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("zero_point", [0, 1, 3, 100, 255])
def test_the_table_of_all_integers_is_read(bits: int, zero_point: int) -> None:
    """Halves are rounded to even, before the zero point is added."""
    exact = [round(k / 4 - zero_point) + zero_point for k in range(LAST_PLACE + 1)]
    table = np.clip(exact, 0, 2**bits - 1).astype(np.uint8)
    assert read_table(table, zero_point) == Outputs(bits)


@pytest.mark.parametrize(
    "table",
    [
        table_of(LEVELS)[:-1],
        table_of(LEVELS)[None],
        table_of(LEVELS).astype(np.int16),
        table_of(range(0, 170, 10)),
        np.full(LAST_PLACE + 1, 3, np.uint8),
        np.roll(table_of(LEVELS), 1),
        np.roll(table_of(LEVELS), -1),
        table_of(LEVELS)[::-1],
    ],
)
def test_other_tables_are_refused(table: Any) -> None:
    with pytest.raises(DifferentError):
        read_table(table, 0)
