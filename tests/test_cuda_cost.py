"""The rules by which tiles and shares of sums are compared: one test for each."""

from __future__ import annotations

import pytest

from adder_onnx.kernels.cuda.launch.cost import COSTS, Costs, cycles

COST = Costs(latency=100, work=10, ends=2, leaving=7, reading=5)
GPU = 132


def test_the_multiprocessor_with_most_to_do_counts() -> None:
    alone = cycles(COST, 128, 1, 8, 1, GPU)
    assert alone == (8 + 2) * (100 + 10)
    assert cycles(COST, 128, GPU, 8, 1, GPU) == alone
    assert cycles(COST, 128, GPU + 1, 8, 1, GPU) == (8 + 2) * (100 + 2 * 10)
    # Three at a time, and then one.
    assert cycles(COST, 128, 3 * GPU + 1, 8, 1, GPU) == (8 + 2) * (100 + 3 * 10) + alone


def test_blocks_go_at_the_pace_of_the_fullest_scheduler() -> None:
    alone = cycles(COST, 64, GPU, 8, 1, GPU)
    assert alone == cycles(COST, 64, 2 * GPU, 8, 1, GPU) == (8 + 2) * (100 + 10)
    shared = cycles(COST, 64, 3 * GPU, 8, 1, GPU)
    assert shared == cycles(COST, 64, 4 * GPU, 8, 1, GPU) == (8 + 2) * (100 + 2 * 10)
    assert cycles(COST, 64, 7 * GPU, 8, 1, GPU) == (8 + 2) * (100 + 3 * 10) + alone


@pytest.mark.parametrize("turns", [1, 8])
def test_what_is_around_the_turns(turns: int) -> None:
    assert cycles(COST, 128, 1, turns, 1, GPU) == (turns + 2) * (100 + 10)


def test_sharing() -> None:
    shared = (4 + 2) * (100 + 10) + 7 + 2 * 5
    assert cycles(COST, 128, 66, 8, 2, GPU) == shared
    assert cycles(COST, 128, 66, 7, 2, GPU) == shared  # four turns and three
    # Each block leaves its sums, and the last one reads those of eight.
    assert cycles(COST, 128, 66, 8, 8, GPU) == (1 + 2) * (2 * 100 + 4 * 10) + 2 * 7 + 8 * 5
    # Half as many threads leave half as many sums, and read theirs as long.
    assert cycles(COST, 64, 66, 8, 2, GPU) == (4 + 2) * (100 + 10) + 7 / 2 + 2 * 5


def test_shorter_turns_change_nothing_around_them() -> None:
    halves = COST.of_turns(0.5)
    assert cycles(halves, 128, 1, 16, 1, GPU) == cycles(COST, 128, 1, 8, 1, GPU)


def test_all_types_have_costs() -> None:
    assert set(COSTS) == {"float32", "float16", "uint8"}
