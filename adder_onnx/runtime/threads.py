"""How many threads to use."""

from __future__ import annotations

import math
import os
from pathlib import Path

from adder_onnx.errors import InputError

__all__ = ["available_cores", "resolve_threads"]

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cores() -> int:
    """The cores this process may use: its affinity, bounded by its cgroup's CPU quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
    except (OSError, ValueError):
        return cores
    if quota == "max":
        return cores
    return max(1, min(cores, math.ceil(int(quota) / int(period))))


def resolve_threads(threads: int | None) -> int:
    """The number of threads to use: the one given, or as many as there are cores.

    Raises:
        InputError: ``threads`` is below 1.
    """
    if threads is None:
        return available_cores()
    if threads < 1:
        raise InputError(f"threads is {threads}; expected at least 1, or None for all cores")
    return threads
