"""What values are, as far as constants and shapes tell; what is not understood is unknown."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from adder_onnx.graph.inlined.expressions import Expression, UnknownValueError
from adder_onnx.graph.inlined.values import Values, source
from tests.inlined import by_onnxruntime
from tests.models import Shape

FLOATS = np.array([0.5, -2.0, 3.0], np.float32)
INTS = np.array([3, -7, 20], np.int64)


def value_of(
    nodes: list[onnx.NodeProto], constants: dict[str, Any], inputs: dict[str, Shape] | None = None
) -> ir.Value:
    """The last node's first output."""
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (inputs or {}).items()
        ],
        [onnx.ValueInfoProto(name=nodes[-1].output[0])],
        [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    return ir.from_proto(model).graph.outputs[0]


def one(op_type: str, constants: dict[str, Any], **attributes: Any) -> ir.Value:
    """One node of constants."""
    node = helper.make_node(op_type, list(constants), ["out"], **attributes)
    return value_of([node], {n: a for n, a in constants.items() if n})


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """With numbers in the place of constant expressions."""
    if array.dtype != object:
        return array
    result = np.empty(array.shape, np.int64)
    for index in np.ndindex(array.shape):
        assert array[index].is_constant
        result[index] = array[index].constant
    return result


KNOWN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("Add", {"a": INTS, "b": np.int64(2)}, {}),
    ("Add", {"a": FLOATS, "b": FLOATS}, {}),
    ("Sub", {"a": INTS, "b": INTS[::-1]}, {}),
    ("Sub", {"a": FLOATS, "b": np.float32(0.25)}, {}),
    ("Mul", {"a": INTS, "b": np.int64(-3)}, {}),
    ("Mul", {"a": FLOATS, "b": FLOATS}, {}),
    ("Div", {"a": INTS, "b": np.array([2, 2, 3], np.int64)}, {}),
    ("Mod", {"a": INTS, "b": np.array([2, 5, 7], np.int64)}, {}),
    ("Max", {"a": INTS, "b": np.int64(0)}, {}),
    ("Max", {"a": INTS, "b": np.int64(0), "c": np.array([50, 1, 1], np.int64)}, {}),
    ("Pow", {"a": np.float32(2), "b": np.float32(8)}, {}),
    ("Max", {"a": FLOATS, "b": FLOATS[::-1]}, {}),
    ("Min", {"a": FLOATS, "b": FLOATS[::-1]}, {}),
    ("Round", {"a": np.array([0.5, 1.5, -0.5, 2.4], np.float32)}, {}),
    ("Greater", {"a": FLOATS[:, None], "b": FLOATS}, {}),
    ("Greater", {"a": INTS, "b": np.int64(3)}, {}),
    ("Range", {"a": np.float32(0), "b": np.float32(9.5), "c": np.float32(1)}, {}),
    ("Range", {"a": np.float32(0), "b": np.float32(9), "c": np.float32(1)}, {}),
    ("ReduceSum", {"a": 2 * FLOATS[None], "x": [1]}, {"keepdims": 0}),
    ("ReduceSum", {"a": 2 * FLOATS[None], "x": [-1]}, {"keepdims": 0}),
    ("Concat", {"a": FLOATS, "b": FLOATS}, {"axis": 0}),
    ("Where", {"c": np.array([True]), "a": FLOATS, "b": FLOATS + 1}, {}),
    ("Cast", {"a": np.array([0, 7, 255], np.float32)}, {"to": TensorProto.UINT8}),
    ("Cast", {"a": INTS}, {"to": TensorProto.INT32}),
    ("Cast", {"a": INTS}, {"to": TensorProto.FLOAT}),
    ("Cast", {"a": FLOATS}, {"to": TensorProto.BOOL}),
    ("Cast", {"a": np.array([1, 255], np.uint8)}, {"to": TensorProto.FLOAT}),
    ("Cast", {"a": FLOATS / 3}, {"to": TensorProto.FLOAT16}),
    ("Concat", {"a": INTS, "b": INTS}, {"axis": 0}),
    ("Slice", {"a": INTS, "s": [0], "e": [2]}, {}),
    ("Slice", {"a": INTS, "s": [1], "e": [2**62], "x": [0]}, {}),
    ("Slice", {"a": INTS, "s": [-2], "e": [3], "x": [-1], "t": [1]}, {}),
    ("Gather", {"a": INTS, "i": np.int64(2)}, {}),
    ("Gather", {"a": INTS, "i": np.array([[-1, 0]], np.int64)}, {"axis": 0}),
    ("Reshape", {"a": INTS, "s": [3, 1]}, {}),
    ("Reshape", {"a": FLOATS, "s": [1, -1]}, {}),
    ("Squeeze", {"a": INTS[:1]}, {}),
    ("Unsqueeze", {"a": FLOATS, "x": [1, 2]}, {}),
    ("Where", {"c": np.array([True, False, True]), "a": INTS, "b": np.array([1], np.int64)}, {}),
    ("Or", {"a": np.array([True, False]), "b": np.array([False])}, {}),
    ("ReduceProd", {"a": INTS}, {"keepdims": 0}),
    ("ReduceProd", {"a": INTS}, {}),
    ("Identity", {"a": FLOATS}, {}),
]


@pytest.mark.parametrize(("op_type", "constants", "attributes"), KNOWN)
def test_what_is_known_is_right(
    op_type: str, constants: dict[str, Any], attributes: dict[str, Any]
) -> None:
    """By onnxruntime."""
    arrays = {
        n: np.asarray(a, np.int64) if isinstance(a, list) else a for n, a in constants.items()
    }
    value = one(op_type, arrays, **attributes)
    assert value.producer() is not None
    node = helper.make_node(op_type, list(arrays), ["out"], **attributes)
    tensors = [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()]
    graph = helper.make_graph([node], "g", [], [onnx.ValueInfoProto(name="out")], tensors)
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    (expected,) = by_onnxruntime(model, {})
    result = plain(Values().array(value))
    np.testing.assert_array_equal(result, expected)
    assert result.shape == expected.shape


UNKNOWN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("Exp", {"a": FLOATS}, {}),
    ("Add", {"a": FLOATS, "b": FLOATS.astype(np.float64)}, {}),
    ("Add", {"a": np.uint8(255), "b": np.uint8(255)}, {}),
    ("Add", {"a": INTS, "b": FLOATS}, {}),
    ("Add", {"a": INTS, "b": np.arange(2)}, {}),
    ("Add", {"a": np.ones((1, 3000), np.float32), "b": np.ones((3000, 1), np.float32)}, {}),
    ("Max", {"a": FLOATS, "b": FLOATS, "c": FLOATS}, {}),
    ("Div", {"a": FLOATS, "b": FLOATS}, {}),
    ("Div", {"a": INTS, "b": np.int64(0)}, {}),
    ("Div", {"a": INTS, "b": np.int64(-2)}, {}),
    ("Mod", {"a": INTS, "b": np.int64(-2)}, {}),
    ("Mod", {"a": INTS, "b": np.int64(5)}, {"fmod": 1}),
    ("Pow", {"a": INTS, "b": INTS}, {}),
    ("Cast", {"a": FLOATS}, {"to": TensorProto.INT64}),
    ("Cast", {"a": FLOATS}, {"to": TensorProto.UINT8}),
    ("Cast", {"a": np.array([b"1"], object)}, {"to": TensorProto.FLOAT}),
    ("Concat", {"a": np.arange(60), "b": np.arange(60)}, {"axis": 0}),
    ("Concat", {"a": FLOATS, "b": INTS}, {"axis": 0}),
    ("Concat", {"a": np.ones(60, np.float32), "b": np.ones(60, np.float32)}, {"axis": 0}),
    ("Concat", {"a": FLOATS.astype(np.float64), "b": FLOATS.astype(np.float64)}, {"axis": 0}),
    ("Concat", {"a": INTS[None], "b": INTS[None]}, {"axis": 1}),
    ("Slice", {"a": INTS, "s": [2], "e": [0], "x": [0], "t": [-1]}, {}),
    ("Slice", {"a": INTS, "s": [0], "e": [3], "x": [0], "t": [2]}, {}),
    ("Slice", {"a": INTS[None], "s": [0], "e": [1], "x": [0]}, {}),
    ("Slice", {"a": INTS[None], "s": [0, 0], "e": [1, 1]}, {}),
    ("Slice", {"a": INTS, "s": [0], "e": [3], "x": [1]}, {}),
    ("Gather", {"a": INTS, "i": np.int64(3)}, {}),
    ("Gather", {"a": INTS, "i": np.int64(-4)}, {}),
    ("Gather", {"a": INTS[None], "i": np.int64(0)}, {}),
    ("Reshape", {"a": INTS, "s": [0]}, {}),
    ("Reshape", {"a": INTS, "s": [2]}, {}),
    ("Squeeze", {"a": INTS[None]}, {}),
    ("Unsqueeze", {"a": FLOATS, "x": [7]}, {}),
    ("Where", {"c": np.array([True]), "a": FLOATS, "b": INTS}, {}),
    ("Where", {"c": INTS, "a": FLOATS, "b": FLOATS}, {}),
    ("Cast", {"a": np.array([256], np.float32)}, {"to": TensorProto.UINT8}),
    ("Cast", {"a": INTS}, {"to": TensorProto.UINT8}),
    ("Round", {"a": np.array([2], np.uint8)}, {}),
    ("Greater", {"a": np.array([2], np.uint8), "b": np.array([3], np.uint8)}, {}),
    ("Greater", {"a": INTS, "b": FLOATS}, {}),
    ("Greater", {"a": np.ones((1, 3000), np.float32), "b": np.ones((3000, 1), np.float32)}, {}),
    ("Range", {"a": np.float32(1), "b": np.float32(9), "c": np.float32(1)}, {}),
    ("Range", {"a": np.float32(0), "b": np.float32(9), "c": np.float32(0.5)}, {}),
    ("Range", {"a": np.float32(0), "b": np.float32(1e9), "c": np.float32(1)}, {}),
    ("Range", {"a": np.float32(0), "b": np.float32(np.nan), "c": np.float32(1)}, {}),
    ("Range", {"a": np.float64(0), "b": np.float64(9), "c": np.float64(1)}, {}),
    ("ReduceSum", {"a": 2 * FLOATS[None], "x": [1]}, {}),
    ("ReduceSum", {"a": FLOATS[None], "x": [1]}, {"keepdims": 0}),
    ("ReduceSum", {"a": np.float32([[1e8, 1]]), "x": [1]}, {"keepdims": 0}),
    ("ReduceSum", {"a": 2 * FLOATS[None], "x": [0]}, {"keepdims": 0}),
    ("ReduceSum", {"a": 2 * FLOATS[None]}, {"keepdims": 0}),
    ("ReduceSum", {"a": 2 * FLOATS[None, None], "x": [1]}, {"keepdims": 0}),
    ("ReduceSum", {"a": INTS[None], "x": [1]}, {"keepdims": 0}),
    ("Where", {"c": INTS, "a": INTS, "b": INTS}, {}),
    ("Where", {"c": np.ones((70, 1), bool), "a": np.arange(60), "b": np.arange(60)}, {}),
    ("Or", {"a": INTS, "b": INTS}, {}),
    ("Or", {"a": np.ones((70, 1), bool), "b": np.ones((1, 70), bool)}, {}),
    ("ReduceProd", {"a": FLOATS}, {}),
    ("ReduceProd", {"a": INTS, "x": [0]}, {}),
    ("Identity", {"a": np.arange(65)}, {}),  # no shape is as long
]


@pytest.mark.parametrize(("op_type", "constants", "attributes"), UNKNOWN)
def test_what_is_not_understood_is_unknown(
    op_type: str, constants: dict[str, Any], attributes: dict[str, Any]
) -> None:
    arrays = {
        n: np.asarray(a, np.int64) if isinstance(a, list) else a for n, a in constants.items()
    }
    with pytest.raises(UnknownValueError):
        Values().array(one(op_type, arrays, **attributes))


def test_operators_of_other_domains_are_unknown() -> None:
    node = helper.make_node("Add", ["a", "a"], ["out"], domain="other")
    with pytest.raises(UnknownValueError):
        Values().array(value_of([node], {"a": INTS}))


def test_inputs_are_unknown() -> None:
    node = helper.make_node("Add", ["a", "x"], ["out"])
    with pytest.raises(UnknownValueError):
        Values().array(value_of([node], {"a": FLOATS}, {"x": [3]}))
    with pytest.raises(UnknownValueError):
        Values().array(None)


def test_integers_are_constant_ones() -> None:
    values = Values()
    assert values.integers(one("Identity", {"a": INTS})) == [3, -7, 20]
    size = value_of([helper.make_node("Shape", ["x"], ["out"])], {}, {"x": ["N", 3]})
    assert values.expressions(size)[1] == Expression(3)
    with pytest.raises(UnknownValueError):
        values.integers(size)
    for read in (values.integers, values.expressions):
        with pytest.raises(UnknownValueError):
            read(one("Identity", {"a": FLOATS}))


ONE_HOT: dict[str, Any] = {
    "max_gram_length": 1,
    "max_skip_count": 0,
    "min_gram_length": 1,
    "mode": "TF",
    "ngram_counts": [0],
    "ngram_indexes": [0, 1],
    "pool_strings": ["SAME_UPPER", "VALID"],
}


def one_hot(text: Any, **changes: Any) -> ir.Value:
    attributes = {k: v for k, v in {**ONE_HOT, **changes}.items() if v is not None}
    node = helper.make_node("TfIdfVectorizer", ["a"], ["out"], **attributes)
    return value_of([node], {"a": text})


@pytest.mark.parametrize("mode", ["SAME_UPPER", "VALID", "NOTSET"])
def test_modes_are_told_apart(mode: str) -> None:
    result = Values().array(one_hot(np.array([mode], object)))
    assert result.tolist() == [mode == "SAME_UPPER", mode == "VALID"]


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "TFIDF", "weights": [1.0, 2.0]},
        {"weights": [1.0, 2.0]},
        {"mode": "IDF"},
        {"max_gram_length": 2},
        {"min_gram_length": 0},
        {"ngram_counts": [0, 1]},
        {"ngram_indexes": [1, 0]},
    ],
)
def test_other_vectorizers_are_unknown(changes: dict[str, Any]) -> None:
    with pytest.raises(UnknownValueError):
        Values().array(one_hot(np.array(["VALID"], object), **changes))


@pytest.mark.parametrize("text", [np.array(["VALID", "VALID"], object), INTS[:1]])
def test_vectors_of_something_else_are_unknown(text: Any) -> None:
    with pytest.raises(UnknownValueError):
        Values().array(one_hot(text))


def test_shapes_are_those_of_what_they_come_from() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Pad", ["a", "pads"], ["b"]),
        helper.make_node("Add", ["bias", "b"], ["c"]),
        helper.make_node("Identity", ["c"], ["out"]),
    ]
    pads = np.array([0, 0, 1, 0, 0, 0, 2, 0])
    bias = np.ones((3, 1, 1), np.float32)
    value = value_of(nodes, {"pads": pads, "bias": bias}, {"x": ["N", 3, None, 8]})
    values = Values()
    batch, channels, height, width = values.shape(value)
    x = source(value)
    for _ in range(3):
        node = x.producer()
        assert node is not None
        x = node.inputs[-1 if node.op_type == "Add" else 0]  # type: ignore[assignment]
    before = values.shape(x)
    assert (batch, channels, width) == (before[0], Expression(3), Expression(8))
    assert not batch.is_constant
    assert values.algebra.subtract(height, before[2]) == Expression(3)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (["N", 1], ["N", 5], 5),
        (["N", "M"], ["N", 5], 5),  # M is 5, or 1
        (["N", "M"], ["N", "M"], None),
        (["N", "M"], ["N", "L"], "unknown"),
        (["N", 4], ["N", 5], "unknown"),
        (["N", "M"], ["M"], None),
    ],
)
def test_broadcasting(a: Shape, b: Shape, expected: Any) -> None:
    value = value_of([helper.make_node("Mul", ["a", "b"], ["out"])], {}, {"a": a, "b": b})
    value.shape = None
    values = Values()
    if expected == "unknown":
        with pytest.raises(UnknownValueError):
            values.shape(value)
    else:
        last = values.shape(value)[1]
        assert last == (values.algebra.atom("symbol", "M") if expected is None else Expression(5))


def test_shapes_of_what_is_not_understood_are_unknown() -> None:
    for nodes in (
        [helper.make_node("Exp", ["x"], ["out"])],
        [helper.make_node("Pad", ["x", "pads"], ["out"])],
        [helper.make_node("Pad", ["x", "pads", "", "axes"], ["out"])],
        [helper.make_node("Pad", ["x", "x"], ["out"])],
    ):
        constants = {"pads": np.zeros(6, np.int64), "axes": np.arange(3)}
        value = value_of(nodes, constants, {"x": [1, 2, 3, 4]})
        with pytest.raises(UnknownValueError):
            Values().shape(value)


def test_a_number_that_is_declared_counts_more_than_a_symbol() -> None:
    value = value_of([helper.make_node("Relu", ["x"], ["out"])], {}, {"x": ["N", "C"]})
    value.shape = ir.Shape([None, 7])
    assert Values().shape(value) == (Values().algebra.atom("symbol", "N"), Expression(7))


def test_a_shape_of_known_rank() -> None:
    value = value_of(
        [helper.make_node("Exp", ["x"], ["y"]), helper.make_node("Shape", ["y"], ["out"])],
        {},
        {"x": [1]},
    )
    node = value.producer()
    assert node is not None
    y = node.inputs[0]
    assert y is not None
    values = Values()
    first = values.shape_of_rank(y, 4)
    assert len(set(first)) == 4
    assert tuple(values.array(value)) == first == values.shape_of_rank(y, 9)
