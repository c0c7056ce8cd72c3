"""``--labels-csv``: tables of images and their classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from adder_onnx.errors import DataError
from adder_onnx.evaluation import Dataset, open_dataset


def _images(folder: Path, names: Sequence[str]) -> Path:
    for value, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (1, 1), value).save(folder / name)
    return folder


def _open(
    tmp_path: Path, text: str, names: Sequence[str] = ("1.png", "2.png", "10.jpg")
) -> Dataset:
    folder = _images(tmp_path / "images", names)
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    return open_dataset(folder, labels_csv=tmp_path / "labels.csv")


def _labels(dataset: Dataset) -> dict[str, str | int]:
    """By the image's name."""
    assert dataset.labels is not None
    return {
        str(Path(*Path(dataset.name_of(i)).parts[-2:])).removeprefix("images/"): int(label)
        if dataset.classes is None
        else dataset.classes[label]
        for i, label in enumerate(dataset.labels)
    }


_EXPECTED = {"1.png": "frog", "2.png": "sea lion", "10.jpg": "dog"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", ", "])
@pytest.mark.parametrize("header", ["", "id{0}label\n", "Image Name{0}Class\n", "a{0}b\n"])
@pytest.mark.parametrize("suffix", [True, False])
@pytest.mark.parametrize("folder", ["", "images/", "./", "some\\folder\\", "/data/train/"])
def test_names(tmp_path: Path, delimiter: str, header: str, suffix: bool, folder: str) -> None:
    rows = [("10.jpg", "dog"), ("3.png", "frog"), ("1.png", "frog"), ("2.png", "sea lion")]
    text = header.format(delimiter) + "".join(
        f"{folder}{image if suffix else image[:-4]}{delimiter}{label}\n" for image, label in rows
    )
    dataset = _open(tmp_path, text)
    assert _labels(dataset) == _EXPECTED
    # An unrecognized header is a row for an image that is not there.
    assert set(dataset.classes or ()) - {"b"} == {"dog", "frog", "sea lion"}
    assert dataset.description == f"images, labels of {tmp_path / 'labels.csv'}"


@pytest.mark.parametrize("delimiter", [" ", "  ", ",", "\t"])
@pytest.mark.parametrize("header", ["", "image{0}label\n", "a{0}b\n"])
def test_numbers(tmp_path: Path, delimiter: str, header: str) -> None:
    text = f"{header}1.png{{0}}3\n2.png{{0}}0\n10.jpg{{0}}3\nother.png{{0}}7\n".format(delimiter)
    dataset = _open(tmp_path, text)
    assert _labels(dataset) == {"1.png": 3, "2.png": 0, "10.jpg": 3}
    assert (dataset.classes, dataset.label_span) == (None, (0, 7))
    assert dataset.with_model_classes(8, None).labels is not None
    with pytest.raises(DataError, match="has the label 7, but the model distinguishes 7 classes"):
        dataset.with_model_classes(7, None)


def test_numbers_that_count_from_one(tmp_path: Path) -> None:
    """As seen from the whole file, whatever images there are."""
    dataset = _open(tmp_path, "1,2\n2,2\n10,3\n99,1\n98,4\n")
    assert dataset.with_model_classes(5, None).labels is not None
    with pytest.raises(DataError, match=r"label 4, .* 4 classes, 0 to 3: if .* count from 1"):
        dataset.with_model_classes(4, None)


def test_words_between_spaces(tmp_path: Path) -> None:
    assert _labels(_open(tmp_path, "1.png frog\n2.png sea lion\n10.jpg dog")) == _EXPECTED


def test_wordnet_ids(tmp_path: Path) -> None:
    dataset = _open(tmp_path, "1,n01443537\n2,n01440764\n10,n15075141")
    matched = dataset.with_model_classes(1000, None)
    assert matched.labels is not None
    assert sorted(matched.labels.tolist()) == [0, 1, 999]


@pytest.mark.parametrize(
    "text",
    [
        "label,image\nfrog,1.png\nsea lion,2.png\ndog,10.jpg",
        "filename,width,class\n1.png,3,frog\n2.png,3,sea lion\n10.jpg,3,dog",
        "Width;ClassId;Path\n3;frog;Test/1.png\n3;sea lion;Test/2.png\n3;dog;Test/10.jpg",
        '"image_id","label"\n"1","frog"\n"2","sea lion"\n"10","dog"',
        "\ufeffid,breed\n1,frog\n\n2,sea lion\r\n10,dog\n",
    ],
)
def test_headers(tmp_path: Path, text: str) -> None:
    assert _labels(_open(tmp_path, text)) == _EXPECTED


_NAMES = ("1.png", "2.png", "10.jpg")
_CLASSES = ("frog", "sea lion", "dog")


@pytest.mark.parametrize("numbers", [(0, 1, 2), (17, 3, 21)])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("columns", [("image", "label"), ("photo", "kind"), ("image", "kind")])
@pytest.mark.parametrize("index", ["", "index", "Unnamed: 0", '""'])
def test_index_as_pandas_writes_it(
    tmp_path: Path, index: str, columns: tuple[str, str], delimiter: str, numbers: tuple[int, ...]
) -> None:
    rows = [(index, *columns), *zip(map(str, numbers), _NAMES, _CLASSES, strict=True)]
    dataset = _open(tmp_path, "".join(f"{delimiter.join(row)}\n" for row in rows))
    assert _labels(dataset) == _EXPECTED
    assert dataset.classes == ("dog", "frog", "sea lion")


def test_indices_of_several_tables(tmp_path: Path) -> None:
    rows = "0,5,1.png,frog\n1,7,2.png,sea lion\n2,6,10.jpg,dog\n"
    for header in (",index,image,label", "Unnamed: 0.1,Unnamed: 0,image,label"):
        assert _labels(_open(tmp_path, f"{header}\n{rows}")) == _EXPECTED


def test_first_columns_that_are_no_index(tmp_path: Path) -> None:
    """The only column of images, numbers that repeat, and images called by these numbers."""
    names = ",label\n1.png,frog\n2.png,sea lion\n10.jpg,dog"
    assert _labels(_open(tmp_path, names)) == _EXPECTED
    assert _labels(_open(tmp_path, ",label\n1,frog\n2,sea lion\n10,dog")) == _EXPECTED
    other = ",image,label\n2,1.png,frog\n1,2.png,sea lion\n10,10.jpg,dog"
    assert _labels(_open(tmp_path, other)) == _EXPECTED
    for text in (
        "index,label,score\n1,frog,3\n2,sea lion,4\n10,dog,5",
        "index,kind,size\n1,frog,3\n1,sea lion,3\n1,dog,3",
        "number,photo,kind\n0,1.png,frog\n1,2.png,sea lion\n2,10.jpg,dog",
    ):
        with pytest.raises(DataError, match="3 columns: a header must name"):
            _open(tmp_path, text)


def test_several_columns_that_may_name_images(tmp_path: Path) -> None:
    text = "id,filename,label\n7,1.png,frog\n8,2.png,sea lion\n9,10.jpg,dog"
    assert _labels(_open(tmp_path, text)) == _EXPECTED


def test_classes_that_are_called_like_columns(tmp_path: Path) -> None:
    for classes in (("label", "class", "y"), ("path", "name", "file")):
        text = "1.png,{}\n2.png,{}\n10.jpg,{}".format(*classes)
        found = _labels(_open(tmp_path, text))
        assert found == dict(zip(("1.png", "2.png", "10.jpg"), classes, strict=True))


def test_images_in_several_folders(tmp_path: Path) -> None:
    names = ("a/1.png", "b/1.png", "b/2.png", "3.png")
    expected = {"a/1.png": "cat", "b/1.png": "dog", "b/2.png": "cat", "3.png": "dog"}
    for prefix in ("", "images/", "elsewhere/"):
        rows = [f"{prefix}{name},{label}" for name, label in expected.items()]
        assert _labels(_open(tmp_path, "\n".join(rows), names)) == expected
    rows = "a/1.png,cat\nc/1.png,dog"
    assert _labels(_open(tmp_path / "one", rows, ("a/1.png",))) == {"a/1.png": "cat"}
    with pytest.raises(DataError, match=r"line 1, may mean .*a/1\.png or .*b/1\.png"):
        _open(tmp_path, "1.png,cat\n2.png,cat\n3.png,dog", names)
    with pytest.raises(DataError, match=r"no label for 1 of 4 images, the first .*b/1\.png"):
        _open(tmp_path, "a/1.png,cat\n2.png,cat\n3.png,dog", names)


def test_images_that_differ_in_their_suffix(tmp_path: Path) -> None:
    names = ("1.png", "1.jpg")
    text = "folder/1.png,cat\nfolder/1.jpg,dog"
    assert _labels(_open(tmp_path, text, names)) == {"1.png": "cat", "1.jpg": "dog"}
    with pytest.raises(DataError, match=r"line 1, may mean .*1\.jpg or .*1\.png"):
        _open(tmp_path, "1,cat\n2,dog", names)


def test_another_suffix_is_no_other_image(tmp_path: Path) -> None:
    """Images are often saved in another format than the table says."""
    assert _labels(_open(tmp_path, "1.JPEG,frog\n2.v1.bmp,dog", ("1.png", "2.v1.png"))) == {
        "1.png": "frog",
        "2.v1.png": "dog",
    }


def test_class_folders_do_not_count(tmp_path: Path) -> None:
    text = "1.png,frog\n2.png,dog"
    expected = {"cat/1.png": "frog", "cow/2.png": "dog"}
    assert _labels(_open(tmp_path, text, ("cat/1.png", "cow/2.png"))) == expected


def test_the_split_whose_labels_they_are(tmp_path: Path) -> None:
    _images(tmp_path / "set" / "train", ["1.png", "2.png"])
    _images(tmp_path / "set" / "test", ["3.png"])
    table = tmp_path / "trainLabels.csv"
    table.write_text("id,label\n1,frog\n2,dog\n")
    dataset = open_dataset(tmp_path / "set", split="train", labels_csv=table)
    assert (dataset.split, dataset.images, dataset.classes) == ("train", 2, ("dog", "frog"))
    with pytest.raises(DataError, match="no label for 1 of 1 images"):
        open_dataset(tmp_path / "set", labels_csv=table)


_WRONG: dict[str, tuple[str, str]] = {
    "empty": ("", "labels.csv is empty"),
    "one column": ("1.png\n2.png\n10.jpg\n", "has one column"),
    "images left out": (
        "1.png,frog\n",
        r"no label for 2 of 3 images, the first of which is .*10\.jpg",
    ),
    "other images": ("a.png,frog\nb.png,dog\n", "no label for 3 of 3 images"),
    "three columns": ("1.png,frog,0\n2.png,dog,1\n10.jpg,dog,1", "has 3 columns: a header must"),
    "three columns, a header of two": ("id,file,label\n1,1.png,a", "has 3 columns: a header must"),
    "three columns, no class": ("file,x,z\n1.png,1,a", "has 3 columns: a header must"),
    "a column too many": ("1.png,frog\n2.png,sea,lion", "line 2: 3 columns, where line 1 has 2"),
    "two labels": (
        "1.png,a\n2.png,a\n10.jpg,b\n1.png,b",
        r"several labels .*1\.png, in lines 1 and 4",
    ),
    "two labels by another name": (
        "1,a\n2,a\n10,b\nimages/1,b",
        r"several labels .*1\.png, in lines",
    ),
    "no class": ("1.png,a\n2.png,\n10.jpg,b", "line 2: expected an image and its class"),
    "no image": ("1.png,a\n./,b\n10.jpg,b", "line 2: expected an image and its class"),
    "counts": ("1.png 1\n2.png 2\n10.jpg 3", "has the numbers 1 to 3, which count its lines"),
    "open quote": ('1.png,"a\n2.png,b', "line 1: "),
}


@pytest.mark.parametrize("case", _WRONG)
def test_wrong_tables(tmp_path: Path, case: str) -> None:
    text, message = _WRONG[case]
    with pytest.raises(DataError, match=message) as caught:
        _open(tmp_path, text)
    assert str(tmp_path / "labels.csv") in str(caught.value)


def test_the_same_label_twice(tmp_path: Path) -> None:
    assert _labels(_open(tmp_path, "1,frog\n2,sea lion\n10,dog\n1.png,frog")) == _EXPECTED


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    folder = _images(tmp_path / "images", ["1.png"])
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match=f"cannot read {path}"):
            open_dataset(folder, labels_csv=path)
    table = tmp_path / "labels.csv"
    table.write_text("1,cat")
    with pytest.raises(DataError, match=r"labels of a folder of images; .*1\.png is none"):
        open_dataset(folder / "1.png", labels_csv=table)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("")
    with pytest.raises(DataError, match="empty holds no images"):
        open_dataset(tmp_path / "empty", labels_csv=table)


def test_a_list_beside_a_validation_set(tmp_path: Path) -> None:
    """Of any images, with numbers of the model; a list of other images says nothing."""
    folder = _images(tmp_path / "val", ["1.png", "2.png"])
    (tmp_path / "val.txt").write_text("1.png 4\n2.png 0\n")
    assert _labels(open_dataset(folder)) == {"val/1.png": 4, "val/2.png": 0}
    (tmp_path / "val.txt").write_text("8.png 4\n9.png 0\n")
    assert open_dataset(folder).labels is None
    _images(tmp_path / "photos", ["8.png"])
    assert open_dataset(tmp_path / "photos").labels is None
