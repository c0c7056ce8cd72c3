"""Names of devices, and whether a GPU can be used."""

from __future__ import annotations

import ctypes
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adder_onnx.dependencies import import_failure
from adder_onnx.errors import AdderError, DeviceError
from adder_onnx.kernels.cuda.compiler.nvrtc import MIN_ARCHITECTURE, check_compiler
from adder_onnx.runtime.onnxruntime_library import import_onnxruntime
from adder_onnx.runtime.onnxruntime_step import CPU_PROVIDER, CUDA_PROVIDER

__all__ = [
    "DeviceChoice",
    "check_cuda",
    "check_cupy",
    "device_number",
    "has_cuda_provider",
    "resolve_device",
]

_INSTALL = 'pip install "adder-onnx[cuda13]" (or [cuda12], for a driver before CUDA 13)'
_DRIVER_TOO_OLD = 35  # cudaErrorInsufficientDriver
_NO_DEVICE = 100  # cudaErrorNoDevice

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeviceChoice:
    """A device, and how onnxruntime is to use it.

    Attributes:
        number: of the GPU; None for the CPU.
        provider_options: the user's, for the CUDAExecutionProvider.
    """

    number: int | None = None
    provider_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``cpu`` or ``cuda:N``."""
        return "cpu" if self.number is None else f"cuda:{self.number}"

    @property
    def kind(self) -> str:
        """``cpu`` or ``cuda``."""
        return "cpu" if self.number is None else "cuda"


def resolve_device(device: str, providers: Sequence[object] | None = None) -> DeviceChoice:
    """The device to use; a GPU is checked to work.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: the first GPU where one works, else the
            CPU. Why it does not is logged, as a warning where the machine has a driver for GPUs.
        providers: onnxruntime's execution providers, by name or as (name, options); where given,
            they decide instead of ``device``.

    Raises:
        DeviceError: the device is unknown, does not exist, or cannot be used.
        MissingDependencyError: a package that it needs is not installed.
        BrokenDependencyError: it is, and cannot be imported.
    """
    if providers is not None:
        choice = _from_providers(providers)
    elif device == "auto":
        return _automatic()
    else:
        choice = DeviceChoice(device_number(device))
    if choice.number is not None:
        check_cuda(choice.number)
    return choice


def device_number(device: str) -> int | None:
    """The number of a GPU that is named, or None for ``cpu``; nothing is checked.

    Raises:
        DeviceError: the name is not known.
    """
    if device == "cpu":
        return None
    match = re.fullmatch(r"cuda(?::(\d{1,4}))?", device)
    if match is None:
        raise DeviceError(f"device {device!r} is not known; use 'cpu', 'cuda', 'cuda:N' or 'auto'")
    return int(match[1] or 0)


def has_cuda_provider() -> bool:
    """Whether the onnxruntime that is installed was built with CUDA."""
    return CUDA_PROVIDER in import_onnxruntime().get_available_providers()


def check_cuda(number: int) -> None:
    """Checks that sessions can run on a GPU.

    Raises:
        DeviceError: as `check_cupy`, or CuPy and onnxruntime are for different versions of CUDA.
        MissingDependencyError: as `check_cupy`.
    """
    check_cupy(number)
    _check_same_cuda()


def check_cupy(number: int) -> None:
    """Checks that kernels can run on a GPU.

    Raises:
        DeviceError: there is no driver, no such GPU, or it is too old.
        MissingDependencyError: CuPy, CUDA's compiler or its headers are not installed.
    """
    try:
        import cupy
    except (ImportError, OSError) as error:
        title = "CuPy, which CUDA devices need,"
        raise import_failure(error, "cupy", _INSTALL, title) from error
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise DeviceError(_why_no_device(runtime, error)) from error
    if number >= count:
        names = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise DeviceError(f"cuda:{number} does not exist; this machine has {names}")
    properties = runtime.getDeviceProperties(number)
    capability = properties["major"] * 10 + properties["minor"]
    if capability < MIN_ARCHITECTURE:
        raise DeviceError(
            f"cuda:{number} ({properties['name'].decode()}) has compute capability "
            f"{capability / 10:.1f}; the kernels need {MIN_ARCHITECTURE / 10:.1f} (Turing) or "
            "later: use another GPU, or the device 'cpu'"
        )
    check_compiler()


def _why_no_device(runtime: Any, error: Any) -> str:
    if error.status == _NO_DEVICE:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        return f"no NVIDIA GPU is visible{hidden}: use the device 'cpu'"
    driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver == 0:
        return (
            "no NVIDIA driver is installed, or it does not run: install one, or use the device "
            "'cpu'"
        )
    if error.status == _DRIVER_TOO_OLD:
        return (
            f"the NVIDIA driver is for CUDA {_version(driver)}, and CuPy for CUDA "
            f"{_version(needed)}: update the driver, or install the packages for its version, such "
            'as pip install "adder-onnx[cuda12]"'
        )
    return f"CUDA does not work: {' '.join(str(error).split())}"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _check_same_cuda() -> None:
    """CuPy and onnxruntime-gpu share a stream, so that they must be for the same CUDA."""
    import cupy

    cupy_major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    ort = import_onnxruntime()
    if not has_cuda_provider():
        return
    built = str(getattr(ort, "cuda_version", "") or "")
    major = built.partition(".")[0]
    if major and major != str(cupy_major):
        raise DeviceError(
            f"CuPy is for CUDA {cupy_major}, and onnxruntime-gpu {ort.__version__} for CUDA "
            f"{major}: install both for one version, with pip install "
            f'"adder-onnx[cuda{cupy_major}]" or "adder-onnx[cuda{major}]"'
        )


def _from_providers(providers: Sequence[object]) -> DeviceChoice:
    names, options = [], []
    for provider in providers:
        name, given = provider if isinstance(provider, tuple) else (provider, {})
        names.append(str(name))
        options.append(dict(given))
    if names == [CPU_PROVIDER]:
        return DeviceChoice()
    if names not in ([CUDA_PROVIDER], [CUDA_PROVIDER, CPU_PROVIDER]):
        raise DeviceError(
            f"providers {names} are not supported; use ['{CPU_PROVIDER}'], or '{CUDA_PROVIDER}' "
            "before it"
        )
    number = int(options[0].pop("device_id", 0))
    if "user_compute_stream" in options[0]:
        raise DeviceError(
            "the provider option user_compute_stream cannot be given: each run has its own stream"
        )
    return DeviceChoice(number, options[0])


def _automatic() -> DeviceChoice:
    try:
        check_cuda(0)
    except AdderError as error:
        level = logging.WARNING if _has_driver() else logging.INFO
        _logger.log(level, "the CPU is used, and no GPU: %s", error)
        return DeviceChoice()
    return DeviceChoice(0)


def _has_driver() -> bool:
    """Whether the driver's library is there: without it nobody expects a GPU to be used."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
