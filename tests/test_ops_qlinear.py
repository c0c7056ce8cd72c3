"""QLinearAdderConv: schema, inference, function body, reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import adder_onnx
from adder_onnx.graph.plan import ChainStep
from adder_onnx.ops import DOMAIN, MIN_OPSET, VERSION, ConvAttributes, function_bodies
from adder_onnx.ops.reference import QLinearAdderConv, qlinear_adder_conv

INPUTS = (
    *("X", "W", "x_scale", "x_zero_point", "scale", "bias"),
    *("Z", "z_scale", "z_zero_point", "y_scale", "y_zero_point"),
)
GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"strides": [2, 1], "pads": [1, 0, 2, 3], "dilations": [1, 2]},
    {"group": 2, "auto_pad": "SAME_UPPER", "strides": [2, 3]},
    {"auto_pad": "SAME_LOWER", "dilations": [2, 1]},
    {"group": 6, "pads": [1, 1, 1, 1], "kernel_shape": [3, 2]},
]


def make_case(
    seed: int,
    geometry: dict[str, Any],
    *,
    residual: bool,
    clip_min: float,
    bits: int,
    levels: Sequence[int] = (),
) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """A model of one node, all of whose inputs are the model's, and values for them."""
    rng = np.random.default_rng(seed)
    a = ConvAttributes.from_mapping(geometry)
    top = 2**bits
    x = rng.integers(0, top, (2, 6, 7, 8), np.uint8)
    w = rng.integers(0, top, (6, 6 // a.group, 3, 2), np.uint8)
    size = a.output_size(x.shape[2:], w.shape[2:])
    y_shape = (2, 6, *size)
    taps = w[0].size
    x_scale = np.float32(rng.uniform(0.001, 0.1))
    scale = rng.uniform(-2, 2, 6).astype(np.float32)
    feed: dict[str, Any] = {
        "X": x,
        "W": w,
        "x_scale": x_scale,
        "x_zero_point": np.uint8(rng.integers(0, top)),
        "scale": scale,
        # Sums lie around a third of their range, so that results do not all saturate.
        "bias": (scale * x_scale * taps * top / 3).astype(np.float32),
        "Z": rng.integers(0, top, y_shape, np.uint8) if residual else np.uint8(0),
        "z_scale": np.float32(rng.uniform(0.01, 1)),
        "z_zero_point": np.uint8(rng.integers(0, top) if residual else 0),
        "y_scale": np.float32(x_scale * taps**0.5 * rng.uniform(0.5, 2)),
        "y_zero_point": np.uint8(rng.integers(0, top // 2)),
    }
    feed = {name: np.asarray(value) for name, value in feed.items()}
    node = helper.make_node(
        "QLinearAdderConv",
        list(INPUTS),
        ["Y"],
        "q",
        domain=DOMAIN,
        clip_min=clip_min,
        bits=bits,
        **({"levels": levels} if levels else {}),
        **geometry,
    )
    graph = helper.make_graph(
        [node],
        "test",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(feed[name].dtype), list(feed[name].shape)
            )
            for name in INPUTS
        ],
        [helper.make_tensor_value_info("Y", TensorProto.UINT8, [None] * 4)],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)],
        functions=function_bodies(18, levels=bool(levels)),
        ir_version=10,
    )
    onnx.checker.check_model(model)
    return model, feed


def reference(
    feed: dict[str, NDArray[Any]],
    geometry: dict[str, Any],
    clip_min: float,
    bits: int,
    levels: Sequence[int] = (),
) -> NDArray[np.uint8]:
    a = ConvAttributes.from_mapping(geometry)
    values = [feed[name] for name in INPUTS]
    return qlinear_adder_conv(
        *values,  # type: ignore[misc]
        a,
        clip_min=clip_min,
        bits=bits,
        levels=levels,
    )


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_reference_is_the_definition(geometry: dict[str, Any]) -> None:
    """Tap by tap in integers, then each step in float32."""
    _, feed = make_case(1, geometry, residual=True, clip_min=0.0, bits=6)
    y = reference(feed, geometry, 0.0, 6)
    assert y.max() <= 63
    assert len(np.unique(y)) > 8
    a = ConvAttributes.from_mapping(geometry)
    x, w = feed["X"].astype(int), feed["W"].astype(int)
    top, left, _, _ = a.resolve_pads(x.shape[2:], w.shape[2:])
    per_group = w.shape[0] // a.group
    f32 = np.float32
    for n, m, i, j in np.ndindex(y.shape):
        total = 0
        for c, k, v in np.ndindex(w.shape[1:]):
            row = i * a.strides[0] + k * a.dilations[0] - top
            column = j * a.strides[1] + v * a.dilations[1] - left
            inside = 0 <= row < x.shape[2] and 0 <= column < x.shape[3]
            channel = m // per_group * w.shape[1] + c
            value = x[n, channel, row, column] if inside else int(feed["x_zero_point"])
            total += abs(value - w[m, c, k, v])
        value = f32(total) * -(f32(feed["x_scale"]) * feed["scale"][m]) + feed["bias"][m]
        z = f32(feed["Z"][n, m, i, j]) - f32(feed["z_zero_point"])
        value = max(f32(value + z * f32(feed["z_scale"])), f32(0))
        step = f32(np.rint(value / f32(feed["y_scale"]))) + f32(feed["y_zero_point"])
        assert y[n, m, i, j] == min(max(step, 0), 63)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    geometry=st.sampled_from(GEOMETRIES),
    residual=st.booleans(),
    clip_min=st.sampled_from([0.0, -math.inf]),
    bits=st.integers(2, 8),
)
def test_stock_onnxruntime_gives_the_same_bits(
    seed: int, geometry: dict[str, Any], residual: bool, clip_min: float, bits: int
) -> None:
    model, feed = make_case(seed, geometry, residual=residual, clip_min=clip_min, bits=bits)
    expected = reference(feed, geometry, clip_min, bits)
    stock = onnxruntime.InferenceSession(model.SerializeToString())
    np.testing.assert_array_equal(stock.run(None, feed)[0], expected)


@pytest.mark.parametrize("opset", [MIN_OPSET, 18, 21, 23])
def test_opsets(opset: int) -> None:
    model, feed = make_case(2, GEOMETRIES[1], residual=True, clip_min=0.0, bits=8)
    del model.functions[:]
    model.functions.extend(function_bodies(opset))
    model.opset_import[0].version = opset
    stock = onnxruntime.InferenceSession(model.SerializeToString())
    expected = reference(feed, GEOMETRIES[1], 0.0, 8)
    np.testing.assert_array_equal(stock.run(None, feed)[0], expected)


def test_reference_evaluator() -> None:
    model, feed = make_case(3, GEOMETRIES[2], residual=True, clip_min=-math.inf, bits=8)
    del model.functions[:]
    evaluator = ReferenceEvaluator(model, new_ops=[QLinearAdderConv])
    expected = reference(feed, GEOMETRIES[2], -math.inf, 8)
    np.testing.assert_array_equal(evaluator.run(None, feed)[0], expected)


def test_the_body_in_the_reference_evaluator() -> None:
    """It knows no defaults of functions' attributes: all are written out, as in our files."""
    geometry = {
        "auto_pad": "NOTSET",
        "dilations": [1, 2],
        "group": 2,
        "kernel_shape": [3, 2],
        "pads": [1, 0, 2, 3],
        "strides": [2, 1],
    }
    model, feed = make_case(8, geometry, residual=True, clip_min=0.0, bits=8)
    expected = reference(feed, geometry, 0.0, 8)
    np.testing.assert_array_equal(ReferenceEvaluator(model).run(None, feed)[0], expected)


def test_our_runtime_executes_it() -> None:
    model, feed = make_case(4, GEOMETRIES[1], residual=True, clip_min=0.0, bits=8)
    del model.functions[:]
    session = adder_onnx.InferenceSession(model.SerializeToString())
    expected = reference(feed, GEOMETRIES[1], 0.0, 8)
    np.testing.assert_array_equal(session.run(None, feed)[0], expected)


@pytest.mark.parametrize("z", ["none", "scalar", "constant", "input"])
def test_constant_parameters_run_natively(z: str) -> None:
    """What else there may be is left to the body."""
    model, feed = make_case(7, GEOMETRIES[1], residual=z != "none", clip_min=0.0, bits=7)
    if z == "scalar":  # a residual that is the same everywhere
        feed["Z"] = np.asarray(np.uint8(5))
    kept = {"X", "Z"} if z == "input" else {"X"}
    inputs = [value for value in model.graph.input if value.name in kept]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for name, value in feed.items():
        if name not in kept:
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    session = adder_onnx.InferenceSession(model.SerializeToString())
    native = any(isinstance(step, ChainStep) for step in session.plan.steps)
    assert native == (z in ("none", "input"))
    expected = reference(feed, GEOMETRIES[1], 0.0, 7)
    results = session.run(None, {name: feed[name] for name in kept})
    np.testing.assert_array_equal(results[0], expected)


def test_shapes_are_inferred() -> None:
    model, _ = make_case(5, GEOMETRIES[1], residual=False, clip_min=0.0, bits=8)
    del model.functions[:]
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, check_type=True)
    (y,) = inferred.graph.output
    assert y.type.tensor_type.elem_type == TensorProto.UINT8
    dims = [d.dim_param or d.dim_value for d in y.type.tensor_type.shape.dim]
    a = ConvAttributes.from_mapping(GEOMETRIES[1])
    assert dims == ["N", 6, *a.output_size((7, 8), (3, 2))]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"bits": 9}, "bits is 9; expected 2 to 8"), ({"clip_min": 1.0}, "clip_min is 1.0")],
)
def test_bad_attributes(change: dict[str, Any], message: str) -> None:
    case = {"residual": False, "clip_min": 0.0, "bits": 8}
    model, _ = make_case(6, {}, **case)  # type: ignore[arg-type]
    for attribute in model.graph.node[0].attribute:
        if attribute.name in change:
            attribute.CopyFrom(helper.make_attribute(attribute.name, change[attribute.name]))
    with pytest.raises(adder_onnx.errors.ModelError, match=message):
        adder_onnx.InferenceSession(model.SerializeToString())


def test_defaults_of_body_and_schema_agree() -> None:
    schema = onnx.defs.get_schema("QLinearAdderConv", VERSION, DOMAIN)
    (body,) = [f for f in function_bodies(18) if f.name == "QLinearAdderConv"]
    assert "levels" in {a.name for a in body.attribute_proto}
    for attribute in body.attribute_proto:
        default = schema.attributes[attribute.name].default_value
        assert helper.get_attribute_value(attribute) == helper.get_attribute_value(default)
    assert set(body.attribute) | {a.name for a in body.attribute_proto} == set(schema.attributes)
    assert list(body.input) == [p.name for p in schema.inputs]
