from __future__ import annotations

import json
import math
from typing import Any

import pytest

from adder_onnx.errors import ModelError
from adder_onnx.metadata import CIFAR10, CIFAR10_LABELS, IMAGENET, ModelMetadata, Preprocessing

_VALUES: dict[str, Any] = {
    "channels": 1,
    "height": 8,
    "width": 9,
    "mean": [0.25],
    "std": [0.5],
    "resize": None,
    "crop": False,
}


def _props(**values: object) -> dict[str, str]:
    return {"ai.addernet.preprocessing": json.dumps({**_VALUES, **values})}


@pytest.mark.parametrize(
    "metadata",
    [
        ModelMetadata(),
        ModelMetadata("resnet20", CIFAR10, CIFAR10_LABELS, "ab" * 32),
        ModelMetadata("resnet50", IMAGENET),
        ModelMetadata("spectral", Preprocessing(13, 8, 9, (0.25,) * 13, (0.5,) * 13, 10, True)),
        ModelMetadata(labels=("Käse", 'a "quoted" label', "two\nlines")),
    ],
)
def test_props_keep_everything(metadata: ModelMetadata) -> None:
    assert ModelMetadata.from_props(metadata.to_props()) == metadata


def test_props_are_those_documented() -> None:
    how = Preprocessing(1, 8, 9, (0.25,), (0.5,))
    props = ModelMetadata("tiny", how, ("no", "yes"), "cafe").to_props()
    assert set(props) == {
        "ai.addernet.architecture",
        "ai.addernet.preprocessing",
        "ai.addernet.labels",
        "ai.addernet.checkpoint_sha256",
    }
    assert props["ai.addernet.architecture"] == "tiny"
    assert props["ai.addernet.checkpoint_sha256"] == "cafe"
    assert json.loads(props["ai.addernet.labels"]) == ["no", "yes"]
    assert json.loads(props["ai.addernet.preprocessing"]) == _VALUES


def test_what_is_not_said_is_not_written() -> None:
    assert ModelMetadata().to_props() == {}
    assert set(ModelMetadata(architecture="x").to_props()) == {"ai.addernet.architecture"}


def test_foreign_entries_are_ignored() -> None:
    props = {"author": "{", "ai.onnx.labels": "[", **_props()}
    assert ModelMetadata.from_props(props) == ModelMetadata(
        preprocessing=Preprocessing(1, 8, 9, (0.25,), (0.5,))
    )


def test_optional_preprocessing_fields_may_be_missing() -> None:
    values = {k: v for k, v in _VALUES.items() if k not in ("resize", "crop")}
    read = ModelMetadata.from_props({"ai.addernet.preprocessing": json.dumps(values)})
    assert read.preprocessing == Preprocessing(1, 8, 9, (0.25,), (0.5,), None, False)


@pytest.mark.parametrize(
    "changed",
    [
        {"channels": 0, "mean": [], "std": []},
        {"channels": -1},
        {"channels": 2},
        {"channels": "3"},
        {"channels": 3},
        {"height": 0},
        {"height": 8.5},
        {"height": 8.0},
        {"height": "8"},
        {"width": -1},
        {"width": None},
        {"resize": 0},
        {"resize": 7.5},
        {"crop": "no"},
        {"mean": []},
        {"mean": 0.5},
        {"mean": ["a"]},
        {"mean": [math.nan]},
        {"std": [0.0]},
        {"std": [-1.0]},
        {"std": [math.inf]},
        {"std": [math.nan]},
        {"std": [None]},
        {"std": [0.5, 0.5]},
        {"gamma": 2.2},
    ],
    ids=str,
)
def test_wrong_preprocessing_is_a_model_error(changed: dict[str, object]) -> None:
    assert ModelMetadata.from_props(_props()).preprocessing is not None
    with pytest.raises(ModelError):
        ModelMetadata.from_props(_props(**changed))


@pytest.mark.parametrize("missing", ["channels", "height", "width", "mean", "std"])
def test_a_missing_field_is_named(missing: str) -> None:
    values = {k: v for k, v in _VALUES.items() if k != missing}
    with pytest.raises(ModelError, match=missing):
        ModelMetadata.from_props({"ai.addernet.preprocessing": json.dumps(values)})


@pytest.mark.parametrize("key", ["preprocessing", "labels"])
@pytest.mark.parametrize("text", ["", "{", "nonsense", "[" * 100_000, "5", '"abc"', "[5"])
def test_what_is_not_the_documented_json_is_a_model_error(key: str, text: str) -> None:
    with pytest.raises(ModelError, match="metadata"):
        ModelMetadata.from_props({f"ai.addernet.{key}": text})


def test_labels_and_preprocessing_are_not_each_other() -> None:
    with pytest.raises(ModelError, match="preprocessing is not a JSON object"):
        ModelMetadata.from_props({"ai.addernet.preprocessing": "[1, 2]"})
    with pytest.raises(ModelError, match="labels is not a JSON array"):
        ModelMetadata.from_props({"ai.addernet.labels": '{"cat": 0}'})
