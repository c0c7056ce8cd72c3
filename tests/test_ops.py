"""The operator set: geometry, schema, shape inference, function body, reference."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from adder_onnx.errors import ModelError
from adder_onnx.ops import DOMAIN, MIN_OPSET, ConvAttributes, function_bodies, register_schemas
from adder_onnx.ops.reference import adder_conv as reference
from tests.models import adder_conv, make_model, oracle

GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"strides": [2, 1], "pads": [1, 0, 2, 3], "dilations": [1, 2]},
    {"group": 2, "auto_pad": "SAME_UPPER", "strides": [2, 3]},
    {"auto_pad": "SAME_LOWER", "dilations": [2, 1]},
    {"auto_pad": "VALID", "pads": [1, 1, 1, 1]},
    {"group": 6, "pads": [1, 1, 1, 1], "kernel_shape": [3, 2]},
]


def by_definition(
    x: np.ndarray[Any, Any], w: np.ndarray[Any, Any], a: ConvAttributes
) -> np.ndarray[Any, Any]:
    """Equation 2 of the paper, tap by tap; a tap outside the image is |0 - w|."""
    top, left, _, _ = a.resolve_pads(x.shape[2:], w.shape[2:])
    height, width = a.output_size(x.shape[2:], w.shape[2:])
    y = np.zeros((x.shape[0], w.shape[0], height, width))
    per_group = w.shape[0] // a.group
    for n, o, i, j in np.ndindex(y.shape):
        for c, k, m in np.ndindex(w.shape[1:]):
            row = i * a.strides[0] + k * a.dilations[0] - top
            column = j * a.strides[1] + m * a.dilations[1] - left
            inside = 0 <= row < x.shape[2] and 0 <= column < x.shape[3]
            channel = o // per_group * w.shape[1] + c
            value = float(x[n, channel, row, column]) if inside else 0.0
            y[n, o, i, j] -= abs(value - float(w[o, c, k, m]))
    return y


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_reference_equals_definition(geometry: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    a = ConvAttributes.from_mapping(geometry)
    x = rng.standard_normal((2, 6, 5, 7))
    w = rng.standard_normal((6, 6 // a.group, 3, 2))
    np.testing.assert_allclose(reference(x, w, a), by_definition(x, w, a), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "dtype", "opset"),
    [("FLOAT", np.float32, o) for o in (MIN_OPSET, 18, 21, 23)]
    + [("FLOAT16", np.float16, 18), ("DOUBLE", np.float64, 18)],
)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_body_in_stock_onnxruntime(
    geometry: dict[str, Any], name: str, dtype: type, opset: int
) -> None:
    rng = np.random.default_rng(1)
    group = geometry.get("group", 1)
    x = rng.standard_normal((2, 6, 9, 11)).astype(dtype)
    w = rng.standard_normal((12, 6 // group, 3, 2)).astype(dtype)
    model = make_model(
        [adder_conv("X", "W", "Y", **geometry)],
        {"X": ["N", 6, "H", 11], "W": list(w.shape)},
        {"Y": ["N", 12, "h", "w"]},
        elem_type=getattr(TensorProto, name),
        opset=opset,
    )
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"X": x, "W": w})
    expected = reference(x, w, ConvAttributes.from_mapping(geometry))
    assert y.dtype == dtype
    # The sum is in double: what remains is one rounding to the output's type.
    np.testing.assert_allclose(y, expected, rtol=max(float(np.finfo(dtype).eps), 1e-13), atol=0)


def test_body_keeps_an_empty_batch() -> None:
    model = make_model(
        [adder_conv("X", "W", "Y")],
        {"X": ["N", 2, 5, 5], "W": [4, 2, 3, 3]},
        {"Y": ["N", 4, 3, 3]},
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feed = {"X": np.zeros((0, 2, 5, 5), np.float32), "W": np.ones((4, 2, 3, 3), np.float32)}
    assert session.run(None, feed)[0].shape == (0, 4, 3, 3)


def test_reference_evaluator_with_and_without_body() -> None:
    # It does not know defaults of functions' attributes: all are written out, as in our files.
    attributes = {
        "auto_pad": "NOTSET",
        "dilations": [1, 1],
        "group": 1,
        "kernel_shape": [3, 3],
        "pads": [1, 1, 1, 1],
        "strides": [1, 1],
    }
    rng = np.random.default_rng(2)
    w = rng.standard_normal((3, 2, 3, 3)).astype(np.float32)
    x = rng.standard_normal((1, 2, 6, 6)).astype(np.float32)
    model = make_model(
        [adder_conv("X", "W", "Y", **attributes)],
        {"X": [1, 2, 6, 6]},
        {"Y": [1, 3, 6, 6]},
        {"W": w},
    )
    expected = reference(x, w, ConvAttributes(pads=(1, 1, 1, 1)))
    (by_body,) = ReferenceEvaluator(model).run(None, {"X": x})  # type: ignore[misc]
    np.testing.assert_allclose(by_body, expected, rtol=1e-6)  # type: ignore[arg-type]
    np.testing.assert_allclose(oracle(model, {"X": x})[0], expected, rtol=1e-6)


def test_bodies_are_copies_and_need_an_opset() -> None:
    function_bodies(18)[0].node.pop()
    assert len(function_bodies(18)[0].node) > 1
    with pytest.raises(ValueError, match="opset 15"):
        function_bodies(MIN_OPSET - 1)


def test_body_defaults_are_those_of_the_schema() -> None:
    schema = onnx.defs.get_schema("AdderConv", domain=DOMAIN)
    of_schema = {
        name: helper.get_attribute_value(a.default_value)
        for name, a in schema.attributes.items()
        if a.default_value.name
    }
    body, _ = function_bodies(18)
    of_body = {a.name: helper.get_attribute_value(a) for a in body.attribute_proto}
    assert of_body == of_schema
    assert set(of_body) | set(body.attribute) == set(schema.attributes)


def test_registering_again_changes_nothing() -> None:
    register_schemas()
    assert onnx.defs.get_schema("AdderConv", domain=DOMAIN).has_type_and_shape_inference_function


@settings(deadline=None)
@given(
    size=st.integers(1, 20),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    auto_pad=st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
)
def test_shape_inference_equals_that_of_conv(
    size: int, kernel: int, stride: int, dilation: int, auto_pad: str, pads: tuple[int, ...]
) -> None:
    span = (kernel - 1) * dilation + 1
    attributes: dict[str, Any] = {"strides": [stride, 1], "dilations": [dilation, 1]}
    if auto_pad == "NOTSET":
        attributes["pads"] = pads
        if span > size + pads[0] + pads[2]:
            return
    else:
        attributes["auto_pad"] = auto_pad
        if auto_pad == "VALID" and span > size:
            return
    shapes = []
    for op_type, domain in (("Conv", ""), ("AdderConv", DOMAIN)):
        graph = helper.make_graph(
            [helper.make_node(op_type, ["X", "W"], ["Y"], domain=domain, **attributes)],
            "g",
            [
                helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", 3, size, 20]),
                helper.make_tensor_value_info("W", TensorProto.FLOAT, [5, 3, kernel, 4]),
            ],
            [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None] * 4)],
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
        model = onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=opsets), strict_mode=True, check_type=True
        )
        shapes.append(str(model.graph.output[0].type))
    assert shapes[0] == shapes[1]
    assert "N" in shapes[1]


@pytest.mark.parametrize(
    ("x", "w", "attributes", "message"),
    [
        (["N", 3, 8, 8], [4, 2, 3, 3], {}, "takes 2 input channels, but the input has 3"),
        (["N", 3, 8, 8], [4, 3, 9, 3], {}, "spans 9 pixels in height"),
        (["N", 4, 8, 8], [5, 2, 3, 3], {"group": 2}, "5 filters cannot be divided"),
        (["N", 3, 8, 8], [4, 3, 3, 3], {"kernel_shape": [3, 5]}, "kernel_shape is"),
        (["N", 3, 8, 8], [4, 3, 3, 3], {"strides": [0, 1]}, "attribute strides"),
        (["N", 3, 8, 8], [4, 3, 3, 3], {"pads": [1, 1]}, "attribute pads"),
        (["N", 3, 8, 8], [4, 3, 3, 3], {"auto_pad": "SAME"}, "attribute auto_pad"),
        (["N", 3, 8], [4, 3, 3, 3], {}, "X has 3 dimensions"),
    ],
)
def test_shape_inference_names_the_contradiction(
    x: list[Any], w: list[int], attributes: dict[str, Any], message: str
) -> None:
    graph = helper.make_graph(
        [helper.make_node("AdderConv", ["X", "W"], ["Y"], "bad", domain=DOMAIN, **attributes)],
        "g",
        [
            helper.make_tensor_value_info("X", TensorProto.FLOAT, x),
            helper.make_tensor_value_info("W", TensorProto.FLOAT, w),
        ],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None] * 4)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    with pytest.raises(onnx.shape_inference.InferenceError, match=message):
        onnx.shape_inference.infer_shapes(model, strict_mode=True)


def test_shape_inference_with_unknown_dimensions() -> None:
    graph = helper.make_graph(
        [adder_conv("X", "W", "Y", pads=[1, 1, 1, 1])],
        "g",
        [
            helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", None, "H", 8]),
            helper.make_tensor_value_info("W", TensorProto.FLOAT, [4, None, 3, 3]),
        ],
        [helper.make_empty_tensor_value_info("Y")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    model = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=opsets), strict_mode=True
    )
    dims = model.graph.output[0].type.tensor_type.shape.dim
    assert dims[0].dim_param == "N"
    assert dims[1].dim_value == 4
    assert not dims[2].HasField("dim_value")


@settings(deadline=None)
@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 3),
    auto_pad=st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
    pads=st.tuples(*[st.integers(0, 6)] * 4),
)
def test_symbols_stay_where_the_size_stays(
    kernel: int, stride: int, dilation: int, auto_pad: str, pads: tuple[int, ...]
) -> None:
    attributes: dict[str, Any] = {"strides": [1, stride], "dilations": [1, dilation]}
    attributes |= {"pads": pads} if auto_pad == "NOTSET" else {"auto_pad": auto_pad}
    graph = helper.make_graph(
        [adder_conv("X", "W", "Y", **attributes)],
        "g",
        [
            helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", 3, "H", "W"]),
            helper.make_tensor_value_info("W", TensorProto.FLOAT, [5, 3, 1, kernel]),
        ],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None] * 4)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    model = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=opsets), strict_mode=True
    )
    a = ConvAttributes.from_mapping(attributes)
    stays = all(a.output_size((40, w), (1, kernel))[1] == w for w in range(30, 40))
    dims = model.graph.output[0].type.tensor_type.shape.dim
    assert (dims[3].dim_param == "W") is stays
    assert dims[0].dim_param == "N"


def test_reference_refuses_what_does_not_fit() -> None:
    with pytest.raises(ModelError, match="takes 4 input channels"):
        reference(np.zeros((1, 3, 5, 5)), np.zeros((2, 4, 3, 3)))


def test_file_runs_where_the_package_is_not(tmp_path: Any) -> None:
    """The promise of the function bodies: a process without adder_onnx gives the same answer."""
    rng = np.random.default_rng(3)
    w = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    x = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    model = make_model(
        [adder_conv("X", "W", "Y", strides=[2, 2], pads=[1, 1, 1, 1])],
        {"X": ["N", 3, 8, 8]},
        {"Y": ["N", 4, 4, 4]},
        {"W": w},
    )
    onnx.save(model, tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", x)
    script = (
        "import sys; sys.modules['adder_onnx'] = None\n"
        "import numpy, onnxruntime\n"
        "s = onnxruntime.InferenceSession('model.onnx', providers=['CPUExecutionProvider'])\n"
        "numpy.save('y.npy', s.run(None, {'X': numpy.load('x.npy')})[0])\n"
    )
    subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, check=True)
    expected = reference(x, w, ConvAttributes(strides=(2, 2), pads=(1, 1, 1, 1)))
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_auto_pad_of_the_body_equals_explicit_pads(data: st.DataObject) -> None:
    """The body works auto_pad out in the graph, the reference in Python."""
    draw = data.draw
    size = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    attributes = {
        "strides": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        "dilations": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        "auto_pad": draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"])),
    }
    rng = np.random.default_rng(4)
    x = rng.standard_normal((1, 2, *size)).astype(np.float32)
    w = rng.standard_normal((2, 2, *kernel)).astype(np.float32)
    model = make_model(
        [adder_conv("X", "W", "Y", **attributes)],
        {"X": [1, 2, "H", "W_"], "W": list(w.shape)},
        {"Y": [1, 2, None, None]},
    )
    (y,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"X": x, "W": w})
    expected = reference(x, w, ConvAttributes.from_mapping(attributes))
    assert y.shape == expected.shape
    steps = [-(-s // stride) for s, stride in zip(size, attributes["strides"], strict=True)]  # type: ignore[arg-type]
    assert list(y.shape[2:]) == steps
    np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_every_pair_of_attributes_is_covered() -> None:
    """Keeps the list of geometries above honest: each attribute and each padding mode is in it."""
    names = set(itertools.chain.from_iterable(GEOMETRIES))
    assert names == {"strides", "pads", "dilations", "group", "auto_pad", "kernel_shape"}
    modes = {g.get("auto_pad", "NOTSET") for g in GEOMETRIES}
    assert modes == {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"}
