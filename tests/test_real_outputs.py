"""The real ResNet-20 with other endings and with more outputs, on real images."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from adder_onnx.cli import run
from tests.models import node

TOLERANCE = 2e-3
"""Of stock onnxruntime's logits, which are up to 17, and of ours, both against the definition."""

_AXIS = onnx.numpy_helper.from_array(np.array([1]), "class axis")

# What makes the output of the logits, its type and shape, and what adder-run finds that it is.
_ENDINGS: dict[str, tuple[list[onnx.NodeProto], int, Sequence[int | str], str]] = {
    "softmax": ([node("Softmax", ["logits"], "y")], TensorProto.FLOAT, [10], "probabilities"),
    "log softmax": (
        [node("LogSoftmax", ["logits"], "y")],
        TensorProto.FLOAT,
        [10],
        "log probabilities",
    ),
    "softmax written out": (
        [
            node("Exp", ["logits"], "powers"),
            node("ReduceSum", ["powers", "class axis"], "total"),
            node("Div", ["powers", "total"], "y"),
        ],
        TensorProto.FLOAT,
        [10],
        "probabilities",
    ),
    "softmax of maps": (
        [node("Softmax", ["fc_output"], "y", axis=1)],
        TensorProto.FLOAT,
        [10, 1, 1],
        "probabilities",
    ),
    "maps": ([node("Identity", ["fc_output"], "y")], TensorProto.FLOAT, [10, 1, 1], "logits"),
    "class numbers": (
        [node("ArgMax", ["logits"], "y", axis=1, keepdims=0)],
        TensorProto.INT64,
        [],
        "class numbers",
    ),
}


def _with_ending(model: Path, name: str, folder: Path) -> Path:
    nodes, elem_type, shape, _ = _ENDINGS[name]
    proto = onnx.load(model)
    proto.graph.node.extend(nodes)
    proto.graph.initializer.append(_AXIS)
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", elem_type, ["batch", *shape]))
    path = folder / "ending.onnx"
    onnx.save(proto, path)
    return path


def _run(*arguments: object) -> dict[str, Any]:
    """What adder-run writes as JSON, beside the model."""
    path = Path(str(arguments[0])).with_suffix(".json")
    assert run.main([*map(str, arguments), "--device", "cpu", "--json", str(path)]) == 0
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def _stock(model: Path, images: NDArray[np.float32]) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found: list[NDArray[Any]] = session.run(None, {"input": images})
    return found


@pytest.fixture(scope="module")
def plain(resnet20: Path, shared: Path) -> dict[str, Any]:
    """What the network as it is scores on all images."""
    return _run(resnet20, "--data", shared / "cifar10")


@pytest.fixture(scope="module")
def exact(resnet20: Path, images: NDArray[np.float32]) -> NDArray[np.float64]:
    """The probabilities of the first images by stock onnxruntime's logits."""
    (logits,) = _stock(resnet20, images)
    powers: NDArray[np.float64] = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", _ENDINGS)
def test_accuracy_does_not_depend_on_the_ending(
    name: str, resnet20: Path, plain: dict[str, Any], shared: Path, tmp_path: Path
) -> None:
    result = _run(_with_ending(resnet20, name, tmp_path), "--data", shared / "cifar10")
    assert result["top1_correct"] == plain["top1_correct"]
    assert abs(result["top1_correct"] - 456) <= 1
    assert result["output_kind"] == _ENDINGS[name][-1]
    assert result.get("top5_correct") == (
        None if name == "class numbers" else plain["top5_correct"]
    )


def _probabilities(path: Path) -> NDArray[np.float64]:
    """All of each image, in the order of the classes, from a file of answers."""
    found = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            shares = np.empty(10)
            for place in range(1, 11):
                shares[int(row[f"class{place}"])] = float(row[f"probability{place}"])
            found.append(shares)
    return np.array(found)


@pytest.mark.parametrize("name", [name for name in _ENDINGS if name != "class numbers"])
def test_probabilities_do_not_depend_on_the_ending(
    name: str,
    resnet20: Path,
    images: NDArray[np.float32],
    exact: NDArray[np.float64],
    tmp_path: Path,
) -> None:
    np.savez(tmp_path / "images.npz", images)
    output = tmp_path / "answers.csv"
    arguments = ("--data", tmp_path / "images.npz", "--topk", 10, "--output", output)
    _run(resnet20, *arguments)
    plain = _probabilities(output)
    _run(_with_ending(resnet20, name, tmp_path), *arguments)
    found = _probabilities(output)
    np.testing.assert_allclose(found, exact, atol=TOLERANCE)
    np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-30)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_features_and_logits(resnet20: Path, images: NDArray[np.float32], tmp_path: Path) -> None:
    proto = onnx.load(resnet20)
    known = {value.name: value for value in proto.graph.value_info}
    features = ["avgpool_output", "layer3.2.relu_1_output", "layer1.0.relu_output"]
    proto.graph.output.extend(known[name] for name in features)
    model, output = tmp_path / "features.onnx", tmp_path / "all.npz"
    onnx.save(proto, model)
    labels = np.arange(32) % 10
    np.savez(tmp_path / "images.npz", input=images, labels=labels)
    expected = dict(zip(["logits", *features], _stock(model, images), strict=True))
    for batch_size in (5, 32):
        arguments = ("--data", tmp_path / "images.npz", "--output", output)
        _run(model, *arguments, "--batch-size", batch_size)
        with np.load(output) as found:
            assert set(found) == {*expected, "labels"}
            assert found["labels"].tolist() == labels.tolist()
            for name, array in expected.items():
                assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
                assert np.abs(found[name] - array).max() < TOLERANCE, name
