from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from adder_onnx.errors import DataError
from adder_onnx.evaluation import open_dataset
from adder_onnx.metadata import CIFAR10_LABELS


def _records(count: int = 20, seed: int = 0) -> NDArray[np.uint8]:
    """Records of a binary batch: a label, then planes of red, green and blue, row by row."""
    records = np.random.default_rng(seed).integers(0, 256, (count, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(count) * 7 % 10
    return records


def _batch(records: NDArray[np.uint8]) -> dict[str, Any]:
    return {
        "batch_label": "testing batch 1 of 1",
        "labels": records[:, 0].tolist(),
        "data": np.ascontiguousarray(records[:, 1:]),
        "filenames": [f"image_{i}.png" for i in range(len(records))],
    }


def _python2_pickle(records: NDArray[np.uint8]) -> bytes:
    """A batch as Python 2 and the NumPy of its time pickle it, opcode by opcode (protocol 2)."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    pixels = records[:, 1:].tobytes()
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + integer(0) + integer(1) + b"\x87R"
    dtype += b"(" + integer(3) + text(b"|") + b"NNN" + integer(-1) * 2 + integer(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n"
    array += integer(0) + b"\x85" + text(b"b") + b"\x87R"
    array += b"(" + integer(1) + integer(len(records)) + integer(3072) + b"\x86"
    array += dtype + b"\x89" + text(pixels) + b"tb"
    labels = b"](" + b"".join(integer(int(label)) for label in records[:, 0]) + b"e"
    names = b"](" + b"".join(text(b"%d.png" % i) for i in range(len(records))) + b"e"
    items = text(b"data") + array + text(b"labels") + labels
    items += text(b"batch_label") + text(b"testing batch 1 of 1") + text(b"filenames") + names
    return b"\x80\x02}(" + items + b"u."


def _binary(records: NDArray[np.uint8]) -> bytes:
    return records.tobytes()


def _python3(protocol: int) -> Callable[[NDArray[np.uint8]], bytes]:
    return lambda records: pickle.dumps(_batch(records), protocol=protocol)


_WRITERS = [
    pytest.param(".bin", _binary, id="binary"),
    pytest.param("", _python2_pickle, id="python2"),
    *(pytest.param("", _python3(p), id=f"python3-protocol{p}") for p in range(6)),
]


def _pixel(records: NDArray[np.uint8], image: int, row: int, column: int) -> tuple[int, ...]:
    return tuple(int(records[image, 1 + 1024 * c + 32 * row + column]) for c in range(3))


@pytest.mark.parametrize(("suffix", "write"), _WRITERS)
def test_pixels_labels_and_order(
    tmp_path: Path, suffix: str, write: Callable[[NDArray[np.uint8]], bytes]
) -> None:
    records = _records()
    (tmp_path / f"test_batch{suffix}").write_bytes(write(records))
    dataset = open_dataset(tmp_path)
    assert dataset.images == 20
    assert dataset.split == "test"
    assert dataset.classes == CIFAR10_LABELS
    assert ("binary" if suffix else "Python") in dataset.description
    assert dataset.labels is not None
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == [i * 7 % 10 for i in range(20)]
    for image in (0, 1, 19):
        loaded = dataset.load(image)
        assert loaded.mode == "RGB"
        assert loaded.size == (32, 32)
        for row, column in ((0, 0), (0, 31), (31, 0), (13, 5)):
            assert loaded.getpixel((column, row)) == _pixel(records, image, row, column)


def _write_splits(folder: Path, suffix: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write = _binary if suffix else _python3(4)
    for number in range(1, 6):
        (folder / f"data_batch_{number}{suffix}").write_bytes(write(_records(4, seed=number)))
    (folder / f"test_batch{suffix}").write_bytes(write(_records(3, seed=9)))


@pytest.mark.parametrize("suffix", [".bin", ""])
@pytest.mark.parametrize("inside", [True, False])
def test_splits_and_the_folder_above(tmp_path: Path, suffix: str, inside: bool) -> None:
    name = "cifar-10-batches-bin" if suffix else "cifar-10-batches-py"
    _write_splits(tmp_path / name, suffix)
    path = tmp_path if inside else tmp_path / name
    train = open_dataset(path, split="train")
    assert (train.split, train.images) == ("train", 20)
    for i, (batch, image) in enumerate((b, k) for b in range(1, 6) for k in range(4)):
        assert train.load(i).getpixel((2, 1)) == _pixel(_records(4, seed=batch), image, 1, 2)
    for split in ("auto", "test"):
        test = open_dataset(path, "cifar10", split)
        assert (test.split, test.images) == ("test", 3)
        assert test.load(2).getpixel((2, 1)) == _pixel(_records(3, seed=9), 2, 1, 2)


def test_auto_takes_training_data_where_nothing_else_is_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _write_splits(tmp_path, ".bin")
    assert open_dataset(tmp_path).split == "test"
    assert open_dataset(tmp_path, split="train").split == "train"
    assert caplog.text == ""
    (tmp_path / "test_batch.bin").unlink()
    assert open_dataset(tmp_path).split == "train"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{tmp_path} has neither test nor validation data" in caplog.text
    for split in ("test", "val"):
        with pytest.raises(DataError, match=f"has no {split} data, only train"):
            open_dataset(tmp_path, split=split)


@pytest.mark.parametrize("suffix", [".bin", ""])
def test_a_missing_training_batch_is_named(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    _write_splits(tmp_path, suffix)
    (tmp_path / f"data_batch_4{suffix}").unlink()
    with pytest.raises(DataError, match=f"{tmp_path} is incomplete.*data_batch_4{suffix} is miss"):
        open_dataset(tmp_path, split="train")
    assert open_dataset(tmp_path).split == "test"
    (tmp_path / f"test_batch{suffix}").unlink()
    with pytest.raises(DataError, match="data_batch_4"):
        open_dataset(tmp_path)
    assert caplog.text == ""


def test_a_single_binary_batch(tmp_path: Path) -> None:
    (tmp_path / "data_batch_3.bin").write_bytes(_binary(_records(4, seed=3)))
    (tmp_path / "test_batch.bin").write_bytes(_binary(_records(5, seed=4)))
    train = open_dataset(tmp_path / "data_batch_3.bin")
    assert (train.split, train.images) == ("train", 4)
    test = open_dataset(tmp_path / "test_batch.bin")
    assert (test.split, test.images) == ("test", 5)
    assert test.load(4).getpixel((7, 3)) == _pixel(_records(5, seed=4), 4, 3, 7)
    with pytest.raises(DataError, match="no train data"):
        open_dataset(tmp_path / "test_batch.bin", split="train")


def test_an_image_is_named_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "test_batch.bin").write_bytes(_binary(_records(4)))
    assert open_dataset(tmp_path).name_of(3) == f"image 3 of {tmp_path}"


def _with_label(label: int) -> NDArray[np.uint8]:
    records = _records()
    records[13, 0] = label
    return records


@pytest.mark.parametrize(
    ("suffix", "data", "message"),
    [
        (".bin", _binary(_records())[:-1], "truncated"),
        (".bin", _binary(_records()) + b"\0", "truncated"),
        (".bin", b"", "truncated"),
        (".bin", _binary(_with_label(10)), "labels outside"),
        ("", _python2_pickle(_records())[:-1], "truncated"),
        ("", _python3(4)(_records())[:5000], "truncated"),
        ("", b"", "truncated"),
        ("", b"this is no pickle\n", "not a Python batch"),
        ("", _python3(4)(_with_label(10)), "labels outside"),
        ("", pickle.dumps(_batch(_records()) | {"labels": [-1] * 20}), "labels outside"),
        ("", pickle.dumps(_batch(_records()) | {"labels": [1] * 19}), "not a Python batch"),
        ("", pickle.dumps(_batch(_records()) | {"labels": None}), "not a Python batch"),
        ("", pickle.dumps(_batch(_records()) | {"data": np.zeros((20, 3072))}), "not a Python"),
        ("", pickle.dumps(_batch(_records()) | {"data": np.zeros((20, 9), "u1")}), "not a Python"),
        ("", pickle.dumps(_batch(_records()) | {"data": b"x" * 3072}), "not a Python batch"),
        ("", pickle.dumps({"labels": [0]}), "not a Python batch"),
        ("", pickle.dumps([1, 2, 3]), "not a Python batch"),
    ],
)
def test_wrong_batches_are_named(tmp_path: Path, suffix: str, data: bytes, message: str) -> None:
    path = tmp_path / f"test_batch{suffix}"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(tmp_path)
    assert str(path) in str(caught.value)


class _Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", [os.system, eval, exec, Path.touch, np.save])
@pytest.mark.parametrize("where", ["batch", "labels", "data"])
def test_a_hostile_pickle_runs_nothing(
    tmp_path: Path, protocol: int, function: Callable[..., object], where: str
) -> None:
    marker = tmp_path / "marker.npy"
    arguments: dict[Callable[..., object], tuple[object, ...]] = {
        os.system: (f"touch {marker}",),
        eval: (f"open({str(marker)!r}, 'w').close()",),
        exec: (f"open({str(marker)!r}, 'w').close()",),
        Path.touch: (marker,),
        np.save: (str(marker), 0),
    }
    call = _Call(function, *arguments[function])
    data = pickle.dumps(call if where == "batch" else _batch(_records()) | {where: call}, protocol)
    pickle.loads(data)
    assert marker.exists()
    marker.unlink()

    (tmp_path / "test_batch").write_bytes(data)
    with pytest.raises(DataError, match="not a Python batch"):
        open_dataset(tmp_path)
    assert not marker.exists()


def test_a_folder_without_batches(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(DataError, match="holds no CIFAR-10 batches"):
        open_dataset(tmp_path, "cifar10")
    with pytest.raises(DataError, match="holds no CIFAR-10 batches"):
        open_dataset(tmp_path / "readme.txt", "cifar10")
