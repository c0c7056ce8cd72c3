"""Copies through pinned memory, done as late as CUDA may do them."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from adder_onnx.runtime.cuda import staging
from adder_onnx.runtime.cuda.staging import MAX_LANES, Staging
from tests.fake_cupy import FakeCupy

PIECE = 64


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "PIECE_BYTES", PIECE)


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 5 * PIECE + 3])
def test_any_size_goes_there_and_back(size: int) -> None:
    cupy = FakeCupy()
    lanes, stream = Staging(cupy), cupy.cuda.Stream()
    source = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    sent = source.copy()
    device = np.zeros(size, np.uint8)
    lanes.upload(source, device.ctypes.data, stream)
    source[:] = 0  # the caller may do so: what was sent is as it was
    back = np.zeros(size, np.uint8)
    lanes.download(device.ctypes.data, back, stream)
    np.testing.assert_array_equal(back, sent)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool"])
def test_arrays_of_any_type_and_shape(dtype: str) -> None:
    cupy = FakeCupy()
    lanes, stream = Staging(cupy), cupy.cuda.Stream()
    source = np.random.default_rng(0).integers(0, 2, (3, 5, 7)).astype(dtype)
    device, back = np.zeros_like(source), np.zeros_like(source)
    lanes.upload(source, device.ctypes.data, stream)
    lanes.download(device.ctypes.data, back, stream)
    np.testing.assert_array_equal(back, source)


def test_one_piece_is_copied_while_another_is_on_the_bus() -> None:
    """Nothing is waited for before the third piece, which needs the first one's buffer."""
    cupy = FakeCupy()
    lanes, stream = Staging(cupy), cupy.cuda.Stream()
    device, source = np.zeros(3 * PIECE, np.uint8), np.ones(3 * PIECE, np.uint8)
    lanes.upload(source[: 2 * PIECE], device.ctypes.data, stream)
    assert not device.any()
    lanes.upload(source[2 * PIECE :], device.ctypes.data + 2 * PIECE, stream)
    stream.synchronize()
    assert device.all()


def test_pinned_memory_is_bounded_and_used_again() -> None:
    cupy = FakeCupy()
    lanes, stream = Staging(cupy), cupy.cuda.Stream()
    source, device = np.ones(9 * PIECE, np.uint8), np.zeros(9 * PIECE, np.uint8)
    for _ in range(3):
        lanes.upload(source, device.ctypes.data, stream)
        stream.synchronize()
    assert cupy.pinned == 2 * PIECE
    for _ in range(2 * MAX_LANES):  # on streams that do not get through
        lanes.upload(source, device.ctypes.data, cupy.cuda.Stream())
    assert cupy.pinned == 2 * PIECE * MAX_LANES


def test_many_threads() -> None:
    cupy = FakeCupy()
    lanes = Staging(cupy)
    problems: list[Any] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        stream = cupy.cuda.Stream()
        try:
            for _ in range(30):
                source = rng.integers(0, 256, int(rng.integers(1, 5 * PIECE)), np.uint8)
                device, back = np.zeros_like(source), np.zeros_like(source)
                lanes.upload(source, device.ctypes.data, stream)
                lanes.download(device.ctypes.data, back, stream)
                if not np.array_equal(source, back):
                    problems.append(seed)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3 * MAX_LANES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert not problems
    assert cupy.pinned <= 2 * PIECE * MAX_LANES
