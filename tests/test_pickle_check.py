"""Pickles are checked before they are read."""

from __future__ import annotations

import pickle
import random
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from adder_onnx.archives.pickles import check_pickle
from adder_onnx.errors import AdderError
from adder_onnx.memory import limited
from tests.hostile.pickles import bombs

_VALUES: dict[str, Any] = {
    "numbers": [0, -1, 255, 2**16, -(2**31), 2**63, 2**70, -(2**100), 1.5, float("inf")],
    "texts": ["", "a", "é" * 300, "x" * 70_000, b"", b"abc", b"y" * 70_000, bytearray(b"z" * 300)],
    "containers": {"a": [1, (2, 3), (), (1,), (1, 2, 3, 4)], "b": {4}, "c": frozenset([5, None])},
    "shared": [[[1]] * 3] * 3,
    "calls": [OrderedDict(a=1), complex(1, 2), slice(1, 2, 3), range(5), random.getstate()],
    "arrays": [np.arange(5), np.zeros((2, 3), "f4", order="F"), np.float64(1)],
    "many": list(range(5000)),
}

_TAKEN = {  # by the check: it is for the reader to refuse what they call
    "lists that double",
    "a list in itself",
    "a dictionary in itself",
    "a key that has no hash",
    "bytes by length",
    "a range",
    "a set of text",
    "encoded again and again",
    "many classes",
    "attributes of slots",
    "a persistent id of text",
    "a persistent id of a list",
    "an array of a length",
    "an array by its class",
    "a type of a state",
    "attributes of a dictionary",
    "a default that is called",
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("what", _VALUES)
def test_pickles_of_python(what: str, protocol: int) -> None:
    data = pickle.dumps(_VALUES[what], protocol)
    assert check_pickle(data) == len(data)
    assert check_pickle(b"abc" + data + b"def", 3) == 3 + len(data)


@pytest.mark.parametrize("what", sorted(bombs().keys() - _TAKEN))
def test_bombs_are_refused(what: str) -> None:
    with pytest.raises(pickle.UnpicklingError):
        check_pickle(bombs()[what])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_cut_off_anywhere(protocol: int) -> None:
    data = pickle.dumps(_VALUES["containers"], protocol)
    for length in range(len(data)):
        with pytest.raises(pickle.UnpicklingError):
            check_pickle(data[:length])


def test_nesting_by_way_of_the_memo() -> None:
    """A value may be taken from the memo, by any instruction that put it there."""
    for put, get in ((b"q\x01", b"h\x01"), (b"\x94", b"h\x00"), (b"p1\n", b"g1\n")):
        step = put + b"0" + get + b"\x85" if put != b"\x94" else b"\x85"
        data = b"\x80\x02)" + step * 1000 + b"."
        with pytest.raises(pickle.UnpicklingError, match="nested"):
            check_pickle(data)


def test_place_of_memoize_is_that_of_the_real_unpickler() -> None:
    """It counts what is in the memo, whatever the places that were named before."""
    data = b"\x80\x04Nq\x05]\x94h\x010h\x05\x85."
    assert pickle.loads(data) == (None,)
    assert check_pickle(data) == len(data)
    with pytest.raises(pickle.UnpicklingError, match="memo"):
        check_pickle(data.replace(b"h\x01", b"h\x06"))


def test_memory() -> None:
    data = pickle.dumps(list(range(10_000)))
    with limited(100_000), pytest.raises(AdderError, match="a file: what is pickled takes"):
        check_pickle(data, what="a file")
    with limited(10_000_000):
        check_pickle(data)
