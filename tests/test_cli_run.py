from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

import adder_onnx
from adder_onnx.cli import run as adder_run
from adder_onnx.metadata import CIFAR10, CIFAR10_LABELS, ModelMetadata, Preprocessing
from tests.models import adder_conv, make_model, node

_GREY = Preprocessing(1, 8, 8, (0.25,), (0.5,))
_STRIDE = 3

# Where the label of each image of the data set stands among the model's answers.
_PLACES = np.array([0, 3, 9, 0, 1, 5, 0, 4, 0, 6, 0, 2, 7, 0, 0, 8, 4, 0, 5, 0])
_COUNT = len(_PLACES)


def _weight(classes: int, channels: int) -> NDArray[np.float32]:
    """Filters of one colour each and a little noise, so that images of one colour differ."""
    rng = np.random.default_rng(7)
    colours = rng.uniform(-1.5, 1.5, (classes, channels, 1, 1))
    return (colours + rng.normal(0, 0.1, (classes, channels, 3, 3))).astype(np.float32)


def _model(
    channels: int = 3,
    classes: int = 10,
    *,
    metadata: ModelMetadata | None = None,
    batch: int | str = "batch",
    head: Sequence[onnx.NodeProto] = (),
    weight: NDArray[np.float32] | None = None,
) -> onnx.ModelProto:
    """AdderConv, mean over the image, (N, classes); ``head`` makes logits of ``flat``."""
    size = 8 if channels == 1 else 32
    head = head or [node("Identity", ["flat"], "logits")]
    model = make_model(
        [
            adder_conv("input", "w", "distances", strides=[_STRIDE, _STRIDE]),
            node("GlobalAveragePool", ["distances"], "mean"),
            node("Flatten", ["mean"], "flat"),
            *head,
        ],
        {"input": [batch, channels, size, size]},
        {"logits": [batch, classes]},
        {"w": _weight(classes, channels) if weight is None else weight},
    )
    if metadata is None:
        metadata = ModelMetadata("tiny", CIFAR10, CIFAR10_LABELS, "c0ffee")
    helper.set_model_props(model, metadata.to_props())
    return model


def _save(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def _oracle(inputs: NDArray[np.float64], classes: int = 10) -> NDArray[np.float64]:
    """That model's logits from the definition of the adder convolution, in float64."""
    patches = sliding_window_view(inputs, (3, 3), (2, 3))[:, :, ::_STRIDE, ::_STRIDE]
    weight = _weight(classes, inputs.shape[1]).astype(np.float64)
    filters = weight[:, None, :, None, None]
    distances: NDArray[np.float64] = -np.abs(patches[None] - filters).sum((2, 5, 6)).mean((2, 3)).T
    ordered = np.sort(distances, axis=1)
    assert np.diff(ordered, axis=1).min() > 1e-4, "too close to call in float32"
    return distances


def _ranked(pixels: NDArray[np.uint8], how: Preprocessing = CIFAR10) -> NDArray[np.int64]:
    """Classes by that oracle, best first, for images (N, C, H, W)."""
    mean, std = (np.array(v)[:, None, None] for v in (how.mean, how.std))
    return np.argsort(-_oracle((pixels / 255 - mean) / std), axis=1)


def _pixels(count: int = _COUNT, channels: int = 3, size: int = 32) -> NDArray[np.uint8]:
    """Images of one colour each and a little noise, (N, C, H, W)."""
    rng = np.random.default_rng(3)
    colours = rng.integers(30, 225, (count, channels, 1, 1))
    noise = rng.integers(-25, 26, (count, channels, size, size))
    return (colours + noise).astype(np.uint8)


def _write_cifar(path: Path, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    records = np.concatenate([labels[:, None].astype(np.uint8), pixels.reshape(len(pixels), -1)], 1)
    path.write_bytes(records.tobytes())
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save(tmp_path_factory.mktemp("model") / "tiny.onnx", _model())


@pytest.fixture(scope="module")
def grey_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    metadata = ModelMetadata(preprocessing=_GREY, labels=tuple("abcdefghij"))
    return _save(tmp_path_factory.mktemp("model") / "grey.onnx", _model(1, metadata=metadata))


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test set whose right answers are known by place, and five images for training."""
    folder = tmp_path_factory.mktemp("data") / "cifar-10-batches-bin"
    pixels = _pixels()
    labels = _ranked(pixels)[np.arange(_COUNT), _PLACES]
    _write_cifar(folder / "test_batch.bin", pixels, labels)
    for i, best in enumerate(_ranked(pixels[:5])[:, :1]):
        _write_cifar(folder / f"data_batch_{i + 1}.bin", pixels[i : i + 1], best)
    return folder


def _main(*arguments: object) -> int:
    try:
        return adder_run.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def _json(capfd: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """What ``--json -`` writes; nothing else may be written."""
    status = _main(*arguments, "--json", "-")
    out, err = capfd.readouterr()
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert isinstance(result, dict)
    return result


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:6.2f} %  ({part} of {whole})"


def test_the_table(model: Path, cifar: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert _main(model, "--data", cifar, "--threads", 1) == 0
    out, err = capfd.readouterr()
    assert err == ""
    rows = {line[:8].strip(): line[8:] for line in out.splitlines()}
    assert list(rows) == ["model", "data", "device", "classes", "top-1", "top-5", "speed"]
    assert rows["model"] == f"{model} (tiny, float32)"
    assert rows["data"] == f"{cifar} (CIFAR-10, binary batches, split test)"
    assert rows["device"] == "cpu, 1 threads"
    assert rows["classes"] == "by name"
    assert rows["top-1"] == _percent(int((_PLACES == 0).sum()), _COUNT)
    assert rows["top-5"] == _percent(int((_PLACES < 5).sum()), _COUNT)
    assert re.fullmatch(
        r"\d+ images/s, decoding included; \d+ images/s in the model", rows["speed"]
    )


def test_json(model: Path, cifar: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, five = int((_PLACES == 0).sum()), int((_PLACES < 5).sum())
    result = _json(capfd, model, "--data", cifar, "--threads", 1, "--batch-size", 6)
    seconds = result.pop("seconds")
    assert result.pop("images_per_second") == pytest.approx(_COUNT / seconds)
    assert result.pop("inference_images_per_second") > _COUNT / seconds
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    cpu = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    expected = {
        "model": str(model),
        "architecture": "tiny",
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "checkpoint_sha256": "c0ffee",
        "dataset": str(cifar),
        "data": "CIFAR-10, binary batches, split test",
        "split": "test",
        "class_matching": {"how": "by name", "guess": False},
        "device": "cpu",
        "cpu": cpu[1] if cpu else platform.processor() or platform.machine(),
        "gpu": None,
        "threads": 1,
        "precision": "float32",
        "arithmetic": "fast",
        "versions": {
            "adder_onnx": adder_onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "images": _COUNT,
        "skipped": 0,
        "top1": 100 * first / _COUNT,
        "top5": 100 * five / _COUNT,
        "top1_correct": first,
        "top5_correct": five,
        "batch_size": 6,
        "classified_output": "logits",
        "output_kind": "logits",
    }
    counts, per_class = result.pop("confusion"), result.pop("per_class")  # tested by themselves
    assert result == expected

    file = tmp_path / "result.json"
    file.write_text("something older and longer than the result" * 100)
    assert _main(model, "--data", cifar, "--threads", 1, "--batch-size", 6, "--json", file) == 0
    out, err = capfd.readouterr()
    assert "top-1" in out
    assert err == ""
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written.pop("seconds") > 0
    assert written.pop("images_per_second") > 0
    assert written.pop("inference_images_per_second") > 0
    assert written == expected | {"confusion": counts, "per_class": per_class}
    assert os.listdir(tmp_path) == ["result.json"]


@pytest.mark.parametrize(
    "options",
    [
        ["--batch-size", "1"],
        ["--batch-size", "7", "--workers", "3"],
        ["--batch-size", "19", "--threads", "2"],
        ["--arithmetic", "exact"],
        ["--batch-size", "1000", "--workers", "1"],
        ["--format", "cifar10", "--split", "test", "--device", "cpu"],
    ],
)
def test_options_that_do_not_change_the_accuracy(
    model: Path, cifar: Path, options: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    result = _json(capfd, model, "--data", cifar, *options)
    assert result["images"] == _COUNT
    assert result["top1_correct"] == (_PLACES == 0).sum()
    assert result["top5_correct"] == (_PLACES < 5).sum()


@pytest.mark.parametrize("limit", [1, 3, 7, _COUNT, 1000])
def test_limit(model: Path, cifar: Path, limit: int, capfd: pytest.CaptureFixture[str]) -> None:
    count = min(limit, _COUNT)
    places = _PLACES[[i * _COUNT // count for i in range(count)]]
    result = _json(capfd, model, "--data", cifar, "--limit", limit)
    assert result["images"] == count
    assert result["top1_correct"] == (places == 0).sum()
    assert result["top5_correct"] == (places < 5).sum()


def test_split(model: Path, cifar: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = _json(capfd, model, "--data", cifar.parent, "--split", "train")
    assert result["data"] == "CIFAR-10, binary batches, split train"
    assert (result["images"], result["top1"], result["split"]) == (5, 100.0, "train")
    assert _json(capfd, model, "--data", cifar.parent)["images"] == _COUNT


def _image_folder(folder: Path, classes: str, pixels: NDArray[np.uint8]) -> list[int]:
    """Deals images (N, 1, 8, 8) out to classes; gives their order in the data set."""
    for i, image in enumerate(pixels):
        file = folder / classes[i % len(classes)] / f"{i:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).convert("RGB" if i % 2 else "L").save(file)
    return sorted(range(len(pixels)), key=lambda i: (classes[i % len(classes)], i))


def test_an_image_folder_matched_by_name(
    grey_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Three of the model's ten classes; grey and RGB files for a grey model."""
    pixels = _pixels(24, 1, 8)
    classes = "gbd"
    order = _image_folder(tmp_path / "set", classes, pixels)
    ranked = _ranked(pixels, _GREY)
    labels = np.array(["abcdefghij".index(classes[i % 3]) for i in range(24)])
    hits = ranked == labels[:, None]
    result = _json(capfd, grey_model, "--data", tmp_path / "set", "--batch-size", 5)
    assert result["data"] == "image folder, 3 classes"
    assert result["images"] == 24
    assert result["top1_correct"] == hits[:, 0].sum()
    assert result["top5_correct"] == hits[:, :5].any(1).sum()
    assert 0 < result["top1_correct"] < result["top5_correct"] < 24

    chosen = [order[i * 24 // 5] for i in range(5)]
    limited = _json(capfd, grey_model, "--data", tmp_path / "set", "--limit", 5)
    assert limited["top1_correct"] == hits[chosen, 0].sum()
    assert limited["top5_correct"] == hits[chosen, :5].any(1).sum()


def test_cifar10_is_converted_for_a_grey_model(
    tmp_path: Path, cifar: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    how = Preprocessing(1, 32, 32, (0.25,), (0.5,))
    model = make_model(
        [
            adder_conv("input", "w", "distances", strides=[_STRIDE, _STRIDE]),
            node("GlobalAveragePool", ["distances"], "mean"),
            node("Flatten", ["mean"], "logits"),
        ],
        {"input": ["n", 1, 32, 32]},
        {"logits": ["n", 10]},
        {"w": _weight(10, 1)},
    )
    helper.set_model_props(model, ModelMetadata(preprocessing=how).to_props())
    red, green, blue = (_pixels()[:, c].astype(np.int64) for c in range(3))
    luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    ranked = _ranked(luma[:, None].astype(np.uint8), how)
    labels = _ranked(_pixels())[np.arange(_COUNT), _PLACES]
    result = _json(capfd, _save(tmp_path / "grey.onnx", model), "--data", cifar)
    assert result["architecture"] is None
    assert result["top1_correct"] == (ranked[:, 0] == labels).sum()
    assert result["top5_correct"] == (ranked[:, :5] == labels[:, None]).any(1).sum()


@pytest.mark.parametrize("source", ["words", "map"])
def test_how_classes_were_matched_is_said(
    source: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Folders and a model without labels: a guess, unless a file says which is which."""
    names = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibex", "jay"]
    for i, image in enumerate(_pixels(10, 1, 8)):
        (tmp_path / "set" / names[i]).mkdir(parents=True)
        Image.fromarray(image[0]).save(tmp_path / "set" / names[i] / "one.png")
    best = _ranked(_pixels(10, 1, 8), _GREY)[:, 0]
    model = _save(tmp_path / "model.onnx", _model(1, metadata=ModelMetadata(preprocessing=_GREY)))
    options: list[object] = []
    if source == "map":
        class_map = tmp_path / "map.csv"
        class_map.write_text("".join(f"{n},{(i + 3) % 10}\n" for i, n in enumerate(names)))
        options = ["--class-map", class_map]
    how, shift = {
        "words": ("in sorted order, as torchvision's ImageFolder counts them", 0),
        "map": (f"by {tmp_path / 'map.csv'}", 3),
    }[source]
    result = _json(capfd, model, "--data", tmp_path / "set", *options)
    assert result["class_matching"] == {"how": how, "guess": source == "words"}
    assert result["top1_correct"] == sum((i + shift) % 10 == best[i] for i in range(10))
    assert ("matched by a guess, in sorted order" in caplog.text) == (source == "words")
    assert _main(model, "--data", tmp_path / "set", *options) == 0
    row = f"classes {'a guess: ' if source == 'words' else ''}{how}"
    assert row in capfd.readouterr().out.splitlines()


def _single(tmp_path: Path) -> tuple[Path, NDArray[np.float64]]:
    """An image for the grey model and the probabilities of its classes."""
    pixels = _pixels(4, 1, 8)[3:]
    path = tmp_path / "image.png"
    Image.fromarray(pixels[0, 0]).save(path)
    logits = _oracle((pixels / 255 - 0.25) / 0.5)[0]
    return path, np.exp(logits) / np.exp(logits).sum()


@pytest.mark.parametrize(("options", "count"), [([], 5), (["--topk", "3"], 3), (["--topk=99"], 10)])
def test_a_single_image(
    grey_model: Path,
    tmp_path: Path,
    options: list[str],
    count: int,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path, probabilities = _single(tmp_path)
    best = np.argsort(-probabilities)[:count]
    assert _main(grey_model, "--data", path, *options) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert out.splitlines() == [f"{100 * probabilities[c]:6.2f} %  {'abcdefghij'[c]}" for c in best]

    result = _json(capfd, grey_model, "--data", path, *options)
    assert result["data"] == "one image"
    assert [p["class"] for p in result["predictions"]] == best.tolist()
    assert [p["label"] for p in result["predictions"]] == ["abcdefghij"[c] for c in best]
    found = [p["probability"] for p in result["predictions"]]
    np.testing.assert_allclose(found, probabilities[best], rtol=1e-4)
    assert "top1" not in result


def test_a_single_image_for_a_model_without_labels(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = _save(tmp_path / "model.onnx", _model(1, metadata=ModelMetadata(preprocessing=_GREY)))
    path, probabilities = _single(tmp_path)
    result = _json(capfd, model, "--data", path, "--topk", 1)
    best = int(np.argmax(probabilities))
    assert result["predictions"][0]["label"] == str(best)
    assert _main(model, "--data", path, "--topk", 1) == 0
    assert capfd.readouterr().out.split()[-1] == str(best)


def test_names_that_standard_output_cannot_encode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = ("Käse", "\ud800", *"cdefghij")
    props = ModelMetadata(preprocessing=_GREY).to_props()
    proto = _model(1)
    helper.set_model_props(proto, props | {"ai.addernet.labels": json.dumps(labels)})
    model = _save(tmp_path / "model.onnx", proto)
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    _single(tmp_path)[0].rename(path)

    def output(*arguments: object) -> str:
        data = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", io.TextIOWrapper(data, encoding="ascii"))
            assert _main(model, "--data", path, *arguments) == 0
            return data.getvalue().decode("ascii")

    assert "K\\xe4se" in output("--topk", 10)
    result = json.loads(output("--topk", 10, "--json", "-"))
    assert {p["label"] for p in result["predictions"]} == set(labels)
    assert result["dataset"] == str(path)
    output("--json", tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_bytes())["dataset"] == str(path)


_Arguments = Sequence[object]
_Case = Callable[[Path], _Arguments]


def _good(tmp_path: Path) -> tuple[Path, Path]:
    """A model and data that go together."""
    model = tmp_path / "model.onnx"
    if not model.exists():
        _save(model, _model())
        _write_cifar(tmp_path / "data" / "test_batch.bin", _pixels(4), np.arange(4))
    return model, tmp_path / "data"


def _with_model(model: onnx.ModelProto | bytes) -> _Case:
    def case(tmp_path: Path) -> _Arguments:
        _, data = _good(tmp_path)
        path = tmp_path / "bad.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return [path, "--data", data]

    return case


def _with_options(*options: object) -> _Case:
    def case(tmp_path: Path) -> _Arguments:
        model, data = _good(tmp_path)
        return [model, "--data", data, *(str(o).replace("TMP", str(tmp_path)) for o in options)]

    return case


def _with_data(write: Callable[[Path], object], *options: object) -> _Case:
    """``write`` makes the data, at the path that it is given."""

    def case(tmp_path: Path) -> _Arguments:
        model, _ = _good(tmp_path)
        write(tmp_path / "bad")
        return [model, "--data", tmp_path / "bad", *options]

    return case


def _with_image(size: tuple[int, int], *, cut: int | None = None) -> _Case:
    def case(tmp_path: Path) -> _Arguments:
        model, _ = _good(tmp_path)
        path = tmp_path / "bad.png"
        Image.new("RGB", size).save(path)
        path.write_bytes(path.read_bytes()[:cut])
        return [model, "--data", path]

    return case


def _class_folders(path: Path, size: tuple[int, int] = (32, 32)) -> None:
    for i, name in enumerate(CIFAR10_LABELS):
        (path / name).mkdir(parents=True)
        Image.new("RGB", size if i == 7 else (32, 32)).save(path / name / "one.png")


def _with_props(**props: str) -> onnx.ModelProto:
    model = _model()
    known = ModelMetadata("tiny", CIFAR10, CIFAR10_LABELS).to_props()
    helper.set_model_props(
        model, known | {f"ai.addernet.{key}": value for key, value in props.items()}
    )
    return model


def _unknown_operator() -> onnx.ModelProto:
    model = _model()
    model.graph.node[-1].domain = "com.example"
    model.graph.node[-1].op_type = "Mystery"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


def _two_inputs() -> onnx.ModelProto:
    model = make_model(
        [node("Add", ["a", "b"], "sum"), node("Flatten", ["sum"], "logits")],
        {"a": ["n", 3, 32, 32], "b": ["n", 3, 32, 32]},
        {"logits": ["n", 3072]},
    )
    helper.set_model_props(model, ModelMetadata("tiny", CIFAR10).to_props())
    return model


def _integer_input() -> onnx.ModelProto:
    model = make_model(
        [
            node("Flatten", ["input"], "flat"),
            node("Cast", ["flat"], "logits", to=TensorProto.FLOAT),
        ],
        {"input": ["n", 3, 32, 32]},
        {"logits": ["n", 3072]},
    )
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    helper.set_model_props(model, ModelMetadata("tiny", CIFAR10).to_props())
    return model


def _image_output() -> onnx.ModelProto:
    model = _model()
    del model.graph.node[1:]
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("distances", TensorProto.FLOAT, ["batch", 10, 10, 10])
    )
    return model


def _integer_output() -> onnx.ModelProto:
    model = _model(head=[node("Cast", ["flat"], "logits", to=TensorProto.UINT8)])
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    return model


def _small_metadata(channels: int, size: int) -> ModelMetadata:
    how = Preprocessing(channels, size, size, (0.5,) * channels, (0.5,) * channels)
    return ModelMetadata("tiny", how, CIFAR10_LABELS)


_BYTES = _model().SerializeToString()

_BAD: dict[str, tuple[_Case, str]] = {
    "no model": (
        lambda tmp: [tmp / "none.onnx", "--data", _good(tmp)[1]],
        "none.onnx: No such file or directory",
    ),
    "model is a folder": (lambda tmp: [tmp, "--data", _good(tmp)[1]], "it is a folder"),
    "model is text": (_with_model(b"these are not the bytes of a model\n" * 9), "bad.onnx is not"),
    "model is empty": (_with_model(b""), "bad.onnx is not an ONNX model"),
    "model is truncated": (_with_model(_BYTES[: len(_BYTES) // 2]), "bad.onnx is not an ONNX"),
    "unknown operator": (_with_model(_unknown_operator()), "com.example.Mystery"),
    "two inputs": (_with_model(_two_inputs()), "one float input (N, C, H, W); this one has a "),
    "integer input": (_with_model(_integer_input()), "one float input"),
    "image output": (_with_model(_image_output()), "(N, classes)"),
    "integer output": (_with_model(_integer_output()), "tensor(uint8)"),
    "no preprocessing": (
        _with_model(_model(metadata=ModelMetadata("tiny"))),
        "does not say how images are preprocessed",
    ),
    "preprocessing is no object": (_with_model(_with_props(preprocessing="[]")), "metadata"),
    "preprocessing is no JSON": (_with_model(_with_props(preprocessing="{")), "not JSON"),
    "preprocessing to other channels": (
        _with_model(_model(metadata=_small_metadata(1, 32))),
        "takes images of [3, 32, 32], but its metadata preprocess them to [1, 32, 32]",
    ),
    "preprocessing to another size": (
        _with_model(_model(metadata=_small_metadata(3, 31))),
        "takes images of [3, 32, 32], but its metadata preprocess them to [3, 31, 31]",
    ),
    "too few labels": (
        _with_model(_with_props(labels='["a", "b"]')),
        "10 classes, but its metadata 2 labels",
    ),
    "logits are not numbers": (
        _with_model(_model(weight=np.full((10, 3, 3, 3), math.nan, np.float32))),
        "not finite",
    ),
    "fewer classes": (
        _with_model(_model(classes=4, metadata=ModelMetadata("tiny", CIFAR10))),
        "10 classes and the model 4",
    ),
    "classes of other names": (
        _with_model(_model(classes=11, metadata=ModelMetadata("t", CIFAR10, tuple("abcdefghijk")))),
        "the classes 'airplane', 'automobile', 'bird', 'cat', which the model does not have; its "
        "labels are 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h' and 3 more: --class-map FILE says",
    ),
    "device": (_with_options("--device", "gpu"), "'gpu' is not known; use 'cpu', 'cuda', 'cuda:N'"),
    "split not there": (
        _with_options("--split", "train"),
        "has no train data, only test: choose another --split",
    ),
    "another format": (_with_options("--format", "imagefolder"), "holds no images and no folders"),
    "JSON into no folder": (_with_options("--json", "TMP/none/out.json"), "there is no folder"),
    "JSON onto a folder": (_with_options("--json", "TMP/data"), "it is a folder"),
    "JSON without a name": (_with_options("--json", ""), "is not a path"),
    "limit 0": (_with_options("--limit", "0"), "--limit: 0 is not at least 1"),
    "limit -1": (_with_options("--limit=-1"), "--limit: -1 is not at least 1"),
    "limit x": (_with_options("--limit", "x"), "--limit: "),
    "batch size 0": (_with_options("--batch-size", "0"), "--batch-size: 0 is not at least 1"),
    "threads 0": (_with_options("--threads", "0"), "--threads: 0 is not at least 1"),
    "topk 0": (_with_options("--topk", "0"), "--topk: 0 is not at least 1"),
    "unknown option": (_with_options("--fast", "a\nb"), "--fast a b"),
    "unknown format": (_with_options("--format", "lmdb"), "imagefolder"),
    "no data given": (lambda tmp: [_good(tmp)[0]], "--data"),
    "no arguments": (lambda tmp: [], "MODEL.onnx"),
    "no data": (_with_data(lambda path: None), "bad does not exist"),
    "a name of two lines": (
        lambda tmp: [_good(tmp)[0], "--data", tmp / "a\nb"],
        "a b does not exist",
    ),
    "empty folder": (_with_data(Path.mkdir), "bad is an empty folder"),
    "neither image nor batch": (
        _with_data(lambda p: p.write_bytes(b"?")),
        "cannot tell the format",
    ),
    "class without images": (
        _with_data(lambda p: (p / "cat").mkdir(parents=True)),
        "bad holds no images and no folders of images",
    ),
    "folder, split": (_with_data(_class_folders, "--split", "test"), "has no splits"),
    "folder, one image of another size": (
        _with_data(lambda path: _class_folders(path, (31, 33))),
        "bad/horse/one.png: the image is 31 x 33 pixels; the model takes 32 x 32",
    ),
    "truncated batch": (
        _with_data(
            lambda path: _write_cifar(path / "test_batch.bin", _pixels(2)[:, :2], np.arange(2))
        ),
        "test_batch.bin has 4098 bytes, not a multiple of 3073",
    ),
    "batch with label 10": (
        _with_data(
            lambda path: _write_cifar(path / "test_batch.bin", _pixels(2), np.array([0, 10]))
        ),
        "test_batch.bin has labels outside 0",
    ),
    "image of another size": (
        _with_image((31, 33)),
        "bad.png: the image is 31 x 33 pixels; the model takes 32 x 32",
    ),
    "truncated image": (_with_image((32, 32), cut=50), "bad.png"),
    "empty image": (_with_image((32, 32), cut=0), "bad.png is not an image"),
}


@pytest.mark.parametrize("name", _BAD)
def test_bad_input_is_one_line_and_status_2(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    case, message = _BAD[name]
    arguments = case(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert _main(*arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("adder-run: error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert message in err
    assert err.count("bad.png") <= 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_good_twin_of_all_those(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert _json(capfd, *_with_options()(tmp_path))["images"] == 4
    assert _json(capfd, *_with_data(_class_folders)(tmp_path))["images"] == 10
    assert len(_json(capfd, *_with_image((32, 32))(tmp_path))["predictions"]) == 5


@pytest.mark.parametrize("part", range(1, 16))
def test_a_model_cut_anywhere(part: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert _main(*_with_model(_BYTES[: len(_BYTES) * part // 16])(tmp_path)) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)


def test_a_size_mismatch_of_cifar10_names_the_image(
    tmp_path: Path, cifar: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    grey = _save(tmp_path / "grey.onnx", _model(1, metadata=ModelMetadata(preprocessing=_GREY)))
    assert _main(grey, "--data", cifar) == 2
    assert capfd.readouterr().err == (
        f"adder-run: error: image 0 of {cifar}: the image is 32 x 32 pixels; the model takes "
        "8 x 8\n"
    )


def test_a_bad_json_destination_is_found_before_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(adder_run, "evaluate", lambda *_, **__: pytest.fail("evaluated"))
    assert _main(*_with_options("--json", "TMP/none/out.json")(tmp_path)) == 2
    assert "there is no folder" in capfd.readouterr().err


def test_a_failed_run_leaves_an_older_result_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "out" / "result.json"
    result.parent.mkdir()
    result.write_text("{}")
    arguments = _with_data(lambda path: _class_folders(path, (31, 33)))(tmp_path)
    assert _main(*arguments, "--json", result) == 2
    assert result.read_text() == "{}"
    assert os.listdir(result.parent) == ["result.json"]


def _fail(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_a_defect_is_one_line_and_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(adder_run, "open_dataset", _fail(RuntimeError("it broke")))
    assert _main(*_with_options()(tmp_path)) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "defect of adder-onnx: RuntimeError: it broke" in err


def test_a_defect_whose_message_has_lines_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(adder_run, "open_dataset", _fail(RuntimeError("it\nbroke\n  twice")))
    assert _main(*_with_options()(tmp_path)) == 1
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("verbose", [False, True])
def test_a_traceback_needs_verbose(
    verbose: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = ["-v"] if verbose else []
    with caplog.at_level("INFO"):
        assert _main(*_with_options("--device", "gpu", *options)(tmp_path)) == 2
        assert ("Traceback" in caplog.text) == verbose
        caplog.clear()
        monkeypatch.setattr(adder_run, "open_dataset", _fail(RuntimeError("it broke")))
        assert _main(*_with_options(*options)(tmp_path)) == 1
        assert ("Traceback" in caplog.text) == verbose


def test_an_interrupt_is_status_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(adder_run, "open_dataset", _fail(KeyboardInterrupt()))
    assert _main(*_with_options()(tmp_path)) == 130
    assert capfd.readouterr() == ("", "adder-run: interrupted\n")


def test_nobody_reads_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    arguments = _with_options()(tmp_path)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert _main(*arguments) == 0
    assert capfd.readouterr().err == ""


def test_help_shows_examples(capfd: pytest.CaptureFixture[str]) -> None:
    assert _main("--help") == 0
    out, err = capfd.readouterr()
    assert err == ""
    examples = out[out.index("examples:") :]
    assert examples.count("adder-run ") >= 3
    for option in ("--data", "--format", "--split", "--limit", "--device", "--json", "--topk"):
        assert option in out


def test_the_examples_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(adder_run, "_run", seen.append)
    lines = [line.split() for line in adder_run._EXAMPLES.splitlines()]
    for line in lines:
        assert line[0] == "adder-run"
        assert _main(*line[1:]) == 0
    assert len(seen) == len(lines)


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert _main("--version") == 0
    assert capfd.readouterr() == (f"adder-run {adder_onnx.__version__}\n", "")


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "adder_onnx.cli.run", *map(str, arguments)]


def test_a_process_whose_output_is_piped(model: Path, cifar: Path) -> None:
    """No progress bar, even where colours are asked for, as CI services do."""
    done = subprocess.run(
        _command(model, "--data", cifar),
        env=os.environ | {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert _percent(int((_PLACES == 0).sum()), _COUNT) in done.stdout
    assert "\x1b" not in done.stdout


def test_a_process_that_fails(tmp_path: Path) -> None:
    arguments = _with_model(_unknown_operator())(tmp_path)
    done = subprocess.run(_command(*arguments), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("adder-run: error: ")
    assert done.stderr.count("\n") == 1
    assert "com.example.Mystery" in done.stderr
