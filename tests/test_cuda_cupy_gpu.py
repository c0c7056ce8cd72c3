"""`CupyGpu` on a CuPy without a GPU: whose device and stream is current, and what errors become."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from adder_onnx.errors import DeviceError
from adder_onnx.kernels.cuda.compiler import cubin_cache, nvrtc
from adder_onnx.kernels.cuda.launch.params import LAYOUT_ARGS
from adder_onnx.kernels.cuda.launch.variants import KERNELS
from adder_onnx.runtime.cuda import errors, kernels, staging
from adder_onnx.runtime.cuda.cupy_gpu import CupyGpu, _Foreign
from adder_onnx.runtime.cuda.errors import (
    DeviceLostError,
    DeviceMemoryError,
    cuda_failure,
    onnxruntime_failure,
)
from tests.fake_cupy import Array, FakeCupy

KERNEL, OTHER = KERNELS[:2]
OUT_OF_MEMORY, ILLEGAL_ADDRESS, INVALID_CONFIGURATION = 2, 700, 9
ARGS = np.zeros((), LAYOUT_ARGS)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(kernels, "_kernels", {})
    monkeypatch.setattr(staging, "_stagings", {})
    monkeypatch.setattr(nvrtc, "compiler_version", lambda: "13.2")
    return fake


@pytest.fixture
def gpu(cupy: FakeCupy) -> CupyGpu:
    return CupyGpu(1)


def test_a_callers_device_and_stream_stay_current(gpu: CupyGpu, cupy: FakeCupy) -> None:
    stream = gpu.new_stream()
    with gpu.using(stream):
        assert cupy.current == 1
        assert cupy.cuda.get_current_stream() is stream
    with contextlib.suppress(KeyError), gpu.using(stream):
        raise KeyError
    gpu.synchronize(stream)
    gpu.wait(stream, gpu.callers_stream([]))
    gpu.free_unused()
    gpu.prepare([KERNEL])
    assert cupy.current == 0
    assert cupy.cuda.get_current_stream() is cupy.null
    on_it = ("streamCreate", "eventCreate", "free_all_blocks", "moduleLoad")
    assert {call for call in cupy.calls if call[0] in on_it} == {(name, 1) for name in on_it}


def test_a_device_that_onnxruntime_leaves_current_is_put_right(
    gpu: CupyGpu, cupy: FakeCupy
) -> None:
    cupy.current = 1
    stream = gpu.new_stream()
    with gpu._current():
        cupy.current = 0
    assert cupy.current == 1
    with gpu.using(stream):
        pass
    assert cupy.current == 1


@pytest.mark.parametrize(
    ("call", "work", "doing"),
    [
        ("empty", lambda gpu, s: gpu.empty((2,), np.float32), "taking memory"),
        ("memcpyAsync", lambda gpu, s: gpu.upload(np.ones(3)), "copying an array to it"),
        ("memcpyAsync", lambda gpu, s: gpu.download(Array(np.ones(3))), "waiting for it"),
        ("hostAlloc", lambda gpu, s: gpu.upload(np.ones(3)), "copying an array to it"),
        (
            "launch",
            lambda gpu, s: gpu.launch(KERNEL, (3, 2, 1), ARGS),
            f"starting {re.escape(KERNEL.expression)} with 3 x 2 x 1 blocks",
        ),
        ("moduleLoad", lambda gpu, s: gpu.prepare([KERNEL]), "loading kernels"),
        ("streamSynchronize", lambda gpu, s: gpu.finish(), "waiting for it"),
        ("streamSynchronize", lambda gpu, s: gpu.synchronize(s), "waiting for it"),
        ("streamCreate", lambda gpu, s: gpu.new_stream(), "making a stream"),
        ("eventCreate", lambda gpu, s: gpu.wait(s, s), "letting a stream wait"),
        ("eventRecord", lambda gpu, s: gpu.wait(s, s), "letting a stream wait"),
        ("streamWaitEvent", lambda gpu, s: gpu.wait(s, s), "letting a stream wait"),
        ("memsetAsync", lambda gpu, s: gpu.clear(64, 4), "clearing memory"),
        ("copyto", lambda gpu, s: gpu.copy(Array(ARGS), Array(ARGS)), "copying an array"),
        ("from_dlpack", lambda gpu, s: gpu.adopt(Foreign()), "taking over an array"),
        ("streamBeginCapture", lambda gpu, s: gpu.capture(lambda: None), "capturing a graph"),
        ("streamEndCapture", lambda gpu, s: gpu.capture(lambda: None), "capturing a graph"),
        ("graphLaunch", lambda gpu, s: gpu.replay(gpu.capture(lambda: None)), "chain's graph"),
        ("streamIsCapturing", lambda gpu, s: gpu.callers_stream([]), "the caller's stream"),
        ("getDevice", lambda gpu, s: gpu.synchronize(s), "making it current"),
        ("deviceGetAttribute", lambda gpu, s: CupyGpu(1), "asking what it is"),
    ],
)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (OUT_OF_MEMORY, DeviceMemoryError),
        (INVALID_CONFIGURATION, DeviceError),
        (ILLEGAL_ADDRESS, DeviceLostError),
    ],
)
def test_every_failing_call_is_a_device_error_that_says_which(
    gpu: CupyGpu,
    cupy: FakeCupy,
    call: str,
    work: Callable[[CupyGpu, Any], object],
    doing: str,
    status: int,
    kind: type[DeviceError],
) -> None:
    stream = gpu.new_stream()
    cupy.failures[call] = status
    with pytest.raises(DeviceError, match=doing) as caught:
        work(gpu, stream)
    assert type(caught.value) is kind
    assert "cuda:1" in str(caught.value)
    assert "\n" not in str(caught.value)


class Foreign:
    """A tensor of another library on the GPU."""

    values = np.ones(2, np.float32)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 1)


def test_a_library_that_fails_since_the_device_is_lost(gpu: CupyGpu, cupy: FakeCupy) -> None:
    """Whatever it says; a tensor that cannot be exchanged stays its own error."""

    def fail(_: object) -> None:
        raise RuntimeError("Can't export tensors that require gradient")

    cupy.from_dlpack = fail  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="require gradient"):
        gpu.adopt(Foreign())
    cupy.failures["deviceSynchronize"] = ILLEGAL_ADDRESS
    with pytest.raises(DeviceLostError, match="cannot be used in this process any more"):
        gpu.adopt(Foreign())


def test_an_error_that_comes_late_names_the_last_kernel(gpu: CupyGpu, cupy: FakeCupy) -> None:
    gpu.launch(KERNEL, (1, 1, 1), ARGS)
    gpu.launch(OTHER, (1, 1, 1), ARGS)
    cupy.failures["streamSynchronize"] = ILLEGAL_ADDRESS
    with pytest.raises(DeviceLostError) as caught:
        gpu.finish()
    assert f"the last kernel started being {OTHER.expression} (" in str(caught.value)
    assert "CUDA_LAUNCH_BLOCKING=1" in str(caught.value)


def test_kernels_are_compiled_as_one_module_and_shared(gpu: CupyGpu, cupy: FakeCupy) -> None:
    gpu.prepare([KERNEL, OTHER])
    CupyGpu(1).prepare([OTHER, KERNEL])
    assert cupy.modules == [tuple(sorted((KERNEL.expression, OTHER.expression)))]
    gpu.launch(KERNEL, (1, 1, 1), ARGS)
    assert len(cupy.modules) == 1
    CupyGpu(0).launch(KERNEL, (1, 1, 1), ARGS)  # another device; when it is needed
    assert cupy.modules[1:] == [(KERNEL.expression,)]


def test_code_for_a_family_is_compiled_once_and_kept(
    cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """CuPy cannot be told to compile for sm_120f: it gets the machine code."""
    compiled: list[tuple[str, int]] = []

    def compile_cubin(expressions: Sequence[str], architecture: int, unit: str) -> Any:
        assert unit == nvrtc.source()
        compiled.extend((name, architecture) for name in expressions)
        return b"ELF\n\0code", {name: f"_Z{len(name)}" for name in expressions}

    monkeypatch.setattr(cubin_cache, "compile_cubin", compile_cubin)
    monkeypatch.setattr(cubin_cache, "compiler_version", lambda: "13.2")
    cupy.compute_capability, cupy.cache_folder = "120", str(tmp_path / "cache")
    for _ in range(2):
        monkeypatch.setattr(kernels, "_kernels", {})
        gpu = CupyGpu(0)
        assert gpu.target == "sm_120f"
        gpu.prepare([KERNEL])
        gpu.launch(KERNEL, (1, 1, 1), ARGS)
        name = f"_Z{len(KERNEL.expression)}"
        assert ("launch", name, (1, 1, 1), (KERNEL.threads,)) in cupy.calls
    assert compiled == [(KERNEL.expression, 120)]
    assert cupy.cubins == [b"ELF\n\0code"] * 2
    assert cupy.modules == []
    # Before NVRTC 13.2 a family had no instruction that makes it worth while.
    monkeypatch.setattr(nvrtc, "compiler_version", lambda: "13.1")
    monkeypatch.setattr(kernels, "_kernels", {})
    assert CupyGpu(0).target == "sm_120"
    CupyGpu(0).prepare([KERNEL])
    assert cupy.modules == [(KERNEL.expression,)]


def test_pinned_memory_is_shared(gpu: CupyGpu, cupy: FakeCupy) -> None:
    for user in (gpu, CupyGpu(1)):
        array = user.upload(np.ones(1000))
        user.finish()
        user.download(array)
    assert cupy.pinned == 2 * staging.PIECE_BYTES


def test_kernels_that_do_not_compile(gpu: CupyGpu, cupy: FakeCupy) -> None:
    cupy.failures["compile"] = 1
    with pytest.raises(DeviceError, match=r"do not compile for cuda:1 .*expected a ;") as caught:
        gpu.prepare([KERNEL])
    assert KERNEL.expression in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_callers_capture_is_refused(gpu: CupyGpu, cupy: FakeCupy) -> None:
    cupy.capturing.add(cupy.null.ptr)
    with pytest.raises(DeviceError, match=r"is being captured .*: run the session outside"):
        gpu.callers_stream([])
    cupy.capturing.clear()
    cupy.failures["streamIsCapturing"] = 906  # of the legacy stream, for another one
    with pytest.raises(DeviceError, match=r"is being captured .*: run the session outside"):
        gpu.callers_stream([])


def test_torchs_current_stream_is_the_callers(
    gpu: CupyGpu, cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Array:
        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 1)

    class Tensor(Array):
        pass

    torch: Any = ModuleType("torch")
    torch.Tensor = Tensor
    torch.cuda = SimpleNamespace(current_stream=lambda n: SimpleNamespace(cuda_stream=5000 + n))
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert gpu.callers_stream([np.ones(1)]) is cupy.null
    stream = gpu.callers_stream([np.ones(1), Tensor()])
    assert stream.ptr == 5001
    # Which waits for what is made on CuPy's, where there is some.
    gpu.callers_stream([Array()])
    assert "streamWaitEvent" not in {name for name, *_ in cupy.calls}
    gpu.callers_stream([Tensor(), Array()])
    assert {("eventRecord", cupy.null.ptr), ("streamWaitEvent", 5001)} < set(cupy.calls)
    cupy.capturing.add(5001)
    with pytest.raises(DeviceError, match="is being captured"):
        gpu.callers_stream([Tensor()])


def test_cupy_does_not_end_a_stream_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one: it would fail to, without a GPU, and say so where nobody can catch it."""
    cupy = pytest.importorskip("cupy")
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    cupy.cuda.Stream.from_external(_Foreign(5000))
    assert not unraisable


def test_a_capture_ends_whatever_happens_in_it(gpu: CupyGpu, cupy: FakeCupy) -> None:
    stream = gpu.new_stream()
    with gpu.using(stream):
        gpu.replay(gpu.capture(lambda: gpu.launch(KERNEL, (1, 1, 1), ARGS)))
        assert cupy.calls[-1] == ("graphLaunch", stream.ptr)
        cupy.failures["launch"] = INVALID_CONFIGURATION
        with pytest.raises(DeviceError, match="starting"):
            gpu.capture(lambda: gpu.launch(KERNEL, (1, 1, 1), ARGS))
    assert not cupy.capturing
    # Whatever other threads do meanwhile does not break it.
    assert set(cupy.capture_modes) == {"relaxed"}


def test_errors_that_need_a_new_process() -> None:
    """All that CUDA's header says so of end a session."""
    pathfinder = pytest.importorskip("cuda.pathfinder")
    folder = pathfinder.find_nvidia_header_directory("cudart")
    text = Path(folder, "driver_types.h").read_text()
    entries = re.findall(r"/\*\*((?:(?!\*/).)*)\*/\s*cudaError\w+\s*=\s*(\d+)", text, re.DOTALL)
    said = {
        int(number)
        for comment, number in entries
        if "must be terminated and relaunched" in re.sub(r"[\s*]+", " ", comment)
    }
    assert len(said) >= 10
    assert said <= errors._LOST
    for status in said:
        assert type(cuda_failure("cuda:0", "x", status, "y")) is DeviceLostError


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", DeviceLostError),
        ("CUDA error 719: unspecified launch failure", DeviceLostError),
        ("CUDA failure 2: out of memory ; GPU=0 ; hostname=h", DeviceMemoryError),
        ("Failed to allocate memory for requested buffer of size 9", DeviceMemoryError),
        ("core/framework/bfc_arena.cc:376 Available memory of 4 is smaller", DeviceMemoryError),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", DeviceMemoryError),
        ("CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED", DeviceError),
        ("CUDA failure 900: operation not permitted when stream is capturing", DeviceError),
        ("Non-zero status code returned while running Reshape node", None),
    ],
)
def test_failures_of_onnxruntime(text: str, kind: type[DeviceError] | None) -> None:
    found = onnxruntime_failure(RuntimeError(f"[ONNXRuntimeError] : 6 :\n {text}"), "cuda:0")
    assert (None if found is None else type(found)) is kind
    assert "\n" not in str(found)
