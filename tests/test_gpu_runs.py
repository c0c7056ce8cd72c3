"""Runs on a GPU that wait for their callers, that others make, and that end early."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

import adder_onnx
from adder_onnx.errors import AdderError, RunTerminatedError, RunTimeoutError
from adder_onnx.runtime.devices import check_cuda
from tests.models import image, normalized_network

pytestmark = pytest.mark.gpu

SPIN = """
extern "C" __global__ void spin(long long cycles) {
    const long long end = clock64() + cycles;
    while (clock64() < end) {}
}
"""


@pytest.fixture(autouse=True, scope="module")
def needs_gpu() -> None:
    try:
        check_cuda(0)
    except AdderError as error:
        pytest.skip(f"no GPU: {error}")


@pytest.fixture(scope="module")
def session(needs_gpu: None) -> adder_onnx.InferenceSession:
    return adder_onnx.InferenceSession(normalized_network().SerializeToString(), device="cuda")


@pytest.fixture(scope="module")
def x(session: adder_onnx.InferenceSession) -> NDArray[np.float32]:
    """An input that the session has run before: nothing is compiled, loaded or captured for it."""
    for _ in range(3):
        session.run(None, {"X": image(2, 3, 6, 6)})
    return image(2, 3, 6, 6)


@pytest.fixture(scope="module")
def torch(needs_gpu: None) -> Any:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    return torch


def late_in_cupy(x: NDArray[np.float32]) -> Any:
    """An array on CuPy's current stream that gets its values after a quarter of a second."""
    import cupy

    spin = cupy.RawKernel(SPIN, "spin")
    late, values = cupy.zeros(x.shape, x.dtype), cupy.asarray(x)
    late += 0 * values  # no kernel needs to be loaded later
    cupy.cuda.get_current_stream().synchronize()
    spin((1,), (1,), (np.int64(500_000_000),))
    late += values
    return late


def late_in_torch(torch: Any, x: NDArray[np.float32]) -> Any:
    """The same as a tensor on torch's."""
    late, values = torch.zeros(x.shape, device="cuda"), torch.from_numpy(x).cuda()
    late += 0 * values
    torch.cuda.current_stream().synchronize()
    torch.cuda._sleep(500_000_000)
    late += values
    return late


def in_this_thread(session: adder_onnx.InferenceSession, feed: dict[str, Any]) -> Any:
    (y,) = session.run(None, feed)
    return y


def in_another_thread(session: adder_onnx.InferenceSession, feed: dict[str, Any]) -> Any:
    found: Queue[tuple[list[Any], Any, str]] = Queue()
    session.run_async(None, feed, lambda *results: found.put(results))
    results, _, error = found.get(timeout=60)
    assert not error
    return results[0]


Run = Callable[[adder_onnx.InferenceSession, dict[str, Any]], Any]
anywhere = pytest.mark.parametrize("run", [in_this_thread, in_another_thread])


@anywhere
def test_a_run_waits_for_cupys_stream(
    session: adder_onnx.InferenceSession, x: NDArray[np.float32], run: Run
) -> None:
    import cupy

    (expected,) = session.run(None, {"X": x})
    with cupy.cuda.Stream(non_blocking=True):
        y = run(session, {"X": late_in_cupy(x)})
        result = cupy.asnumpy(2 * y)
    np.testing.assert_array_equal(result, 2 * expected)


@anywhere
def test_a_run_waits_for_torchs_stream(
    session: adder_onnx.InferenceSession, x: NDArray[np.float32], torch: Any, run: Run
) -> None:
    (expected,) = session.run(None, {"X": x})
    with torch.cuda.stream(torch.cuda.Stream()):
        y = run(session, {"X": late_in_torch(torch, x)})
        assert isinstance(y, torch.Tensor)
        result = (2 * y).cpu()
    np.testing.assert_array_equal(result.numpy(), 2 * expected)


def test_runs_end_early(session: adder_onnx.InferenceSession, x: NDArray[np.float32]) -> None:
    import cupy

    (expected,) = session.run(None, {"X": x})
    options = onnxruntime.RunOptions()
    options.terminate = True
    for feed in (x, cupy.asarray(x)):
        with pytest.raises(RunTimeoutError, match="longer than the 1e-06 seconds"):
            session.run(None, {"X": feed}, timeout=1e-6)
        with pytest.raises(RunTerminatedError):
            session.run(None, {"X": feed}, options)
        (y,) = session.run(None, {"X": feed}, timeout=60)
        np.testing.assert_array_equal(cupy.asnumpy(y), expected)


def test_a_run_is_terminated_by_another_thread(needs_gpu: None) -> None:
    """Somewhere on its way, and the session goes on."""
    large = image(256, 3, 64, 64)
    with adder_onnx.InferenceSession(
        normalized_network().SerializeToString(), device="cuda"
    ) as session:
        (expected,) = session.run(None, {"X": large})
        for milliseconds in (0, 1, 2, 4, 8):
            options = onnxruntime.RunOptions()
            timer = threading.Timer(milliseconds / 1e3, setattr, (options, "terminate", True))
            timer.start()
            try:
                (y,) = session.run(None, {"X": large}, options)
                np.testing.assert_array_equal(y, expected)
            except RunTerminatedError:
                pass
            timer.join()
        (y,) = session.run(None, {"X": large})
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_values_of_onnxruntime(
    session: adder_onnx.InferenceSession, x: NDArray[np.float32], device: str
) -> None:
    (expected,) = session.run(None, {"X": x})
    if device == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA")
    value = onnxruntime.OrtValue.ortvalue_from_numpy(x, device, 0)
    (y,) = session.run_with_ort_values(None, {"X": value})
    np.testing.assert_array_equal(y.numpy(), expected)


def test_bindings_are_copied_to(
    session: adder_onnx.InferenceSession, x: NDArray[np.float32]
) -> None:
    (expected,) = session.run(None, {"X": x})
    y = np.zeros_like(expected)
    binding = session.io_binding()
    binding.bind_cpu_input("X", x)
    binding.bind_output("Y", "cpu", 0, y.dtype, y.shape, y.ctypes.data)
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(y, expected)


def test_a_trace_of_runs(needs_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    model = normalized_network().SerializeToString()
    with adder_onnx.InferenceSession(model, options, device="cuda") as session:
        session.run(None, {"X": image(1, 3, 4, 4)})
        trace = json.loads(Path(session.end_profiling()).read_text())
    kernels = [event["name"] for event in trace["traceEvents"] if event["tid"] == 2]
    assert {"to NHWC", "to NCHW"} < set(kernels)
    assert {"device": "cuda:0"} in [event["args"] for event in trace["traceEvents"]]
