"""The forms of ``--class-map`` that `class_map` names, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adder_onnx.errors import DataError
from adder_onnx.evaluation.class_map import read_class_map
from adder_onnx.evaluation.classes import Classes
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.imagenet import synsets

_LABELS = ("airplane", "automobile", "bird")
_NAMES = ("bird", "my car", "plane")
_JSON = json.dumps


def _read(
    tmp_path: Path,
    text: str | bytes,
    names: Sequence[str] = _NAMES,
    labels: Sequence[str] | None = _LABELS,
    count: int = 3,
) -> list[int]:
    path = tmp_path / "map.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_class_map(path, names, Classes(count, labels))


@pytest.mark.parametrize("delimiter", ["\t", ";", ",", ", "])
@pytest.mark.parametrize("header", ["", "name{0}class\n"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n"])
def test_two_columns_with_numbers(tmp_path: Path, delimiter: str, header: str, ending: str) -> None:
    text = header + "plane{0}0\nbird{0}2\nmy car{0}1\nsomething else{0}0\n"
    text = text.format(delimiter).replace("\n", ending)
    assert _read(tmp_path, text) == [2, 1, 0]
    assert _read(tmp_path, text, labels=None) == [2, 1, 0]


def test_two_columns_between_spaces(tmp_path: Path) -> None:
    assert _read(tmp_path, "plane  0\nbird 2\nmy car   1\nsomething else 0") == [2, 1, 0]
    assert _read(tmp_path, "name class\nplane 0\nbird 2", ("bird", "plane")) == [2, 0]


@pytest.mark.parametrize("delimiter", ["\t", ";", ",", " "])
def test_two_columns_with_labels(tmp_path: Path, delimiter: str) -> None:
    text = f"plane{delimiter}Airplane\nbird{delimiter}bird\ncar{delimiter}automobiles\n"
    assert _read(tmp_path, text, ("bird", "car", "plane")) == [2, 1, 0]
    with pytest.raises(DataError, match=r"line 2: 'bird', but the model has no labels"):
        _read(tmp_path, text, ("bird", "car", "plane"), labels=None)


def test_quoted_fields(tmp_path: Path) -> None:
    labels = ("tench, Tinca tinca", "goldfish", 'a "big" fish')
    text = '"n1","tench, Tinca tinca"\nn2,goldfish\n"n, 3","a ""big"" fish"\n'
    assert _read(tmp_path, text, ("n, 3", "n2", "n1"), labels) == [2, 1, 0]


def test_one_column_is_in_the_model_s_order(tmp_path: Path) -> None:
    assert _read(tmp_path, "plane\nmy car\nbird\n") == [2, 1, 0]
    assert _read(tmp_path, "sea lion\nice bear\nred fox\n", ("red fox", "sea lion")) == [2, 0]
    assert _read(tmp_path, "a, b\nc, d\ne, f", ("e, f", "a, b", "c, d")) == [2, 0, 1]
    for text in ("plane\nbird\n", "classes\nplane\nmy car\nbird\n"):
        with pytest.raises(DataError, match=r"map.txt has \d names; expected one for each .* 3"):
            _read(tmp_path, text, ("plane", "bird"))


def test_the_synset_mapping_of_imagenet(tmp_path: Path) -> None:
    lines = [f"{synset.id} {', '.join(synset.names)}" for synset in synsets().values()]
    names = ("n15075141", "tench", "n02012849")
    assert _read(tmp_path, "\n".join(lines), names, None, 1000) == [999, 0, 134]
    assert _read(tmp_path, "\n".join(lines), names, ("x",) * 1000, 1000) == [999, 0, 134]
    with pytest.raises(DataError, match=r"several classes called 'crane': line 135 and line 518"):
        _read(tmp_path, "\n".join(lines), ("crane",), None, 1000)
    # Fewer lines are names and labels.
    labels = ("goldfish", "tench")
    assert _read(tmp_path, "\n".join(lines[:3]), ("n01440764", "n01443537"), labels, 2) == [1, 0]
    assert _read(tmp_path, "n01440764 1\nn01443537 0", ("n01440764",), None, 2) == [1]


@pytest.mark.parametrize(
    "value",
    [
        {"plane": 0, "bird": 2, "my car": 1, "other": 0},
        {"plane": "airplane", "bird": 2, "my car": "1"},
        {"0": ["n1", "plane"], "1": ["n2", "my car"], "2": ["n3", "bird"]},
        {"0": "plane", "2": "bird", "1": "my car"},
        ["plane", "my car", "bird"],
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_json(tmp_path: Path, value: object, indent: int | None) -> None:
    assert _read(tmp_path, _JSON(value, indent=indent)) == [2, 1, 0]


def test_json_of_numbers_and_labels(tmp_path: Path) -> None:
    """As ``cat_to_name.json`` of the flowers: the keys are the folders' names."""
    text = _JSON({"1": "bird", "10": "airplane", "2": "automobile"})
    assert _read(tmp_path, text, ("1", "10", "2")) == [2, 0, 1]


def test_names_may_differ_in_case_and_punctuation(tmp_path: Path) -> None:
    assert _read(tmp_path, "Plane 0\nMY_CAR 1\nbird 2") == [2, 1, 0]
    assert _read(tmp_path, "Plane 0\nplane 1\nbird 2", ("plane", "bird")) == [1, 2]


_WRONG: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "map.txt is empty"),
    "blank": (" \n\t\n", "map.txt is empty"),
    "bytes": (b"\xff\xfe\x00a", "not a text file"),
    "Latin-1": (b"caf\xe9 1\n", "not text in UTF-8"),
    "a class left out": ("plane 0\nbird 2\n", "does not say what the classes 'my car' are"),
    "a name twice": ("plane 0\nbird 2\nplane 0\nmy car 1", "line 3: 'plane' .* after line 1"),
    "a number twice": ("plane,0\nbird,2\nmy car,2", "line 3: 'my car' is .* 2, and so is 'bird'"),
    "number too large": ("plane 0\nbird 3\nmy car 1", "line 2: 3, .* are 0 to 2"),
    "of a class that is not there": ("plane 0\nbird 2\nmy car 1\nx 3", "line 4: 3, .* 0 to 2"),
    "no such label": ("plane,0\nbird,eagle\nmy car,1", "line 2: 'eagle', .* 'airplane', 'auto"),
    "negative": ("plane,0\nbird,-2\nmy car,1", "line 2: '-2', but"),
    "three columns": ("plane,0,x\nbird,2,x\nmy car,1,x", "line 1: expected two columns.* found 3"),
    "open quote": ('"plane,0\nbird,2\nmy car,1', "line 1: "),
    "JSON cut off": ('{"plane": 0,', "map.txt is not JSON"),
    "JSON deep": ("[" * 100_000, "map.txt is not JSON"),
    "JSON of a float": ('{"plane": 0.5}', "'plane': expected the number .* found 0.5"),
    "JSON of true": ('{"plane": true}', "'plane': expected the number .* found True"),
    "JSON of nothing": ("{}", "does not say"),
    "JSON twice": ('{"plane": 0, "plane": 1}', "'plane' is there again"),
    "JSON of numbers": ("[0, 1, 2]", "expected an array of names"),
    "JSON number too large": ('{"plane": 3}', "'plane': 3, .* 0 to 2"),
    "JSON number below 0": ('{"plane": -1}', "'plane': -1, .* 0 to 2"),
    "JSON key too large": ('{"3": ["plane"]}', "'3': 3, .* 0 to 2"),
    "JSON key no number": ('{"x": ["plane"]}', "'x': expected names"),
    "JSON list of numbers": ('{"1": [5]}', "'1': expected names"),
    "JSON number enormous": ('{"plane": 1' + "0" * 5000 + "}", "not JSON|0 to 2"),
}


@pytest.mark.parametrize("case", _WRONG)
def test_wrong_files(tmp_path: Path, case: str) -> None:
    text, message = _WRONG[case]
    with pytest.raises(DataError, match=message) as caught:
        _read(tmp_path, text)
    assert "map.txt" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", Path("/dev/zero")):
        with pytest.raises(DataError, match=str(path)):
            read_class_map(path, _NAMES, Classes(3, None))


def test_a_number_that_is_another_s_label(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1: '0' may be .* class number 0 or"):
        _read(tmp_path, "plane 0\nbird 2\nmy car 1", labels=("1", "0", "2"))
    assert _read(tmp_path, _JSON({"plane": 0}), ("plane",), ("1", "0", "2")) == [0]


def test_a_label_that_the_model_has_twice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1: 'crane' may be any .* 0, 2: give the number"):
        _read(tmp_path, "bird crane", ("bird",), ("crane", "dog", "crane"))


def _dataset(classes: tuple[str, ...] | None, labels: list[int] | None) -> Dataset:
    return Dataset(
        "a set",
        None,
        4,
        lambda i: Image.new("L", (1, 1), i),
        str,
        None if labels is None else np.array(labels, np.int64),
        classes,
    )


def test_the_file_wins(tmp_path: Path) -> None:
    """Over names that match, and where nothing else would tell."""
    path = tmp_path / "map.csv"
    path.write_text("cat,1\ndog,0\n")
    matched = _dataset(("cat", "dog"), [0, 1, 1, 0]).with_model_classes(2, ("cat", "dog"), path)
    assert matched.labels is not None
    assert matched.labels.tolist() == [1, 0, 0, 1]
    assert matched.matching is not None
    assert (matched.matching.how, matched.matching.guess) == (f"by {path}", False)
    path.write_text("1,0\n3,2\n")
    matched = _dataset(None, [1, 3, 3, 1]).with_model_classes(3, None, path)
    assert matched.labels is not None
    assert matched.labels.tolist() == [0, 2, 2, 0]
    with pytest.raises(DataError, match="a set: --class-map needs images with labels"):
        _dataset(None, None).with_model_classes(3, None, path)
