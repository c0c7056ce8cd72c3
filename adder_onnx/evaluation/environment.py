"""What a measurement was made with: versions, processor, files."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import numpy as np

from adder_onnx import __version__
from adder_onnx.runtime.onnxruntime_library import import_onnxruntime

__all__ = ["cpu_name", "file_sha256", "gpu_name", "versions"]

_CPUINFO = Path("/proc/cpuinfo")
_CHUNK = 1 << 20


def versions(device: str = "cpu") -> dict[str, str]:
    """The versions that a result on a device depends on."""
    found = {
        "adder_onnx": __version__,
        "onnxruntime": import_onnxruntime().__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    if device != "cpu":
        import cupy

        runtime = cupy.cuda.runtime
        found["cupy"] = cupy.__version__
        found["cuda"] = str(runtime.runtimeGetVersion())
        found["cuda_driver"] = str(runtime.driverGetVersion())
    return found


def gpu_name(device: str) -> str | None:
    """The name of the GPU that a device such as ``cuda:0`` is; None for ``cpu``."""
    if device == "cpu":
        return None
    import cupy

    number = int(device.partition(":")[2])
    name: bytes = cupy.cuda.runtime.getDeviceProperties(number)["name"]
    return name.decode()


def cpu_name() -> str:
    """The processor's name, or its architecture where the system does not tell the name."""
    try:
        lines = _CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next((name for name in names if name), platform.processor() or platform.machine())


def file_sha256(path: Path) -> str | None:
    """SHA-256 of a file, hexadecimal; None where it is none that can be read twice."""
    if not os.path.isfile(path):
        return None
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
