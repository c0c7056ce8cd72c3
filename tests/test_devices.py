"""Choosing a device, and what is said where a GPU cannot be used."""

from __future__ import annotations

import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from adder_onnx.errors import AdderError, DeviceError, MissingDependencyError
from adder_onnx.kernels.cuda.compiler import nvrtc
from adder_onnx.runtime import devices
from adder_onnx.runtime.devices import DeviceChoice, resolve_device

DRIVER_TOO_OLD = 35  # cudaErrorInsufficientDriver
NO_DEVICE = 100


class CudaError(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__(f"cudaError {status}:\n what CUDA says")
        self.status = status


def pretend(
    monkeypatch: pytest.MonkeyPatch,
    *,
    gpus: int = 1,
    capability: tuple[int, int] = (9, 0),
    driver: int = 13000,
    runtime: int = 13020,
    error: int | None = None,
) -> None:
    """Puts a CuPy in place that sees such a machine."""

    def count() -> int:
        if error is not None:
            raise CudaError(error)
        return gpus

    cupy: Any = ModuleType("cupy")
    cupy.cuda = SimpleNamespace(
        runtime=SimpleNamespace(
            CUDARuntimeError=CudaError,
            getDeviceCount=count,
            getDeviceProperties=lambda _: {
                "name": b"Some GPU",
                "major": capability[0],
                "minor": capability[1],
            },
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: runtime,
        )
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(devices, "check_compiler", lambda: None)
    monkeypatch.setattr(devices, "has_cuda_provider", lambda: False)


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpus=3)
    assert resolve_device("cpu") == DeviceChoice()
    assert resolve_device("cuda") == DeviceChoice(0)
    assert resolve_device("cuda:2") == DeviceChoice(2)
    assert resolve_device("auto") == DeviceChoice(0)
    for name in ("gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", "", "cpu:0"):
        with pytest.raises(DeviceError, match="is not known; use 'cpu', 'cuda', 'cuda:N' or 'aut"):
            resolve_device(name)


def test_providers_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpus=3)
    cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"
    assert resolve_device("cuda", [cpu]) == DeviceChoice()
    assert resolve_device("cpu", [cuda, cpu]) == DeviceChoice(0)
    options = {"device_id": "2", "use_tf32": 1}
    assert resolve_device("cpu", [(cuda, options)]) == DeviceChoice(2, {"use_tf32": 1})
    assert options == {"device_id": "2", "use_tf32": 1}
    for wrong in ([], [cpu, cuda], ["TensorrtExecutionProvider", cuda], [cuda, cuda]):
        with pytest.raises(DeviceError, match="are not supported"):
            resolve_device("cpu", wrong)
    with pytest.raises(DeviceError, match="user_compute_stream cannot be given"):
        resolve_device("cpu", [(cuda, {"user_compute_stream": "1"})])


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ({"error": DRIVER_TOO_OLD, "driver": 0}, "no NVIDIA driver is installed"),
        (
            {"error": DRIVER_TOO_OLD, "driver": 12040},
            r"the NVIDIA driver is for CUDA 12.4, and CuPy for CUDA 13.2: update the driver, or "
            r"install .* pip install \"adder-onnx\[cuda12\]\"",
        ),
        ({"error": NO_DEVICE}, "no NVIDIA GPU is visible: use the device 'cpu'"),
        ({"error": 999}, "CUDA does not work: cudaError 999: what CUDA says"),
        ({"gpus": 2}, "cuda:7 does not exist; this machine has cuda:0 to cuda:1"),
        ({"gpus": 1}, "cuda:7 does not exist; this machine has cuda:0$"),
        (
            {"gpus": 8, "capability": (6, 1)},
            r"cuda:7 \(Some GPU\) has compute capability 6.1; the kernels need 7.5",
        ),
    ],
)
def test_machines_that_do_not_do(
    monkeypatch: pytest.MonkeyPatch, machine: dict[str, Any], message: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pretend(monkeypatch, **machine)
    with pytest.raises(DeviceError, match=message) as caught:
        resolve_device("cuda:7")
    assert "\n" not in str(caught.value)


def test_hidden_gpus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, error=NO_DEVICE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(DeviceError, match=r"CUDA_VISIBLE_DEVICES is '-1'"):
        resolve_device("cuda")


def test_no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "adder-onnx\[cuda13\]"'):
        resolve_device("cuda")


def test_cuda_of_cupy_and_of_onnxruntime_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, runtime=12090)
    monkeypatch.setattr(devices, "has_cuda_provider", lambda: True)
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0", raising=False)
    with pytest.raises(
        DeviceError,
        match=r"CuPy is for CUDA 12, and onnxruntime-gpu \S+ for CUDA 13: install both .* "
        r'"adder-onnx\[cuda12\]" or "adder-onnx\[cuda13\]"',
    ):
        resolve_device("cuda")
    monkeypatch.setattr(onnxruntime, "cuda_version", "12.8", raising=False)
    assert resolve_device("cuda") == DeviceChoice(0)


def test_missing_headers_name_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pathfinder = pytest.importorskip("cuda.pathfinder")
    pytest.importorskip("cupy")
    nvrtc.compiler_version()  # loads the library while CuPy itself is there
    pretend(monkeypatch)
    monkeypatch.setattr(devices, "check_compiler", nvrtc.check_compiler)
    monkeypatch.setattr(pathfinder, "find_nvidia_header_directory", lambda _: None)
    monkeypatch.setattr(nvrtc, "_header_folder", nvrtc._header_folder.__wrapped__)
    with pytest.raises(MissingDependencyError, match=r"cuda_fp16\.h.*adder-onnx\[cuda13\]"):
        resolve_device("cuda")


def test_missing_compiler_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    monkeypatch.setattr(devices, "check_compiler", nvrtc.check_compiler)

    def fail() -> None:
        raise RuntimeError("libnvrtc.so.13 is not there")

    monkeypatch.setattr(nvrtc, "_library", lambda: SimpleNamespace(getVersion=fail))
    with pytest.raises(MissingDependencyError, match=r"libnvrtc.so.13.*adder-onnx\[cuda13\]"):
        resolve_device("cuda")


@pytest.mark.parametrize(("driver", "level"), [(True, "WARNING"), (False, "INFO")])
def test_auto_says_why_it_takes_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, driver: bool, level: str
) -> None:
    pretend(monkeypatch, capability=(5, 2))
    monkeypatch.setattr(devices, "_has_driver", lambda: driver)
    with caplog.at_level(logging.INFO):
        assert resolve_device("auto") == DeviceChoice()
    (record,) = caplog.records
    assert record.levelname == level
    assert "no GPU: cuda:0 (Some GPU) has compute capability 5.2" in record.getMessage()


def test_this_machine() -> None:
    """Whatever it has: either a GPU works, or one line says why not."""
    why = ""
    try:
        choice = resolve_device("cuda")
    except AdderError as error:
        why = str(error)
        choice = DeviceChoice()
    assert resolve_device("auto") == choice
    assert "\n" not in why
    assert choice.number == 0 or "pip install" in why or "use the device 'cpu'" in why
