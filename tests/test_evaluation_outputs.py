"""Which output says the classes, rule by rule, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from adder_onnx.errors import ModelError
from adder_onnx.evaluation.outputs import Classified, choose_output, describe_outputs
from adder_onnx.metadata import ModelMetadata
from adder_onnx.runtime import InferenceSession
from tests.models import make_model, node

_Shape = Sequence[int | str]


def _choose(session: InferenceSession) -> Classified:
    return choose_output(session, ModelMetadata.from_props(session.metadata).labels)


def _session(
    outputs: Mapping[str, _Shape],
    labels: int | None = None,
    *,
    types: Mapping[str, int] | None = None,
) -> InferenceSession:
    """A model whose outputs have these shapes, and types other than float; each is x, reshaped."""
    nodes, constants = [], {}
    for name, shape in outputs.items():
        sizes = [0 if isinstance(size, str) else size for size in shape]
        pixels = int(np.prod([size for size in sizes if size > 0], dtype=int))
        constants |= {
            f"{name} pixels": np.arange(pixels) % 8,
            f"{name} shape": np.array([-1, *sizes[1:]]),
        }
        nodes += [
            node("Gather", ["x", f"{name} pixels"], f"{name} flat", axis=1),
            node("Reshape", [f"{name} flat", f"{name} shape"], f"{name} float"),
            node("Cast", [f"{name} float"], name, to=(types or {}).get(name, TensorProto.FLOAT)),
        ]
    model = make_model(nodes, {"x": ["n", 8]}, dict(outputs), constants)
    return _finish(model, labels, types or {})


def _finish(
    model: onnx.ModelProto, labels: int | None, types: Mapping[str, int]
) -> InferenceSession:
    for output in model.graph.output:
        elem_type = types.get(output.name, TensorProto.FLOAT)
        output.type.tensor_type.elem_type = elem_type
    names = None if labels is None else tuple(f"class {i}" for i in range(labels))
    helper.set_model_props(model, ModelMetadata(labels=names).to_props())
    return InferenceSession(model.SerializeToString())


# Outputs in their order, the number of labels, and the one that is taken with its classes.
_CHOICES: dict[str, tuple[Mapping[str, _Shape], int | None, tuple[str, int]]] = {
    # Rule 1.
    "the only one": ({"y": ("n", 4)}, None, ("y", 4)),
    "the only one (N, classes)": ({"m": ("n", 4, 2, 2), "y": ("n", 4)}, None, ("y", 4)),
    "(N, classes, 1, 1)": ({"y": ("n", 4, 1, 1)}, None, ("y", 4)),
    "(N, 1, 1, classes)": ({"y": ("n", 1, 1, 4)}, None, ("y", 4)),
    "(N, 1)": ({"y": ("n", 1)}, None, ("y", 1)),
    # Rule 3.
    "not the batch": ({"a": (2, 4), "b": ("n", 4)}, None, ("b", 4)),
    "not the batch, with labels": ({"a": (2, 4), "b": ("n", 4)}, 4, ("b", 4)),
    "none the batch": ({"a": (2, 4), "b": (2, 5)}, None, ("a", 4)),
    "perhaps the batch": ({"a": (1, 4), "b": ("n", 4)}, None, ("a", 4)),
    "a batch of -1": ({"a": (-1, 4), "b": ("n", 4)}, None, ("a", 4)),
    # Rule 4.
    "labels": ({"a": ("n", 5), "b": ("n", 4)}, 4, ("b", 4)),
    "labels, against the name": ({"logits": ("n", 5), "b": ("n", 4)}, 4, ("b", 4)),
    "labels, against the form": ({"a": ("n", 5), "b": ("n", 4, 1, 1)}, 4, ("b", 4)),
    # Rule 5.
    "called logits": ({"a": ("n", 5), "b": ("n", 5), "logits": ("n", 4)}, None, ("logits", 4)),
    "called logits, of more axes": (
        {"a": ("n", 5), "logits": ("n", 4, 1, 1)},
        None,
        ("logits", 4),
    ),
    "the first": ({"a": ("n", 5), "b": ("n", 4)}, None, ("a", 5)),
    "of two axes": ({"a": ("n", 5, 1, 1), "b": ("n", 4)}, None, ("b", 4)),
    "the first of those with labels": (
        {"a": ("n", 4), "b": ("n", 4), "c": ("n", 5)},
        4,
        ("a", 4),
    ),
}


@pytest.mark.parametrize("name", _CHOICES)
def test_the_output_that_is_taken(name: str) -> None:
    outputs, labels, expected = _CHOICES[name]
    found = _choose(_session(outputs, labels))
    assert (found.name, found.classes) == expected
    possible = [
        other
        for other, shape in outputs.items()
        if sum(size != 1 for size in shape[1:]) == 1
        and (labels is None or labels in shape)
        and (shape[0] != 2 or "none" in name)
    ]
    assert sorted((*found.others, found.name)) == sorted(possible or outputs)


@pytest.mark.parametrize("elem_type", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_all_types_of_floats(elem_type: int) -> None:
    assert _choose(_session({"y": ("n", 4)}, types={"y": elem_type})).classes == 4


_REFUSALS: dict[str, tuple[Mapping[str, _Shape], int | None, str]] = {
    "two maps": (
        {"boxes": ("n", 4, 2, 2), "scores": ("n", 2, 2, 2)},
        None,
        "no output of the model is float (N, classes), but boxes tensor(float) ['n', 4, 2, 2], "
        "scores tensor(float) ['n', 2, 2, 2]",
    ),
    "one pixel": ({"y": ("n", 1, 1, 1)}, None, "no output of the model is float (N, classes)"),
    "a list": ({"y": ("n",)}, None, "no output of the model is float (N, classes)"),
    "many": (
        {f"y{i}": ("n", 2, 2) for i in range(9)},
        None,
        "y3 tensor(float) ['n', 2, 2], and 5 more",
    ),
    "other labels": ({"y": ("n", 4)}, 5, "the model has 4 classes, but its metadata 5 labels"),
    "other labels than all": (
        {"m": ("n", 2, 2), "a": ("n", 4), "b": ("n", 3, 1, 1)},
        5,
        "the model has 4 (a), 3 (b) classes, but its metadata 5 labels",
    ),
    "a guess": (
        {"m": ("n", 2, 2), "a": ("n", 4), "b": ("n", 3)},
        None,
        "several outputs of the model may be the classes, a, b, and none of them is the first or "
        "called logits",
    ),
}


@pytest.mark.parametrize("name", _REFUSALS)
def test_where_no_output_is_taken(name: str) -> None:
    outputs, labels, message = _REFUSALS[name]
    with pytest.raises(ModelError) as caught:
        _choose(_session(outputs, labels))
    assert message in str(caught.value)


@pytest.mark.parametrize("size", ["c", 0])
def test_numbers_of_classes_that_are_none(size: int | str) -> None:
    model = make_model([node("Relu", ["x"], "y")], {"x": ["n", size]}, {"y": ["n", size]})
    with pytest.raises(ModelError) as caught:
        _choose(InferenceSession(model.SerializeToString()))
    assert f"but y tensor(float) {['n', size]}" in str(caught.value)


def _arg_max(
    *after: onnx.NodeProto,
    x: _Shape = ("n", 4),
    y: _Shape = ("n",),
    labels: int | None = None,
    elem_type: int = TensorProto.INT64,
    scores: bool = False,
    **attributes: int,
) -> InferenceSession:
    """ArgMax of x is ``best``, and the nodes after it make y of it; perhaps x is an output, too."""
    outputs = {"y": y, **({"x": x} if scores else {})}
    best = node("ArgMax", ["x"], "best", **attributes)
    model = make_model([best, *after], {"x": x}, outputs, {"all": np.array([-1])})
    return _finish(model, labels, {"y": elem_type})


_SAME = node("Identity", ["best"], "y")


def test_class_numbers() -> None:
    """Rule 2."""
    expected = Classified("y", 4, "class numbers")
    assert _choose(_arg_max(_SAME, axis=1, keepdims=0)) == expected
    assert _choose(_arg_max(_SAME, axis=-1, y=("n", 1))) == expected
    assert _choose(_arg_max(_SAME, axis=1, labels=4, keepdims=0)) == expected
    maps = {"x": ("n", 4, 1, 1), "axis": 1}
    assert _choose(_arg_max(_SAME, y=("n", 1, 1, 1), **maps)) == expected  # type: ignore[arg-type]
    flat = node("Reshape", ["best", "all"], "y")
    assert _choose(_arg_max(flat, **maps)) == expected  # type: ignore[arg-type]
    for elem_type in (TensorProto.INT32, TensorProto.UINT8):
        narrow = node("Cast", ["best"], "y", to=elem_type)
        found = _choose(_arg_max(narrow, axis=1, keepdims=0, elem_type=elem_type))
        assert found == expected


def test_scores_go_before_class_numbers() -> None:
    found = _choose(_arg_max(_SAME, axis=1, keepdims=0, scores=True))
    assert found == Classified("x", 4)


def test_class_numbers_where_the_scores_have_other_labels() -> None:
    model = make_model(
        [node("ArgMax", ["x"], "best", axis=1, keepdims=0), node("Flatten", ["z"], "boxes")],
        {"x": ["n", 4], "z": ["n", 6]},
        {"boxes": ["n", 6], "best": ["n"]},
    )
    found = _choose(_finish(model, 4, {"best": TensorProto.INT64}))
    assert found == Classified("best", 4, "class numbers")


@pytest.mark.parametrize(
    "session",
    [
        pytest.param(
            lambda: _arg_max(_SAME, x=(4, 4), axis=0, y=(4,), keepdims=0), id="of the batch"
        ),
        pytest.param(
            lambda: _arg_max(_SAME, x=(4, 4), axis=-2, y=(4,), keepdims=0), id="of the batch, -2"
        ),
        pytest.param(lambda: _arg_max(_SAME, x=("n", "c"), axis=1, keepdims=0), id="of any number"),
        pytest.param(
            lambda: _arg_max(_SAME, x=("n", 4, 2), y=("n", 2), axis=1, keepdims=0), id="two each"
        ),
        pytest.param(
            lambda: _session({"y": ("n", 1)}, types={"y": TensorProto.INT64}), id="a rounded float"
        ),
        pytest.param(
            lambda: _arg_max(node("Add", ["best", "all"], "y"), axis=1, keepdims=0),
            id="shifted by one",
        ),
    ],
)
def test_integers_that_are_no_class_numbers(session: Any) -> None:
    with pytest.raises(ModelError, match=r"no output of the model is float \(N, classes\)"):
        _choose(session())


def test_what_the_chosen_output_is() -> None:
    model = make_model(
        [node("Relu", ["x"], "a"), node("Softmax", ["x"], "logits")],
        {"x": ["n", 4]},
        {"a": ["n", 4], "logits": ["n", 4]},
    )
    found = _choose(InferenceSession(model.SerializeToString()))
    assert found == Classified("logits", 4, "probabilities", ("a",))


def test_descriptions_of_other_types() -> None:
    model = make_model(
        [node("Relu", ["x"], "r"), helper.make_node("SequenceConstruct", ["r"], ["y"])],
        {"x": ["n", 4]},
        {},
    )
    model.graph.output.append(
        helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ["n", 4])
    )
    session = InferenceSession(model.SerializeToString())
    assert describe_outputs(session) == "y seq(tensor(float)) []"


def test_rows() -> None:
    array = np.arange(6, dtype=np.float32)
    scores = Classified("y", 3)
    for shape in ((2, 3), (2, 3, 1, 1), (2, 1, 3)):
        assert np.array_equal(scores.rows({"y": array.reshape(shape)}), array.reshape(2, 3))
    numbers = Classified("y", 6, "class numbers")
    for shape in ((6,), (6, 1), (6, 1, 1)):
        assert np.array_equal(numbers.rows({"y": array.reshape(shape)}), array)
    with pytest.raises(ModelError, match=r"y has shape \[3, 2\] for 3 images; expected \[3, 3\]"):
        scores.rows({"y": array.reshape(3, 2)})
    with pytest.raises(ModelError, match=r"y has shape \[2, 3\] for 2 images; expected \[2\]"):
        numbers.rows({"y": array.reshape(2, 3)})
    for number in (-1, 6):
        with pytest.raises(
            ModelError, match=f"y is {number}; expected the number of a class, 0 to 5"
        ):
            numbers.rows({"y": np.array([0, number, 3])})
    with pytest.raises(ModelError, match="y holds values that are not finite"):
        scores.rows({"y": np.array([[1, np.nan, 2]], np.float32)})
