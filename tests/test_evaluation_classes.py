"""One test, or a few, for each rule of `adder_onnx.evaluation.classes`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image

from adder_onnx.errors import DataError
from adder_onnx.evaluation import Dataset
from adder_onnx.evaluation.imagenet import synsets
from adder_onnx.metadata import CIFAR10_LABELS

_IDS = tuple(synsets())
_FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_DIGITS = tuple("0123456789")
_DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _dataset(
    classes: Sequence[str] | None,
    labels: Sequence[int] | None = None,
    *,
    published: bool = False,
    span: tuple[int, int] | None = None,
) -> Dataset:
    """A set with one image of each class, or with these labels."""
    if labels is None:
        labels = range(len(classes or ()))
    return Dataset(
        "a set",
        None,
        len(labels),
        lambda i: Image.new("L", (1, 1), i),
        str,
        np.array(labels, np.int64),
        None if classes is None else tuple(classes),
        published,
        span,
    )


def _numbers(dataset: Dataset, count: int, labels: Sequence[str] | None = None) -> list[int]:
    """The model's number of each image."""
    matched = dataset.with_model_classes(count, labels)
    assert matched.labels is not None
    assert matched.labels.dtype == np.int64
    assert matched.matching is not None
    return matched.labels.tolist()  # type: ignore[no-any-return]


def _how(dataset: Dataset, count: int, labels: Sequence[str] | None = None) -> tuple[str, bool]:
    matching = dataset.with_model_classes(count, labels).matching
    assert matching is not None
    return matching.how, matching.guess


def _refused(match: str, dataset: Dataset, count: int, labels: Sequence[str] | None = None) -> None:
    with pytest.raises(DataError, match=match) as caught:
        dataset.with_model_classes(count, labels)
    assert "a set" in str(caught.value)
    assert "--class-map FILE" in str(caught.value)


# Rule 2


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("bird", "bird"),
        ("BIRD", "bird"),
        ("pickup_truck", "pickup truck"),
        ("PickupTruck", "pickup-truck"),
        ("aquarium fish", "aquarium_fish"),
        ("cafe", "Café"),
        ("birds", "bird"),
        ("bus", "buses"),
        ("butterflies", "butterfly"),
        ("wolf", "wolves"),
        ("mice", "mouse"),
        ("tench", "tench, Tinca tinca"),
        ("Tinca_tinca", "tench, Tinca tinca"),
        ("tench, Tinca tinca", "tench"),
        ("n01440764", "n01440764 tench, Tinca tinca"),
        ("n01440764", "n01440764"),
        ("tench", "n01440764 tench, Tinca tinca"),
        ("n01440764", "tench"),
        ("tench", "n01440764"),
        ("plane", "airplane"),
        ("aeroplane", "airplane"),
        ("car", "automobile"),
        ("Cars", "automobile"),
        ("tshirt", "T-shirt/top"),
        ("ankle_boots", "Ankle boot"),
        ("7", "seven"),
        ("07", "7"),
        ("seven", "7 - seven"),
        ("7", "7 - seven"),
        ("0-2", "(0, 2)"),
    ],
)
def test_names_that_mean_the_same(name: str, label: str) -> None:
    labels = ("ant", label, "zebra")
    assert _numbers(_dataset([name, "zebra"]), 3, labels) == [1, 2]
    assert _numbers(_dataset(["zebra", name]), 3, labels) == [2, 1]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("C#", "C++"),
        ("1.5", "15"),
        ("cat", "category"),
        ("as", "a"),
        ("grass", "gras"),
        ("airplane", "plane, carpenter's plane, woodworking plane"),
        ("2 door", "4 door"),
        ("n01440764", "n01443537"),
        ("8", "seven"),
    ],
)
def test_names_that_do_not(name: str, label: str) -> None:
    _refused(r"which the model does not have", _dataset([name, "zebra"]), 2, (label, "zebra"))


def test_the_synonyms_of_the_tutorials() -> None:
    names = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    order = sorted(range(10), key=lambda i: names[i])
    dataset = _dataset([names[i] for i in order])
    assert _numbers(dataset, 10, CIFAR10_LABELS) == order
    how = "by name (car is automobile; plane is airplane)"
    assert _how(dataset, 10, CIFAR10_LABELS) == (how, False)


def test_the_closest_name_counts() -> None:
    labels = ("glass", "glasses", "Bus", "bus")
    assert _numbers(_dataset(["bus", "glass", "glasses"]), 4, labels) == [3, 0, 1]


def test_numbers_in_front_of_all_names_are_not_part_of_them() -> None:
    names = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Crested_Auklet")
    labels = ("Crested Auklet", "Laysan Albatross", "black-footed albatross")
    assert _numbers(_dataset(names), 3, labels) == [2, 1, 0]
    assert _numbers(_dataset(labels), 3, names) == [2, 1, 0]


def test_numbers_in_front_that_do_not_count_are_part_of_names() -> None:
    _refused("'1_cat', '1_dog', which", _dataset(["1_cat", "1_dog"]), 2, ("cat", "dog"))
    _refused("'2_door', '4_door', which", _dataset(["2_door", "4_door"]), 2, ("door", "dog"))


def test_exact_names_decide_even_where_the_counts_agree() -> None:
    dataset = _dataset(["cat", "dog", "eel"], [2, 0, 1])
    assert _numbers(dataset, 3, ("eel", "dog", "cat")) == [0, 2, 1]
    assert _how(dataset, 3, ("eel", "dog", "cat")) == ("by name", False)


def test_some_names_are_not_enough() -> None:
    _refused(
        "a set has the classes 'unicorn', which .*; its labels are 'cat', 'dog', 'bird'",
        _dataset(["cat", "unicorn"]),
        3,
        ("cat", "dog", "bird"),
    )


def test_long_lists_are_cut() -> None:
    names = [f"thing {chr(97 + i)}" for i in range(20)]
    _refused("'thing h' and 12 more, which", _dataset(names), 20, CIFAR10_LABELS * 2)


def test_none_of_the_names() -> None:
    _refused("'cat', 'dog', which", _dataset(["cat", "dog"]), 2, ("yes", "no"))


def test_a_class_without_images_needs_no_label() -> None:
    dataset = _dataset(["cat", "dog", "unicorn"], [1, 0, 1])
    assert _numbers(dataset, 2, ("dog", "cat")) == [0, 1, 0]


def test_two_classes_with_one_label() -> None:
    _refused(
        "'automobile' and 'car' of a set both", _dataset(["automobile", "car"]), 2, ("car", "dog")
    )
    _refused("both are the model's 'dog'", _dataset(["Dog", "dog"]), 2, ("dog", "cat"))


def test_a_class_with_two_labels() -> None:
    labels = ("crane", "dog", "crane")
    _refused("'crane' of a set may be .* 0, 2:", _dataset(["crane"]), 3, labels)
    assert _numbers(_dataset(["dog"]), 3, labels) == [1]
    _refused("'auto' of a set may be", _dataset(["auto"]), 2, ("car", "automobile"))


def test_more_classes_than_the_model_has() -> None:
    with pytest.raises(DataError, match="a set has images of 3 classes, the model only 2"):
        _dataset(["cat", "dog", "ant"]).with_model_classes(2, ("cat", "dog"))


# Rule 3


def test_all_ids_with_a_model_without_labels() -> None:
    order = np.random.default_rng(0).permutation(1000).tolist()
    dataset = _dataset([_IDS[i] for i in order])
    assert _numbers(dataset, 1000) == order
    assert _how(dataset, 1000) == ("by WordNet id, in the order of ILSVRC2012", False)


@pytest.mark.parametrize(
    "label",
    [
        lambda i: synsets()[_IDS[i]].names[0],
        lambda i: ", ".join(synsets()[_IDS[i]].names),
        lambda i: _IDS[i],
        lambda i: f"{_IDS[i]} {synsets()[_IDS[i]].names[0]}",
        str,
        lambda i: "a name of one's own" if i % 3 == 0 else synsets()[_IDS[i]].names[0].upper(),
    ],
)
def test_some_ids_with_all_labels(label: Callable[[int], str]) -> None:
    """Also the two cranes, which lists of labels often call alike."""
    ids = ["n03126707", "n02012849", "n01440764", "n15075141"]
    assert _numbers(_dataset(ids), 1000, [label(i) for i in range(1000)]) == [517, 134, 0, 999]


@pytest.mark.parametrize("name", ["{}-{}", "{}_{}", "{} {}", "{}"])
def test_ids_with_a_name(name: str) -> None:
    """As the folders of Stanford's dogs are called."""
    ids = {"n02085620": ("Chihuahua", 151), "n02113978": ("Mexican_hairless", 268)}
    dataset = _dataset([name.format(id, word) for id, (word, _) in ids.items()])
    assert _numbers(dataset, 1000) == [151, 268]
    assert not _how(dataset, 1000)[1]
    assert _numbers(dataset, 2, ("Mexican hairless", "n02085620 Chihuahua")) == [1, 0]


def test_two_folders_of_one_id() -> None:
    _refused("2 classes and the model 1000", _dataset(["n02085620-a", "n02085620-b"]), 1000)


def test_labels_that_are_not_those_of_imagenet() -> None:
    """Too few are, or two are in each other's place."""
    labels = [synsets()[id].names[0] if i < 400 else f"own {id}" for i, id in enumerate(_IDS)]
    labels = [label.replace("n", "m") for label in labels]
    _refused("'n15075141', which", _dataset(["n15075141"]), 1000, labels)
    labels = [synsets()[id].names[0] for id in _IDS]
    labels[:2] = labels[1::-1]
    assert _numbers(_dataset(["n01440764", "n15075141"]), 1000, labels) == [1, 999]


def test_labels_in_another_order_are_matched_by_name() -> None:
    labels = [synsets()[id].names[0] for id in reversed(_IDS)]
    dataset = _dataset(["n01440764", "n15075141"])
    assert _numbers(dataset, 1000, labels) == [999, 0]
    assert _how(dataset, 1000, labels)[0].startswith("by name (n01440764 is tench")
    _refused("'n02012849' of a set may be", _dataset(["n02012849"]), 1000, labels)


def test_a_few_ids_with_a_few_labels() -> None:
    ids = ("n01440764", "n02102040", "n02979186")
    labels = ("cassette player", "tench", "English springer")
    assert _numbers(_dataset(ids), 3, labels) == [1, 2, 0]


def test_ids_of_another_set() -> None:
    unknown = ["n00000001", "n00000002"]
    _refused("2 classes and the model 1000", _dataset(unknown), 1000)
    assert _numbers(_dataset(unknown[::-1]), 2) == [1, 0]
    assert _how(_dataset(unknown), 2)[1]


def test_ids_with_as_many_classes_are_a_guess() -> None:
    """Tiny-ImageNet's 200, or Imagenette's ten."""
    dataset = _dataset(["n02102040", "n01440764"])
    assert _numbers(dataset, 2) == [1, 0]
    assert _how(dataset, 2) == ("in sorted order, as torchvision's ImageFolder counts them", True)
    _refused("2 classes and the model 3", dataset, 3)


# Rule 4


@pytest.mark.parametrize("label", ["{}", "class_{}", "LABEL_{}"])
def test_labels_that_only_count(label: str) -> None:
    labels = [label.format(i) for i in range(3)]
    dataset = _dataset(["cat", "dog", "ant"])
    assert _numbers(dataset, 3, labels) == _numbers(dataset, 3) == [1, 2, 0]
    assert _how(dataset, 3, labels)[1]
    assert _numbers(_dataset(["1", "3", "2"]), 3, [f"class_{i}" for i in range(3)]) == [0, 2, 1]
    assert _numbers(_dataset(labels[::-1]), 3, labels) == [2, 1, 0]
    assert _how(_dataset(labels), 3, labels) == ("by name", False)


def test_labels_that_count_but_not_as_the_data_set() -> None:
    _refused("'3', which the model does not have", _dataset(["1", "2", "3"]), 3, ("0", "1", "2"))


# Rule 5


def test_up_to_ten_numbers() -> None:
    for names in (_DIGITS, [f"c{i}" for i in range(10)], [f"{i:03}" for i in range(10)]):
        for labels in (None, CIFAR10_LABELS):
            dataset = _dataset(names[::-1])
            assert _numbers(dataset, 10, labels) == list(range(9, -1, -1))
            assert _how(dataset, 10, labels) == ("by the numbers in their names", False)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", ["{}", "class_{}", "c{}", "{}_thing"])
def test_more_numbers_are_in_numeric_order_by_a_guess(name: str, first: int) -> None:
    names = sorted(name.format(i) for i in range(first, first + 11))
    expected = [int(text.strip("_abcdefghijklmnopqrst")) - first for text in names]
    assert expected != list(range(11))
    assert _numbers(_dataset(names), 11) == expected
    assert _how(_dataset(names), 11) == ("by the numbers in their names, in numeric order", True)


def test_zeros_in_front_leave_no_doubt() -> None:
    names = [f"{i:02}" for i in range(11)]
    assert _numbers(_dataset(names), 11) == list(range(11))
    assert not _how(_dataset(names), 11)[1]
    assert not _how(_dataset(["0000", "0998"]), 1000)[1]
    assert _how(_dataset(["000", "998"]), 1001)[1]


def test_fewer_numbers_than_classes_have_a_zero() -> None:
    dataset = _dataset(["7", "0", "3"])
    assert _numbers(dataset, 10) == _numbers(dataset, 10, CIFAR10_LABELS) == [7, 0, 3]
    assert not _how(dataset, 10)[1]
    assert _how(dataset, 11)[1]
    _refused("'1', '3', '7', and the model 10", _dataset(["7", "1", "3"]), 10)
    _refused("'0', '10', and the model 10", _dataset(["0", "10"]), 10)


def test_gaps_between_as_many_numbers_are_a_guess() -> None:
    for names in (["0", "1", "5"], ["2", "3", "4"]):
        assert _numbers(_dataset(names), 3) == [0, 1, 2]
        assert _how(_dataset(names), 3)[1]


def test_the_same_number_twice() -> None:
    _refused("'1' and '01' of a set have the same number", _dataset(["1", "01", "2"]), 3)


def test_numbers_in_names_and_labels() -> None:
    """Of which only those count that are the same."""
    labels = [f"class {i}" for i in range(1, 12)]
    dataset = _dataset(["11", "1", "2"])
    assert _numbers(dataset, 11, labels) == [10, 0, 1]
    assert _how(dataset, 11, labels) == ("by the numbers in names and labels", False)
    assert _numbers(_dataset(["Kat. 3", "Kat. 1"]), 3, ("k2", "k3", "k1")) == [1, 2]
    _refused("'0', '1', which the model does not have", _dataset(["0", "1"]), 11, labels)
    _refused("'1', '01', which the model", _dataset(["1", "01"]), 11, labels)


def test_numbers_before_words_are_none_for_a_model_with_labels() -> None:
    _refused("which the model does not have", _dataset(["0_cat", "1_dog"]), 2, ("yes", "no"))


def test_very_long_numbers_are_words() -> None:
    dataset = _dataset(["9" * 5000, "8" * 5000])
    assert _numbers(dataset, 2) == [1, 0]
    assert _how(dataset, 2)[1]


# Rule 6


def test_words_are_counted_in_sorted_order_by_a_guess(caplog: pytest.LogCaptureFixture) -> None:
    """As torchvision's ImageFolder: Zebra before ant."""
    dataset = _dataset(["ant", "bee", "Zebra"])
    assert _numbers(dataset, 3) == [1, 2, 0]
    assert _how(dataset, 3) == ("in sorted order, as torchvision's ImageFolder counts them", True)
    assert "the classes of a set are matched by a guess, in sorted order" in caplog.text
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    caplog.clear()
    _how(dataset, 3, ("ant", "bee", "zebra"))
    assert caplog.text == ""


def test_numbers_after_different_words_are_none() -> None:
    dataset = _dataset(["b1", "a2"])
    assert _numbers(dataset, 2) == [1, 0]
    assert _how(dataset, 2)[1]


def test_words_and_another_number_of_classes() -> None:
    _refused("has 2 classes and the model 3.*no labels", _dataset(["cat", "dog"]), 3)


def test_words_of_imagenet() -> None:
    dataset = _dataset(["toilet tissue", "tench", "Great_White_Shark"])
    assert _numbers(dataset, 1000) == [999, 0, 2]
    assert _how(dataset, 1000)[1]
    _refused("2 classes and the model 1000", _dataset(["tench", "unicorn"]), 1000)
    _refused("1 classes and the model 1000", _dataset(["crane"]), 1000)
    dataset = _dataset([f"thing {i:04}!" for i in range(1000)])
    assert _how(dataset, 1000)[0].startswith("in sorted order")


# Rule 7


def test_published_numbers() -> None:
    dataset = _dataset(CIFAR10_LABELS, [9, 0, 5], published=True)
    for labels in (None, _DIGITS, [f"class_{i}" for i in range(10)]):
        assert _numbers(dataset, 10, labels) == [9, 0, 5]
        assert _how(dataset, 10, labels) == ("by number", False)
    assert _numbers(dataset, 10, CIFAR10_LABELS[::-1]) == [0, 9, 4]
    _refused("'truck', which the model does not have", dataset, 10, _FASHION)
    _refused("'airplane', 'dog', 'truck', which", dataset, 10, ("ok",) * 10)
    _refused("has 10 classes and the model 11", dataset, 11)


def test_published_digits() -> None:
    dataset = _dataset(_DIGITS, [9, 0, 5], published=True)
    assert _numbers(dataset, 10, _FASHION) == _numbers(dataset, 10) == [9, 0, 5]
    assert _how(dataset, 10, _FASHION) == ("by number", False)
    torchvision = [f"{digit} - {_DIGIT_WORDS[digit]}" for digit in range(10)]
    for labels in (_DIGITS, _DIGIT_WORDS, torchvision):
        assert _numbers(dataset, 10, labels) == [9, 0, 5]
        assert _numbers(dataset, 10, labels[::-1]) == [0, 9, 4]
    _refused("has 10 classes and the model 47", dataset, 47)
    _refused("has 10 classes and the model 4", dataset, 4, ("a", "b", "c", "d"))
    _refused("'0', which the model does not have", dataset, 10, [str(i) for i in range(1, 11)])


# Rule 8


def test_numbers_without_names() -> None:
    dataset = _dataset(None, [3, 0, 3])
    for labels in (None, ("ant", "bee", "cat", "dog"), _DIGITS[:4], ("1", "2", "3", "4")):
        assert _numbers(dataset, 4, labels) == [3, 0, 3]
        assert _how(dataset, 4, labels) == ("by number", False)
    assert _numbers(_dataset(None, [3, 1]), 10) == [3, 1]
    with pytest.raises(DataError, match="a set has the label 3, but the model distinguishes 3"):
        dataset.with_model_classes(3, None)


def test_numbers_that_may_be_labels() -> None:
    _refused("label 3, which may be .* 3 or its class '3', .* 2", _dataset(None, [3]), 4, "1234")
    _refused("which may be", _dataset(None, [0, 1]), 3, "102")
    assert _numbers(_dataset(None, [2]), 3, "102") == [2]


def test_numbers_that_count_from_one() -> None:
    _refused("count from 1, subtract 1", _dataset(None, [1, 4, 2]), 4)
    _refused("count from 1, subtract 1", _dataset(None, [2, 3], span=(1, 4)), 4)
    assert _numbers(_dataset(None, [2, 3], span=(0, 3)), 4) == [2, 3]


def test_a_set_without_labels_fits_every_model() -> None:
    dataset = Dataset("a set", None, 1, lambda i: Image.new("L", (1, 1)), str)
    assert dataset.with_model_classes(2, None) is dataset
