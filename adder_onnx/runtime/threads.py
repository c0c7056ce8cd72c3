"""How many threads to use."""

from __future__ import annotations

import math
import os
from pathlib import Path

from adder_onnx.errors import InputError
from adder_onnx.kernels.cpu import startable_threads

__all__ = ["MAX_THREADS", "available_cores", "require_threads", "resolve_threads"]

MAX_THREADS = 1024
"""That may be asked for: more than any machine's cores, and soon made."""

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


def require_threads(threads: int) -> None:
    """Checks that the system gives so many more threads; onnxruntime does not survive fewer.

    Raises:
        InputError: it gives fewer.
    """
    found = startable_threads(threads)
    if found < threads:
        raise InputError(
            f"the system gives this process {found} more threads, and a session with threads="
            f"{threads} needs {threads}: use fewer, or raise the limit of processes or memory"
        )


def resolve_threads(threads: int | None) -> int:
    """The number of threads to use: the one given, or as many as there are cores.

    Raises:
        InputError: ``threads`` is no number from 1 to `MAX_THREADS`.
    """
    if threads is None:
        return min(available_cores(), MAX_THREADS)
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads is {threads!r}; expected at least 1, or None for all cores")
    if threads > MAX_THREADS:
        raise InputError(
            f"threads is {threads}; expected at most {MAX_THREADS}, better the number of cores"
        )
    return threads
