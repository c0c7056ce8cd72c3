"""How sessions on a GPU begin, end and fail; the CPU stands in for the GPU."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest

import adder_onnx
from adder_onnx.errors import DeviceError, InputError
from adder_onnx.runtime.cuda.contexts import MAX_CONTEXTS
from adder_onnx.runtime.cuda.errors import DeviceLostError, DeviceMemoryError
from tests.cuda_on_cpu.device import CpuGpu
from tests.cuda_on_cpu.sessions import assert_equals_stock, cuda_session, pretend
from tests.models import image, normalized_network

X = image(1, 3, 6, 6)


class Stream(int):
    """A stream that writes down its end."""

    ended: list[str]

    def __del__(self) -> None:
        self.ended.append("stream" if self > 1 else "stream of weights")


class LoggingGpu(CpuGpu):
    """Streams that write down their ends, and memory that may not suffice."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[str] = []
        self.freed = 0
        self.failing: list[DeviceError] = []

    def new_stream(self) -> Stream:
        stream = Stream(super().new_stream())
        stream.ended = self.ended
        return stream

    def wait(self, stream: int, other: int) -> None:
        super().wait(int(stream), int(other))  # without keeping them

    def synchronize(self, stream: int) -> None:
        super().synchronize(stream)
        self.ended.append("wait")

    def empty(self, shape: Any, dtype: Any) -> Any:
        if self.failing and self.on:
            raise self.failing.pop()
        return super().empty(shape, dtype)

    def free_unused(self, stream: int | None = None) -> None:
        if stream is None:
            self.freed += 1
        else:
            self.ended.append("free")

    def held(self) -> int:
        """Arrays that there are."""
        return sum(reference() is not None for reference in self._memory)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> LoggingGpu:
    """A GPU, beside an onnxruntime whose sessions write down their ends, too."""
    fake = LoggingGpu()

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __del__(self) -> None:
            fake.ended.append("session")

    pretend(monkeypatch, fake)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return fake


def close(s: adder_onnx.InferenceSession) -> None:
    s.close()


def leave(s: adder_onnx.InferenceSession) -> None:
    with s:
        pass


def forget(_: adder_onnx.InferenceSession) -> None:
    pass


def collect(s: adder_onnx.InferenceSession) -> None:
    s.itself = s  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", [close, leave, forget, collect])
def test_streams_outlive_onnxruntimes_sessions(
    gpu: LoggingGpu, how: Callable[[adder_onnx.InferenceSession], None]
) -> None:
    """Stem and head on each of two streams; a third one is that on which weights are packed."""
    s = cuda_session(normalized_network(), concurrency=2)
    s.run(None, {"X": X})
    gc.collect()
    gpu.ended.clear()
    how(s)
    if how in (close, leave):
        assert gpu.ended.count("session") == 4  # now, and not when the garbage collector comes
    del s
    if how is collect:
        gc.collect()
    assert gpu.held() == 0
    ends = {"session": 4, "stream": 2, "wait": 2, "stream of weights": 1}
    assert Counter(gpu.ended) == {**ends, "free": 3 if how in (close, leave) else 2}
    for i, what in enumerate(gpu.ended):
        before = gpu.ended[:i]
        if what == "session":
            assert before.count("session") < 2 * before.count("wait")
        if what == "stream":
            assert before.count("session") >= 2 * (before.count("stream") + 1)


def test_a_closed_session_says_so(gpu: LoggingGpu) -> None:
    for s in (
        cuda_session(normalized_network()),
        adder_onnx.InferenceSession(normalized_network()),
    ):
        with s as entered:
            assert entered is s
            device = s.device
            s.run(None, {"X": X})
        s.close()
        with pytest.raises(InputError, match="the session is closed: make a new one"):
            s.run(None, {"X": X})
        with pytest.raises(InputError, match="the session is closed"):
            s.profile({"X": X})
        assert s.memory() == []
        assert s.device == device
        assert s.get_inputs()[0].name == "X"


def test_a_session_is_closed_while_it_runs(gpu: LoggingGpu) -> None:
    """The run comes to its end, then its context does."""
    s = cuda_session(normalized_network())
    (expected,) = s.run(None, {"X": X})
    running, closed = threading.Event(), threading.Event()
    download, results = gpu.download, []

    def wait_and_download(array: Any) -> Any:
        running.set()
        assert closed.wait(60)
        return download(array)

    gpu.download = wait_and_download  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: results.append(s.run(None, {"X": X})[0]))
    thread.start()
    assert running.wait(60)
    gpu.ended.clear()
    s.close()
    assert "session" not in gpu.ended
    closed.set()
    thread.join(60)
    np.testing.assert_array_equal(results[0], expected)
    assert [end for end in gpu.ended if end != "stream of weights"] == [
        *("free", "wait", "session", "session", "free", "stream")
    ]


def test_contexts_are_made_ahead(gpu: LoggingGpu) -> None:
    """Beside the stream that weights are packed on."""
    cuda_session(normalized_network(), concurrency=3)
    assert gpu.streams == 1 + 3
    with pytest.raises(InputError, match="concurrency is 0; expected at least 1"):
        cuda_session(normalized_network(), concurrency=0)


@pytest.mark.parametrize("ahead", [1, MAX_CONTEXTS + 2])
def test_so_many_runs_go_on_at_the_same_time(gpu: LoggingGpu, ahead: int) -> None:
    s = cuda_session(normalized_network(), concurrency=ahead)
    most, now, lock = 0, 0, threading.Lock()
    full = threading.Barrier(max(ahead, MAX_CONTEXTS))
    download = gpu.download

    def counted(array: Any) -> Any:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        full.wait(60)
        with lock:
            now -= 1
        return download(array)

    gpu.download = counted  # type: ignore[method-assign]
    count = 2 * full.parties
    threads = [threading.Thread(target=lambda: s.run(None, {"X": X})) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not full.broken
    assert most == full.parties


def test_a_lost_device_ends_the_session(gpu: LoggingGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    s = cuda_session(normalized_network())
    gpu.failing = [DeviceLostError("cuda:0 failed while waiting for it (illegal address)")]
    with pytest.raises(DeviceLostError, match=r"^cuda:0 failed while waiting"):
        s.run(None, {"X": X})
    launched = len(gpu.launched)
    for feed in (X, gpu.wrap_values(X)):
        with pytest.raises(DeviceError, match=r"cannot be used any more: .*\(illegal address\)"):
            s.run(None, {"X": feed})
    assert len(gpu.launched) == launched
    # Another session is not this one's business.
    assert_equals_stock(normalized_network(), cuda_session(normalized_network()), {"X": X})


def test_a_device_that_onnxruntime_has_lost(
    gpu: LoggingGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = cuda_session(normalized_network())

    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA failure 700: an illegal memory access was encountered ; GPU=0")

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", fail)
    with pytest.raises(DeviceLostError, match="while running standard nodes"):
        s.run(None, {"X": X})
    with pytest.raises(DeviceLostError, match="cannot be used any more"):
        s.run(None, {"X": X})


def test_whatever_onnxruntime_says_of_a_lost_device(
    gpu: LoggingGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked itself before an input is blamed."""
    s = cuda_session(normalized_network())

    def fail(*_: Any) -> None:
        raise RuntimeError("Non-zero status code returned while running Conv node")

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", fail)
    with pytest.raises(InputError, match="onnxruntime failed on this input"):
        s.run(None, {"X": X})

    def lost() -> None:
        raise DeviceLostError("cuda:0 failed while waiting for it")

    monkeypatch.setattr(gpu, "finish", lost)
    with pytest.raises(DeviceLostError):
        s.run(None, {"X": X})


def test_an_input_of_a_lost_device_is_not_a_bad_input(
    gpu: LoggingGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = cuda_session(normalized_network())

    def lost(_: Any) -> None:
        raise DeviceLostError("cuda:0 failed while taking over an array")

    monkeypatch.setattr(gpu, "adopt", lost)
    with pytest.raises(DeviceLostError, match="taking over"):
        s.run(None, {"X": gpu.wrap_values(X)})
    with pytest.raises(DeviceLostError, match="cannot be used any more"):
        s.run(None, {"X": X})


def test_short_memory_is_freed_and_the_run_begins_again(gpu: LoggingGpu) -> None:
    s = cuda_session(normalized_network())
    for _ in range(3):
        s.run(None, {"X": X})
    assert [m.arenas for m in s.memory()] == [1]
    gpu.failing = [DeviceMemoryError("cuda:0 is out of memory")]
    assert_equals_stock(normalized_network(), s, {"X": X})
    assert gpu.freed == 1
    assert [m.arenas for m in s.memory()] == [0]  # graphs, too, were given up
    gpu.failing = [DeviceMemoryError("cuda:0 is out of memory")] * 2
    with pytest.raises(DeviceMemoryError):
        s.run(None, {"X": X})
    assert gpu.freed == 2
    assert_equals_stock(normalized_network(), s, {"X": X})


def test_short_memory_of_onnxruntime(gpu: LoggingGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    s = cuda_session(normalized_network())
    run, failures = onnxruntime.InferenceSession.run_with_iobinding, [1]

    def fail_once(*arguments: Any) -> None:
        if failures:
            failures.pop()
            raise RuntimeError("Failed to allocate memory for requested buffer of size 9")
        run(*arguments)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", fail_once)
    assert_equals_stock(normalized_network(), s, {"X": X})
    assert gpu.freed == 1


def test_short_memory_while_a_context_is_made(
    gpu: LoggingGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, failures = onnxruntime.InferenceSession, [1]

    def fail_once(*arguments: Any, **options: Any) -> Any:
        if failures:
            failures.pop()
            raise RuntimeError("CUDA failure 2: out of memory ; GPU=0")
        return make(*arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail_once)
    s = cuda_session(normalized_network())
    assert gpu.freed == 1
    monkeypatch.setattr(onnxruntime, "InferenceSession", make)
    assert_equals_stock(normalized_network(), s, {"X": X})


def test_short_memory_while_weights_are_packed(gpu: LoggingGpu) -> None:
    gpu.failing = [DeviceMemoryError("cuda:0 is out of memory")]
    assert_equals_stock(normalized_network(), cuda_session(normalized_network()), {"X": X})
    assert gpu.freed == 1


def test_kernels_are_compiled_when_a_session_is_made(gpu: LoggingGpu) -> None:
    """That no other is ever launched, `CpuGpu` checks in all tests."""
    s = cuda_session(normalized_network())
    prepared = set(gpu.prepared)
    s.run(None, {"X": X})
    assert set(gpu.launched) <= prepared
    assert gpu.prepared == prepared
