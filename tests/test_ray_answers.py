"""Columns of answers, and probabilities of many images at once: those of each image alone."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from adder_onnx.cli.run import main
from adder_onnx.errors import InputError, ModelError
from adder_onnx.evaluation.probabilities import Kind, to_probabilities
from tests.conftest import ROOT

pytest.importorskip("ray", reason="needs adder-onnx[ray]")

from adder_onnx.ray.answers import answer_columns
from adder_onnx.ray.kinds import KindOfBatches, choose_kind

DIGITS = ROOT / "examples" / "digits"
RNG = np.random.default_rng(0)


def scores_of(count: int, classes: int, dtype: str) -> NDArray[Any]:
    return (4 * RNG.standard_normal((count, classes))).astype(dtype)


def softmax(row: NDArray[Any]) -> NDArray[np.float64]:
    """Of one image, as it is defined."""
    powers = np.exp(row.astype(np.float64) - row.astype(np.float64).max())
    return powers / powers.sum()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("classes", [1, 2, 7, 10, 129, 1000, 8193, 21_843])
@pytest.mark.parametrize("kind", [k for k in get_args(Kind) if k != "class numbers"])
def test_probabilities_of_many_have_the_bits_of_each_alone(
    kind: Kind, classes: int, dtype: str
) -> None:
    scores = scores_of(9, classes, dtype)
    if "probabilities" in kind:
        scores = np.stack([softmax(row) for row in scores]).astype(dtype)
        scores[4] = 0
    alone = np.stack([to_probabilities(row.copy(), kind) for row in scores])
    for many in (scores, np.asfortranarray(scores), scores[:, ::-1].copy()[:, ::-1]):
        assert to_probabilities(many, kind).tobytes() == alone.tobytes()
    assert to_probabilities(scores.reshape(3, 3, classes), kind).tobytes() == alone.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_columns(dtype: str) -> None:
    scores = scores_of(50, 12, dtype)
    scores[3] = scores[3, 0]
    found = answer_columns(scores, "logits", 4, logits=True)
    assert {name: (v.dtype, v.shape) for name, v in found.items()} == {
        "classes": (np.int64, (50, 4)),
        "probabilities": (np.float64, (50, 4)),
        "logits": (np.dtype(dtype), (50, 12)),
    }
    for row, best, probabilities in zip(
        scores, found["classes"], found["probabilities"], strict=True
    ):
        assert best.tolist() == sorted(range(12), key=lambda i: (-float(row[i]), i))[:4]
        np.testing.assert_array_equal(probabilities, softmax(row)[best])
    assert np.array_equal(found["logits"], scores)
    assert answer_columns(scores, "logits", 99)["classes"].shape == (50, 12)
    assert answer_columns(scores[:0], "logits", 3)["probabilities"].shape == (0, 3)


def test_class_numbers() -> None:
    found = answer_columns(np.array([3, 0, 2], np.int32), "class numbers", 5, logits=True)
    assert list(found) == ["classes"]
    assert found["classes"].dtype == np.int64
    assert found["classes"].tolist() == [[3], [0], [2]]


def test_answers_are_those_of_adder_run(tmp_path: Path) -> None:
    model = DIGITS / "resnet8_digits.onnx"
    for kind in ("csv", "npz"):
        command = [str(model), "--data", str(DIGITS / "test"), "--output"]
        assert main([*command, str(tmp_path / f"answers.{kind}"), "--device", "cpu"]) == 0
    rows = list(csv.DictReader((tmp_path / "answers.csv").open()))
    columns = answer_columns(np.load(tmp_path / "answers.npz")["logits"], "logits", 5)
    assert len(rows) == len(columns["classes"]) > 300
    for row, classes, probabilities in zip(
        rows, columns["classes"], columns["probabilities"], strict=True
    ):
        assert [row[f"class{i}"] for i in range(1, 6)] == [str(c) for c in classes]
        assert [row[f"probability{i}"] for i in range(1, 6)] == [f"{p:.6g}" for p in probabilities]


def test_the_kind_that_is_given_goes_before_the_graph_s() -> None:
    assert choose_kind(None, None) is None
    assert choose_kind(None, "log probabilities") == "log probabilities"
    assert choose_kind("logits", "log probabilities") == "logits"
    assert choose_kind("class numbers", "class numbers") == "class numbers"


@pytest.mark.parametrize(
    ("given", "by_graph", "message"),
    [
        ("scores", None, "kind is 'scores'; expected one of logits, probabilities, log"),
        ("class numbers", None, "kind is 'class numbers', but the model gives scores"),
        ("class numbers", "logits", "kind is 'class numbers', but the model gives scores"),
        ("logits", "class numbers", "kind is 'logits', but the model gives class numbers"),
    ],
)
def test_kinds_that_cannot_be(given: Any, by_graph: Kind | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_kind(given, by_graph)


PROBABILITIES = np.stack([softmax(row) for row in scores_of(4, 5, "float64")]).astype(np.float32)
LOGITS = scores_of(4, 5, "float32")


def test_the_first_batch_tells_the_kind() -> None:
    kinds = KindOfBatches(None)
    assert kinds.of(LOGITS[:0]) == "logits"  # nothing is said yet
    assert kinds.of(PROBABILITIES) == kinds.of(PROBABILITIES[:0]) == "probabilities"
    with pytest.raises(ModelError, match='do not any more: say what they are, such as kind="log'):
        kinds.of(LOGITS)
    kinds = KindOfBatches(None)
    assert kinds.of(LOGITS) == kinds.of(PROBABILITIES) == "logits"


def test_what_is_known_goes_before_the_batches() -> None:
    kinds = KindOfBatches("independent probabilities")
    assert {kinds.of(batch) for batch in (PROBABILITIES, LOGITS)} == {"independent probabilities"}
