from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adder_onnx.errors import DataError, ModelError
from adder_onnx.evaluation import load_inputs, open_dataset
from adder_onnx.metadata import Preprocessing
from adder_onnx.runtime import NodeArg
from tests.datasets import Touch

_COLOUR = Preprocessing(3, 4, 4, (0.5, 0.25, 0.125), (0.25, 0.5, 2.0))
_GREY = Preprocessing(1, 4, 4, (0.5,), (0.25,))
_Save = Callable[..., None]


def _inputs(*names: str, shape: Sequence[int | str | None] = ("N", 3, 4, 4)) -> list[NodeArg]:
    return [NodeArg(name, "tensor(float)", list(shape)) for name in names]


def _floats(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def _bytes(*shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", ["input", "anything"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_taken_as_they_are(
    tmp_path: Path, save: _Save, order: Any, name: str, dtype: Any
) -> None:
    values = _floats(5, 3, 4, 4).astype(dtype, order=order)
    save(tmp_path / "set.npz", **{name: values}, labels=np.array([4, 0, 2, 2, 1], np.uint8))
    dataset = open_dataset(tmp_path / "set.npz", inputs=_inputs("input"))
    assert (dataset.images, dataset.split, dataset.classes) == (5, None, None)
    assert dataset.labels is not None
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == [4, 0, 2, 2, 1]
    for i in (4, 0, 2):
        (found,) = load_inputs(dataset, i, None)
        assert found.dtype == dtype
        assert np.array_equal(found, values[i])
    assert dataset.name_of(3) == f"row 3 of {tmp_path / 'set.npz'}"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("how", [_COLOUR, _GREY])
def test_bytes_are_preprocessed_as_an_image_is(
    tmp_path: Path, save: _Save, how: Preprocessing
) -> None:
    values = _bytes(3, how.channels, 4, 4)
    save(tmp_path / "set.npz", x=values)
    dataset = open_dataset(tmp_path / "set.npz", inputs=_inputs("input"))
    assert dataset.labels is None
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (how.mean, how.std))
    for i in range(3):
        (found,) = load_inputs(dataset, i, how)
        assert found.dtype == np.float32
        expected = (values[i].astype(np.float32) / np.float32(255) - mean) / std
        assert np.array_equal(found, expected)
    with pytest.raises(ModelError, match="does not say how images are preprocessed"):
        load_inputs(dataset, 0, None)


def test_bytes_of_another_size_are_resized_and_cropped(tmp_path: Path) -> None:
    how = Preprocessing(3, 4, 4, (0.0,) * 3, (1.0,) * 3, resize=5, crop=True)
    values = _bytes(1, 3, 10, 14)
    np.savez(tmp_path / "set.npz", values)
    image = Image.fromarray(np.moveaxis(values[0], 0, 2)).resize((7, 5), Image.Resampling.BILINEAR)
    expected = np.asarray(image.crop((2, 0, 6, 4)), np.float32) / np.float32(255)
    (found,) = load_inputs(open_dataset(tmp_path / "set.npz"), 0, how)
    assert np.array_equal(found, np.moveaxis(expected, 2, 0))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_several_inputs_in_the_order_of_the_model(
    tmp_path: Path, save: _Save, caplog: pytest.LogCaptureFixture
) -> None:
    arrays = {
        "ids": np.arange(8).reshape(4, 2),
        "flags": np.array([True, False, False, True]),
        "picture": _bytes(4, 1, 4, 4),
    }
    save(tmp_path / "set.npz", **arrays, labels=[0, 1, 2, 3])
    dataset = open_dataset(tmp_path / "set.npz", inputs=_inputs("picture", "flags", "ids"))
    picture, flag, ids = load_inputs(dataset, 2, _GREY)
    assert picture.shape == (1, 4, 4)
    assert (flag.shape, flag.dtype, bool(flag)) == ((), np.bool_, False)
    assert ids.tolist() == [4, 5]
    assert caplog.text == ""
    assert open_dataset(tmp_path / "set.npz", inputs=_inputs("ids", "flags")).images == 4
    assert "also holds picture" in caplog.text


def test_an_input_that_is_called_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", labels=_floats(2, 3, 4, 4))
    dataset = open_dataset(tmp_path / "set.npz", inputs=_inputs("labels"))
    assert dataset.labels is None
    assert load_inputs(dataset, 1, None)[0].shape == (3, 4, 4)


def test_arrays_that_are_not_compressed_stay_in_the_file(tmp_path: Path) -> None:
    import tracemalloc

    np.savez(tmp_path / "set.npz", x=np.zeros((4000, 3, 32, 32), np.float32))
    tracemalloc.start()
    dataset = open_dataset(tmp_path / "set.npz")
    load_inputs(dataset, 3999, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20 < 4000 * 3 * 32 * 32 * 4


_X = _floats(3, 3, 4, 4)


def _npz(**arrays: Any) -> bytes:
    data = io.BytesIO()
    np.savez(data, **arrays)
    return data.getvalue()


def _zip(name: str, content: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(name, content)
    return data.getvalue()


def _npy(header: str, data: bytes = bytes(16), version: bytes = b"\x01\x00") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


def _header(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


def _damaged(place: int) -> bytes:
    """One bit is wrong; a place far from the header is read only for the checksum."""
    data = bytearray(_npz(x=_floats(30, 3, 32, 32)))
    data[place] ^= 1
    return bytes(data)


def _encrypted() -> bytes:
    data = bytearray(_npz(x=_X))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


_WRONG: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is not an .npz file"),
    "text": (b"this is no zip file", "is not an .npz file"),
    "truncated": (_npz(x=_X)[:-30], "is not an .npz file"),
    "cut in half": (_npz(x=_X)[:300], "is not an .npz file"),
    "damaged": (_damaged(300), "is damaged"),
    "damaged far inside": (_damaged(300_000), "is damaged"),
    "encrypted": (_encrypted(), "is damaged"),
    "a pickle": (pickle.dumps({"x": [1]}), "is not an .npz file"),
    "no arrays": (_npz(), "holds no arrays"),
    "only labels": (_npz(labels=[1, 2]), "holds no arrays"),
    "a zip of text": (_zip("readme.txt", b"hello"), "holds no arrays"),
    "text called an array": (_zip("x.npy", b"hello, this is text"), "x.npy is not an array"),
    "an array of a later version": (
        _zip("x.npy", _npy(_header("(4,)"), version=b"\x09\x00")),
        "x.npy is not an array",
    ),
    "a header that is code": (_zip("x.npy", _npy("__import__('os')")), "x.npy is not an array"),
    "more than there is": (_zip("x.npy", _npy(_header("(5,)"))), "16 bytes where .* says 20"),
    "less than there is": (_zip("x.npy", _npy(_header("(3,)"))), "16 bytes where .* says 12"),
    "negative sizes": (_zip("x.npy", _npy(_header("(-2, -2)"))), "16 bytes where"),
    "enormous": (_zip("x.npy", _npy(_header(f"({1 << 60}, 9)"))), "16 bytes where"),
    "objects": (_npz(x=np.array([_X, None], object)), "x holds Python objects"),
    "labels of objects": (_npz(x=_X, labels=np.array([1, None, 2])), "labels holds Python objects"),
    "two arrays": (_npz(a=_X, b=_X), r"holds a, b; expected .* \(input\), or a single one"),
    "a number": (_npz(x=np.float32(3)), r"x is float32 \[\]; expected images"),
    "a row": (_npz(x=_X[0]), r"x is float32 \[3, 4, 4\]; expected images"),
    "integers": (_npz(x=_X.astype(int)), r"x is int64 \[3, 3, 4, 4\]; expected images"),
    "text in an array": (_npz(x=np.full((3, 3, 4, 4), "a")), "expected images"),
    "complex": (_npz(x=_X.astype(complex)), "expected images"),
    "records": (_npz(x=np.zeros((1, 3, 4, 4), "f4,f4")), "expected images"),
    "four channels": (_npz(x=_bytes(2, 4, 4, 4)), r"x is uint8 \[2, 4, 4, 4\]; .* 1 or 3 channels"),
    "no pixels": (_npz(x=_bytes(2, 3, 0, 4)), "1 or 3 channels"),
    "no images": (_npz(x=_X[:0]), "has no images"),
    "fewer labels": (_npz(x=_X, labels=[1, 2]), "x has 3, labels has 2"),
    "more labels": (_npz(x=_X, labels=[1, 2, 3, 4]), "x has 3, labels has 4"),
    "labels of float": (_npz(x=_X, labels=[1.0, 2.0, 3.0]), r"labels is float64 \[3\]"),
    "labels in columns": (_npz(x=_X, labels=[[1, 0], [1, 1], [0, 1]]), r"labels is int64 \[3, 2\]"),
    "labels without a one": (
        _npz(x=_X, labels=[[1, 0], [0, 0], [0, 1]]),
        r"rows of one 1 and zeros",
    ),
    "labels of probabilities": (_npz(x=_X, labels=[[1, 0], [0.5, 0.5], [0, 1]]), "rows of one 1"),
    "labels of twos": (_npz(x=_X, labels=[[2, 0], [0, 1], [0, 1]]), "rows of one 1"),
    "labels of more than ones": (_npz(x=_X, labels=[[1, 2], [0, 1], [0, 1]]), "rows of one 1"),
    "no labels": (_npz(x=_X, labels=np.zeros((0, 0))), r"labels is float64 \[0, 0\]"),
    "one label": (_npz(x=_X, labels=2), r"labels is int64 \[\]"),
    "names that are not UTF-8": (
        _npz(x=_X, labels=np.array([b"a", b"\xe9", b"c"])),
        "not in UTF-8",
    ),
    "fewer names of classes": (
        _npz(x=_X, labels=[0, 2, 1], class_names=["a", "b"]),
        "the value 2, but there are 2 names",
    ),
    "labels of two names": (_npz(x=_X, y=[1, 2, 3], target=[1, 2, 3]), "y and target; which are"),
    "images of two names": (_npz(x=_X, images=_X), r"holds x, images; expected .* a single one"),
    "a split twice": (_npz(x_test=_X, test_images=_X), "holds x_test, test_images; expected"),
    "label -1": (_npz(x=_X, labels=[0, -1, 3]), "values -1 … 3"),
    "label 2**63": (_npz(x=_X, labels=np.array([0, 1 << 63, 3], "u8")), "numbers of classes"),
}


@pytest.mark.parametrize("case", _WRONG)
def test_wrong_files_are_named(tmp_path: Path, case: str) -> None:
    data, message = _WRONG[case]
    path = tmp_path / "set.npz"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(path, inputs=_inputs("input"))
    assert str(path) in str(caught.value)


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", a=_X)
    with pytest.raises(DataError, match=r"holds a; expected one array for each input .*\(a, b\)$"):
        open_dataset(tmp_path / "set.npz", inputs=_inputs("a", "b"))
    np.savez(tmp_path / "set.npz", a=_X, b=_X[:2])
    with pytest.raises(DataError, match="a has 3, b has 2"):
        open_dataset(tmp_path / "set.npz", inputs=_inputs("a", "b"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named_by_row(tmp_path: Path, value: float) -> None:
    values = _X.copy()
    values[1, 2, 3, 0] = value
    np.savez(tmp_path / "set.npz", values)
    dataset = open_dataset(tmp_path / "set.npz")
    assert len(load_inputs(dataset, 0, None)) == 1
    with pytest.raises(DataError, match=r"^row 1 of .*set\.npz: arr_0 holds .* not finite$"):
        load_inputs(dataset, 1, None)


@pytest.mark.parametrize("name", ["x", "labels"])
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    arrays: dict[str, Any] = {"x": _X, "labels": np.arange(3)}
    arrays[name] = np.array([Touch(marker)] * 3, object)
    np.savez(tmp_path / "set.npz", **arrays)
    np.load(tmp_path / "set.npz", allow_pickle=True)[name]
    assert marker.exists()
    marker.unlink()
    with pytest.raises(DataError, match=f"{name} holds Python objects"):
        open_dataset(tmp_path / "set.npz")
    assert not marker.exists()


def test_an_npz_file_has_no_splits(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", _X)
    with pytest.raises(DataError, match="leave out --split val"):
        open_dataset(tmp_path / "set.npz", split="val")


def test_the_format_may_be_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", _X)
    (tmp_path / "set.npz").rename(tmp_path / "set.data")
    assert open_dataset(tmp_path / "set.data", "npz").images == 3
    with pytest.raises(DataError, match="cannot tell the format"):
        open_dataset(tmp_path / "set.data")
