"""QLinearAdderConv with levels: the definition in schema, reference, body and our runtime."""

from __future__ import annotations

import hashlib
import logging
import math
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

import adder_onnx
from adder_onnx.errors import ModelError
from adder_onnx.graph.plan import ChainStep
from adder_onnx.ops import MIN_OPSET, function_bodies, has_levels
from tests.integer_layers import some_levels
from tests.test_ops_qlinear import GEOMETRIES, INPUTS, make_case, reference

ALL_OPTIMIZATIONS = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
NONE = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL


def by_stock(
    model: onnx.ModelProto, feed: dict[str, Any], optimizations: Any = ALL_OPTIMIZATIONS
) -> NDArray[np.uint8]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = optimizations
    stock = onnxruntime.InferenceSession(model.SerializeToString(), options)
    result: NDArray[np.uint8] = stock.run(None, feed)[0]
    return result


def with_constants(
    model: onnx.ModelProto, feed: dict[str, NDArray[Any]], kept: set[str]
) -> onnx.ModelProto:
    """All inputs but those that are kept as initializers."""
    inputs = [value for value in model.graph.input if value.name in kept]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for name, value in feed.items():
        if name not in kept:
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return model


def test_the_reference_is_the_definition() -> None:
    """With quotients of one tap each, and borders as exact fractions."""
    levels, zero_point, y_scale = (1, 2, 6, 7, 11), 3, np.float32(0.37)
    values = np.arange(-9, 20, 0.25, dtype=np.float32) * y_scale
    values = np.concatenate([values, np.nextafter(values, np.float32(9)), [np.nan, np.inf]])
    bias = values.astype(np.float32)
    y = reference(
        {
            **{name: np.asarray(np.uint8(0)) for name in INPUTS},
            "X": np.zeros((1, 1, 1, 1), np.uint8),
            "W": np.zeros((len(bias), 1, 1, 1), np.uint8),
            "x_scale": np.asarray(np.float32(1)),
            "scale": np.ones(len(bias), np.float32),
            "bias": bias,
            "z_scale": np.asarray(np.float32(1)),
            "y_scale": np.asarray(y_scale),
            "y_zero_point": np.asarray(np.uint8(zero_point)),
        },
        {},
        -math.inf,
        4,
        levels,
    )
    for value, found in zip(bias, y[0, :, 0, 0], strict=True):
        expected = levels[0]
        if value == np.inf:
            expected = levels[-1]
        elif np.isfinite(value):
            place = Fraction(float(np.float32(value) / y_scale)) + zero_point
            expected = min(levels, key=lambda level: (abs(place - level), level))
        assert found == expected
    assert set(np.unique(y)) == set(levels)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    geometry=st.sampled_from(GEOMETRIES),
    residual=st.booleans(),
    clip_min=st.sampled_from([0.0, -math.inf]),
    bits=st.integers(2, 8),
    optimizations=st.sampled_from([ALL_OPTIMIZATIONS, NONE]),
    constant=st.booleans(),
)
def test_stock_onnxruntime_gives_the_same_bits(
    seed: int,
    geometry: dict[str, Any],
    residual: bool,
    clip_min: float,
    bits: int,
    optimizations: Any,
    constant: bool,
) -> None:
    levels = some_levels(np.random.default_rng(seed), bits)
    model, feed = make_case(
        seed, geometry, residual=residual, clip_min=clip_min, bits=bits, levels=levels
    )
    expected = reference(feed, geometry, clip_min, bits, levels)
    if constant:
        with_constants(model, feed, {"X"})
        feed = {"X": feed["X"]}
    np.testing.assert_array_equal(by_stock(model, feed, optimizations), expected)


@pytest.mark.parametrize("optimizations", [ALL_OPTIMIZATIONS, NONE])
@pytest.mark.parametrize("clip_min", [0.0, -math.inf])
@pytest.mark.parametrize("levels", [(), (0, 3), (5, 6, 7, 200), tuple(range(240, 256))])
def test_extreme_values(optimizations: Any, clip_min: float, levels: tuple[int, ...]) -> None:
    """What is no number, infinite, too large for an integer, or next to nothing; and ties."""
    model, feed = make_case(
        2, {}, residual=False, clip_min=clip_min, bits=8, levels=levels or (0, 1)
    )
    if not levels:  # the same body
        model.graph.node[0].attribute.remove(
            next(a for a in model.graph.node[0].attribute if a.name == "levels")
        )
    feed["scale"][:], feed["y_scale"] = 0, np.asarray(np.float32(0.5))
    feed["y_zero_point"] = np.asarray(np.uint8(6))
    for bias in (
        [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45],
        [-1e-45, -0.0, 1e9, -1e9, 2.0**24, -(2.0**24)],
        [k / 4 for k in range(-13, -7)],
        [k / 4 for k in range(-4, 2)],
        [k / 4 for k in range(2, 8)],
        [123.25, 123.75, 124.25, 124.75, 97.0, 97.0000076],
    ):
        feed["bias"] = np.asarray(bias, np.float32)
        with np.errstate(all="ignore"):
            expected = reference(feed, {}, clip_min, 8, levels)
        np.testing.assert_array_equal(by_stock(model, feed, optimizations), expected)


@pytest.mark.parametrize("opset", [MIN_OPSET, 18, 21, 23])
def test_opsets(opset: int) -> None:
    levels = (0, 1, 2, 5, 9, 15)
    model, feed = make_case(2, GEOMETRIES[1], residual=True, clip_min=0.0, bits=4, levels=levels)
    del model.functions[:]
    model.functions.extend(function_bodies(opset))
    model.opset_import[0].version = opset
    expected = reference(feed, GEOMETRIES[1], 0.0, 4, levels)
    np.testing.assert_array_equal(by_stock(model, feed), expected)


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_the_body_serves_nodes_without_levels(bits: int) -> None:
    model, feed = make_case(3, GEOMETRIES[1], residual=True, clip_min=-math.inf, bits=bits)
    del model.functions[:]
    model.functions.extend(function_bodies(18))
    expected = reference(feed, GEOMETRIES[1], -math.inf, bits)
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(by_stock(model, feed), expected)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("z", ["none", "input"])
def test_our_runtime_gives_the_same_bits(native: bool, z: str) -> None:
    levels = (0, 1, 2, 5, 9, 15)
    model, feed = make_case(
        7, GEOMETRIES[1], residual=z != "none", clip_min=0.0, bits=4, levels=levels
    )
    kept = {"X", "Z"} if z == "input" else {"X"}
    if native:
        with_constants(model, feed, kept)
    session = adder_onnx.InferenceSession(model.SerializeToString())
    assert native == any(isinstance(step, ChainStep) for step in session.plan.steps)
    expected = reference(feed, GEOMETRIES[1], 0.0, 4, levels)
    assert len(np.unique(expected)) > 2
    given = {name: feed[name] for name in (kept if native else feed)}
    np.testing.assert_array_equal(session.run(None, given)[0], expected)


@pytest.mark.parametrize(
    "levels",
    [
        *((3,), (3, 3), (4, 3), (-1, 3), (0, 16), tuple(range(17))),
        *((0, 2**40), (0, 2**63 - 1), tuple(range(10_000))),
    ],
)
def test_bad_levels(levels: tuple[int, ...]) -> None:
    model, _ = make_case(6, {}, residual=False, clip_min=0.0, bits=4, levels=levels)
    with pytest.raises(ModelError, match=r"levels is .*expected 2 to 16 .* 0 to 15") as caught:
        adder_onnx.InferenceSession(model.SerializeToString())
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("levels", [(), (0, 3, 5)])
@pytest.mark.parametrize("body", [True, False])
def test_a_body_that_knows_no_levels_will_do_where_there_are_none(
    levels: tuple[int, ...], body: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model, _ = make_case(6, {}, residual=False, clip_min=0.0, bits=4, levels=levels)
    del model.functions[:]
    model.functions.extend(function_bodies(18, levels=body))
    with caplog.at_level(logging.WARNING):
        adder_onnx.InferenceSession(model.SerializeToString())
    warned = [r for r in caplog.records if "differs from this version's" in r.getMessage()]
    assert len(warned) == (1 if levels and not body else 0)


def test_the_body_without_levels_is_that_of_files_written_before_there_were_any() -> None:
    body = next(f for f in function_bodies(18, levels=False) if f.name == "QLinearAdderConv")
    nodes = b"".join(node.SerializeToString(deterministic=True) for node in body.node)
    assert hashlib.sha256(nodes).hexdigest() == (
        "947e9a41ffdbd8505490f4e47d09921278c00e6b3d4375acce9e8229a7ec78a4"
    )
    assert "levels" not in {a.name for a in body.attribute_proto}


def test_where_there_are_levels() -> None:
    node = make_case(6, {}, residual=False, clip_min=0.0, bits=4, levels=(0, 3))[0].graph.node[0]
    other = make_case(6, {}, residual=False, clip_min=0.0, bits=4)[0].graph.node[0]
    graph = helper.make_graph([node], "branch", [], [])
    inside = helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)
    foreign = helper.make_node("QLinearAdderConv", ["x"], ["y"], domain="other", levels=[1, 2])
    assert has_levels([other, node])
    assert has_levels([inside])
    assert not has_levels([other, foreign])
