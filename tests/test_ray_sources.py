"""Parquet and tar files as sources of images for ``adder-run --engine ray``: what is read of them.

Images here are of one pixel, whose value says which one it is.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from adder_onnx.errors import DataError

pytest.importorskip("ray", reason="needs adder-onnx[ray]")
pytest.importorskip("pyarrow", reason="needs adder-onnx[ray]")

import pyarrow as pa
import pyarrow.parquet as pq

from adder_onnx.ray.evaluation.data import Asked, Data, open_data
from adder_onnx.ray.evaluation.evaluation import choose_images

HOSTILE = "a 'b\" ü\n%41#?&</script>\\"
"""A name that means something else wherever it is not quoted."""

NOT_UNICODE = os.fsdecode(b"\xff")


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (1, 1), value).save(file, "PNG")
    return file.getvalue()


def asked(where: object, format: str = "auto", split: str = "auto", **columns: str) -> Asked:
    named: dict[str, str | None] = {"image": None, "label": None, "name": None}
    return Asked(str(where), format, split, None, named | columns)


def read(data: Data, most: int = 100, chosen: Any = None) -> list[tuple[str, Any, Any]]:
    """Name, label and value of each image, None for what is none; as many as the pieces say."""
    found = []
    for piece in data.pieces(most, chosen):
        samples = list(piece.samples())
        assert piece.images in (None, len(samples))
        for sample in samples:
            try:
                value = sample.open().getpixel((0, 0))
            except DataError:
                value = None
            found.append((sample.name, sample.label, value))
    return found


def labels_and_values(data: Data) -> list[tuple[Any, Any]]:
    return [(label, value) for _, label, value in read(data)]


def refused(call: Callable[[], Any]) -> str:
    """The one line that says why."""
    with pytest.raises(DataError) as error:
        call()
    message = str(error.value)
    assert message
    return message


# Parquet


def column(kind: str, values: Sequence[int]) -> Any:
    files = [png(value) for value in values]
    if kind == "struct":
        rows = [{"bytes": file, "path": f"{i}.png"} for i, file in enumerate(files)]
        return pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    return pa.array(files, {"binary": pa.binary(), "large": pa.large_binary()}[kind])


def class_names(names: Sequence[str], of: str = "label") -> dict[bytes, bytes]:
    """Schema metadata as Hugging Face writes them."""
    feature = {"names": list(names), "_type": "ClassLabel"}
    return {b"huggingface": json.dumps({"info": {"features": {of: feature}}}).encode()}


def write(
    path: Path, columns: Mapping[str, Any], names: Sequence[str] = (), **options: Any
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if names:
        table = table.replace_schema_metadata(class_names(names))
    pq.write_table(table, path, **options)
    return path


@pytest.mark.parametrize("kind", ["struct", "binary", "large"])
def test_forms_of_parquet(tmp_path: Path, kind: str) -> None:
    path = write(
        tmp_path / "x.parquet", {"n": [1, 2], "img": column(kind, [7, 9]), "label": [4, 0]}
    )
    data = open_data(asked(path))
    assert data.images == data.count() == 2
    assert data.dataset.description == "Parquet, 1 files, images in img"
    assert read(data) == [(f"{path}:0", 4, 7), (f"{path}:1", 0, 9)]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (pa.array([3, None], pa.uint8()), [3, None]),
        (pa.array([3, -1]), [3, None]),  # Hugging Face's for a class that is not known
        (pa.array(["b", "a"]), ["b", "a"]),
        (pa.array(["b", "a"], pa.large_string()), ["b", "a"]),
        (pa.array(["b", "a"]).dictionary_encode(), ["b", "a"]),
    ],
)
def test_labels_of_parquet(tmp_path: Path, labels: Any, found: list[Any]) -> None:
    for name in ("label", "labels", "fine_label", "class", "cls"):
        path = write(tmp_path / "x.parquet", {"image": column("binary", [1, 2]), name: labels})
        assert [label for label, _ in labels_and_values(open_data(asked(path)))] == found


def test_the_first_name_of_labels_is_taken_and_any_may_be_said(tmp_path: Path) -> None:
    columns = {"cls": [1], "image": column("binary", [1]), "label": [2], "kind": ["x"]}
    path = write(tmp_path / "x.parquet", columns)
    assert labels_and_values(open_data(asked(path))) == [(2, 1)]
    assert labels_and_values(open_data(asked(path, label="kind"))) == [("x", 1)]
    path = write(tmp_path / "x.parquet", {"image": column("binary", [1]), "kind": ["x"]})
    assert labels_and_values(open_data(asked(path))) == [(None, 1)]


def test_names_of_classes_are_those_of_the_metadata(tmp_path: Path) -> None:
    columns = {"image": column("struct", [1, 2, 3]), "label": [1, 0, -1]}
    path = write(tmp_path / "x.parquet", columns, [HOSTILE, "b"])
    data = open_data(asked(path))
    assert labels_and_values(data) == [("b", 1), (HOSTILE, 2), (None, 3)]
    described = data.describe([HOSTILE, "b"], 3)
    assert (described.classes, described.images) == ((HOSTILE, "b"), 3)
    for metadata in (b"no JSON", b"[1]", b'{"info": 3}', b'{"info": {"features": {"label": 1}}}'):
        table = pa.table(columns).replace_schema_metadata({b"huggingface": metadata})
        pq.write_table(table, path)
        assert [label for label, _ in labels_and_values(open_data(asked(path)))] == [1, 0, None]


@pytest.mark.parametrize(
    ("label", "names", "message"),
    [
        (2, ["a", "b"], "x.parquet:1: the label 2 is none of the 2 classes that the file's"),
        (-2, ["a", "b"], "x.parquet:1: the label -2 is not the number of a class"),
        (-2, [], "x.parquet:1: the label -2 is not the number of a class"),
        (1 << 40, [], "x.parquet:1: the label 1099511627776 is not the number of a class"),
    ],
)
def test_labels_out_of_range(tmp_path: Path, label: int, names: list[str], message: str) -> None:
    columns = {"image": column("binary", [1, 2]), "label": [0, label]}
    data = open_data(asked(write(tmp_path / "x.parquet", columns, names)))
    assert message in refused(lambda: read(data))


def test_names_of_images(tmp_path: Path) -> None:
    columns = {"image": column("binary", [1, 2]), "file": [HOSTILE, None], "id": [5, 6]}
    path = write(tmp_path / "x.parquet", columns)
    assert [name for name, *_ in read(open_data(asked(path, name="file")))] == [
        HOSTILE,
        f"{path}:1",
    ]
    assert [name for name, *_ in read(open_data(asked(path, name="id")))] == ["5", "6"]


def test_several_columns_of_images(tmp_path: Path) -> None:
    columns = {"mask": column("binary", [1]), "image": column("struct", [2]), "label": [0]}
    path = write(tmp_path / "x.parquet", columns)
    message = refused(lambda: open_data(asked(path)))
    assert "several columns that may hold images (mask, image): --image-column" in message
    assert labels_and_values(open_data(asked(path, image="mask"))) == [(0, 1)]
    assert labels_and_values(open_data(asked(path, image="image"))) == [(0, 2)]
    assert labels_and_values(open_data(asked(path, name="mask"))) == [(0, 2)]


@pytest.mark.parametrize(
    ("columns", "named", "message"),
    [
        ({"a": [1]}, {}, "no column that may hold images (a): --image-column NAME"),
        ({"a": [1]}, {"image": "b"}, "has no column b for --image-column; it has a"),
        ({"a": [b"x"]}, {"label": "b"}, "has no column b for --label-column; it has a"),
        ({"a": [b"x"]}, {"name": "b"}, "has no column b for --name-column; it has a"),
        ({"a": [1]}, {"image": "a"}, "is int64, which holds no images: expected binary"),
        ({"a": [b"x"], "label": [1.5]}, {}, "label of {path} is double, which are no classes"),
        ({"a": [b"x"], "label": [[1]]}, {}, "which are no classes: expected integers or text"),
        ({"a": [b"x"], "label": [True]}, {}, "is bool, which are no classes"),
    ],
)
def test_columns_that_do_not_fit(
    tmp_path: Path, columns: dict[str, Any], named: dict[str, str], message: str
) -> None:
    path = write(tmp_path / "x.parquet", columns)
    assert message.format(path=path) in refused(lambda: open_data(asked(path, **named)))


def test_columns_of_the_same_name(tmp_path: Path) -> None:
    path, values = tmp_path / "x.parquet", [pa.array([b"x"]), pa.array([b"y"]), pa.array([1])]
    pq.write_table(pa.table(values, names=["a", "a", "label"]), path)
    assert "several columns that may hold images" in refused(lambda: open_data(asked(path)))
    message = refused(lambda: open_data(asked(path, image="a")))
    assert f"{path} has several columns a for --image-column; it has a, a, label" in message
    pq.write_table(pa.table([values[0], values[2], values[2]], names=["a", "label", "label"]), path)
    assert open_data(asked(path)).pieces(1, None)[0].columns.label is None  # type: ignore[attr-defined]


def test_files_of_other_columns(tmp_path: Path) -> None:
    good = {"image": column("binary", [1]), "label": [0]}
    first = write(tmp_path / "0.parquet", good, ["a", "b"])
    second = tmp_path / "1.parquet"
    for columns, names, message in (
        ({"image": good["image"]}, (), f"{second} has no column label, which {first} has"),
        ({"image": [1], "label": [0]}, (), f"the column image of {second} is int64, which holds"),
        ({**good, "label": [0.5]}, (), f"the column label of {second} is double, which are no"),
        (good, ("b", "a"), f"{second} names other classes than {first}"),
    ):
        write(second, columns, names)
        assert message in refused(lambda: open_data(asked(tmp_path)))
    write(second, {"label": [1], "image": column("struct", [2])})
    assert labels_and_values(open_data(asked(tmp_path))) == [("a", 1), ("b", 2)]


def test_bad_values_are_found_when_they_are_decoded(tmp_path: Path) -> None:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [{"bytes": png(1), "path": None}, {"bytes": None, "path": "a.png"}, None]
    path = write(tmp_path / "x.parquet", {"image": pa.array(rows, kind), "label": [0, 1, 2]})
    assert labels_and_values(open_data(asked(path))) == [(0, 1), (1, None), (2, None)]
    (piece,) = open_data(asked(path)).pieces(9, None)
    for sample in list(piece.samples())[1:]:
        assert "no bytes of an image in this row" in refused(sample.open)
    path = write(tmp_path / "x.parquet", {"image": pa.array([b"", None, b"x"], pa.binary())})
    assert labels_and_values(open_data(asked(path))) == [(None, None)] * 3


def test_pieces_of_row_groups(tmp_path: Path) -> None:
    for file, rows in (("0", range(10)), ("1", range(10, 13)), ("2", range(13, 20))):
        columns = {"image": column("binary", list(rows)), "label": list(rows)}
        write(tmp_path / f"{file}.parquet", columns, row_group_size=3)
    data = open_data(asked(tmp_path))
    assert data.images == 20
    for most, sizes in (
        (1, [3, 3, 3, 1, 3, 3, 3, 1]),
        (3, [3, 3, 3, 1, 3, 3, 3, 1]),
        (6, [6, 4, 3, 6, 1]),
        (100, [10, 3, 7]),
    ):
        assert [piece.images for piece in data.pieces(most, None)] == sizes
        found = read(data, most)
        assert [(label, value) for _, label, value in found] == [(i, i) for i in range(20)]
        names = [name.rpartition("/")[2] for name, *_ in found]
        assert names == [
            f"{f}.parquet:{i}" for f, n in (("0", 10), ("1", 3), ("2", 7)) for i in range(n)
        ]


@pytest.mark.parametrize("most", [1, 4, 100])
def test_chosen_images_of_parquet(tmp_path: Path, most: int) -> None:
    for file, rows in (("0", range(10)), ("1", range(10, 13)), ("2", range(13, 20))):
        write(tmp_path / f"{file}.parquet", {"image": column("binary", rows)}, row_group_size=3)
    data = open_data(asked(tmp_path))
    everything = np.arange(20)
    for skip, limit, first in (
        (0, 20, False),
        (0, 7, False),
        (0, 7, True),
        (5, None, False),
        (12, 3, False),
        (19, 5, True),
    ):
        chosen = choose_images(data, skip, limit, first=first)
        left = everything[skip:]
        count = len(left) if limit is None else min(limit, len(left))
        wanted = left[:count] if first else left[[i * len(left) // count for i in range(count)]]
        assert [value for _, _, value in read(data, most, chosen)] == wanted.tolist()
        assert chosen is not None
        assert chosen.tolist() == wanted.tolist()
    assert choose_images(data, 0, None, first=False) is None
    assert "--skip 20 leaves none" in refused(lambda: choose_images(data, 20, None, first=False))


def test_parquet_that_is_none(tmp_path: Path) -> None:
    good = write(tmp_path / "good.parquet", {"image": column("binary", [1] * 200)}).read_bytes()
    path = tmp_path / "x.parquet"
    for content in (b"", b"PAR1", b"x" * 1000, good[:-50], good[: len(good) // 2], good[:-4]):
        path.write_bytes(content)
        assert f"cannot read {path}: " in refused(lambda: open_data(asked(path)))
    path.write_bytes(good[:4] + b"\xff" * 40 + good[44:])
    data = open_data(asked(path))
    assert f"cannot read {path}: " in refused(lambda: read(data))
    path.unlink()
    assert f"{path} does not exist" in refused(lambda: read(data))
    write(path, {"image": column("binary", [])})
    data = open_data(asked(path))
    assert (data.images, read(data)) == (0, [])


# Where they lie


def test_formats(tmp_path: Path) -> None:
    image = {"image": column("binary", [1])}
    write(tmp_path / "both" / "a.parquet", image)
    write_tar(tmp_path / "both" / "a.tar", {"1.png": png(2)})
    message = refused(lambda: open_data(asked(tmp_path / "both")))
    assert "parquet and webdataset files: --format says which" in message.replace(
        "webdataset and parquet", "parquet and webdataset"
    )
    for format, value in (("parquet", 1), ("webdataset", 2)):
        assert labels_and_values(open_data(asked(tmp_path / "both", format))) == [(None, value)]
    write(tmp_path / "mixed" / "a.parquet", image)
    (tmp_path / "mixed" / "cat").mkdir()
    (tmp_path / "mixed" / "cat" / "1.png").write_bytes(png(3))
    message = refused(lambda: open_data(asked(tmp_path / "mixed")))
    assert "holds images and parquet files: --format says which" in message
    found = read(open_data(asked(tmp_path / "mixed", "imagefolder")))
    assert found == [(f"{tmp_path}/mixed/cat/1.png", 0, 3)]
    assert open_data(asked(tmp_path / "mixed", "parquet")).images == 1
    for format in ("parquet", "webdataset"):
        message = refused(lambda f=format: open_data(asked(tmp_path / "mixed" / "cat", f)))
        assert f"holds no {format} files" in message
    message = refused(lambda: open_data(asked(tmp_path / "mixed" / "cat", image="x")))
    assert "columns are of Parquet files" in message
    assert f"{tmp_path}/no does not exist" in refused(lambda: open_data(asked(tmp_path / "no")))


def test_labels_csv_is_for_folders(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", {"image": column("binary", [1])})
    wrong = Asked(str(path), "auto", "auto", tmp_path / "l.csv", asked(path).columns)
    assert "--labels-csv says the labels of a folder of images" in refused(lambda: open_data(wrong))


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    image = {"image": column("binary", [1])}
    for name in ("a.PARQUET", ".b.parquet", "_c.parquet", ".d/e.parquet", "_f/g.parquet"):
        write(tmp_path / name, image)
    (tmp_path / ".h.png").write_bytes(b"")
    assert [name for name, *_ in read(open_data(asked(tmp_path)))] == [f"{tmp_path}/a.PARQUET:0"]


@pytest.mark.parametrize(
    ("files", "split", "found"),
    [
        (["train-0-of-2", "train-1-of-2", "test-0-of-1"], "auto", ("test", [2])),
        (["train-0-of-2", "train-1-of-2", "test-0-of-1"], "train", ("train", [0, 1])),
        (["data/train-0", "data/validation-0"], "auto", ("val", [1])),
        (["train/0", "val/0", "val/1"], "auto", ("val", [1, 2])),
        (["TRAIN/x/0", "testing/x/0"], "test", ("test", [1])),
        (["train", "val"], "auto", ("val", [1])),
        (["train-0", "other-0"], "auto", (None, [1, 0])),
        (["a", "b"], "auto", (None, [0, 1])),
    ],
)
def test_splits(
    tmp_path: Path, files: list[str], split: str, found: tuple[str | None, list[int]]
) -> None:
    for value, name in enumerate(files):
        write(tmp_path / f"{name}.parquet", {"image": column("binary", [value])})
    data = open_data(asked(tmp_path, split=split))
    assert (data.dataset.split, [value for _, _, value in read(data)]) == found


def test_training_data_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "train-0.parquet", {"image": column("binary", [1])})
    open_data(asked(tmp_path, split="train"))
    assert not caplog.messages
    open_data(asked(tmp_path))
    assert f"{tmp_path} has neither test nor validation data" in caplog.text


def test_splits_that_are_not_there(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", {"image": column("binary", [1])})
    message = refused(lambda: open_data(asked(tmp_path, split="val")))
    assert f"{tmp_path} has no val data, only train" in message
    write(tmp_path / "more.parquet", {"image": column("binary", [1])})
    message = refused(lambda: open_data(asked(tmp_path, split="val")))
    assert "has no splits: leave out --split val" in message


def test_hostile_names_of_files(tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE.replace("/", "")
    name = HOSTILE.replace("/", "")
    write(folder / f"{name}.parquet", {"image": column("binary", [1])})
    write_tar(folder / "tars" / f"{name}.tar", {f"{HOSTILE}.png": png(2)})
    (folder / "images" / name).mkdir(parents=True)
    (folder / "images" / name / f"{name}.png").write_bytes(png(3))
    for where in (str(folder), f"file://{quote(str(folder))}"):
        shown = where if where.startswith("/") else "file://" + quote(str(folder), "/!$&'()*+,;=:@")
        assert labels_and_values(open_data(asked(where, "parquet"))) == [(None, 1)]
        ((found, *rest),) = read(open_data(asked(where, "webdataset")))
        assert found.startswith(f"{shown}/tars/")
        assert found.endswith(f".tar/{HOSTILE}.png")
        assert rest == [None, 2]
        data = open_data(asked(f"{where}/images"))
        assert data.dataset.classes == (name,)
        assert labels_and_values(data) == [(0, 3)]


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    folder = tmp_path / "images" / NOT_UNICODE
    folder.mkdir(parents=True)
    (folder / f"{NOT_UNICODE}.png").write_bytes(png(3))
    data = open_data(asked(tmp_path / "images"))
    assert read(data) == [(f"{folder}/{NOT_UNICODE}.png", 0, 3)]
    write(tmp_path / "x.parquet", {"image": column("binary", [1])}).rename(
        tmp_path / f"{NOT_UNICODE}.parquet"
    )
    message = refused(lambda: open_data(asked(tmp_path, "parquet")))
    assert "is not a path of Unicode, as pyarrow needs it: rename it" in message


def test_links_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "else" / "a.parquet", {"image": column("binary", [1])})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "there").symlink_to(tmp_path / "else")
    (tmp_path / "else" / "back").symlink_to(tmp_path / "data")
    assert labels_and_values(open_data(asked(tmp_path / "data"))) == [(None, 1)]


def test_images_of_relative_paths_are_found_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "cat").mkdir(parents=True)
    (tmp_path / "data" / "cat" / "1.png").write_bytes(png(3))
    monkeypatch.chdir(tmp_path)
    data = open_data(asked("data"))
    (piece,) = data.pieces(9, None)
    monkeypatch.chdir("/")
    assert [(s.name, s.open().getpixel((0, 0))) for s in piece.samples()] == [("data/cat/1.png", 3)]


# Tars


def tar(files: Mapping[str, bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=kind) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar(files))
    return path


def in_tar(path: Path) -> list[tuple[str, Any, Any]]:
    """As `read`, with names in the tar."""
    found = read(open_data(asked(path)))
    return [(name.removeprefix(f"{path}/"), *rest) for name, *rest in found]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"1.png": png(5), "1.cls": b"3"}, [("1.png", 3, 5)]),
        ({"1.cls": b" 3\n", "1.PNG": png(5)}, [("1.PNG", 3, 5)]),
        ({"1.png": png(5), "1.cls": "wölf".encode()}, [("1.png", "wölf", 5)]),
        ({"1.png": png(5), "1.cls": b"-1"}, [("1.png", None, 5)]),
        ({"1.png": png(5), "1.cls": b"9" * 5000}, [("1.png", "9" * 5000, 5)]),
        ({"1.png": png(5), "1.label": b"x", "1.json": b'{"label": 2}'}, [("1.png", "x", 5)]),
        ({"1.png": png(5), "1.json": b'{"label": 2}'}, [("1.png", 2, 5)]),
        ({"1.png": png(5), "1.json": b'{"cls": "b", "x": 1}'}, [("1.png", "b", 5)]),
        ({"1.png": png(5), "1.json": b'{"label": true}'}, [("1.png", None, 5)]),
        ({"1.png": png(5), "1.json": b"[1]"}, [("1.png", None, 5)]),
        ({"1.png": png(5), "1.txt": b"3"}, [("1.png", None, 5)]),
        ({"1.txt": b"no image", "1.cls": b"3", "2.png": png(5)}, [("2.png", None, 5)]),
        ({"1.png": png(5), "2.png": png(6), "2.cls": b"1"}, [("1.png", None, 5), ("2.png", 1, 6)]),
        (
            {"a/1.png": png(5), "a/1.cls": b"0", "b/1.png": png(6), "b/1.cls": b"1"},
            [("a/1.png", 0, 5), ("b/1.png", 1, 6)],
        ),
        ({"v1.5/1.png": png(5), "v1.5/1.cls": b"4"}, [("v1.5/1.png", 4, 5)]),
        ({"1.seg.png": png(6), "1.png": png(5), "1.cls": b"4"}, [("1.png", 4, 5)]),
        (
            {"photo.1.png": png(5), "photo.2.png": png(6)},
            [("photo.1.png", None, 5), ("photo.2.png", None, 6)],
        ),
        ({"cat/1.png": png(5)}, [("cat/1.png", None, 5)]),
        (
            {".1.png": png(5), "._2.png": b"x", "x/.3.png": png(6), "4.png": png(7)},
            [("4.png", None, 7)],
        ),
        ({"1.png": b"no image", "1.cls": b"3"}, [("1.png", 3, None)]),
        ({}, []),
    ],
)
def test_samples_of_tars(
    tmp_path: Path, files: dict[str, bytes], found: list[tuple[str, Any, Any]]
) -> None:
    path = write_tar(tmp_path / "x.tar", files)
    assert in_tar(path) == found
    assert open_data(asked(path)).count() == len(found)


def test_a_tar_whose_members_are_all_of_one_key(tmp_path: Path) -> None:
    """However many there are: memory holds some of them at a time, and none is left out."""
    names = {f"photo.{i}.png": i for i in range(150)}
    path = write_tar(tmp_path / "x.tar", {name: png(i) for name, i in names.items()})
    assert in_tar(path) == [(name, None, i) for name, i in names.items()]
    path.write_bytes(path.read_bytes()[: 1024 * 100 + 700])
    (piece,) = open_data(asked(path)).pieces(1, None)
    seen: list[str] = []
    refused(lambda: seen.extend(sample.name for sample in piece.samples()))
    assert len(seen) == 64, "all of them were held before the first was given"


def test_classes_that_a_tar_says_wrongly(tmp_path: Path) -> None:
    for name, content, message in (
        ("1.json", b"{", "x.tar/1.json is no JSON: "),
        ("1.json", b"\xff\xfe", "x.tar/1.json is no JSON: "),
        ("1.json", b"[" * 100_000, "x.tar/1.json is no JSON: "),
        ("1.json", b'{"label": 99999999999999999999}', "x.tar/1.json: the label 9999"),
        ("1.cls", b"-2", "x.tar/1.cls: the label -2 is not the number of a class"),
    ):
        path = write_tar(tmp_path / "x.tar", {"1.png": png(1), name: content})
        assert message in refused(lambda p=path: in_tar(p))


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        (".tar", bytes),
        (".tar.gz", gzip.compress),
        (".tgz", gzip.compress),
        (".TGZ", gzip.compress),
        (".tar.bz2", bz2.compress),
        (".tar.xz", lzma.compress),
    ],
)
def test_compressed_tars(tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    noise = np.random.default_rng(0).bytes(100_000)  # so that what is cut off is more than a buffer
    whole = compress(tar({"1.png": png(5), "1.cls": b"3", "2.bin": noise, "3.png": png(6)}))
    path = tmp_path / f"x{suffix}"
    path.write_bytes(whole)
    assert in_tar(path) == [("1.png", 3, 5), ("3.png", None, 6)]
    for data in (whole[: len(whole) // 2], b"no archive" * 60):
        path.write_bytes(data)
        message = refused(lambda: in_tar(path))
        assert message.startswith(f"cannot read {path}: ")
        assert message.count("\n") == 0


def test_chosen_images_of_tars(tmp_path: Path) -> None:
    for file, rows in (("0", range(4)), ("1", range(4, 5)), ("2", range(5, 10))):
        files = {f"{i}.{k}": png(i) if k == "png" else b"1" for i in rows for k in ("png", "cls")}
        write_tar(tmp_path / f"{file}.tar", files)
    data = open_data(asked(tmp_path))
    assert (data.images, data.count()) == (None, 10)
    for chosen in ([0, 9], [3, 4, 5], [6], list(range(10))):
        found = read(data, 1, np.array(chosen))
        assert [(label, value) for _, label, value in found] == [(1, i) for i in chosen]
    pieces = data.pieces(1, choose_images(data, 4, 3, first=False))
    assert [piece.images for piece in pieces] == [1, 2]
    assert choose_images(data, 4, 3, first=False).tolist() == [4, 6, 8]  # type: ignore[union-attr]


def test_names_in_tars_may_hold_anything(tmp_path: Path) -> None:
    names = [f"{HOSTILE}.png", f"{NOT_UNICODE}.png", "x" * 300 + ".png", "../../x.png", "/abs.png"]
    path = tmp_path / "x.tar"
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path.write_bytes(tar({name: png(i) for i, name in enumerate(names)}, kind))
        assert [(name.lstrip("/"), value) for name, _, value in in_tar(path)] == [
            (name.lstrip("/"), i) for i, name in enumerate(names)
        ]


def test_a_member_that_is_larger_than_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("1.png")
    info.size = 1 << 50
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    assert "x.tar/1.png takes 1.0 PiB of memory" in refused(lambda: in_tar(tmp_path / "x.tar"))


def test_data_for_one_machine_only(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 8, 8), np.uint8))
    message = refused(lambda: open_data(asked(tmp_path / "x.npz")))
    assert "leave out --engine ray" in message
