"""The shipped example: its checkpoint, its exported file, its held-out images."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array
from PIL import Image

from adder_onnx.cli import export, run
from adder_onnx.metadata import ModelMetadata
from tests.conftest import ROOT

DIGITS = ROOT / "examples" / "digits"
MODEL = DIGITS / "resnet8_digits.onnx"
CHECKPOINT = DIGITS / "resnet8_digits.pth"


def test_accuracy_of_the_shipped_file(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert run.main([str(MODEL), "--data", str(DIGITS / "test"), "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 360
    assert result["top1"] >= 95
    assert result["class_matching"] == {"how": "by the numbers in their names", "guess": False}
    assert caplog.text == ""


def test_one_image(capsys: pytest.CaptureFixture[str]) -> None:
    image = min((DIGITS / "test" / "3").iterdir())
    assert run.main([str(MODEL), "--data", str(image), "--topk", "1"]) == 0
    assert capsys.readouterr().out.split()[-1] == "3"


def test_exporting_again_gives_the_shipped_file(tmp_path: Path) -> None:
    output = tmp_path / "digits.onnx"
    shape = ["--input-shape", "1,8,8", "--mean", "0.3054", "--std", "0.3760"]
    assert export.main([str(CHECKPOINT), str(output), *shape]) == 0
    again, shipped = onnx.load(output), onnx.load(MODEL)
    assert list(again.graph.node) == list(shipped.graph.node)
    assert list(again.functions) == list(shipped.functions)
    assert list(again.opset_import) == list(shipped.opset_import)
    assert list(again.metadata_props) == list(shipped.metadata_props)
    values = {t.name: to_array(t) for t in again.graph.initializer}
    assert set(values) == {t.name for t in shipped.graph.initializer}
    for tensor in shipped.graph.initializer:
        np.testing.assert_allclose(values[tensor.name], to_array(tensor), rtol=1e-6)


def test_metadata_name_the_checkpoint() -> None:
    props = {entry.key: entry.value for entry in onnx.load(MODEL).metadata_props}
    metadata = ModelMetadata.from_props(props)
    assert metadata.architecture == "resnet8"
    assert metadata.checkpoint_sha256 == hashlib.sha256(CHECKPOINT.read_bytes()).hexdigest()


def test_held_out_images_are_those_of_the_data_set() -> None:
    """The pixels are scikit-learn's, and no image is twice in the set that was held out."""
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    known = {
        np.round(image * (255 / 16)).astype(np.uint8).tobytes(): int(label)
        for image, label in zip(digits.images, digits.target, strict=True)
    }
    files = sorted((DIGITS / "test").glob("*/*.png"))
    for file in files:
        assert known[np.asarray(Image.open(file)).tobytes()] == int(file.parent.name)
    assert len({file.name for file in files}) == len(files) == 360
