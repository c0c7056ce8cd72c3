"""Sessions on a GPU, which the CPU stands in for: all but CuPy itself and the driver.

onnxruntime's IOBinding is used as on a GPU, with tensors in the CPU's memory.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Collection
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

import adder_onnx
from adder_onnx.cli import bench
from adder_onnx.errors import DeviceError, InputError, RunTimeoutError
from adder_onnx.inspection import profile
from adder_onnx.quantization import quantize
from adder_onnx.runtime import session
from adder_onnx.runtime.arrays import Caller, Kind
from adder_onnx.runtime.cuda import runner
from adder_onnx.runtime.cuda.contexts import MAX_CONTEXTS
from adder_onnx.runtime.cuda.onnxruntime_binding import provider_options
from adder_onnx.runtime.devices import DeviceChoice
from adder_onnx.runtime.interruption.run_control import RunControl
from tests.concurrency import assert_threads_agree
from tests.cuda_on_cpu.device import CpuGpu, GpuArray
from tests.cuda_on_cpu.sessions import assert_equals_stock, cuda_session, pretend
from tests.models import W1, W2, K, adder_conv, image, make_model, node, normalized_network
from tests.random_graphs import random_model
from tests.test_interruption import counting
from tests.test_random_graphs import TOLERANCE, stock


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> CpuGpu:
    return pretend(monkeypatch, CpuGpu())


@pytest.fixture(params=["bound", "host"])
def either(request: pytest.FixtureRequest, gpu: CpuGpu, monkeypatch: pytest.MonkeyPatch) -> CpuGpu:
    """The same with and without a provider for the GPU."""
    monkeypatch.setattr(session, "has_cuda_provider", lambda: request.param == "bound")
    return gpu


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (3, 3, 5, 9), (0, 3, 8, 8), (2, 3, 1, 1)])
def test_equals_stock_onnxruntime(either: CpuGpu, shape: tuple[int, ...]) -> None:
    s = cuda_session(normalized_network())
    assert s.device == "cuda:0"
    assert_equals_stock(normalized_network(), s, {"X": image(*shape)})
    if shape[0]:
        assert any("adder_conv_gemm" in name for name in either.launched)
    assert s.memory()[0].peak_bytes > 0 or not shape[0]


def test_random_graphs(either: CpuGpu) -> None:
    for seed in range(session.has_cuda_provider(), 120, 2):
        model, feed = random_model(seed)
        data = model.SerializeToString()
        expected = stock(data).run(None, feed)
        results = cuda_session(data, fuse=bool(seed % 3)).run(None, feed)
        for value, result, truth in zip(model.graph.output, results, expected, strict=True):
            where = f"seed {seed}, output {value.name}"
            assert result.shape == truth.shape, where
            assert result.dtype == truth.dtype, where
            scale = max(1.0, float(np.abs(truth).max(initial=0)))
            assert float(np.abs(result - truth).max(initial=0)) <= TOLERANCE * scale, where
    either.check_guards()


def test_nothing_goes_through_the_cpus_memory_inside_a_run(gpu: CpuGpu) -> None:
    s = cuda_session(normalized_network())
    gpu.uploads = gpu.downloads = 0
    s.run(None, {"X": image(2, 3, 6, 6)})
    assert (gpu.uploads, gpu.downloads) == (1, 1)  # the input, the result
    s.run(None, {"X": gpu.wrap_values(image(2, 3, 6, 6))})
    assert (gpu.uploads, gpu.downloads) == (1, 1)


def test_arrays_of_the_gpu_come_back_as_such(either: CpuGpu) -> None:
    s = cuda_session(normalized_network())
    x = image(2, 3, 6, 6)
    (expected,) = s.run(None, {"X": x})
    gpu_x = either.wrap_values(x)
    either.waits.clear()
    (y,) = s.run(None, {"X": gpu_x})
    assert type(y) is GpuArray
    np.testing.assert_array_equal(y.view(np.ndarray), expected)
    # The run waits for the caller at first, and again before it writes the result; then the caller
    # waits for the run.
    (stream,) = {a for pair in either.waits for a in pair if a}
    assert either.waits == [(stream, 0), (stream, 0), (0, stream)]
    transposed = either.wrap_values(x.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    assert not transposed.flags.c_contiguous
    (y,) = s.run(None, {"X": transposed})
    np.testing.assert_array_equal(y.view(np.ndarray), expected)


def test_torch_tensors_on_the_gpu_are_made_on_the_callers_stream(gpu: CpuGpu) -> None:
    """Which `CpuGpu` checks."""
    torch = pytest.importorskip("torch")
    s = cuda_session(normalized_network())
    x = image(2, 3, 6, 6)
    (expected,) = s.run(None, {"X": x})
    (y,) = s._runner.run({"X": gpu.wrap_values(x)}, ["Y"], Caller(Kind.TORCH_CUDA, 0), RunControl())
    assert isinstance(y, torch.Tensor)
    np.testing.assert_array_equal(y.numpy(), expected)


def test_a_run_is_in_the_order_of_torchs_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is found by what the caller gave, of which arrays of the GPU are made."""
    torch = pytest.importorskip("torch")

    class Tensor(torch.Tensor):  # type: ignore[misc, name-defined]
        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 0)

    class TorchGpu(CpuGpu):
        def adopt(self, value: Any) -> Any:
            assert self.on == 7
            return self.wrap_values(value.numpy())

        def callers_stream(self, values: Collection[Any]) -> int:
            return 7 if any(isinstance(value, Tensor) for value in values) else 0

        def to_torch(self, array: Any) -> Any:
            assert self.on == 7
            return torch.from_numpy(array.view(np.ndarray))

    gpu = TorchGpu()
    pretend(monkeypatch, gpu)
    s = cuda_session(normalized_network())
    x = image(2, 3, 6, 6)
    gpu.waits.clear()
    (y,) = s.run(None, {"X": torch.from_numpy(x).as_subclass(Tensor)})
    assert isinstance(y, torch.Tensor)
    (stream,) = {a for pair in gpu.waits for a in pair if a != 7}
    assert gpu.waits == [(stream, 7), (stream, 7), (7, stream)]
    np.testing.assert_array_equal(y.numpy(), s.run(None, {"X": x})[0])


def test_a_run_in_another_thread_is_in_the_order_of_its_callers_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class TwoStreams(CpuGpu):
        def callers_stream(self, values: Collection[Any]) -> int:
            return 7 if threading.current_thread() is threading.main_thread() else 8

    gpu = TwoStreams()
    pretend(monkeypatch, gpu)
    s = cuda_session(normalized_network())
    x = image(2, 3, 6, 6)
    (expected,) = s.run(None, {"X": x})
    gpu.waits.clear()
    results: Queue[tuple[list[Any], Any, str]] = Queue()
    s.run_async(None, {"X": gpu.wrap_values(x)}, lambda *found: results.put(found))
    (y,), _, error = results.get(timeout=60)
    assert not error
    np.testing.assert_array_equal(y.view(np.ndarray), expected)
    (stream,) = {a for pair in gpu.waits for a in pair if a != 7}
    assert gpu.waits == [(stream, 7), (stream, 7), (7, stream)]


def test_torch_tensors_in_the_cpus_memory_come_back_as_such(gpu: CpuGpu) -> None:
    torch = pytest.importorskip("torch")
    x = image(2, 3, 6, 6)
    s = cuda_session(normalized_network())
    (y,) = s.run(None, {"X": torch.from_numpy(x)})
    assert isinstance(y, torch.Tensor)
    np.testing.assert_array_equal(y.numpy(), s.run(None, {"X": x})[0])


def test_results_are_not_the_input_nor_used_again(either: CpuGpu) -> None:
    model = make_model(
        [adder_conv("X", "W1", "Y")], {"X": ["N", 3, 8, 8]}, {"Y": ["N", 20, 6, 6]}, {"W1": W1}
    )
    model.graph.output.append(model.graph.input[0])
    model.graph.initializer.append(onnx.numpy_helper.from_array(K, "K"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("K", TensorProto.FLOAT, K.shape))
    s = cuda_session(model)
    x = image(1, 3, 8, 8)
    for feed in ({"X": x}, {"X": either.wrap_values(x)}):
        y, same, constant = s.run(None, feed)
        first = np.array(y.view(np.ndarray))
        s.run(None, {"X": image(1, 3, 8, 8)})
        np.testing.assert_array_equal(y.view(np.ndarray), first)
        same.view(np.ndarray)[...] = 0
        constant.view(np.ndarray)[...] = 0
        assert x.any()
        assert np.asarray(feed["X"]).view(np.ndarray).any()
    np.testing.assert_array_equal(s.run(["K"], {"X": x})[0], K)


def test_float16_stays_float16(gpu: CpuGpu) -> None:
    model = make_model(
        [
            adder_conv("X", "W1", "A", pads=[1, 1, 1, 1]),
            node("Mul", ["A", "s"], "B"),
            adder_conv("B", "W2", "Y", pads=[1, 1, 1, 1]),
        ],
        {"X": ["N", 3, 5, 5]},
        {"Y": ["N", 20, 5, 5]},
        {
            "W1": W1.astype(np.float16),
            "W2": W2.astype(np.float16),
            "s": np.full((20, 1, 1), -0.1, np.float16),
        },
        elem_type=TensorProto.FLOAT16,
    )
    feed = {"X": image(2, 3, 5, 5).astype(np.float16)}
    (y,) = cuda_session(model).run(None, feed)
    (expected,) = adder_onnx.InferenceSession(model.SerializeToString()).run(None, feed)
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, expected, rtol=2e-3)
    assert all("__half" in name for name in gpu.launched)


def test_computed_weights(either: CpuGpu) -> None:
    model = make_model(
        [node("Exp", ["V"], "W"), adder_conv("X", "W", "Y"), adder_conv("X", "V", "Z")],
        {"X": ["N", 3, 5, 5], "V": [4, 3, 3, 3]},
        {"Y": ["N", 4, 3, 3], "Z": ["N", 4, 3, 3]},
    )
    s = cuda_session(model)
    for _ in range(2):  # other weights in each run
        assert_equals_stock(model, s, {"X": image(2, 3, 5, 5), "V": image(4, 3, 3, 3)})


@pytest.mark.parametrize("channels", [3, 16])
def test_computed_weights_with_channels_that_the_model_does_not_say(
    gpu: CpuGpu, channels: int
) -> None:
    """Kernels for any number of them are compiled ahead, which `CpuGpu` checks."""
    model = make_model(
        [node("Exp", ["V"], "W"), adder_conv("X", "W", "Y")],
        {"X": ["N", "C", 5, 5], "V": [20, "C", "K", "K"]},
        {"Y": ["N", 20, "H", "W"]},
    )
    for kernel in (1, 3):
        feed = {"X": image(2, channels, 5, 5), "V": image(20, channels, kernel, kernel)}
        assert_equals_stock(model, cuda_session(model), feed)


def test_shapes_that_depend_on_values_and_wrong_declarations(gpu: CpuGpu) -> None:
    """Outputs that onnxruntime takes the memory for; a declared shape may be wrong."""
    model = make_model(
        [
            node("Compress", ["X", "keep"], "C", axis=0),
            adder_conv("C", "W1", "A"),
            node("Reshape", ["A", "shape"], "Y"),
        ],
        {"X": ["N", 3, 5, 5]},
        {"Y": ["N", 60, 3]},
        {"W1": W1, "keep": np.array([True, False, True]), "shape": np.array([-1, 60, 3])},
    )
    assert_equals_stock(model, cuda_session(model), {"X": image(3, 3, 5, 5)})


def test_values_that_cannot_be_bound_go_through_the_cpus_memory(gpu: CpuGpu) -> None:
    model = make_model(
        [
            node("SequenceConstruct", ["X", "X"], "S"),
            node("Relu", ["X"], "R"),
            adder_conv("R", "W1", "A"),
            node("ConcatFromSequence", ["S"], "T", axis=0),
            node("ReduceMean", ["A"], "M", keepdims=0),
            node("Add", ["T", "M"], "Y"),
        ],
        {"X": [1, 3, 5, 5]},
        {"Y": [2, 3, 5, 5]},
        {"W1": W1},
    )
    assert_equals_stock(model, cuda_session(model), {"X": image(1, 3, 5, 5)})


def test_many_threads_share_a_bounded_number_of_contexts(either: CpuGpu) -> None:
    s = cuda_session(normalized_network())
    assert_threads_agree(s, [(n, 3, 4 + n, 6) for n in range(1, 5)], runs=6)
    assert either.streams <= 1 + MAX_CONTEXTS


def test_standard_nodes_on_the_cpu_are_logged(
    gpu: CpuGpu, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(session, "has_cuda_provider", lambda: False)
    with caplog.at_level(logging.WARNING):
        cuda_session(normalized_network())
    assert "standard nodes run on the CPU" in caplog.text
    assert "install onnxruntime-gpu" in caplog.text


def test_provider_options() -> None:
    ours = provider_options({}, 1, 4096)
    assert ours == {
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "device_id": "1",
        "user_compute_stream": "4096",
    }
    given = provider_options({"use_tf32": 1, "gpu_mem_limit": 5}, 0, 1)
    assert (given["use_tf32"], given["gpu_mem_limit"]) == ("1", "5")


def test_provider_that_onnxruntime_leaves_out(gpu: CpuGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on with the CPU where its provider's libraries do not load."""
    gpu.ort_device = ("cuda", 0)
    with pytest.raises(DeviceError, match=r"onnxruntime cannot use its CUDAExecutionProvider"):
        cuda_session(normalized_network())


def test_running_out_of_memory_is_a_clear_error(
    gpu: CpuGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = cuda_session(normalized_network())

    def fail(*_: Any) -> None:
        raise RuntimeError("Failed to allocate memory for requested buffer of size 9")

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", fail)
    with pytest.raises(DeviceError, match=r"cuda:0 is out of memory while .*: use a smaller batch"):
        s.run(None, {"X": image(1, 3, 4, 4)})


def test_failing_runs_do_not_use_up_contexts(gpu: CpuGpu) -> None:
    model = make_model(
        [node("Reshape", ["X", "shape"], "Y")],
        {"X": ["N", 4]},
        {"Y": [None, 3]},
        {"shape": np.array([-1, 3])},
    )
    s = cuda_session(model)
    for _ in range(MAX_CONTEXTS + 2):
        with pytest.raises(InputError, match="onnxruntime failed"):
            s.run(None, {"X": image(1, 4)})
    assert s.run(None, {"X": image(3, 4)})[0].shape == (4, 3)


def test_arrays_of_a_gpu_in_a_session_on_the_cpu() -> None:
    s = adder_onnx.InferenceSession(normalized_network().SerializeToString())
    with pytest.raises(InputError, match="another device; move it to the CPU"):
        s.run(None, {"X": CpuGpu().wrap_values(image(1, 3, 4, 4))})


def test_wrong_feeds_are_named(gpu: CpuGpu) -> None:
    s = cuda_session(normalized_network())
    with pytest.raises(InputError, match="has type float64"):
        s.run(None, {"X": gpu.wrap_values(image(1, 3, 4, 4).astype(np.float64))})
    with pytest.raises(InputError, match=r"shape \[1, 4, 4, 4\]"):
        s.run(None, {"X": gpu.wrap_values(image(1, 4, 4, 4))})


def test_contexts_are_returned_when_making_one_fails(
    gpu: CpuGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = cuda_session(normalized_network())
    assert isinstance(s._runner, runner.CudaRunner)
    pool = s._runner._contexts
    while not pool._free.empty():
        pool._free.get()

    def fail() -> Any:
        raise DeviceError("no room")

    monkeypatch.setattr(pool, "_make", fail)
    for _ in range(MAX_CONTEXTS + 2):
        with pytest.raises(DeviceError, match="no room"):
            s.run(None, {"X": image(1, 3, 4, 4)})


def test_the_real_checkpoint(
    gpu: CpuGpu, resnet20: Path, images: NDArray[np.float32], truth: NDArray[np.float64]
) -> None:
    """The kernels for the GPU, all of a trained network, against float64."""
    s = cuda_session(resnet20.read_bytes())
    (logits,) = s.run(None, {"input": images})
    assert np.abs(logits - truth).max() < 1e-3


def test_bench_shows_the_plan_of_the_device(
    gpu: CpuGpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    waits: list[int] = []
    rng = np.random.default_rng(0)
    feeds = [{"X": rng.standard_normal((2, 3, 8, 8)).astype(np.float32)}]
    model, result = tmp_path / "int8.onnx", tmp_path / "result.json"
    onnx.save(quantize(normalized_network(), feeds).model, model)
    monkeypatch.setattr(bench, "resolve_device", lambda _: DeviceChoice(0))
    monkeypatch.setattr(bench, "_on_device", lambda feed, _: (feed, lambda: waits.append(1)))
    monkeypatch.setattr(bench, "gpu_name", lambda _: "a GPU")
    monkeypatch.setattr(bench, "versions", lambda _: {})
    monkeypatch.setattr(profile, "bound_of", lambda *_: {})
    monkeypatch.setattr(profile, "bandwidth_of", lambda *_: 1e12)
    options = ["--device", "cuda", "--dim", "H=8", "--dim", "W=8", "--seconds", "0.01"]
    assert bench.main([str(model), *options, "--json", str(result)]) == 0
    (row,) = json.loads(result.read_text())["results"]
    assert row["device"] == "cuda:0"
    assert len(waits) == 3 + row["runs"]  # warm-up, too
    assert [step["kind"] for step in row["steps"]] == [
        "onnxruntime",
        "conversion",
        "chain",
        "conversion",
        "onnxruntime",
    ]


def test_a_time_ends_a_loop_in_a_sub_model(gpu: CpuGpu) -> None:
    s = cuda_session(counting())
    x = np.zeros((1, 3, 4, 4), np.float32)
    (expected,) = s.run(None, {"X": x})
    with pytest.raises(RunTimeoutError):
        s.run(None, {"X": np.full(x.shape, 1e15, np.float32)}, timeout=0.1)
    np.testing.assert_array_equal(s.run(None, {"X": x}, timeout=60)[0], expected)
