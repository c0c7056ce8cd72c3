"""``adder-run``: accuracy by class, the matrix of confusions, the page of the worst mistakes.

A model here is the mean of each channel times a matrix, so that all else is plain arithmetic.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from adder_onnx.cli import run as adder_run
from adder_onnx.metadata import CIFAR10_LABELS, ModelMetadata, Preprocessing
from tests.browser import WIDTHS
from tests.datasets import idx, write_files
from tests.models import make_model, node
from tests.test_pages import HOSTILE

_COLOURS = ("red", "green", "blue")
_MEAN, _STD = 0.5, 0.25


def _how(channels: int, size: int) -> Preprocessing:
    return Preprocessing(channels, size, size, (_MEAN,) * channels, (_STD,) * channels)


def _model(
    path: Path,
    weight: NDArray[np.float32],
    size: int,
    labels: Sequence[str] | None = None,
    *,
    head: Sequence[onnx.NodeProto] = (),
    batch: int | str = "n",
) -> Path:
    """A model of images of that size; ``weight`` is (channels, classes)."""
    channels, classes = weight.shape
    model = make_model(
        [
            node("GlobalAveragePool", ["input"], "means"),
            node("Flatten", ["means"], "flat"),
            node("MatMul", ["flat", "weight"], "scores"),
            *(head or [node("Identity", ["scores"], "logits")]),
        ],
        {"input": [batch, channels, size, size]},
        {"logits": [batch, classes]},
        {"weight": weight},
    )
    given = None if labels is None else tuple(labels)
    helper.set_model_props(model, ModelMetadata(None, _how(channels, size), given).to_props())
    path.write_bytes(model.SerializeToString())
    return path


def _eye(channels: int) -> NDArray[np.float32]:
    """The brightest channel is the class."""
    return 4 * np.eye(channels, dtype=np.float32)


def _probabilities(pixels: NDArray[Any], weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """What such a model says of images (N, C, H, W)."""
    logits = ((pixels / 255 - _MEAN) / _STD).mean(axis=(2, 3)) @ weight.astype(np.float64)
    powers: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _pixels(count: int, channels: int, size: int, seed: int = 0) -> NDArray[np.uint8]:
    """Images of one colour each, no two alike, and a little noise."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(20, 235, (count, channels, 1, 1))
    noise = rng.integers(-9, 10, (count, channels, size, size))
    return (colours + noise).astype(np.uint8)


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


def _refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that says why."""
    assert _main(*arguments) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def _page(path: Path) -> dict[str, Any]:
    """What a page of mistakes is drawn from."""
    text = path.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert found is not None
    data = json.loads(found[1])
    assert isinstance(data, dict)
    return data


def _picture(mistake: dict[str, Any]) -> NDArray[np.uint8]:
    data = base64.b64decode(mistake["picture"]["uri"].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)))


def _counts(true: NDArray[np.int64], answers: NDArray[np.int64]) -> list[list[int]]:
    """The pairs and how often there are, by comparison."""
    pairs = sorted(set(zip(true.tolist(), answers.tolist(), strict=True)))
    return [[t, a, int(((true == t) & (answers == a)).sum())] for t, a in pairs]


class _Set:
    """A data set with a model for it, and what is right of them.

    Attributes:
        arguments: of the command.
        labels: of the images in the order of the data set, in the model's numbers.
        probabilities: of each image.
        names: that the model's classes are shown by.
        images: what each picture looks like.
        files: what each image is called on the page.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        labels: NDArray[np.int64],
        probabilities: NDArray[np.float64],
        names: Sequence[str],
        images: Sequence[NDArray[np.uint8]],
        files: Sequence[str],
    ) -> None:
        self.arguments = arguments
        self.labels = labels
        self.probabilities = probabilities
        self.names = names
        self.images = images
        self.files = files

    @property
    def answers(self) -> NDArray[np.int64]:
        return self.probabilities.argmax(axis=1)

    def mistakes(self) -> list[int]:
        """Numbers of images, worst first."""
        wrong = np.flatnonzero(self.answers != self.labels)
        surest = self.probabilities.max(axis=1)
        return sorted(wrong.tolist(), key=lambda i: (-round(surest[i], 6), i))


def _mixed(pixels: NDArray[np.uint8], weight: NDArray[np.float32]) -> NDArray[np.int64]:
    """Labels of which about two thirds are what the model answers."""
    answers = _probabilities(pixels, weight).argmax(axis=1)
    return np.where(np.arange(len(pixels)) % 3 == 1, (answers + 1) % weight.shape[1], answers)


def _folder(tmp: Path) -> _Set:
    """A folder per class, a model with labels in another order; files of RGB."""
    pixels, weight = _pixels(24, 3, 8), _eye(3)
    labels = _mixed(pixels, weight)
    files, order = [], sorted(range(24), key=lambda i: (_COLOURS[labels[i]], i))
    for i in order:
        file = tmp / "set" / _COLOURS[labels[i]] / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[i].transpose(1, 2, 0)).save(file)
        files.append(f"{_COLOURS[labels[i]]}/{file.name}")
    model = _model(tmp / "m.onnx", weight, 8, _COLOURS)
    images = pixels[order].transpose(0, 2, 3, 1)
    arguments = [model, "--data", tmp / "set"]
    found = _probabilities(pixels, weight)[order]
    return _Set(arguments, labels[order], found, _COLOURS, list(images), files)


def _cifar(tmp: Path) -> _Set:
    pixels = _pixels(30, 3, 32)
    weight = np.random.default_rng(4).normal(0, 2, (3, 10)).astype(np.float32)
    labels = _mixed(pixels, weight)
    records = np.concatenate([labels[:, None].astype(np.uint8), pixels.reshape(30, -1)], axis=1)
    data = write_files(tmp / "set", {"test_batch.bin": records.tobytes()})
    model = _model(tmp / "m.onnx", weight, 32)
    files = [f"image {i}" for i in range(30)]
    images = list(pixels.transpose(0, 2, 3, 1))
    found = _probabilities(pixels, weight)
    return _Set([model, "--data", data], labels, found, CIFAR10_LABELS, images, files)


def _mnist(tmp: Path) -> _Set:
    pixels = _pixels(30, 1, 28)
    weight = np.random.default_rng(5).normal(0, 2, (1, 10)).astype(np.float32)
    labels = _mixed(pixels, weight)
    names = {"t10k-images-idx3-ubyte": idx(pixels[:, 0])}
    names["t10k-labels-idx1-ubyte"] = idx(labels.astype(np.uint8))
    data = write_files(tmp / "set", names)
    model = _model(tmp / "m.onnx", weight, 28)
    files = [f"image {i}" for i in range(30)]
    found = _probabilities(pixels, weight)
    digits = [str(i) for i in range(10)]
    return _Set([model, "--data", data], labels, found, digits, list(pixels[:, 0]), files)


def _npz(tmp: Path, channels: int, *, floats: bool) -> _Set:
    pixels, weight = _pixels(20, channels, 4), _eye(channels)
    labels = _mixed(pixels, weight)
    array = ((pixels / 255 - _MEAN) / _STD).astype(np.float32) if floats else pixels
    np.savez(tmp / "set.npz", images=array, labels=labels)
    model = _model(tmp / "m.onnx", weight, 4)
    shown = {1: [0], 2: [0, 1, 1]}.get(channels, [0, 1, 2])
    images = [image[shown].transpose(1, 2, 0).squeeze() for image in pixels]
    files = [f"row {i}" for i in range(20)]
    names = [str(i) for i in range(channels)]
    found = _probabilities(pixels, weight)
    return _Set([model, "--data", tmp / "set.npz"], labels, found, names, images, files)


_SETS = {
    "folder": _folder,
    "cifar": _cifar,
    "mnist": _mnist,
    "npz, 2 channels": lambda tmp: _npz(tmp, 2, floats=False),
    "npz, 3 channels": lambda tmp: _npz(tmp, 3, floats=False),
    "npz, 5 channels": lambda tmp: _npz(tmp, 5, floats=False),
    "npz, floats": lambda tmp: _npz(tmp, 3, floats=True),
    "npz, floats of 5 channels": lambda tmp: _npz(tmp, 5, floats=True),
}


@pytest.fixture(params=_SETS)
def given(request: pytest.FixtureRequest, tmp_path: Path) -> _Set:
    return _SETS[request.param](tmp_path)


def test_json(given: _Set, capfd: pytest.CaptureFixture[str]) -> None:
    result = _json(capfd, *given.arguments, "--batch-size", 7)
    labels, answers = given.labels, given.answers
    assert 0 < (labels == answers).sum() < len(labels)
    assert result["confusion"]["counts"] == _counts(labels, answers)
    has_names = not given.names[0].isdecimal() or "MNIST" in result["data"]
    assert result["confusion"]["labels"] == (list(given.names) if has_names else None)
    assert result["per_class"] == [
        {
            "class": t,
            "label": given.names[t],
            "images": int((labels == t).sum()),
            "correct": int(((labels == t) & (answers == t)).sum()),
            "top1": pytest.approx(100 * (answers[labels == t] == t).mean()),
            "answers": int((answers == t).sum()),
        }
        for t in sorted(set(labels.tolist()))
    ]
    assert sum(one["correct"] for one in result["per_class"]) == result["top1_correct"]
    assert not {"confusion_file", "mistakes_file"} & result.keys()


def test_the_page(given: _Set, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "worst.html"
    result = _json(capfd, *given.arguments, "--mistakes", path)
    assert result["mistakes_file"] == str(path)
    data, expected = _page(path), given.mistakes()
    assert (data["images"], data["wrong"]) == (len(given.labels), len(expected))
    assert data["model"] == "m.onnx"
    assert [mistake["name"] for mistake in data["mistakes"]] == [given.files[i] for i in expected]
    for mistake, i in zip(data["mistakes"], expected, strict=True):
        label, answer = given.labels[i], given.answers[i]
        assert mistake["label"] == given.names[label]
        assert mistake["answer"] == given.names[answer]
        assert mistake["confidence"] == pytest.approx(given.probabilities[i, answer], abs=1e-5)
        own = given.probabilities[i, label]
        assert mistake["labelConfidence"] == pytest.approx(own, abs=1e-5)
        difference = _picture(mistake).astype(int) - given.images[i]
        assert np.abs(difference).max() <= 1


def test_nothing_depends_on_batches_and_threads(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where many mistakes are alike."""
    pixels, weight = np.repeat(_pixels(6, 3, 4), 30, axis=0), _eye(3)
    np.savez(tmp_path / "set.npz", images=pixels, labels=_mixed(pixels, weight))
    model = _model(tmp_path / "m.onnx", weight, 4)
    pages = set()
    for batch, workers, threads in ((1, 1, 1), (7, 3, 2), (1000, 2, 1)):
        options = ["--batch-size", batch, "--workers", workers, "--threads", threads]
        files = ["--confusion", tmp_path / "c.svg", "--mistakes", tmp_path / "m.html"]
        result = _json(capfd, model, "--data", tmp_path / "set.npz", *options, *files)
        texts = [(tmp_path / name).read_text() for name in ("c.svg", "m.html")]
        pages.add((*texts, json.dumps([result["confusion"], result["per_class"]])))
    assert len(pages) == 1


def test_at_most_100_mistakes_are_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pixels, weight = _pixels(400, 3, 4), _eye(3)
    answers = _probabilities(pixels, weight).argmax(axis=1)
    np.savez(tmp_path / "set.npz", images=pixels, labels=(answers + 1) % 3)
    model, path = _model(tmp_path / "m.onnx", weight, 4), tmp_path / "m.html"
    _json(capfd, model, "--data", tmp_path / "set.npz", "--mistakes", path, "--batch-size", 9)
    data = _page(path)
    assert (data["wrong"], len(data["mistakes"])) == (400, 100)
    surest = np.sort(_probabilities(pixels, weight).max(axis=1))[::-1]
    found = [mistake["confidence"] for mistake in data["mistakes"]]
    assert found == pytest.approx(surest[:100], abs=1e-5)


def test_parts_of_a_set(tmp_path: Path) -> None:
    """What is left out, or cannot be read, is neither counted nor shown."""
    given, path = _folder(tmp_path), tmp_path / "m.html"
    bad = tmp_path / "set" / given.files[5]
    bad.write_bytes(b"no image")
    kept = [i for i in range(2, 24) if i != 5]
    options = ["--skip", 2, "--skip-bad", "--mistakes", path, "--json", tmp_path / "r.json"]
    assert _main(*given.arguments, *options) == 0
    result = json.loads((tmp_path / "r.json").read_bytes())
    assert result["confusion"]["counts"] == _counts(given.labels[kept], given.answers[kept])
    expected = [i for i in given.mistakes() if i in kept]
    assert [m["name"] for m in _page(path)["mistakes"]] == [given.files[i] for i in expected]


def test_an_image_that_is_gone_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given, path = _folder(tmp_path), tmp_path / "m.html"
    worst = tmp_path / "set" / given.files[given.mistakes()[0]]
    report = adder_run.report

    def late(*arguments: Any) -> None:
        worst.unlink()
        report(*arguments)

    monkeypatch.setattr(adder_run, "report", late)
    assert _main(*given.arguments, "--mistakes", path) == 0
    assert "an image is not shown: " in caplog.text
    mistakes = _page(path)["mistakes"]
    assert [m["picture"] is None for m in mistakes] == [True] + [False] * (len(mistakes) - 1)


def test_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = _folder(tmp_path)
    assert _main(*given.arguments) == 0
    short = capfd.readouterr().out.splitlines()
    assert _main(*given.arguments, "--per-class", "--confusion", tmp_path / "c.svg") == 0
    out, err = capfd.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[len(short) :][:2] == [f"output  {tmp_path / 'c.svg'}", ""]
    assert lines[len(short) + 2] == "   top-1   right  images  class  taken for most often"
    rows = []
    for t, name in enumerate(_COLOURS):
        answers = given.answers[given.labels == t]
        right, images = int((answers == t).sum()), len(answers)
        wrong = [(int((answers == a).sum()), -a) for a in range(3) if a != t]
        count, most = max(wrong)
        row = f"{100 * right / images:6.2f} %  {right:6}  {images:6}  {name:<5}"
        row += f"  {_COLOURS[-most]} ({count})" if count else ""
        rows.append((right / images, -images, t, row.rstrip()))
    assert lines[len(short) + 3 :] == [row for *_, row in sorted(rows)]


def test_more_classes_than_the_data_have(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a model of 1000 classes, data have two; it may answer with others."""
    weight = np.full((3, 1000), -9, np.float32)
    weight[:, [3, 500, 999]] = _eye(3)
    pixels = _pixels(30, 3, 4)
    labels = np.where(np.arange(30) % 2, 3, 500)
    np.savez(tmp_path / "set.npz", images=pixels, labels=labels)
    model, path = _model(tmp_path / "m.onnx", weight, 4), tmp_path / "c.svg"
    result = _json(capfd, model, "--data", tmp_path / "set.npz", "--confusion", path)
    answers = _probabilities(pixels, weight).argmax(axis=1)
    assert 999 in answers
    assert result["confusion"]["counts"] == _counts(labels, answers)
    assert [one["class"] for one in result["per_class"]] == [3, 500]
    assert "other classes" in path.read_text()


def test_classes_of_a_folder_name_those_of_a_model_without_labels(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = _folder(tmp_path)
    classes = tmp_path / "classes.csv"
    classes.write_text("red,0\ngreen,1\nblue,2\n")
    weight = np.concatenate([_eye(3), np.full((3, 1), -9)], axis=1).astype(np.float32)
    model = _model(tmp_path / "m.onnx", weight, 8)
    result = _json(capfd, model, *given.arguments[1:], "--class-map", classes)
    assert result["confusion"]["labels"] == ["red", "green", "blue", "3"]
    assert [one["label"] for one in result["per_class"]] == ["red", "green", "blue"]


def test_a_fixed_batch_is_filled_up_and_not_counted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = _npz(tmp_path, 3, floats=False)
    model = _model(tmp_path / "m.onnx", _eye(3), 4, batch=7)
    path = tmp_path / "m.html"
    result = _json(capfd, model, *given.arguments[1:], "--mistakes", path)
    assert result["confusion"]["counts"] == _counts(given.labels, given.answers)
    assert _page(path)["wrong"] == len(given.mistakes())


def test_class_numbers_have_no_confidence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = _npz(tmp_path, 3, floats=False)
    head = [
        node("Identity", ["scores"], "logits"),
        node("ArgMax", ["scores"], "best", axis=1, keepdims=0),
    ]
    path = _model(tmp_path / "m.onnx", _eye(3), 4, head=head)
    model = onnx.load(path)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("best", TensorProto.INT64, ["n"]))
    path.write_bytes(model.SerializeToString())
    page = tmp_path / "m.html"
    result = _json(capfd, *given.arguments, "--mistakes", page)
    assert result["confusion"]["counts"] == _counts(given.labels, given.answers)
    wrong = np.flatnonzero(given.labels != given.answers)
    found = [(m["name"], m["confidence"], m["labelConfidence"]) for m in _page(page)["mistakes"]]
    assert found == [(f"row {i}", None, None) for i in wrong]


def test_one_class(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A model with one output: nothing can be wrong."""
    given = _npz(tmp_path, 1, floats=False)
    files = ["--confusion", tmp_path / "c.svg", "--mistakes", tmp_path / "m.html"]
    result = _json(capfd, *given.arguments, *files)
    assert result["confusion"]["counts"] == [[0, 0, 20]]
    assert "top-1 100.00 %  (20 of 20)" in (tmp_path / "c.svg").read_text()
    assert _page(tmp_path / "m.html")["mistakes"] == []


@pytest.mark.parametrize("output", ["answers.csv", "answers.npz"])
def test_with_other_output(output: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = _cifar(tmp_path)
    files = ["--output", tmp_path / output, "--mistakes", tmp_path / "m.html"]
    result = _json(capfd, *given.arguments, *files)
    assert result["output"] == str(tmp_path / output)
    assert (tmp_path / output).stat().st_size > 0
    assert _page(tmp_path / "m.html")["wrong"] == len(given.mistakes())


def _unlabelled(tmp_path: Path) -> list[object]:
    """Images without labels, and a model for them."""
    np.savez(tmp_path / "bare.npz", images=_pixels(3, 3, 4))
    return [_model(tmp_path / "m.onnx", _eye(3), 4), "--data", tmp_path / "bare.npz"]


@pytest.mark.parametrize(
    "options", [["--per-class"], ["--confusion", "TMP/c.svg"], ["--mistakes", "TMP/m.html"]]
)
def test_labels_are_needed(
    options: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [*_unlabelled(tmp_path), *(o.replace("TMP", str(tmp_path)) for o in options)]
    message = _refused(capfd, *arguments)
    assert f"error: {options[0]} needs labels, and {tmp_path}/bare.npz" in message
    assert sorted(os.listdir(tmp_path)) == ["bare.npz", "m.onnx"]
    image = tmp_path / "one.png"
    Image.new("RGB", (4, 4)).save(image)
    arguments[2] = image
    assert f"{options[0]} needs labels, and {image} (one image) has none" in _refused(
        capfd, *arguments
    )


def test_classes_are_needed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Also where --output would do without them."""
    arguments = _unlabelled(tmp_path)
    model = onnx.load(tmp_path / "m.onnx")
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("means", TensorProto.FLOAT, ["n", 3, 1, 2])
    )
    model.graph.node[0].CopyFrom(
        helper.make_node("Slice", ["input", "from", "to", "axes"], ["means"], "cut")
    )
    for name, values in (("from", [0, 0]), ("to", [1, 2]), ("axes", [2, 3])):
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(values, np.int64), name)
        )
    del model.graph.node[1:]
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    options = ["--output", tmp_path / "o.npz", "--confusion", tmp_path / "c.svg"]
    message = _refused(capfd, *arguments, *options)
    assert "--confusion needs a model that says what class an image is of: no output" in message
    assert not (tmp_path / "o.npz").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--confusion", "TMP/c.png"], "c.png: --confusion takes a name that ends in .svg"),
        (["--confusion", "TMP/c"], "c: --confusion takes a name that ends in .svg"),
        (["--mistakes", "TMP/m.svg"], "m.svg: --mistakes takes a name that ends in .html"),
        (["--mistakes", "TMP/none/m.html"], "there is no folder"),
        (["--confusion", "TMP/folder.svg"], "it is a folder"),
        (["--confusion", ""], "is not a path"),
        (
            ["--confusion", "TMP/c.svg", "--json", "TMP/c.svg"],
            "c.svg would replace the file of --confusion: choose another",
        ),
        (
            ["--mistakes", "TMP/linked.html"],
            "linked.html would replace the model: choose another",
        ),
    ],
)
def test_bad_destinations(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Found before the work; nothing is written."""
    arguments = _unlabelled(tmp_path)
    (tmp_path / "folder.svg").mkdir()
    (tmp_path / "linked.html").symlink_to(tmp_path / "m.onnx")
    before = sorted(os.listdir(tmp_path))
    monkeypatch.setattr(adder_run, "InferenceSession", lambda *_, **__: pytest.fail("loaded"))
    given = [o.replace("TMP", str(tmp_path)) for o in options]
    assert message in _refused(capfd, *arguments, *given)
    assert sorted(os.listdir(tmp_path)) == before


def _hostile(tmp_path: Path) -> list[object]:
    """Classes and files with names that nobody should have."""
    names = [text for text in HOSTILE if text not in ("\ud800",)]
    count = len(names)
    weight = np.random.default_rng(8).normal(0, 3, (3, count)).astype(np.float32)
    model = _model(tmp_path / "<b onclick=x>&amp;.onnx", weight, 4, names)
    folder = tmp_path / "set"
    folder.mkdir()
    pixels = _pixels(40, 3, 4)
    table = ["image\tlabel"]
    files = ["<script>alert(1)</script>", "\u202eevil", "y" * 200, "'\"`${1}", "a&lt;b", "é日本"]
    for i, image in enumerate(pixels):
        name = f"{files[i % len(files)].replace('/', '_')}{i}.png"
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / name)
        table.append(f"{name}\t{i % count}")
    labels = tmp_path / "labels.tsv"
    labels.write_text("\n".join(table), encoding="utf-8")
    return [model, "--data", folder, "--labels-csv", labels]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_in_a_browser(  # type: ignore[no-untyped-def]
    browser, tmp_path: Path, width: int, dark: bool
) -> None:
    path = tmp_path / "m.html"
    arguments = _hostile(tmp_path)
    assert _main(*arguments, "--mistakes", path, "--per-class") == 0
    data = _page(path)
    with browser.opened(path, width=width, dark=dark) as opened:
        opened.check()
        cards = opened.page.locator(".sheet li")
        assert cards.count() == len(data["mistakes"]) > 20
        assert opened.page.locator("script").count() == 3
        loaded = "() => [...document.images].every((i) => i.complete && i.naturalWidth > 0)"
        assert opened.page.evaluate(loaded)

        select = opened.page.locator("select")
        opened.page.keyboard.press("Tab")
        assert select.evaluate("(e) => e === document.activeElement")
        opened.page.keyboard.press("ArrowDown")
        pairs: dict[tuple[str, str], int] = {}
        for mistake in data["mistakes"]:
            pair = mistake["label"], mistake["answer"]
            pairs[pair] = pairs.get(pair, 0) + 1
        assert cards.count() == max(pairs.values())
        opened.check()
        opened.page.keyboard.press("ArrowUp")
        assert cards.count() == len(data["mistakes"])


def test_a_page_without_mistakes_in_a_browser(browser, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    given, path = _npz(tmp_path, 1, floats=False), tmp_path / "m.html"
    assert _main(*given.arguments, "--mistakes", path) == 0
    with browser.opened(path) as opened:
        opened.check()
        assert "right about all images" in opened.page.locator("main").inner_text()
        assert opened.page.locator("li, select").count() == 0


def test_the_real_network(
    resnet20: Path, shared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = ["--confusion", tmp_path / "c.svg", "--mistakes", tmp_path / "m.html"]
    result = _json(capfd, resnet20, "--data", shared / "cifar10", *files)
    assert result["top1_correct"] == sum(one["correct"] for one in result["per_class"]) == 456
    assert sum(one["images"] for one in result["per_class"]) == 500
    assert result["confusion"]["labels"] == list(CIFAR10_LABELS)
    assert "top-1 91.20 %  (456 of 500)" in (tmp_path / "c.svg").read_text()
    data = _page(tmp_path / "m.html")
    assert data["wrong"] == len(data["mistakes"]) == 44
    assert (tmp_path / "m.html").stat().st_size < 500_000
    pixels = np.fromfile(shared / "cifar10" / "test_batch.bin", np.uint8).reshape(500, 3073)
    for mistake in data["mistakes"]:
        number = int(mistake["name"].removeprefix("image "))
        image = pixels[number, 1:].reshape(3, 32, 32).transpose(1, 2, 0)
        assert np.array_equal(_picture(mistake), image)
        assert CIFAR10_LABELS[pixels[number, 0]] == mistake["label"] != mistake["answer"]
