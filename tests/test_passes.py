"""How a batch is cut into passes through a chain."""

from __future__ import annotations

import math

import pytest

from adder_onnx.runtime.chain import Image, Passes, plan_passes


def floats(name: str, shape: Image) -> int:
    """Of tensors in float32, or in bytes where their name says so."""
    return math.prod(shape) // (4 if name.startswith("byte") else 1)


def plan(batch: int, threads: int, **images: tuple[int, int, int]) -> Passes:
    return plan_passes({name: (batch, *i) for name, i in images.items()}, floats, threads)


@pytest.mark.parametrize(
    ("batch", "threads", "expected"),
    [
        (1, 1, Passes(1, 1, 1)),
        (2, 1, Passes(2, 2, 1)),
        (3, 1, Passes(3, 3, 1)),
        (4, 1, Passes(4, 2, 1)),  # alike
        (9, 1, Passes(9, 3, 1)),
        (4, 2, Passes(4, 2, 2)),
        (128, 2, Passes(128, 3, 2)),
        (1, 8, Passes(1, 1, 1)),
    ],
)
def test_small_images_go_together(batch: int, threads: int, expected: Passes) -> None:
    assert plan(batch, threads, a=(16, 14, 14), b=(64, 7, 7)) == expected


def test_no_more_go_together_than_have_enough_pixels() -> None:
    assert plan(64, 1, a=(16, 12, 12)).images == 1
    assert plan(64, 1, a=(16, 1, 1)).images == 8


def test_large_images_go_alone() -> None:
    inner = (2048, 7, 7)
    assert plan(64, 1, a=(256, 56, 56), b=inner).images == 1
    assert plan(64, 1, byte=(256, 56, 56), byte2=inner).images == 3
    assert plan(64, 1, a=(64, 56, 56), b=inner).images == 3
    assert plan(64, 1, a=(512, 56, 56), b=inner).images == 1  # more than 4 MiB


def test_tensors_of_different_batches_go_in_one_pass() -> None:
    shapes = {"a": (4, 16, 7, 7), "b": (1, 16, 7, 7)}
    assert plan_passes(shapes, floats, 2) == Passes(4, 4, 1)


def test_no_images() -> None:
    assert plan(0, 2, a=(16, 7, 7)) == Passes(0, 1, 1)
