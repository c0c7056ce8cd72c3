"""``adder-run`` over every format of data, and what it writes for each image.

The models' logits are pixels of the image, so that what is expected needs no network.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from adder_onnx.cli import run as adder_run
from adder_onnx.evaluation.network import Network
from adder_onnx.metadata import ModelMetadata, Preprocessing
from adder_onnx.runtime import InferenceSession
from tests import datasets
from tests.models import make_model, node

_LABELS = ("ant", "bee", "cat", "dog")


def _pixel_model(
    path: Path,
    shape: tuple[int, int, int],
    classes: int,
    *,
    labels: tuple[str, ...] | None = None,
    batch: int | str = "n",
    elem_type: int = TensorProto.FLOAT,
) -> Path:
    """Its logits are the image's first pixels over 255, as many as there are classes."""
    channels, height, width = shape
    model = make_model(
        [node("Flatten", ["input"], "flat"), node("Gather", ["flat", "i"], "logits", axis=1)],
        {"input": [batch, *shape]},
        {"logits": [batch, classes]},
        {"i": np.arange(classes)},
        elem_type=elem_type,
        bodies=False,
    )
    del model.opset_import[1:]  # an adder network without adder nodes would be worth a warning
    how = Preprocessing(channels, height, width, (0.0,) * channels, (1.0,) * channels)
    helper.set_model_props(model, ModelMetadata(None, how, labels).to_props())
    path.write_bytes(model.SerializeToString())
    return path


def _main(*arguments: object) -> int:
    try:
        return adder_run.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def _json(capfd: pytest.CaptureFixture[str], *arguments: object, err: str = "") -> dict[str, Any]:
    status = _main(*arguments, "--json", "-")
    out, found = capfd.readouterr()
    assert (status, found) == (0, err)
    result = json.loads(out)
    assert isinstance(result, dict)
    return result


def _hits(pixels: NDArray[np.uint8], labels: Sequence[int], classes: int) -> tuple[int, int]:
    """How many labels are first and among the first five of the images' first pixels."""
    ranked = np.argsort(-pixels.reshape(len(pixels), -1)[:, :classes].astype(int), kind="stable")
    hits = ranked == np.array(labels)[:, None]
    return int(hits[:, 0].sum()), int(hits[:, :5].sum())


_CIFAR: dict[str, tuple[str, int, Callable[[], dict[str, bytes]]]] = {
    "cifar-10-batches-bin": ("cifar10", 10, lambda: datasets.cifar10_files(True)),
    "cifar-10-batches-py": ("cifar10", 10, lambda: datasets.cifar10_files(False)),
    "cifar-100-binary": ("cifar100", 100, lambda: datasets.cifar100_files(True)),
    "cifar-100-python": ("cifar100", 100, lambda: datasets.cifar100_files(False)),
}


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("folder", _CIFAR)
def test_cifar(
    tmp_path: Path, folder: str, archived: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    format, classes, make_files = _CIFAR[folder]
    files = {f"{folder}/{name}": data for name, data in make_files().items()}
    data = datasets.write_files(tmp_path / "root", files)
    if archived:
        data = tmp_path / "set.tar.gz"
        data.write_bytes(datasets.tar_bytes(files))
    model = _pixel_model(tmp_path / "model.onnx", (3, 32, 32), classes)
    train = [(2, s) for s in range(1, 6)] if format == "cifar10" else [(4, 1)]
    for split, batches in (("auto", [(3, 9)]), ("train", train)):
        pixels = np.concatenate([datasets.cifar_pixels(*batch) for batch in batches])
        labels = [n for batch in batches for n in datasets.cifar_labels(*batch, classes)]
        result = _json(capfd, model, "--data", data, "--split", split, "--batch-size", 2)
        assert result["images"] == len(labels)
        assert result["split"] == ("test" if split == "auto" else split)
        assert (result["top1_correct"], result["top5_correct"]) == _hits(pixels, labels, classes)


def test_mnist(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "MNIST" / "raw"
    datasets.write_files(raw, datasets.mnist_files(True, "train", "t10k"))
    model = _pixel_model(tmp_path / "model.onnx", (1, 5, 4), 10)
    pixels, labels = datasets.mnist_arrays("t10k")
    result = _json(capfd, model, "--data", tmp_path, "--format", "mnist")
    assert result["data"] == "MNIST, split test"
    assert (result["top1_correct"], result["top5_correct"]) == _hits(pixels, labels.tolist(), 10)


def test_training_data_are_taken_with_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    datasets.write_files(tmp_path / "set", datasets.mnist_files(False, "train"))
    model = _pixel_model(tmp_path / "model.onnx", (1, 5, 4), 10)
    command = ["-m", "adder_onnx.cli.run", str(model), "--data", str(tmp_path / "set")]
    done = subprocess.run(
        [sys.executable, *command, "--json", "-"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["split"] == "train"
    assert done.stderr == (
        f"adder-run: WARNING: {tmp_path / 'set'} has neither test nor validation data: taking the "
        "training data\n"
    )


# Images of 2 x 2 pixels, whose values are logits times 255 of four classes; labels are those of
# the folders that they are put into.
_PIXELS = np.array(
    [
        [200, 10, 20, 30],
        [10, 220, 20, 30],
        [90, 10, 20, 80],
        [0, 0, 0, 250],
        [1, 9, 8, 7],
        [70, 60, 50, 40],
    ],
    np.uint8,
)
_BEST = [0, 1, 0, 3, 1, 0]
_TRUE = [0, 0, 1, 1, 3, 3]


def _probabilities(row: int) -> NDArray[np.float64]:
    powers: NDArray[np.float64] = np.exp(_PIXELS[row] / 255)
    return powers / powers.sum()


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.reshape(2, 2)).save(path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return _pixel_model(tmp_path / "model.onnx", (1, 2, 2), 4, labels=_LABELS)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    for i, pixels in enumerate(_PIXELS):
        _save(tmp_path / "flat" / f"{i}.png", pixels)
    return tmp_path / "flat"


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    for i, (pixels, label) in enumerate(zip(_PIXELS, _TRUE, strict=True)):
        _save(tmp_path / "val" / _LABELS[label] / f"{i}.png", pixels)
    return tmp_path / "val"


def test_images_without_labels(model: Path, flat: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert _main(model, "--data", flat, "--batch-size", 4) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert out.splitlines() == [
        f"{100 * _probabilities(i).max():6.2f} %  {_LABELS[best]}  {flat / f'{i}.png'}"
        for i, best in enumerate(_BEST)
    ]
    result = _json(capfd, model, "--data", flat)
    assert "top1" not in result
    assert result["images"] == 6
    assert [p["name"] for p in result["predictions"]] == [str(flat / f"{i}.png") for i in range(6)]
    assert [p["class"] for p in result["predictions"]] == _BEST
    assert [p["label"] for p in result["predictions"]] == [_LABELS[c] for c in _BEST]
    np.testing.assert_allclose(
        [p["probability"] for p in result["predictions"]],
        [_probabilities(i).max() for i in range(6)],
        rtol=1e-5,
    )


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("options", "count"), [([], 4), (["--topk", "2"], 2)])
@pytest.mark.parametrize("known", [False, True])
def test_csv(
    model: Path,
    flat: Path,
    labelled: Path,
    known: bool,
    options: list[str],
    count: int,
    capfd: pytest.CaptureFixture[str],
) -> None:
    data = labelled if known else flat
    output = data.parent / "out" / "answers.csv"
    output.parent.mkdir()
    output.write_text("something older" * 999)
    result = _json(capfd, model, "--data", data, "--output", output, *options)
    assert result["output"] == str(output)
    assert result.get("top1_correct") == (1 if known else None)
    assert "predictions" not in result
    rows = _read_csv(output)
    heads = [f"{name}{k + 1}" for k in range(count) for name in ("class", "label", "probability")]
    assert list(rows[0]) == ["name", *(["label"] if known else []), *heads]
    for i, row in enumerate(rows):
        folder = data / _LABELS[_TRUE[i]] if known else data
        assert row["name"] == str(folder / f"{i}.png")
        assert row.get("label") == (_LABELS[_TRUE[i]] if known else None)
        best = np.argsort(-_PIXELS[i].astype(int), kind="stable")[:count]
        assert [int(row[f"class{k + 1}"]) for k in range(count)] == best.tolist()
        assert [row[f"label{k + 1}"] for k in range(count)] == [_LABELS[c] for c in best]
        found = [float(row[f"probability{k + 1}"]) for k in range(count)]
        np.testing.assert_allclose(found, _probabilities(i)[best], rtol=1e-5)
    assert len(rows) == 6
    assert os.listdir(output.parent) == ["answers.csv"]


@pytest.mark.parametrize("known", [False, True])
def test_npz(
    model: Path, flat: Path, labelled: Path, known: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    data = labelled if known else flat
    output = data.parent / "answers.npz"
    assert _main(model, "--data", data, "--output", output, "--batch-size", 4) == 0
    out, err = capfd.readouterr()
    assert err == ""
    rows = [line[:8].strip() for line in out.splitlines()]
    accuracy = ["classes", "top-1", "top-5"] if known else []
    assert rows == ["model", "data", "device", *accuracy, "speed", "output"]
    with np.load(output, allow_pickle=False) as arrays:
        assert set(arrays) == ({"logits", "labels"} if known else {"logits"})
        assert arrays["logits"].dtype == np.float32
        assert np.array_equal(arrays["logits"], _PIXELS.astype(np.float32) / np.float32(255))
        if known:
            assert arrays["labels"].dtype == np.int64
            assert arrays["labels"].tolist() == _TRUE


def test_names_that_are_not_unicode_and_of_several_lines(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "set"
    _save(folder / 'a,"b\nc".png', _PIXELS[0])
    _save(folder / "x.png", _PIXELS[1])
    (folder / "x.png").rename(Path(os.fsdecode(os.fsencode(folder) + b"/x\xe9.png")))
    assert _main(model, "--data", folder, "--output", tmp_path / "out.csv") == 0
    assert [row["name"] for row in _read_csv(tmp_path / "out.csv")] == [
        str(folder / 'a,"b\nc".png'),
        str(folder / "x") + "\\udce9.png",
    ]
    capfd.readouterr()
    assert _main(model, "--data", folder) == 0
    assert capfd.readouterr().out.count("\n") == 2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [0, 1, 2, 3, 4, 5]),
        (["--limit", "3"], [0, 2, 4]),
        (["--limit", "3", "--first"], [0, 1, 2]),
        (["--skip", "2"], [2, 3, 4, 5]),
        (["--skip", "0"], [0, 1, 2, 3, 4, 5]),
        (["--skip", "2", "--limit", "2"], [2, 4]),
        (["--skip", "2", "--limit", "2", "--first"], [2, 3]),
        (["--limit", "99", "--skip", "5"], [5]),
    ],
)
def test_which_images(
    model: Path,
    flat: Path,
    labelled: Path,
    options: list[str],
    expected: list[int],
    capfd: pytest.CaptureFixture[str],
) -> None:
    result = _json(capfd, model, "--data", flat, *options)
    assert [Path(p["name"]).stem for p in result["predictions"]] == [str(i) for i in expected]
    result = _json(capfd, model, "--data", labelled, *options)
    assert result["images"] == len(expected)
    assert result["top1_correct"] == sum(_BEST[i] == _TRUE[i] for i in expected)


def test_skip_bad(
    model: Path, labelled: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = labelled / "ant" / "0.png"
    bad.write_bytes(bad.read_bytes()[:20])
    assert _main(model, "--data", labelled, "--json", "-") == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n"), str(bad) in err) == ("", 1, True)

    output = labelled.parent / "out.npz"
    assert _main(model, "--data", labelled, "--skip-bad", "--output", output) == 0
    assert "skipped 1 of 6 images" in caplog.text
    assert "skipped 1 images that cannot be read" in capfd.readouterr().out
    with np.load(output) as arrays:
        assert arrays["labels"].tolist() == _TRUE[1:]
        assert np.array_equal(np.round(arrays["logits"] * 255), _PIXELS[1:])
    assert _main(model, "--data", labelled, "--skip-bad", "--json", "-") == 0
    result = json.loads(capfd.readouterr().out)
    assert (result["images"], result["skipped"]) == (5, 1)
    assert result["top1"] == 0


@pytest.mark.parametrize("size", [1, 4, 6, 50])
def test_a_model_of_fixed_batch_size(
    flat: Path,
    labelled: Path,
    size: int,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = _pixel_model(flat.parent / "fixed.onnx", (1, 2, 2), 4, labels=_LABELS, batch=size)
    result = _json(capfd, model, "--data", labelled)
    assert (result["images"], result["batch_size"], result["top1_correct"]) == (6, size, 1)
    assert [p["class"] for p in _json(capfd, model, "--data", flat)["predictions"]] == _BEST
    assert caplog.text == ""
    single = _json(capfd, model, "--data", flat / "3.png", "--batch-size", 7)
    assert single["predictions"][0]["class"] == 3
    assert f"batches of {size} only: --batch-size is ignored" in caplog.text


def test_the_time_in_the_model_is_that_of_all_runs(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(InferenceSession(model))
    clock = SimpleNamespace(perf_counter=map(float, range(100)).__next__)
    monkeypatch.setattr("adder_onnx.evaluation.network.time", clock)
    for _ in range(3):
        network(np.zeros((2, 1, 2, 2), np.float32))
    assert network.seconds == 3.0


def test_npz_data_with_labels(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = _PIXELS.reshape(6, 1, 2, 2)
    floats = images.astype(np.float32)
    sets = {"uint8": images, "float32": floats, "float64": floats.astype(np.float64)}
    for name, array in sets.items():
        path = tmp_path / f"{name}.npz"
        np.savez(path, input=array, labels=_TRUE)
        result = _json(capfd, model, "--data", path, "--batch-size", 4)
        assert (result["images"], result["top1_correct"]) == (6, 1)
        assert result["split"] is None
        output = tmp_path / "out.npz"
        _json(capfd, model, "--data", path, "--output", output)
        with np.load(output) as arrays:
            scale = np.float32(255 if name == "uint8" else 1)
            assert np.array_equal(arrays["logits"], _PIXELS.astype(np.float32) / scale)
            assert arrays["labels"].tolist() == _TRUE


@pytest.mark.parametrize("elem_type", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_images_for_a_model_of_another_precision(
    tmp_path: Path, flat: Path, elem_type: int, capfd: pytest.CaptureFixture[str]
) -> None:
    model = _pixel_model(tmp_path / "other.onnx", (1, 2, 2), 4, elem_type=elem_type)
    output = tmp_path / "out.npz"
    result = _json(capfd, model, "--data", flat, "--output", output)
    assert result["images"] == 6
    with np.load(output) as arrays:
        np.testing.assert_allclose(arrays["logits"], _PIXELS / 255, rtol=1e-3)


def _two_inputs(path: Path) -> Path:
    """The image's pixels plus a row, whose type is int64; without metadata."""
    model = make_model(
        [
            node("Flatten", ["image"], "flat"),
            node("Cast", ["row"], "floats", to=TensorProto.FLOAT),
            node("Add", ["flat", "floats"], "logits"),
        ],
        {"image": ["n", 1, 2, 2], "row": ["n", 4]},
        {"logits": ["n", 4]},
    )
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.INT64
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def test_npz_data_for_a_model_with_two_inputs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = _two_inputs(tmp_path / "two.onnx")
    image = _PIXELS.reshape(6, 1, 2, 2).astype(np.float32)
    row = np.arange(24).reshape(6, 4)
    np.savez(tmp_path / "set.npz", row=row, image=image)
    output = tmp_path / "out.npz"
    _json(capfd, model, "--data", tmp_path / "set.npz", "--output", output, "--batch-size", 4)
    with np.load(output) as arrays:
        assert np.array_equal(arrays["logits"], _PIXELS + row)


_Case = Callable[[Path], Sequence[object]]


def _npz(**arrays: Any) -> _Case:
    def case(tmp_path: Path) -> Sequence[object]:
        np.savez(tmp_path / "set.npz", **arrays)
        return ["--data", tmp_path / "set.npz"]

    return case


def _options(*options: str) -> _Case:
    return lambda tmp_path: [
        "--data",
        tmp_path / "flat",
        *(option.replace("TMP", str(tmp_path)) for option in options),
    ]


_GOOD = _PIXELS.reshape(6, 1, 2, 2)

_BAD: dict[str, tuple[_Case, str]] = {
    "output of another kind": (_options("--output", "TMP/out.txt"), "ends in .csv or .npz"),
    "output into no folder": (_options("--output", "TMP/none/out.csv"), "there is no folder"),
    "output onto a folder": (_options("--output", "TMP/folder.csv"), "it is a folder"),
    "first without limit": (_options("--first"), "give --limit N, too"),
    "skip -1": (_options("--skip=-1"), "--skip: -1 is not at least 0"),
    "skip all": (_options("--skip", "6"), "has 6 images, so that --skip 6 leaves none"),
    "split": (_options("--split", "val"), "has no splits"),
    "unknown split": (_options("--split", "dev"), "--split"),
    "npz of another size": (
        _npz(x=_GOOD.astype("f4")[:, :, :1]),
        "set.npz: input 'input' has shape [6, 1, 1, 2]",
    ),
    "uint8 npz of another size": (_npz(x=_GOOD[:, :, :1]), "row 0 of "),
    "npz with label 4": (
        _npz(x=_GOOD, labels=[0, 1, 2, 3, 4, 0]),
        "has the label 4, but the model",
    ),
    "npz with objects": (_npz(x=np.array([1, None])), "holds Python objects"),
    "npz that is not finite": (
        _npz(x=np.where(_GOOD == 9, np.nan, _GOOD).astype("f4")),
        "row 4 of ",
    ),
}


@pytest.mark.parametrize("name", _BAD)
def test_bad_input_is_one_line_and_status_2(
    name: str, model: Path, flat: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    case, message = _BAD[name]
    (flat.parent / "folder.csv").mkdir()
    arguments = case(flat.parent)
    before = sorted(flat.parent.rglob("*"))
    assert _main(model, *arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("adder-run: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(flat.parent.rglob("*")) == before


def test_a_bad_output_is_found_before_the_model_is_read(
    flat: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    missing = flat.parent / "none.onnx"
    assert _main(missing, "--data", flat, "--output", flat / "none" / "out.csv") == 2
    assert "there is no folder" in capfd.readouterr().err


def test_a_failed_run_leaves_older_output_alone(
    model: Path, flat: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (flat / "5.png").write_bytes(b"")
    output = flat.parent / "out.csv"
    output.write_text("older")
    assert _main(model, "--data", flat, "--output", output) == 2
    assert capfd.readouterr().err.count("\n") == 1
    assert output.read_text() == "older"


def test_output_does_not_replace_the_data(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "set.npz"
    np.savez(data, _GOOD)
    before = data.read_bytes()
    assert _main(model, "--data", data, "--output", tmp_path / "." / "set.npz") == 2
    assert "would replace the data" in capfd.readouterr().err
    assert data.read_bytes() == before


def test_several_inputs_need_an_npz_file(
    tmp_path: Path, flat: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = _two_inputs(tmp_path / "two.onnx")
    assert _main(model, "--data", flat) == 2
    assert "needs a model with one float input" in capfd.readouterr().err
    np.savez(tmp_path / "set.npz", image=_GOOD)
    assert _main(model, "--data", tmp_path / "set.npz") == 2
    assert "one array for each input of the model (image, row)" in capfd.readouterr().err


def test_classes_that_do_not_fit_are_never_counted_as_wrong(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """MNIST and CIFAR-100 have other classes than the model's four."""
    datasets.write_files(tmp_path / "digits", datasets.mnist_files(False, "t10k"))
    datasets.write_files(tmp_path / "cifar", datasets.cifar100_files(True))
    for name, message in (
        ("digits", "has 10 classes and the model 4"),
        ("cifar", "'cup', 'girl', 'leopard', which the model does not have"),
    ):
        assert _main(model, "--data", tmp_path / name) == 2
        assert message in capfd.readouterr().err
