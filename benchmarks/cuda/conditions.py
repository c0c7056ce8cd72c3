"""What the figures and checks of a GPU were made with."""

from __future__ import annotations

import datetime
import importlib.metadata
import subprocess
from pathlib import Path
from typing import Any

from adder_onnx.evaluation.environment import gpu_name, versions

__all__ = ["ROOT", "environment"]

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = 1


def environment() -> dict[str, Any]:
    """What the figures were measured with."""
    import cupy

    device = cupy.cuda.Device(0)
    runtime = cupy.cuda.runtime
    capability = device.compute_capability
    driver = _output_of(
        "nvidia-smi",
        f"--id={device.pci_bus_id}",
        "--query-gpu=driver_version,clocks.sm,clocks.max.sm",
        "--format=csv,noheader",
    )
    return {
        "benchmark": "cuda",
        "schema": SCHEMA,
        "device": gpu_name("cuda:0"),
        "compute_capability": f"{capability[:-1]}.{capability[-1]}",
        "multiprocessors": runtime.deviceGetAttribute(runtime.cudaDevAttrMultiProcessorCount, 0),
        "driver_and_clocks": driver or "unknown",
        "versions": {**versions("cuda:0"), "torch": _torch_version()},
        "commit": _output_of("git", "-C", str(ROOT), "rev-parse", "HEAD"),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    }


def _output_of(*command: str) -> str:
    """What a command prints; nothing where it fails or is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return " ".join(done.stdout.split()) if done.returncode == 0 else ""


def _torch_version() -> str:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return "none"
