"""A few images called like ImageNet's, with their ground truth in every form that it comes in.

A toy network answers by colour, each of its classes with one, so that all answers are right if the
classes are numbered right. What is right is written down here: the development kit's number of the
class of each validation image, its WordNet id, and its number in sorted order.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from adder_onnx.cli import run
from adder_onnx.metadata import ModelMetadata, Preprocessing
from tests.models import adder_conv, make_model, node

# Of ILSVRC2012_val_00000001 and those after it.
_IMAGES = (
    (490, "n01751748", 65, "sea snake"),
    (361, "n09193705", 970, "alp"),
    (171, "n02105855", 230, "Shetland sheepdog"),
    (822, "n04263257", 809, "soup bowl"),
    (297, "n03125729", 516, "cradle"),
    (482, "n01735189", 57, "garter snake"),
    (13, "n02346627", 334, "porcupine"),
    (704, "n02776631", 415, "bakery"),
    (599, "n03794056", 674, "mousetrap"),
    (164, "n02328150", 332, "Angora"),
)


def _colour(number: int) -> tuple[int, int, int]:
    return number // 100 * 25, number // 10 % 10 * 25, number % 10 * 25


def _model(path: Path, labels: tuple[str, ...] | None = None, classes: int = 1000) -> Path:
    """Filter k of its only adder layer is the colour of class k."""
    colours = np.array([_colour(k) for k in range(classes)], np.float32) / 255
    model = make_model(
        [
            node("GlobalAveragePool", ["input"], "mean"),
            adder_conv("mean", "w", "distances"),
            node("Flatten", ["distances"], "logits"),
        ],
        {"input": ["n", 3, 4, 4]},
        {"logits": ["n", classes]},
        {"w": colours[:, :, None, None]},
    )
    how = Preprocessing(3, 4, 4, (0.0,) * 3, (1.0,) * 3)
    helper.set_model_props(model, ModelMetadata("colours", how, labels).to_props())
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _model(tmp_path_factory.mktemp("model") / "colours.onnx")


def _save(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), _colour(number)).save(path)


def _name(n: int) -> str:
    return f"ILSVRC2012_val_{n:08}"


def _flat(folder: Path, suffix: str = ".png") -> Path:
    for n, (_, _, number, _) in enumerate(_IMAGES, 1):
        _save(folder / f"{_name(n)}{suffix}", number)
    return folder


def _write(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


_KIT = "ILSVRC2012_validation_ground_truth.txt"


def _kit(path: Path) -> Path:
    """The file has lines for images that are not there, too."""
    return _write(path, [str(kit) for kit, *_ in _IMAGES] + ["1000", "1", "17"])


def _kaggle(path: Path) -> Path:
    rows = [f"{_name(n)},{id} 85 1 499 272 " for n, (_, id, *_) in enumerate(_IMAGES, 1)]
    rows[2] += f"{_IMAGES[2][1]} 1 2 3 4"
    return _write(path, ["ImageId,PredictionString", *rows[::-1]])


def _list(path: Path) -> Path:
    rows = [f"{_name(n)}.JPEG {number}" for n, (_, _, number, _) in enumerate(_IMAGES, 1)]
    return _write(path, [*rows, f"{_name(11)}.JPEG 109", f"{_name(12)}.JPEG 0"])


def _class_folders(root: Path, name: Callable[[tuple[int, str, int, str]], str]) -> Path:
    for n, image in enumerate(_IMAGES, 1):
        _save(root / name(image) / f"{n}.png", image[2])
    return root


_LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "kit in the folder": lambda t: _kit(_flat(t / "val") / _KIT).parent,
    "kit beside the folder": lambda t: (_kit(t / _KIT), _flat(t / "val"))[1],
    "kit in its own folder": lambda t: (
        _kit(t / "ILSVRC2012_devkit_t12" / "data" / _KIT),
        _flat(t / "ILSVRC2012_img_val", ".JPEG"),
    )[1],
    "kit two folders up": lambda t: (
        _kit(t / "ILSVRC2012_devkit_t12" / "data" / _KIT),
        _flat(t / "images" / "val"),
    )[1],
    "kit of 2015": lambda t: (
        _kit(t / "ILSVRC/devkit/data/ILSVRC2015_clsloc_validation_ground_truth.txt"),
        _flat(t / "ILSVRC" / "Data" / "CLS-LOC" / "val"),
    )[1],
    "Kaggle": lambda t: (
        _kaggle(t / "LOC_val_solution.csv"),
        _flat(t / "ILSVRC" / "Data" / "CLS-LOC" / "val", ".JPEG"),
    )[1],
    "Kaggle's root": lambda t: (
        _kaggle(t / "LOC_val_solution.csv"),
        _flat(t / "ILSVRC" / "Data" / "CLS-LOC" / "val"),
        _save(t / "ILSVRC" / "Data" / "CLS-LOC" / "test" / "ILSVRC2012_test_00000001.png", 3),
        _save(t / "ILSVRC" / "Data" / "CLS-LOC" / "train" / "n01440764" / "1.png", 0),
        _save(t / "ILSVRC" / "Data" / "CLS-LOC" / "train" / "n15075141" / "1.png", 0),
        t / "ILSVRC" / "Data" / "CLS-LOC",
    )[-1],
    "Caffe": lambda t: (_list(t / "val.txt"), _flat(t / "val"))[1],
    "Caffe, any folder": lambda t: _list(_flat(t / "pictures") / "val.txt").parent,
    "meta": lambda t: (_list(t / "meta" / "val.txt"), _flat(t / "val"))[1],
    "root with a kit": lambda t: (
        _flat(t / "val"),
        _save(t / "train" / "n01440764" / "1.png", 0),
        _save(t / "train" / "n15075141" / "1.png", 0),
        _kit(t / "ILSVRC2012_devkit_t12" / "data" / _KIT),
        t,
    )[-1],
    "WordNet ids": lambda t: _class_folders(t / "val", lambda image: image[1]),
    "names": lambda t: _class_folders(t / "val", lambda image: image[3]),
    "numbers": lambda t: (
        _save(t / "val" / "0" / "x.png", 0),
        _class_folders(t / "val", lambda image: str(image[2])),
    )[1],
}


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert run.main([*map(str, arguments), "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert isinstance(result, dict)
    return result


@pytest.mark.parametrize("layout", _LAYOUTS)
def test_every_layout(
    layout: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = _run(capsys, model, "--data", _LAYOUTS[layout](tmp_path))
    assert result["images"] == result["top1_correct"] == len(_IMAGES) + (layout == "numbers")
    assert result["class_matching"]["guess"] == (layout in ("names", "numbers"))


@pytest.mark.parametrize("layout", ["Caffe", "Kaggle", "kit in the folder", "WordNet ids"])
def test_a_model_with_labels_in_another_order(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whose class 970 is not the alp, but class 0."""
    labels = [
        f"other class {'abcdefghij'[k % 10]}{'klmnopqrst'[k // 10 % 10]}" for k in range(1000)
    ]
    data = _LAYOUTS[layout](tmp_path)
    for file in [*data.rglob("*.png"), *data.rglob("*.JPEG")]:
        n = int(file.stem.rpartition("_")[2])
        labels[n - 1] = _IMAGES[n - 1][3]
        Image.new("RGB", (4, 4), _colour(n - 1)).save(file, "PNG")
    model = _model(tmp_path / "model.onnx", tuple(labels))
    result = _run(capsys, model, "--data", data)
    assert result["images"] == result["top1_correct"] == len(_IMAGES)


@pytest.mark.parametrize("write", [_kit, _kaggle, _list])
@pytest.mark.parametrize("given", [True, False])
def test_the_file_may_be_given(
    write: Callable[[Path], Path],
    given: bool,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And is not looked for everywhere."""
    name = {_kit: _KIT, _kaggle: "LOC_val_solution.csv", _list: "val.txt"}[write]
    _flat(tmp_path / "a" / "b" / "c" / "val")
    labels = write(tmp_path / name)
    options = ["--labels-csv", labels] if given else []
    result = _run(capsys, model, "--data", tmp_path / "a" / "b" / "c" / "val", *options)
    assert result.get("top1_correct") == (len(_IMAGES) if given else None)
    assert (f"labels of {labels}" in result["data"]) == given


def test_tiny_imagenet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Three classes, in sorted order; its val has one of them less."""
    ids = ("n02124075", "n04067472", "n04540053")
    root = tmp_path / "tiny-imagenet-200"
    for k, id in enumerate(ids):
        _save(root / "train" / id / "images" / f"{id}_0.png", k)
        _write(root / "train" / id / f"{id}_boxes.txt", [f"{id}_0.JPEG\t0\t0\t62\t62"])
    rows = []
    for i, k in enumerate([2, 0, 2]):
        _save(root / "val" / "images" / f"val_{i}.png", k)
        rows.append(f"val_{i}.png\t{ids[k]}\t0\t32\t44\t62")
    _write(root / "val" / "val_annotations.txt", rows)
    _save(root / "test" / "images" / "test_0.png", 1)
    _write(root / "wnids.txt", [ids[2], ids[0], ids[1]])
    model = _model(tmp_path / "model.onnx", classes=3)
    for data in (root, root / "val", root / "val" / "images"):
        if data != root:
            rows.append(f"val_9.png\t{ids[1]}\t0\t32\t44\t62")
            _write(root / "val" / "val_annotations.txt", rows)
        caplog.clear()
        result = _run(capsys, model, "--data", data)
        assert (result["images"], result["top1_correct"]) == (3, 3)
        assert result["class_matching"]["guess"]
        assert ("val has not 'n04067472'" in caplog.text) == (data == root)
    result = _run(capsys, model, "--data", root, "--split", "train")
    assert (result["images"], result["top1_correct"]) == (3, 3)
    assert "top1" not in _run(capsys, model, "--data", root, "--split", "test")
    labels = ("volleyball", "Egyptian cat", "reel")
    result = _run(capsys, _model(tmp_path / "m.onnx", labels, 3), "--data", root / "val")
    assert (result["images"], result["top1_correct"]) == (3, 0)


def test_tiny_imagenet_without_training_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list of classes counts them."""
    ids = ("n02124075", "n04067472", "n04540053")
    _save(tmp_path / "val" / "images" / "val_0.png", 2)
    _write(tmp_path / "val" / "val_annotations.txt", [f"val_0.png\t{ids[2]}\t0\t0\t1\t1"])
    _write(tmp_path / "wnids.txt", list(ids[::-1]))
    model = _model(tmp_path / "model.onnx", classes=3)
    assert _run(capsys, model, "--data", tmp_path)["top1_correct"] == 1


def test_several_files(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = _flat(tmp_path / "val")
    kit, kaggle = _kit(data / _KIT), _kaggle(tmp_path / "LOC_val_solution.csv")
    result = _run(capsys, model, "--data", data)
    assert f"labels of {kit}" in result["data"]
    assert f"the labels are those of {kit}; there is also {kaggle}, which" in caplog.text


def test_a_file_that_only_is_called_like_a_list(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = _flat(tmp_path / "val")
    (tmp_path / "val.txt").write_text("this is, after all,\nanother kind of text\n")
    assert "top1" not in _run(capsys, model, "--data", data)
    assert f"{tmp_path / 'val.txt'} is not taken for labels: " in caplog.text


def test_labels_for_some_images_only(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless another file has them all; files of other images do not count."""
    data = _flat(tmp_path / "val")
    kit = _write(data / _KIT, ["490", "361", "171"])
    _write(tmp_path / "val.txt", ["other.JPEG 3"])
    assert run.main([str(model), "--data", str(data)]) == 2
    err = capsys.readouterr().err
    assert f"{kit} has no label for 7 of 10 images, the first of which is {data}/" in err
    assert f"{_name(4)}.png" in err
    _kaggle(tmp_path / "LOC_val_solution.csv")
    assert _run(capsys, model, "--data", data)["top1_correct"] == len(_IMAGES)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (_KIT, "490\n361\n0\n", "line 3: '0'; expected a number from 1 to 1000"),
        (_KIT, "490\n1001\n1\n", "line 2: '1001'; expected a number from 1 to 1000"),
        (_KIT, "490\nn01440764\n", "line 2: 'n01440764'; expected a number"),
        ("LOC_val_solution.csv", "a,b\nx\n", "line 2: expected an image, a comma, and boxes"),
        ("LOC_val_solution.csv", "a,b\nx,n1 1 2 3 4 n2 1 2 3 4", "line 2: expected an image"),
        ("LOC_val_solution.csv", "a,b\nx, \n", "line 2: expected an image"),
        ("val_annotations.txt", "/\tn01440764\t0", "line 1: expected an image and its class"),
        ("val_annotations.txt", "x\n", "line 1: expected an image, a class and a box"),
        ("val.txt", f"{_name(1)}.JPEG 1000\n{_name(2)}.JPEG 0", "line 1: '1000'; expected"),
        ("val.txt", f"{_name(1)}.JPEG cat\n{_name(2)}.JPEG dog", "line 1: 'cat'; expected"),
        ("val.txt", f"{_name(1)}\n{_name(2)}\n", "has one column"),
        ("val.txt", f"{_name(1)} 1\n{_name(2)} 2\n", "the numbers 1 to 2, which count its lines"),
    ],
)
def test_wrong_files(
    name: str,
    text: str,
    message: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = _flat(tmp_path / "val")
    (tmp_path / name).write_text(text)
    options = ["--labels-csv", str(tmp_path / name)]
    assert run.main([str(model), "--data", str(data), *options]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"{tmp_path / name}" in err
    assert message in err
