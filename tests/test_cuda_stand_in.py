"""What stands in for a GPU sees what a GPU might do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from adder_onnx.kernels.cuda.launch.device import SCRATCH_ZEROS
from adder_onnx.kernels.cuda.launch.params import LAYOUT_ARGS
from adder_onnx.kernels.cuda.launch.variants import Kernel
from tests.cuda_on_cpu.device import CpuDevice, Program

WAYS = (
    "kRight",
    "kNoWait",
    "kOneGroupWaited",
    "kNoBarrierAfter",
    "kNoBarrierBefore",
    "kNotCommitted",
    "kNotThere",
)
COPIES = {way: Kernel(f"copies<{way}>", 32, LAYOUT_ARGS) for way in WAYS}
ARRIVALS = Kernel("arrivals", 32, LAYOUT_ARGS)
PROBES = Program(Path(__file__).parent / "cuda_on_cpu" / "probes.cu", (*COPIES.values(), ARRIVALS))
POISON = 0xFFFFFFFF


def copied(way: str, **options: bool) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """What was to be copied, what has been seen of it, and of what was there before."""
    device = CpuDevice(program=PROBES, **options)
    source = device.upload(np.arange(64 * 4, dtype=np.uint32).reshape(2, 32, 4))
    seen = device.empty((3, 32, 4), np.uint32)
    args = np.zeros((), LAYOUT_ARGS)
    args["from"], args["to"] = device.pointer(source), device.pointer(seen)
    device.launch(COPIES[way], (1, 1, 1), args)
    device.check_guards()
    return source, seen[:2], seen[2]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("async_copies", [False, True])
def test_copies_that_are_waited_for(backwards: bool, async_copies: bool) -> None:
    source, seen, before = copied("kRight", backwards=backwards, async_copies=async_copies)
    np.testing.assert_array_equal(seen, source)
    assert (before == 7).all()
    _, seen, _ = copied("kNotThere", backwards=backwards, async_copies=async_copies)
    assert (seen == 0).all()


@pytest.mark.parametrize("way", ["kNoWait", "kNotCommitted"])
def test_copies_that_are_not_waited_for_have_not_landed(way: str) -> None:
    _, seen, before = copied(way)
    assert (seen == POISON).all()
    assert (before == 7).all()


def test_the_last_group_may_be_on_its_way() -> None:
    source, seen, _ = copied("kOneGroupWaited")
    np.testing.assert_array_equal(seen[0], source[0])
    assert (seen[1] == POISON).all()


def test_missing_barriers_are_seen() -> None:
    """In one of the two orders of threads."""
    right, seen, _ = copied("kNoBarrierAfter")
    seen_too = copied("kNoBarrierAfter", backwards=True)[1]
    assert (seen != right).any()
    assert (seen_too != right).any()
    before = [copied("kNoBarrierBefore", backwards=backwards)[2] for backwards in (False, True)]
    assert any((values != 7).any() for values in before)


@pytest.mark.parametrize("backwards", [False, True])
def test_the_last_block_sees_what_all_have_left(backwards: bool) -> None:
    """Once for each tile, in the same order whoever is last, and again in the next launch."""
    device = CpuDevice(program=PROBES, backwards=backwards)
    scratch = device.empty((SCRATCH_ZEROS + 2 * 3 * 32 * 16,), np.uint8)
    device.clear(device.pointer(scratch), SCRATCH_ZEROS)
    sums = device.upload(np.zeros((2, 32, 4), np.uint32))
    args = np.zeros((), LAYOUT_ARGS)
    args["from"], args["to"] = device.pointer(scratch), device.pointer(sums)
    for launches in (1, 2):
        device.launch(ARRIVALS, (2, 3, 1), args)
        for tile in range(2):
            np.testing.assert_array_equal(sums[tile, :, 0], 3 * tile * launches)
            np.testing.assert_array_equal(sums[tile, :, 1], 12 * launches)
            np.testing.assert_array_equal(sums[tile, :, 2], 3 * np.arange(32) * launches)
            np.testing.assert_array_equal(sums[tile, :, 3], 3 * launches)
        assert not scratch[:SCRATCH_ZEROS].any()
    device.check_guards()
