"""What the scores of a model are, by the graph and by their values, and their probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from adder_onnx.evaluation.endings import Endings
from adder_onnx.evaluation.probabilities import (
    Kind,
    KindOfScores,
    kind_by_graph,
    to_probabilities,
)
from adder_onnx.runtime import InferenceSession
from tests.models import adder_conv, make_model, node

_CLASSES = 4

_CONSTANTS: dict[str, NDArray[Any]] = {
    "rows": np.array([-1, _CLASSES]),
    "axes": np.array([2, 3]),
    "scale": np.array(1 / 255, np.float32),
    "zero": np.array(0, np.uint8),
    "ratio": np.array(0.5, np.float32),
    "no": np.array(False),
    "true": np.array(True),
    "w": np.linspace(-1, 1, _CLASSES**2, dtype=np.float32).reshape(_CLASSES, -1, 1, 1),
    "wide": np.linspace(-1, 1, 1200 * _CLASSES, dtype=np.float32).reshape(1200, -1),
}

_Case = tuple[Kind | None, list[onnx.NodeProto], Sequence[int | str], int]


def _case(
    expected: Kind | None,
    *nodes: onnx.NodeProto,
    x: Sequence[int | str] = ("n", _CLASSES),
    opset: int = 18,
) -> _Case:
    """Nodes from x to y, and what y is."""
    return expected, list(nodes), x, opset


def _softmax(source: str, output: str, axis: int = 1) -> onnx.NodeProto:
    return node("Softmax", [source], output, axis=axis)


def _flat(source: str, output: str = "y") -> onnx.NodeProto:
    return node("Flatten", [source], output)


def _cast(source: str, output: str, to: int) -> onnx.NodeProto:
    return node("Cast", [source], output, to=to)


def _qdq(source: str, output: str) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    return (
        node("QuantizeLinear", [source, "scale", "zero"], f"{source}_8"),
        node("DequantizeLinear", [f"{source}_8", "scale", "zero"], output),
    )


def _either(branch: onnx.NodeProto) -> onnx.NodeProto:
    """An If whose branches are both that node, which gives b."""
    value = helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n", _CLASSES])
    graph = helper.make_graph([branch], "branch", [], [value])
    return node("If", ["true"], "y", then_branch=graph, else_branch=graph)


_IMAGES = ("n", _CLASSES, 1, 1)
_PROBABILITIES: Kind = "probabilities"
_LOGARITHMS: Kind = "log probabilities"
_ALONE: Kind = "independent probabilities"

_CASES: dict[str, _Case] = {
    # Rules 1 to 3.
    "logits": _case(None, node("Relu", ["x"], "y")),
    "softmax": _case(_PROBABILITIES, node("Softmax", ["x"], "y")),
    "softmax of axis 1": _case(_PROBABILITIES, _softmax("x", "y")),
    "log softmax": _case(_LOGARITHMS, node("LogSoftmax", ["x"], "y")),
    "sigmoid": _case(_ALONE, node("Sigmoid", ["x"], "y")),
    "hard sigmoid": _case(_ALONE, node("HardSigmoid", ["x"], "y")),
    # What keeps the values.
    "identity": _case(_PROBABILITIES, _softmax("x", "p"), node("Identity", ["p"], "y")),
    "dropout": _case(_PROBABILITIES, _softmax("x", "p"), node("Dropout", ["p", "ratio"], "y")),
    "flatten": _case(_PROBABILITIES, _softmax("x", "p"), _flat("p"), x=_IMAGES),
    "reshape": _case(
        _PROBABILITIES, _softmax("x", "p"), node("Reshape", ["p", "rows"], "y"), x=_IMAGES
    ),
    "squeeze": _case(
        _PROBABILITIES, _softmax("x", "p"), node("Squeeze", ["p", "axes"], "y"), x=_IMAGES
    ),
    "unsqueeze": _case(
        _PROBABILITIES, _softmax("x", "p"), node("Unsqueeze", ["p", "axes"], "q"), _flat("q")
    ),
    "8 bits": _case(_PROBABILITIES, _softmax("x", "p"), *_qdq("p", "y")),
    "casts": _case(
        _LOGARITHMS,
        node("LogSoftmax", ["x"], "p"),
        _cast("p", "q", TensorProto.FLOAT16),
        _cast("q", "y", TensorProto.FLOAT),
    ),
    "several": _case(_ALONE, node("Sigmoid", ["x"], "p"), *_qdq("p", "q"), _flat("q"), x=_IMAGES),
    # What does not.
    "dropout that may be in training": _case(
        None, _softmax("x", "p"), node("Dropout", ["p", "ratio", "no"], "y")
    ),
    "a cast to integers": _case(
        None,
        _softmax("x", "p"),
        _cast("p", "q", TensorProto.INT32),
        _cast("q", "y", TensorProto.FLOAT),
    ),
    "a factor": _case(None, _softmax("x", "p"), node("Mul", ["p", "ratio"], "y")),
    "swish": _case(None, node("Sigmoid", ["x"], "p"), node("Mul", ["x", "p"], "y")),
    "transpose": _case(
        None, _softmax("x", "p", axis=0), node("Transpose", ["p"], "y"), x=(_CLASSES, "n")
    ),
    "an adder node": _case(
        None, _softmax("x", "p"), adder_conv("p", "w", "d"), _flat("d"), x=_IMAGES
    ),
    # Where the softmax is, and where it is not.
    "after an adder node": _case(
        _PROBABILITIES, adder_conv("x", "w", "d"), _softmax("d", "p"), _flat("p"), x=_IMAGES
    ),
    "after large weights": _case(
        _PROBABILITIES,
        node("MatMul", ["x", "wide"], "m"),
        node("Unsqueeze", ["m", "axes"], "u"),
        _softmax("u", "p"),
        _flat("p"),
        x=("n", 1200),
    ),
    "in a branch": _case(None, _either(node("Softmax", ["x"], "b"))),
    # Over the classes, and over other axes.
    "axis -3 of five": _case(
        _PROBABILITIES, _softmax("x", "p", axis=-3), _flat("p"), x=("n", 1, _CLASSES, 1, 1)
    ),
    "axis 0": _case(None, _softmax("x", "y", axis=0)),
    "axis 0, as many images as classes": _case(
        None, _softmax("x", "y", axis=0), x=(_CLASSES, _CLASSES)
    ),
    "rows of images": _case(None, _softmax("x", "p", axis=-1), _flat("p"), x=("n", 2, 2)),
    "columns of images": _case(None, _softmax("x", "p", axis=1), _flat("p"), x=("n", 2, 2)),
    "a pixel": _case(None, _softmax("x", "p", axis=-1), _flat("p"), x=_IMAGES),
    "positions of maps": _case(
        None, _softmax("x", "p", axis=1), _flat("p"), x=("n", _CLASSES, 1, 2)
    ),
    # Until opset 12 all axes from the first one on are taken together.
    "opset 12": _case(
        _PROBABILITIES, node("Softmax", ["x"], "p"), _flat("p"), x=("n", 2, 2), opset=12
    ),
    "opset 12, columns": _case(
        None, _softmax("x", "p", axis=2), _flat("p"), x=("n", 2, 2), opset=12
    ),
    "opset 12, the batch": _case(None, _softmax("x", "y", axis=0), x=(2, _CLASSES), opset=12),
}


@pytest.mark.parametrize("name", _CASES)
def test_what_the_graph_tells(name: str) -> None:
    expected, nodes, x, opset = _CASES[name]
    taken = {source for n in nodes for source in n.input}
    constants = {key: array for key, array in _CONSTANTS.items() if key in taken}
    classes = 2 * _CLASSES if name == "positions of maps" else _CLASSES
    batch = "n" if "n" in x else x[0]
    outputs = {"y": (batch, classes)}
    model = make_model(nodes, {"x": x}, outputs, constants, opset=opset, bodies=opset > 12)
    session = InferenceSession(model.SerializeToString())
    assert kind_by_graph(Endings(session.plan), "y", classes) == expected

    sums = _sums(model, [size if isinstance(size, int) else 3 for size in x])
    if expected == "probabilities":
        np.testing.assert_allclose(sums(np.asarray), 1, atol=0.01)
    if expected == "log probabilities":
        np.testing.assert_allclose(sums(np.exp), 1, atol=0.01)


def _sums(
    model: onnx.ModelProto, shape: Sequence[int]
) -> Callable[[Callable[[NDArray[Any]], NDArray[Any]]], NDArray[Any]]:
    """For a function of scores, its sum for each of some random images, by onnxruntime."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(1).uniform(-3, 3, shape).astype(np.float32)
    (y,) = session.run(None, {"x": x})
    return lambda function: function(y).sum(axis=1)


def test_an_output_that_is_an_input() -> None:
    shape = ("n", _CLASSES)
    model = make_model([_softmax("x", "y")], {"x": shape}, {"y": shape, "x": shape})
    endings = Endings(InferenceSession(model.SerializeToString()).plan)
    assert kind_by_graph(endings, "x", _CLASSES) is None
    assert kind_by_graph(endings, "y", _CLASSES) == "probabilities"


def test_softmax_of_8_bits() -> None:
    """An operator of onnxruntime's own, whose attribute says which opset's softmax it is."""

    def kind(opset: int, shape: Sequence[int | str]) -> Kind | None:
        softmax = node(
            "QLinearSoftmax",
            ["x_8", "scale", "zero", "scale", "zero"],
            "p_8",
            domain="com.microsoft",
            opset=opset,
            axis=1,
        )
        quantize, dequantize = _qdq("x", "p")
        dequantize.input[0] = "p_8"
        model = make_model(
            [quantize, softmax, dequantize, _flat("p")],
            {"x": shape},
            {"y": ("n", _CLASSES)},
            {name: _CONSTANTS[name] for name in ("scale", "zero")},
            domains=("com.microsoft",),
        )
        endings = Endings(InferenceSession(model.SerializeToString()).plan)
        return kind_by_graph(endings, "y", _CLASSES)

    assert kind(13, _IMAGES) == kind(12, _IMAGES) == "probabilities"
    assert kind(12, ("n", 2, 2)) == "probabilities"
    assert kind(13, ("n", 2, 2)) is None


def _random(rows: int, classes: int, dtype: Any = np.float32) -> NDArray[Any]:
    """Logits (rows, classes), in [-9, 9]."""
    return np.random.default_rng(classes).uniform(-9, 9, (rows, classes)).astype(dtype)


def _softmax_of(logits: NDArray[Any]) -> NDArray[np.float64]:
    powers: NDArray[np.float64] = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=-1, keepdims=True)


def _kind(*batches: NDArray[Any]) -> Kind:
    kinds = KindOfScores(None)
    for batch in batches:
        kinds.see(batch)
    return kinds.kind


@pytest.mark.parametrize("classes", [1, 2, 10, 1000, 20000])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_rows_that_sum_to_1_are_probabilities(dtype: str, classes: int) -> None:
    """As operators in that type make them: exp(x - max) over its sum."""
    logits = _random(50, classes, dtype)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    total = powers.sum(axis=1, keepdims=True, dtype="float32" if dtype == "float16" else dtype)
    found = powers / total.astype(dtype)
    assert found.dtype == dtype
    assert _kind(found[:20], found[20:]) == "probabilities"
    assert _kind(found[:1].astype(np.float64)) == "probabilities"


@pytest.mark.parametrize(
    "row",
    [
        [0.5, 0.5, 0.001, 0],
        [0.5, 0.5, 0, -0.0001],
        [1.5, -0.5, 0, 0],
        [0, 0, 0, 0],
        [0.3, 0.3, 0.3, 0.09],
        [1.00002, 0, 0, 0],
    ],
)
def test_a_row_that_does_not_makes_them_logits(row: list[float]) -> None:
    rows = _softmax_of(_random(9, 4)).astype(np.float32)
    assert _kind(rows, np.array([row], np.float32), rows) == "logits"
    assert _kind(np.array([row], np.float32)) == "logits"


def test_without_rows_nothing_tells_that_they_are_probabilities() -> None:
    assert _kind() == _kind(np.empty((0, 4), np.float32)) == "logits"


@pytest.mark.parametrize("kind", ["logits", "independent probabilities", "class numbers"])
def test_the_graph_goes_before_the_values(kind: Kind) -> None:
    kinds = KindOfScores(kind)
    kinds.see(np.eye(4, dtype=np.float32))
    assert kinds.kind == kind


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("classes", [1, 2, 10, 1000])
def test_probabilities(dtype: str, classes: int) -> None:
    """Whatever the model ends in, those of the same logits are the same, but for rounding."""
    logits = _random(1, classes, dtype)[0]
    exact = _softmax_of(logits)
    forms: dict[Kind, NDArray[Any]] = {
        "logits": logits,
        "probabilities": exact.astype(dtype),
        "log probabilities": np.log(exact).astype(dtype),
    }
    for kind, scores in forms.items():
        found = to_probabilities(scores, kind)
        assert found.dtype == np.float64
        assert abs(found.sum() - 1) < 1e-12
        rounding = 20 * np.finfo(dtype).eps if kind != "logits" else 1e-12
        np.testing.assert_allclose(found, exact, rtol=rounding, atol=rounding / 100)
    alone = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(dtype)
    assert np.array_equal(to_probabilities(alone, "independent probabilities"), alone)


def test_probabilities_that_8_bits_rounded() -> None:
    rounded = np.round(_softmax_of(_random(1, 10))[0] * 255) / 255
    assert abs(rounded.sum() - 1) > 1e-3, "nothing was lost"
    found = to_probabilities(rounded.astype(np.float32), "probabilities")
    assert abs(found.sum() - 1) < 1e-12
    np.testing.assert_allclose(found, rounded / rounded.sum(), rtol=1e-6)
    # All of a thousand equal ones are rounded to 0: nothing is known of them any more.
    assert not to_probabilities(np.zeros(1000, np.float32), "probabilities").any()


def test_large_and_small_logits() -> None:
    found = to_probabilities(np.array([-1e30, 3e30, 0], np.float32), "logits")
    assert found.tolist() == [0, 1, 0]
