"""What measurements were made with, and the files that hold them."""

from __future__ import annotations

import datetime
import importlib.metadata
import re
import subprocess
from pathlib import Path
from typing import Any

from adder_onnx.evaluation.environment import cpu_name
from adder_onnx.kernels.cpu import select_isa
from adder_onnx.runtime.threads import available_cores
from benchmarks.documents import ROOT

__all__ = ["environment", "result_path"]

_PACKAGES = ("adder-onnx", "onnxruntime", "openvino", "torch", "numpy", "ray")


def environment(benchmark: str) -> dict[str, Any]:
    """The beginning of a result: processor, versions of packages, commit, date."""
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "benchmark": benchmark,
        "schema": 1,
        "cpu": cpu_name(),
        "isa": select_isa(),
        "cores": available_cores(),
        "versions": versions,
        "commit": git.stdout.strip(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    }


def result_path(result: dict[str, Any]) -> Path:
    """Where the result of a benchmark on its processor, or GPU, belongs."""
    processor = result.get("device") or f"{result['cpu']} {result['isa']}"
    if "held_to" in result:
        processor += f" held to {result['held_to']}"
    name = f"{result['benchmark']} {processor}".lower()
    file = re.sub(r"[^a-z0-9]+", "-", name).strip("-")
    return ROOT / "benchmarks" / "results" / f"{file}.json"
