"""``adder-run`` by a model's outputs: several, none that is a classifier's, one of softmax.

Logits are pixels of the image, so that what is expected needs no network; stock onnxruntime says
what the other outputs are.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from adder_onnx.cli import run as adder_run
from adder_onnx.evaluation.npz_output import NpzOutput
from adder_onnx.metadata import ModelMetadata, Preprocessing
from tests.models import adder_conv, make_model, node

_LABELS = ("ant", "bee", "cat", "dog")
_HOW = Preprocessing(1, 2, 2, (0.0,), (0.125,))

# Images of 2 x 2 pixels, which are the logits of four classes, times 8 / 255.
_PIXELS = np.array(
    [
        [200, 10, 20, 30],
        [10, 220, 20, 30],
        [90, 10, 20, 80],
        [0, 0, 0, 250],
        [1, 9, 8, 7],
        [70, 60, 50, 40],
        [40, 50, 60, 60],
    ],
    np.uint8,
)
_INPUTS = ((_PIXELS / np.float32(255)) / np.float32(0.125)).astype(np.float32).reshape(-1, 1, 2, 2)
_BEST = [0, 1, 0, 3, 1, 0, 2]
_TRUE = [0, 0, 1, 1, 3, 3, 2]
_RIGHT = 2

_CONSTANTS: dict[str, NDArray[Any]] = {
    "w": np.random.default_rng(5).uniform(-1, 1, (3, 1, 1, 1)).astype(np.float32),
    "list": np.array([-1, 4]),
    "maps": np.array([-1, 4, 1, 1]),
    "batch": np.array([0]),
    "one": np.array([1]),
    "pixels": np.array([2, 3]),
    "half": np.array(0.5, np.float32),
    "two": np.array(2, np.float32),
    "scale": np.array(1 / 255, np.float32),
    "zero": np.array(0, np.uint8),
    "anchors": np.arange(8, dtype=np.float32).reshape(2, 4),
}

_Shape = Sequence[int | str]


def _model(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    outputs: Mapping[str, _Shape],
    *,
    types: Mapping[str, int] | None = None,
    labels: tuple[str, ...] | None = _LABELS,
    batch: int | str = "n",
) -> Path:
    """A model of ``input`` (N, 1, 2, 2), of which ``flat`` (N, 4) and ``d`` (N, 3, 2, 2) are made.

    The latter is what an adder node gives.
    """
    base = [node("Flatten", ["input"], "flat"), adder_conv("input", "w", "d")]
    taken = {source for n in (*base, *nodes) for source in n.input}
    model = make_model(
        [*base, *nodes],
        {"input": [batch, 1, 2, 2]},
        {
            name: [batch, *shape[1:]] if shape[:1] == ("n",) else shape
            for name, shape in outputs.items()
        },
        {name: array for name, array in _CONSTANTS.items() if name in {*taken, *outputs}},
    )
    for output in model.graph.output:
        elem_type = (types or {}).get(output.name, TensorProto.FLOAT)
        output.type.tensor_type.elem_type = elem_type
    helper.set_model_props(model, ModelMetadata(None, _HOW, labels).to_props())
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def _stock(model: Path, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """All outputs by onnxruntime alone."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(feed)), strict=True))


def _softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    powers: NDArray[np.float64] = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=-1, keepdims=True)


def _main(*arguments: object) -> int:
    try:
        return adder_run.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def _json(capfd: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    status = _main(*arguments, "--json", "-")
    out, err = capfd.readouterr()
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert isinstance(result, dict)
    return result


def _rows(capfd: pytest.CaptureFixture[str], *arguments: object) -> dict[str, str]:
    """The report's rows by their names."""
    assert _main(*arguments) == 0
    out, err = capfd.readouterr()
    assert err == ""
    return {line[:8].strip(): line[8:] for line in out.splitlines()}


def _refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that says why."""
    assert _main(*arguments) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _save(path: Path, row: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_PIXELS[row].reshape(2, 2)).save(path)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    for i in range(len(_PIXELS)):
        _save(tmp_path / "flat" / f"{i}.png", i)
    return tmp_path / "flat"


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """The same images in folders of their classes, which keep their order."""
    np.savez(tmp_path / "set.npz", input=_INPUTS, labels=_TRUE)
    return tmp_path / "set.npz"


# What makes y of flat, its shape and type, and what it is.
_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_WRITTEN_OUT = [
    node("Exp", ["flat"], "powers"),
    node("ReduceSum", ["powers", "one"], "total", keepdims=1),
    node("Div", ["powers", "total"], "y"),
]
_ENDINGS: dict[str, tuple[list[onnx.NodeProto], int, str, float]] = {
    "logits": ([node("Identity", ["flat"], "y")], _FLOAT, "logits", 1e-6),
    "softmax": ([node("Softmax", ["flat"], "y")], _FLOAT, "probabilities", 1e-6),
    "log softmax": ([node("LogSoftmax", ["flat"], "y")], _FLOAT, "log probabilities", 1e-6),
    "softmax written out": (_WRITTEN_OUT, _FLOAT, "probabilities", 1e-6),
    "softmax in float16": (
        [node("Softmax", ["flat"], "p"), node("Cast", ["p"], "y", to=_HALF)],
        _HALF,
        "probabilities",
        1e-3,
    ),
    "softmax of 8 bits": (
        [
            node("Softmax", ["flat"], "p"),
            node("QuantizeLinear", ["p", "scale", "zero"], "q"),
            node("DequantizeLinear", ["q", "scale", "zero"], "y"),
        ],
        _FLOAT,
        "probabilities",
        2e-2,
    ),
}


@pytest.mark.parametrize("name", _ENDINGS)
def test_probabilities_do_not_depend_on_the_ending(
    name: str, tmp_path: Path, flat: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nodes, elem_type, kind, tolerance = _ENDINGS[name]
    model = _model(tmp_path / "model.onnx", nodes, {"y": ("n", 4)}, types={"y": elem_type})
    expected = _softmax(_INPUTS.reshape(-1, 4))
    result = _json(capfd, model, "--data", flat, "--batch-size", 3)
    assert (result["classified_output"], result["output_kind"]) == ("y", kind)
    found = [p["probability"] for p in result["predictions"]]
    np.testing.assert_allclose(found, expected.max(axis=1), atol=tolerance)
    assert [p["class"] for p in result["predictions"]] == _BEST

    # One image, all classes: the shares that are printed sum to 1.
    single = _json(capfd, model, "--data", flat / "2.png")["predictions"]
    assert sum(p["probability"] for p in single) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(
        [p["probability"] for p in single], np.sort(expected[2])[::-1], atol=tolerance
    )

    output = tmp_path / "out.csv"
    _json(capfd, model, "--data", flat, "--output", output)
    with output.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, exact in zip(rows, expected, strict=True):
        shares = [float(row[f"probability{place}"]) for place in (1, 2, 3, 4)]
        np.testing.assert_allclose(shares, np.sort(exact)[::-1], atol=tolerance)
        assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_each_class_on_its_own(
    tmp_path: Path, flat: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = _model(tmp_path / "model.onnx", [node("Sigmoid", ["flat"], "y")], {"y": ("n", 4)})
    result = _json(capfd, model, "--data", flat / "2.png")
    assert result["output_kind"] == "independent probabilities"
    np.testing.assert_allclose(
        [p["probability"] for p in result["predictions"]],
        np.sort(1 / (1 + np.exp(-_INPUTS[2].reshape(4).astype(float))))[::-1],
        rtol=1e-6,
    )


def test_a_softmax_of_the_batch_is_none(
    tmp_path: Path, flat: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where there are as many images as classes, so that the columns sum to 1."""
    model = _model(
        tmp_path / "model.onnx", [node("Softmax", ["flat"], "y", axis=0)], {"y": ("n", 4)}
    )
    result = _json(capfd, model, "--data", flat, "--limit", 4, "--first")
    assert result["output_kind"] == "logits"
    columns = _softmax(_INPUTS[:4].reshape(4, 4).T).T
    np.testing.assert_allclose(
        [p["probability"] for p in result["predictions"]],
        _softmax(columns).max(axis=1),
        rtol=1e-5,
    )


def test_all_images_decide_whether_values_are_probabilities(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Logits of which all but those of the last image sum to 1."""
    model = _model(tmp_path / "model.onnx", [node("Identity", ["flat"], "y")], {"y": ("n", 4)})
    data = tmp_path / "set.npz"
    rows = np.array([[0.7, 0.1, 0.1, 0.1]] * 8 + [[1, 2, 3, 4]], np.float32)
    for count, kind in ((8, "probabilities"), (9, "logits")):
        np.savez(data, rows[:count].reshape(-1, 1, 2, 2))
        result = _json(capfd, model, "--data", data, "--batch-size", 3)
        assert result["output_kind"] == kind
        expected = rows[0] if kind == "probabilities" else _softmax(rows[0])
        assert result["predictions"][0]["probability"] == pytest.approx(expected[0], rel=1e-6)


# A classifier with what it makes on the way, and a network that is none.
_FEATURES = [node("Softmax", ["flat"], "probs"), node("GlobalAveragePool", ["d"], "features")]
_FEATURE_SHAPES = {"probs": ("n", 4), "features": ("n", 3, 1, 1), "d": ("n", 3, 2, 2)}
_DETECTOR = [
    node("Relu", ["d"], "scores"),
    node("Cast", ["d"], "whole", to=TensorProto.INT32),
    node("Greater", ["d", "half"], "mask"),
]
_DETECTOR_SHAPES = dict.fromkeys(("d", "scores", "whole", "mask"), ("n", 3, 2, 2))
_DETECTOR_TYPES = {"whole": TensorProto.INT32, "mask": TensorProto.BOOL}


def _check_npz(path: Path, expected: Mapping[str, NDArray[Any]]) -> None:
    found = _arrays(path)
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        if array.dtype.kind == "f":
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5)
        else:
            assert np.array_equal(found[name], array), name


@pytest.mark.parametrize("batch", ["n", 1, 3, 7, 50])
@pytest.mark.parametrize("known", [False, True])
def test_all_outputs(
    batch: int | str,
    known: bool,
    tmp_path: Path,
    flat: Path,
    labelled: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = _model(tmp_path / "model.onnx", _FEATURES, _FEATURE_SHAPES, batch=batch)
    output = tmp_path / "out.npz"
    output.write_text("something older")
    result = _json(capfd, model, "--data", labelled if known else flat, "--output", output)
    assert result["output"] == str(output)
    assert result["classified_output"] == "probs"
    assert result.get("top1_correct") == (_RIGHT if known else None)

    free = _model(tmp_path / "free.onnx", _FEATURES, _FEATURE_SHAPES)
    expected = _stock(free, {"input": _INPUTS})
    expected["logits"] = expected.pop("probs")
    if known:
        expected["labels"] = np.array(_TRUE, np.int64)
    _check_npz(output, expected)
    assert set(os.listdir(tmp_path)) == {"model.onnx", "free.onnx", "flat", "set.npz", "out.npz"}


def test_rows_of_all_outputs_are_those_of_the_images(
    tmp_path: Path, flat: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    (flat / "0.png").write_bytes(b"no image")
    model = _model(tmp_path / "model.onnx", _FEATURES, _FEATURE_SHAPES, batch=4)
    output = tmp_path / "out.npz"
    arguments = ("--data", flat, "--skip-bad", "--limit", 4, "--output", output)
    assert _main(model, *arguments) == 0
    capfd.readouterr()
    assert "skipped 1 of 4 images" in caplog.text
    free = _model(tmp_path / "free.onnx", _FEATURES, _FEATURE_SHAPES)
    expected = _stock(free, {"input": _INPUTS[[1, 3, 5]]})
    _check_npz(output, {"logits": expected.pop("probs"), **expected})


@pytest.mark.parametrize("known", [False, True])
def test_a_network_that_is_no_classifier(
    known: bool, tmp_path: Path, flat: Path, labelled: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = _model(
        tmp_path / "model.onnx", _DETECTOR, _DETECTOR_SHAPES, types=_DETECTOR_TYPES, labels=None
    )
    data = labelled if known else flat
    message = (
        "no output of the model is float (N, classes), but d tensor(float) ['n', 3, 2, 2], "
        "scores tensor(float) ['n', 3, 2, 2], whole tensor(int32) ['n', 3, 2, 2], "
        "mask tensor(bool) ['n', 3, 2, 2]"
    )
    for arguments in ((), ("--output", tmp_path / "out.csv")):
        error = _refused(capfd, model, "--data", data, *arguments)
        assert error == f"adder-run: error: {message}; --output FILE.npz writes all outputs\n"

    output = tmp_path / "out.npz"
    arguments = (model, "--data", data, "--output", output, "--batch-size", 3)
    rows = _rows(capfd, *arguments)
    assert list(rows) == ["model", "data", "device", "top-1", "speed", "output"]
    assert rows["top-1"] == f"none: {message}"
    result = _json(capfd, *arguments)
    assert (result["classified_output"], result["output_kind"]) == (None, None)
    assert result["no_accuracy"] == message
    assert result["images"] == 7
    assert result["inference_images_per_second"] > 0
    assert not {"top1", "top5", "predictions"} & set(result)
    expected = _stock(model, {"input": _INPUTS})
    if known:
        expected["labels"] = np.array(_TRUE, np.int64)
    _check_npz(output, expected)


def test_a_model_without_an_adder_node_and_float_outputs(
    tmp_path: Path, flat: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its precision is that of its input."""
    types = {"y": TensorProto.BOOL}
    model = _model(
        tmp_path / "model.onnx",
        [node("Greater", ["input", "half"], "y")],
        {"y": ("n", 1, 2, 2)},
        types=types,
    )
    result = _json(capfd, model, "--data", flat, "--output", tmp_path / "out.npz")
    assert result["precision"] == "float32"
    assert np.array_equal(_arrays(tmp_path / "out.npz")["y"], _INPUTS > 0.5)


@pytest.mark.parametrize("shape", [("n", 4, 1, 1), ("n", 1, 1, 4)])
def test_a_fully_convolutional_classifier(
    shape: _Shape, tmp_path: Path, labelled: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    end = [node("Reshape", ["flat", "maps"], "y")]
    if shape[1] == 1:
        end = [
            node("Reshape", ["flat", "maps"], "m"),
            node("Transpose", ["m"], "y", perm=[0, 2, 3, 1]),
        ]
    model = _model(tmp_path / "model.onnx", end, {"y": shape})
    output = tmp_path / "out.npz"
    result = _json(capfd, model, "--data", labelled, "--output", output)
    assert (result["top1_correct"], result["top5_correct"]) == (_RIGHT, 7)
    assert result["output_kind"] == "logits"
    assert np.array_equal(_arrays(output)["logits"], _INPUTS.reshape(-1, 4))


_ARG_MAX = [node("ArgMax", ["flat"], "best", axis=1, keepdims=0)]


def test_class_numbers(
    tmp_path: Path, flat: Path, labelled: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = _model(
        tmp_path / "model.onnx",
        [*_ARG_MAX, node("GlobalAveragePool", ["d"], "features"), node("Relu", ["d"], "e")],
        {"e": ("n", 3, 2, 2), "best": ("n",)},
        types={"best": TensorProto.INT64},
    )
    rows = _rows(capfd, model, "--data", labelled)
    assert rows["top-1"] == " 28.57 %  (2 of 7)"
    assert "top-5" not in rows
    result = _json(capfd, model, "--data", labelled)
    assert (result["top1_correct"], result["output_kind"]) == (_RIGHT, "class numbers")
    assert "top5" not in result

    result = _json(capfd, model, "--data", flat)
    names = [str(flat / f"{i}.png") for i in range(7)]
    assert result["predictions"] == [
        {"name": name, "class": best, "label": _LABELS[best]}
        for name, best in zip(names, _BEST, strict=True)
    ]
    assert _main(model, "--data", flat) == 0
    assert capfd.readouterr().out.splitlines() == [
        f"{_LABELS[best]}  {name}" for name, best in zip(names, _BEST, strict=True)
    ]
    assert _json(capfd, model, "--data", flat / "1.png")["predictions"] == [
        {"class": 1, "label": "bee"}
    ]

    _json(capfd, model, "--data", labelled, "--output", tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "name,label,class1,label1"
    assert [line.split(",")[2:] for line in lines[1:]] == [[str(b), _LABELS[b]] for b in _BEST]

    _json(capfd, model, "--data", labelled, "--output", tmp_path / "out.npz")
    found = _arrays(tmp_path / "out.npz")
    assert set(found) == {"e", "best", "labels"}
    assert found["best"].dtype == np.int64
    assert found["best"].tolist() == _BEST


def test_which_output_was_taken_is_said(
    tmp_path: Path,
    flat: Path,
    labelled: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    ends = [node("Neg", ["flat"], "other"), node("Identity", ["flat"], "logits")]
    both = {"other": ("n", 4), "logits": ("n", 4)}
    model = _model(tmp_path / "model.onnx", ends, both)
    rows = _rows(capfd, model, "--data", labelled)
    assert rows["top-1"].endswith("(2 of 7)")
    assert rows["answers"] == "from the output logits, not other"
    result = _json(capfd, model, "--data", labelled)
    assert result["classified_output"] == "logits"
    assert result["outputs_passed_over"] == ["other"]
    assert caplog.text == ""
    assert _main(model, "--data", flat) == 0
    assert "the answers are from the output logits, not other" in caplog.text
    caplog.clear()
    assert _main(model, "--data", flat, "--json", "-") == 0
    assert caplog.text == ""
    capfd.readouterr()

    alone = _model(tmp_path / "alone.onnx", ends[1:], {"logits": ("n", 4), "d": ("n", 3, 2, 2)})
    assert "answers" not in _rows(capfd, alone, "--data", labelled)
    assert "outputs_passed_over" not in _json(capfd, alone, "--data", labelled)


def test_a_choice_that_would_be_a_guess(
    tmp_path: Path, labelled: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = _model(
        tmp_path / "model.onnx",
        [node("Neg", ["flat"], "a"), node("Relu", ["flat"], "b")],
        {"d": ("n", 3, 2, 2), "a": ("n", 4), "b": ("n", 4)},
    )
    message = "several outputs of the model may be the classes, a, b"
    assert message in _refused(capfd, model, "--data", labelled)
    output = tmp_path / "out.npz"
    rows = _rows(capfd, model, "--data", labelled, "--output", output)
    assert rows["top-1"].startswith(f"none: {message}")
    expected = _stock(model, {"input": _INPUTS})
    _check_npz(output, expected | {"labels": np.array(_TRUE, np.int64)})


def test_features_of_labelled_images(
    tmp_path: Path, flat: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """An output (N, features) that has not as many columns as the data have classes."""
    for i, label in enumerate(_TRUE):
        _save(tmp_path / "folders" / _LABELS[label] / f"{i}.png", i)
    shapes = {"features": ("n", 3)}
    nodes = [node("ReduceMax", ["d", "pixels"], "features", keepdims=0)]
    model = _model(tmp_path / "model.onnx", nodes, shapes, labels=None)
    data = tmp_path / "folders"
    error = _refused(capfd, model, "--data", data)
    output = tmp_path / "out.npz"
    rows = _rows(capfd, model, "--data", data, "--output", output)
    assert error == f"adder-run: error: {rows['top-1'].removeprefix('none: ')}\n"
    order = np.argsort(_TRUE, kind="stable")
    expected = _stock(model, {"input": _INPUTS[order]})
    _check_npz(output, expected | {"labels": np.array(_TRUE, np.int64)[order]})
    # With labels of its own the model is a classifier, and the data are not its classes.
    named = _model(tmp_path / "named.onnx", nodes, shapes, labels=("x", "y", "z"))
    assert "the model" in _refused(capfd, named, "--data", data, "--output", output)


_MAPS = ("n", 3, 2, 2)
_FOUND = [  # columns that are large in some image of the batch
    node("ReduceMax", ["flat", "batch"], "most", keepdims=0),
    node("Greater", ["most", "two"], "large"),
    node("Compress", ["flat", "large"], "boxes", axis=1),
]

# Nodes, outputs, types, and what the message says.
_REFUSALS: dict[str, tuple[list[onnx.NodeProto], dict[str, _Shape], dict[str, int], str]] = {
    "as many rows as something is found": (
        [node("NonZero", ["d"], "found")],
        {"d": _MAPS, "found": (4, "k")},
        {"found": TensorProto.INT64},
        "the model's output found has shape [4, 'k'] for inputs of shape ['n', 1, 2, 2]",
    ),
    "one row for all": (
        [node("ReduceMax", ["d"], "most", keepdims=1)],
        {"d": _MAPS, "most": (1, 1, 1, 1)},
        {},
        "the model's output most has shape [1, 1, 1, 1] for inputs of shape [3, 1, 2, 2]",
    ),
    "a scalar": (
        [node("ReduceMax", ["d"], "most", keepdims=0)],
        {"d": _MAPS, "most": ()},
        {},
        "the model's output most has shape [] for inputs of shape [3, 1, 2, 2]",
    ),
    "a constant": (
        [],
        {"d": _MAPS, "anchors": (2, 4)},
        {},
        "the model's output anchors has shape [2, 4] for inputs of shape ['n', 1, 2, 2]",
    ),
    "rows of another length": (
        _FOUND,
        {"d": _MAPS, "boxes": ("n", "k")},
        {},
        "the model's output boxes has shape [3] for the first images and [2] for others",
    ),
    "text": (
        [node("Cast", ["d"], "text", to=TensorProto.STRING)],
        {"d": _MAPS, "text": _MAPS},
        {"text": TensorProto.STRING},
        "the model's output text is tensor(string), which an .npz file cannot hold",
    ),
    "labels": (
        [node("Relu", ["d"], "labels")],
        {"d": _MAPS, "labels": _MAPS},
        {},
        "the model's output labels and the labels of the data would have one name",
    ),
    "logits": (
        [node("Relu", ["d"], "logits"), node("Relu", ["flat"], "y")],
        {"logits": _MAPS, "y": ("n", 4)},
        {},
        "the model's output logits and its scores, y, would have one name",
    ),
}


@pytest.mark.parametrize("name", _REFUSALS)
def test_outputs_that_cannot_be_written(
    name: str, tmp_path: Path, labelled: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nodes, outputs, types, message = _REFUSALS[name]
    model = _model(tmp_path / "model.onnx", nodes, outputs, types=types, labels=None)
    output = tmp_path / "out.npz"
    output.write_text("older")
    before = sorted(tmp_path.rglob("*"))
    arguments = (model, "--data", labelled, "--output", output, "--batch-size", 3)
    assert message in _refused(capfd, *arguments)
    assert output.read_text() == "older"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["as many rows as something is found", "a constant", "text"])
def test_what_the_model_says_is_refused_before_it_runs(
    name: str,
    tmp_path: Path,
    labelled: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(adder_run, "evaluate", lambda *_, **__: pytest.fail("evaluated"))
    nodes, outputs, types, message = _REFUSALS[name]
    model = _model(tmp_path / "model.onnx", nodes, outputs, types=types)
    output = tmp_path / "out.npz"
    assert message in _refused(capfd, model, "--data", labelled, "--output", output)


def test_a_classifier_runs_whatever_its_other_outputs_are(
    tmp_path: Path, labelled: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without --output they are not looked at."""
    for name, (nodes, outputs, types, _) in _REFUSALS.items():
        if name == "logits":
            continue
        model = _model(
            tmp_path / "model.onnx",
            [*nodes, node("Identity", ["flat"], "scores")],
            outputs | {"scores": ("n", 4)},
            types=types,
        )
        assert _json(capfd, model, "--data", labelled)["top1_correct"] == _RIGHT
        _json(capfd, model, "--data", labelled, "--output", tmp_path / "out.csv")


def test_an_interrupt_leaves_nothing_behind(
    tmp_path: Path,
    labelled: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = _model(tmp_path / "model.onnx", _FEATURES, _FEATURE_SHAPES)
    output = tmp_path / "out.npz"
    output.write_text("older")
    add = NpzOutput.add
    batches: list[int] = []

    def interrupt(self: NpzOutput, *arguments: Any) -> None:
        add(self, *arguments)
        batches.append(len(arguments[0]))
        if len(batches) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(NpzOutput, "add", interrupt)
    before = sorted(tmp_path.rglob("*"))
    arguments = ("--data", labelled, "--output", output, "--batch-size", 3)
    assert _main(model, *arguments) == 130
    assert capfd.readouterr() == ("", "adder-run: interrupted\n")
    assert batches == [3, 3]
    assert output.read_text() == "older"
    assert sorted(tmp_path.rglob("*")) == before


def test_several_inputs_and_outputs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = make_model(
        [
            node("Sub", ["left", "right"], "difference"),
            adder_conv("difference", "w", "d"),
            node("Flatten", ["difference"], "flat"),
            node("Softmax", ["flat"], "probs"),
        ],
        {"left": [4, 1, 2, 2], "right": [4, 1, 2, 2]},
        {"d": [4, 3, 2, 2], "probs": [4, 4]},
        {"w": _CONSTANTS["w"]},
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    right = np.roll(_INPUTS, 1, axis=0)
    np.savez(tmp_path / "set.npz", right=right, left=_INPUTS, labels=_TRUE)
    output = tmp_path / "out.npz"
    result = _json(capfd, path, "--data", tmp_path / "set.npz", "--output", output)
    probabilities = _softmax((_INPUTS - right).reshape(-1, 4))
    assert result["top1_correct"] == (probabilities.argmax(axis=1) == _TRUE).sum()
    parts = [
        _stock(path, {"left": _INPUTS[rows], "right": right[rows]})
        for rows in (range(4), [4, 5, 6, 6])
    ]
    expected = {n: np.concatenate([part[n] for part in parts])[:7] for n in ("d", "probs")}
    expected["logits"] = expected.pop("probs")
    _check_npz(output, expected | {"labels": np.array(_TRUE, np.int64)})


def test_a_model_without_inputs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = make_model([node("Relu", ["c"], "y")], {}, {"y": [7, 4]}, {"c": _INPUTS.reshape(-1, 4)})
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    np.savez(tmp_path / "set.npz", _INPUTS)
    assert "the model has no inputs" in _refused(capfd, path, "--data", tmp_path / "set.npz")


def test_values_of_outputs_that_are_not_finite(
    tmp_path: Path,
    labelled: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """An error where they are the classes, else a warning."""
    model = _model(tmp_path / "model.onnx", [node("Log", ["flat"], "y")], {"y": ("n", 4)})
    output = tmp_path / "out.npz"
    assert "y holds values that are not finite" in _refused(
        capfd, model, "--data", labelled, "--output", output
    )
    ends = [node("Identity", ["flat"], "logits"), node("Log", ["flat"], "logs")]
    model = _model(tmp_path / "model.onnx", ends, {"logits": ("n", 4), "logs": ("n", 4)})
    assert _main(model, "--data", labelled, "--output", output) == 0
    capfd.readouterr()
    assert "output logs holds values that are not finite for 1 of 7 images" in caplog.text
