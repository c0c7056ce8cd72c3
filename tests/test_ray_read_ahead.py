"""Reading ahead gives what would have been read, in order, and stops when nobody asks."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from adder_onnx.ray.evaluation.read_ahead import read_ahead


@pytest.mark.parametrize("count", [1, 3, 100])
def test_the_same_items(count: int) -> None:
    assert list(read_ahead(iter(range(20)), count)) == list(range(20))
    assert list(read_ahead(iter(()), count)) == []
    assert list(read_ahead(iter([None, 0]), count)) == [None, 0]


def test_what_comes_next_is_there_before_it_is_asked_for_and_no_more() -> None:
    read: list[int] = []
    third = threading.Event()

    def items() -> Iterator[int]:
        for i in range(100):
            read.append(i)
            if i == 3:
                third.set()
            yield i

    found = read_ahead(items(), 3)
    assert next(found) == 0
    assert third.wait(60)  # the three behind it
    found.close()
    assert read == [0, 1, 2, 3]


def test_an_error_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    found = read_ahead(items(), 5)
    assert next(found) == 1
    with pytest.raises(OSError, match="gone"):
        next(found)
