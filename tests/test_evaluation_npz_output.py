"""The .npz file of a model's outputs: what it holds, what it refuses, what it leaves behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from adder_onnx.errors import AdderError, ModelError
from adder_onnx.evaluation import Dataset
from adder_onnx.evaluation.npz_output import NpzOutput, array_names
from adder_onnx.evaluation.outputs import Classified
from adder_onnx.runtime import InferenceSession
from tests.models import make_model, node

_TYPES = ["float16", "float32", "float64", "bool"] + [
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
]


def _dataset(count: int, labels: bool = True) -> Dataset:
    numbers = np.arange(count, dtype=np.int64) * 7 % 5 if labels else None
    return Dataset("pixels", None, count, lambda i: Image.new("L", (1, 1), i), str, numbers)


def _same_names(arrays: Mapping[str, Any]) -> dict[str, str]:
    return {name: name for name in arrays}


def _write(
    path: Path, arrays: Mapping[str, NDArray[Any]], batch: int, dataset: Dataset
) -> dict[str, NDArray[Any]]:
    """Writes arrays (N, …) batch by batch; gives what the file then holds."""
    with NpzOutput(path, _same_names(arrays), dataset) as output:
        for start in range(0, dataset.images, batch):
            numbers = np.arange(start, min(start + batch, dataset.images))
            output.add(numbers, {name: array[numbers] for name, array in arrays.items()})
        output.write()
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_arrays_of_all_types_and_shapes(tmp_path: Path, batch: int) -> None:
    shapes = [(), (3,), (2, 3, 4), (1, 1), (0,), (3, 0, 2)]
    rng = np.random.default_rng(0)
    arrays = {
        f"{dtype}/{shape}": np.asarray(rng.integers(0, 99, (9, *shape))).astype(dtype)
        for dtype in _TYPES
        for shape in shapes
    }
    found = _write(tmp_path / "out.npz", arrays, batch, _dataset(9))
    assert list(found) == [*arrays, "labels"]
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
    assert found["labels"].dtype == np.int64
    assert found["labels"].tolist() == [0, 2, 4, 1, 3, 0, 2, 4, 1]
    assert os.listdir(tmp_path) == ["out.npz"]
    with zipfile.ZipFile(tmp_path / "out.npz") as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_rows_that_are_not_contiguous(tmp_path: Path) -> None:
    arrays = {
        "transposed": np.arange(60).reshape(3, 4, 5).transpose(2, 1, 0),
        "reversed": np.arange(5)[::-1],
        "broadcast": np.broadcast_to(np.arange(5)[:, None], (5, 3)),
    }
    found = _write(tmp_path / "out.npz", arrays, 2, _dataset(5, labels=False))
    assert "labels" not in found
    for name, array in arrays.items():
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize("name", ["a/b", "../up", "ä.npy", "two\nlines", " ", "file", "x" * 300])
def test_names(tmp_path: Path, name: str) -> None:
    found = _write(tmp_path / "out.npz", {name: np.arange(3)}, 2, _dataset(3, labels=False))
    assert found[name].tolist() == [0, 1, 2]


def test_images_that_were_skipped_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "out.npz"
    with NpzOutput(path, {"y": "logits"}, _dataset(9)) as output:
        output.add(np.array([1, 4]), {"y": np.array([[1.0], [4.0]])})
        output.add(np.array([8]), {"y": np.array([[8.0]])})
        output.write()
    with np.load(path) as file:
        assert file["logits"].tolist() == [[1], [4], [8]]
        assert file["labels"].tolist() == [2, 3, 1]


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """Rows of 1 MiB, 64 of them."""
    rows = np.arange(1 << 18, dtype=np.float32).reshape(1, -1)
    tracemalloc.start()
    with NpzOutput(tmp_path / "out.npz", {"y": "y"}, _dataset(64, labels=False)) as output:
        for i in range(64):
            output.add(np.array([i]), {"y": rows + i})
        output.write()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8 << 20
    with np.load(tmp_path / "out.npz") as file:
        assert np.array_equal(file["y"], rows + np.arange(64)[:, None])


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    with NpzOutput(tmp_path / "out.npz", {"boxes": "boxes"}, _dataset(9)) as output:
        output.add(np.arange(2), {"boxes": np.zeros((2, 7, 4))})
        with pytest.raises(
            ModelError, match=r"boxes has shape \[7, 4\] .* and \[9, 4\] for others"
        ):
            output.add(np.arange(2), {"boxes": np.zeros((2, 9, 4))})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("when", ["add", "write"])
def test_nothing_is_left_behind_after_an_interrupt(
    tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.npz"
    path.write_bytes(b"older")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def run() -> None:
        with NpzOutput(path, {"y": "y"}, _dataset(2, labels=False)) as output:
            output.add(np.arange(1), {"y": np.zeros((1, 9))})
            if when == "add":
                interrupt()
            monkeypatch.setattr("shutil.copyfileobj", interrupt)
            output.write()

    with pytest.raises(KeyboardInterrupt):
        run()
    assert os.listdir(tmp_path) == ["out.npz"]
    assert path.read_bytes() == b"older"


def test_nothing_is_left_behind_by_a_process_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, numpy as np\n"
        "from tests.test_evaluation_npz_output import NpzOutput, _dataset\n"
        "output = NpzOutput(pathlib.Path(sys.argv[1]), {'y': 'y'}, _dataset(9))\n"
        "output.add(np.arange(4), {'y': np.zeros((4, 1 << 16))})\n"
        "print('added', flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "out.npz")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"added\n"
        process.send_signal(signal.SIGKILL)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("limit", [100_000, 700_000])
@pytest.mark.parametrize("rows", [50, 5000])
def test_a_full_disk(tmp_path: Path, limit: int, rows: int) -> None:
    """Two arrays of 500 kB: one does not fit, or both not into one file.

    Rows of 100 bytes wait in a buffer, which is written when it is full or the file is closed.
    """
    path = tmp_path / "out.npz"
    path.write_bytes(b"older")

    def run() -> None:
        with NpzOutput(path, {"y": "y", "z": "z"}, _dataset(rows, labels=False)) as output:
            row = np.zeros((1, 500_000 // rows), np.uint8)
            for i in range(rows):
                output.add(np.array([i]), {"y": row, "z": row})
            output.write()

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(AdderError, match=r"cannot write .*out\.npz: File too large"):
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["out.npz"]
    assert path.read_bytes() == b"older"


@pytest.mark.parametrize("named", [True, False])
def test_into_a_pipe(tmp_path: Path, named: bool) -> None:
    """One without a name, such as /dev/stdout may be, lies in a folder where no file can be."""
    path, copy = tmp_path / "out.npz", tmp_path / "copy.npz"
    source, target = os.pipe()
    if named:
        os.mkfifo(path)
    else:
        path.symlink_to(f"/dev/fd/{target}")

    def read() -> None:
        with path.open("rb") if named else os.fdopen(source, "rb", closefd=False) as file:
            copy.write_bytes(file.read())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with NpzOutput(path, {"y": "y"}, _dataset(5)) as output:
        output.add(np.arange(5), {"y": np.arange(5)})
        output.write()
    os.close(target)
    reader.join()
    os.close(source)
    with np.load(copy) as file:
        assert file["y"].tolist() == [0, 1, 2, 3, 4]


def test_values_that_are_not_finite_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arrays = {
        "maps": np.zeros((6, 2, 2), np.float16),
        "list": np.zeros(6),
        "fine": np.ones((6, 2), np.float32),
        "whole": np.zeros((6, 2), np.int8),
    }
    arrays["maps"][1] = np.inf
    arrays["maps"][4, 0, 1] = np.nan
    arrays["list"][5] = np.nan
    found = _write(tmp_path / "out.npz", arrays, 4, _dataset(6))
    assert np.array_equal(found["maps"], arrays["maps"], equal_nan=True)
    assert [record.getMessage() for record in caplog.records] == [
        f"the model's output {name} holds values that are not finite for {count} of 6 images"
        for name, count in (("maps", 2), ("list", 1))
    ]


def _names(
    outputs: Mapping[str, Sequence[int | str]],
    classified: Classified | None = None,
    *,
    x: Sequence[int | str] = ("n", 4),
    labels: bool = True,
) -> dict[str, str]:
    """The names of arrays for a model with these outputs, which it need not be able to compute."""
    nodes = [node("Relu", ["x"], f"{i}") for i, _ in enumerate(outputs)]
    nodes += [node("Dropout", [f"{i}"], name) for i, name in enumerate(outputs)]
    model = make_model(nodes, {"x": x}, dict.fromkeys(outputs, x))
    session = InferenceSession(model.SerializeToString())
    for output in session.get_outputs():
        output.shape[:] = outputs[output.name]
    return array_names(session, classified, labels=labels)


_N4 = ("n", 4)


def test_names_of_arrays() -> None:
    outputs = {"probs": _N4, "feature.map": ("n", 4, 2), "counts": ("n",), "one": (1, 4)}
    scores = Classified("probs", 4, "probabilities")
    assert _names(outputs, scores) == _same_names(outputs) | {"probs": "logits"}
    assert _names(outputs) == _same_names(outputs)
    assert _names(outputs, Classified("counts", 4, "class numbers")) == _same_names(outputs)
    assert _names({"logits": _N4}, Classified("logits", 4)) == {"logits": "logits"}
    assert _names({"labels": _N4}, labels=False) == {"labels": "labels"}
    assert _names({"labels": _N4}, Classified("labels", 4)) == {"labels": "logits"}
    assert _names({"y": (8, 4), "z": (1, 4)}, x=(8, 4)) == {"y": "y", "z": "z"}


_REFUSALS: dict[str, tuple[Mapping[str, Sequence[int | str]], Classified | None, str]] = {
    "two called labels": (
        {"labels": _N4},
        None,
        "the model's output labels and the labels of the data would have one name",
    ),
    "two called logits": (
        {"logits": ("n", 4, 2, 2), "y": _N4},
        Classified("y", 4),
        "the model's output logits and its scores, y, would have one name",
    ),
    "a constant": (
        {"y": _N4, "anchors": (8400, 4)},
        Classified("y", 4),
        "the model's output anchors has shape [8400, 4] for inputs of shape ['n', 4]",
    ),
    "a name with a zero": ({"a\0b": _N4}, None, "has a name that an .npz file cannot hold"),
    "a name of 100 kB": ({"a" * 100_000: _N4}, None, "has a name that an .npz file cannot hold"),
}


@pytest.mark.parametrize("name", _REFUSALS)
def test_outputs_that_the_file_cannot_hold(name: str) -> None:
    outputs, classified, message = _REFUSALS[name]
    with pytest.raises(ModelError) as caught:
        _names(outputs, classified)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


def test_types_that_the_file_cannot_hold() -> None:
    text = helper.make_tensor_value_info("y", TensorProto.STRING, ["n", 4])
    several = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ["n", 4])
    for last, output in (
        (node("Cast", ["r"], "y", to=TensorProto.STRING), text),
        (node("SequenceConstruct", ["r"], "y"), several),
    ):
        model: onnx.ModelProto = make_model([node("Relu", ["x"], "r"), last], {"x": _N4}, {})
        model.graph.output.append(output)
        session = InferenceSession(model.SerializeToString())
        with pytest.raises(ModelError, match=r"output y is \w+\(.*\), which an .npz file cannot"):
            array_names(session, None, labels=False)
