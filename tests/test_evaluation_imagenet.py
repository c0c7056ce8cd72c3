"""The table of ILSVRC2012, against what other lists of it say."""

from __future__ import annotations

from adder_onnx.evaluation.imagenet import is_wordnet_id, kit_order, synsets

# Lines 20, 40, … of the development kit's map_clsloc.txt.
_KIT = """
    n02091134 n02443484 n02111277 n02391049 n02489166 n02397096 n02108422 n02095314 n02088632
    n02087394 n04507155 n04612504 n03791053 n03417042 n02870880 n07749582 n04311174 n09468604
    n04208210 n01622779 n01855672 n02056570 n01667114 n01729977 n01644373 n03841143 n02749479
    n03602883 n02910353 n04275548 n01986214 n02268853 n03297495 n04311004 n04458633 n03160309
    n07716906 n04120489 n04435653 n04192698 n02909870 n03482405 n04039381 n03770439 n07880968
    n03769881 n02865351 n04254120 n03584254 n03255030
"""
# Of the first validation images, the ILSVRC2012_ID by the kit's ground truth, and the number in
# Caffe's val.txt, which is that of sorted order.
_IMAGES = {
    490: 65, 361: 970, 171: 230, 822: 809, 297: 516, 482: 57, 13: 334, 704: 415, 599: 674,
    164: 332, 649: 109, 11: 286, 73: 370, 286: 757, 554: 595, 6: 147, 648: 108, 399: 23,
    749: 478, 545: 517, 204: 173, 318: 948,
}  # fmt: skip


def test_the_order_of_the_kit() -> None:
    assert list(kit_order()[19::20]) == _KIT.split()
    assert kit_order()[:3] == ("n02119789", "n02100735", "n02110185")


def test_both_numberings_of_the_first_validation_images() -> None:
    assert {n: synsets()[kit_order()[n - 1]].number for n in _IMAGES} == _IMAGES


def test_numbers_are_places_in_sorted_order() -> None:
    assert len(synsets()) == len(set(kit_order())) == 1000
    assert [synset.number for synset in synsets().values()] == list(range(1000))
    assert list(synsets()) == sorted(synsets())
    assert all(is_wordnet_id(id) for id in synsets())


def test_names() -> None:
    assert synsets()["n01440764"].names == ("tench", "Tinca tinca")
    assert synsets()["n02119789"].names == ("kit fox", "Vulpes macrotis")
    assert synsets()["n15075141"].names[0] == "toilet tissue"


def test_ids() -> None:
    assert is_wordnet_id("n01440764")
    for name in ("n0144076", "n014407640", "N01440764", "v01440764", "n01440764 ", "n0144076४"):
        assert not is_wordnet_id(name)
