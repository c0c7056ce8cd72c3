"""Chains captured into CUDA graphs, which a list of launches stands in for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from adder_onnx.errors import DeviceError
from adder_onnx.quantization import quantize
from adder_onnx.runtime.cuda import chain_executor
from adder_onnx.runtime.cuda.chain_executor import MAX_GRAPHS
from adder_onnx.runtime.cuda.contexts import MAX_CONTEXTS
from tests.concurrency import assert_threads_agree
from tests.cuda_on_cpu.device import CpuGpu, GpuArray
from tests.cuda_on_cpu.sessions import assert_equals_stock, cuda_session, pretend
from tests.models import adder_conv, image, make_model, node, normalized_network
from tests.random_graphs import random_model
from tests.test_random_graphs import TOLERANCE, stock


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> CpuGpu:
    return pretend(monkeypatch, CpuGpu())


def test_the_second_run_with_a_shape_captures_and_later_ones_replay(gpu: CpuGpu) -> None:
    s = cuda_session(normalized_network())
    chains = len(s.memory() or (s.run(None, {"X": image(1, 3, 6, 6)}) and s.memory()))
    assert (chains, gpu.replayed) == (1, 0)
    for run in range(1, 4):
        assert_equals_stock(normalized_network(), s, {"X": image(1, 3, 6, 6)})
        assert gpu.replayed == run
    gpu.check_guards()


def test_arrays_that_enter_and_leave_may_lie_anywhere(gpu: CpuGpu) -> None:
    """Each run has inputs of its own; results of earlier ones stay as they were."""
    s = cuda_session(normalized_network())
    feeds = [gpu.wrap_values(image(2, 3, 7, 5)) for _ in range(5)]
    results = [s.run(None, {"X": x})[0] for x in feeds]
    assert gpu.replayed == 4
    for x, y in zip(feeds, results, strict=True):
        assert type(y) is GpuArray
        feed = {"X": np.array(x.view(np.ndarray))}
        (expected,) = stock(normalized_network().SerializeToString()).run(None, feed)
        np.testing.assert_allclose(y.view(np.ndarray), expected, rtol=1e-5, atol=1e-4)


def test_the_same_answers_with_and_without(gpu: CpuGpu) -> None:
    for seed in range(40):
        model, feed = random_model(seed)
        data = model.SerializeToString()
        with_, without = cuda_session(data), cuda_session(data, cuda_graphs=False)
        expected = stock(data).run(None, feed)
        for _ in range(3):
            results = with_.run(None, feed)
            for a, b, truth in zip(results, without.run(None, feed), expected, strict=True):
                np.testing.assert_array_equal(a, b, f"seed {seed}")
                scale = max(1.0, float(np.abs(truth).max(initial=0)))
                assert float(np.abs(a - truth).max(initial=0)) <= TOLERANCE * scale
    assert gpu.replayed > 40
    gpu.check_guards()


def test_sums_that_blocks_share(gpu: CpuGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pixels of many channels: the counters that blocks meet at are the graph's, too."""
    cleared: list[int] = []
    clear = gpu.clear

    def count(address: int, size: int) -> None:
        cleared.append(address)
        clear(address, size)

    monkeypatch.setattr(gpu, "clear", count)
    rng = np.random.default_rng(0)
    model = make_model(
        [adder_conv("X", "W", "Y", pads=[1, 1, 1, 1])],
        {"X": ["N", 256, 4, 4]},
        {"Y": ["N", 32, 4, 4]},
        {"W": rng.standard_normal((32, 256, 3, 3)).astype(np.float32)},
    )
    s = cuda_session(model)
    for _ in range(4):
        assert_equals_stock(model, s, {"X": image(1, 256, 4, 4)})
    assert gpu.replayed == 3
    assert cleared


def test_integer_chains(gpu: CpuGpu) -> None:
    rng = np.random.default_rng(0)
    feeds = [{"X": rng.standard_normal((2, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    model = quantize(normalized_network(), feeds[:1]).model
    with_, without = cuda_session(model), cuda_session(model, cuda_graphs=False)
    for feed in feeds:
        np.testing.assert_array_equal(with_.run(None, feed)[0], without.run(None, feed)[0])
    assert gpu.replayed == 3


def test_they_can_be_turned_off(gpu: CpuGpu) -> None:
    s = cuda_session(normalized_network(), cuda_graphs=False)
    for _ in range(3):
        assert_equals_stock(normalized_network(), s, {"X": image(1, 3, 6, 6)})
    assert gpu.replayed == 0
    assert [m.arenas for m in s.memory()] == [0]


def test_their_number_is_bounded_and_their_memory_shown(gpu: CpuGpu) -> None:
    s = cuda_session(normalized_network())
    sizes = range(4, 6 + MAX_GRAPHS)
    for size in sizes:
        for _ in range(3):
            assert_equals_stock(normalized_network(), s, {"X": image(1, 3, size, size)})
    assert gpu.replayed == 2 * len(sizes)
    kept = [m for m in s.memory() if m.arenas]
    assert len(kept) == MAX_GRAPHS
    assert {m.arenas for m in kept} == {1}
    assert len({m.peak_bytes for m in kept}) == MAX_GRAPHS
    # Those that were used last are there still.
    before = gpu.replayed
    s.run(None, {"X": image(1, 3, sizes[-1], sizes[-1])})
    assert gpu.replayed == before + 1
    s.run(None, {"X": image(1, 3, sizes[0], sizes[0])})
    assert gpu.replayed == before + 1


def test_the_one_used_longest_ago_gives_way_once_it_has_run(
    gpu: CpuGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    monkeypatch.setattr(gpu, "finish", lambda: waits.append(gpu.on))
    s = cuda_session(normalized_network())
    feeds = [{"X": image(1, 3, 5 + i, 5)} for i in range(MAX_GRAPHS + 1)]
    for feed in feeds[:MAX_GRAPHS]:
        for _ in range(2):
            s.run(None, feed)
    s.run(None, feeds[0])
    assert waits == []
    s.run(None, feeds[MAX_GRAPHS])
    assert len(waits) == 1
    before = gpu.replayed
    s.run(None, feeds[0])
    assert gpu.replayed == before + 1
    s.run(None, feeds[1])
    assert gpu.replayed == before + 1


def test_arenas_of_graphs_are_all_that_stays(gpu: CpuGpu) -> None:
    """By the memory itself: after a run, the weights and the arenas of `session.memory()`."""

    def held() -> int:
        memory = [reference() for reference in gpu._memory]
        return sum(array.nbytes for array in memory if array is not None)

    s = cuda_session(normalized_network())
    packed = held()
    for _ in range(3):
        s.run(None, {"X": image(1, 3, 16, 16)})
    (memory,) = s.memory()
    assert memory.arenas == 1
    overhead = 2 * 4096 + 64  # the guards around an array
    assert held() - packed == memory.peak_bytes + overhead


def test_streams_have_graphs_of_their_own(gpu: CpuGpu) -> None:
    s = cuda_session(normalized_network(), concurrency=MAX_CONTEXTS)
    assert_threads_agree(s, [(n, 3, 4 + n, 6) for n in range(1, 4)], runs=8)
    assert gpu.replayed
    assert all(0 < m.arenas <= MAX_CONTEXTS for m in s.memory())
    gpu.check_guards()


def test_computed_weights_have_none(gpu: CpuGpu) -> None:
    model = make_model(
        [node("Exp", ["V"], "W"), adder_conv("X", "W", "Y")],
        {"X": ["N", 3, 5, 5], "V": [4, 3, 3, 3]},
        {"Y": ["N", 4, 3, 3]},
    )
    s = cuda_session(model)
    for _ in range(3):  # other weights in each run
        assert_equals_stock(model, s, {"X": image(2, 3, 5, 5), "V": image(4, 3, 3, 3)})
    assert gpu.replayed == 0


def test_large_images_have_none(gpu: CpuGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their kernels take longer than their launches, and their memory would stay."""
    s = cuda_session(normalized_network())
    s.run(None, {"X": image(1, 3, 6, 6)})
    (small,) = s.memory()
    monkeypatch.setattr(chain_executor, "MAX_ARENA", small.peak_bytes)
    for _ in range(3):
        s.run(None, {"X": image(1, 3, 9, 9)})
    assert gpu.replayed == 0
    s.run(None, {"X": image(1, 3, 6, 6)})
    assert gpu.replayed == 1


def test_profiles_time_single_kernels(gpu: CpuGpu) -> None:
    s = cuda_session(normalized_network())
    for _ in range(3):
        times = s.profile({"X": image(1, 3, 6, 6)})
        assert sum(len(part.kernels) for part in times.parts) > 2
    assert gpu.replayed == 0
    assert [m.arenas for m in s.memory()] == [0]


def test_where_capturing_fails_runs_go_on_without(
    gpu: CpuGpu, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Callable[[], None]) -> Any:
        raise DeviceError("cuda:0 failed while capturing a graph: not permitted")

    monkeypatch.setattr(gpu, "capture", fail)
    s = cuda_session(normalized_network())
    with caplog.at_level(logging.WARNING):
        for size in (5, 6, 5, 6, 5, 6):
            assert_equals_stock(normalized_network(), s, {"X": image(1, 3, size, size)})
    (record,) = caplog.records
    assert "runs go on without CUDA graphs: cuda:0 failed" in record.getMessage()
