"""One Ray for the tests of a process: of few resources, in a folder of its own, gone at the end.

Worksteal, by which tests are spread over processes, knows no groups; so each process that gets such
a test starts its own, which none of the others can see.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["processes_with", "ray_here", "wait_for_cpus"]

_MARK = "ADDER_ONNX_TEST_RAY"
_SECONDS = 30


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """A Ray with two CPUs, which no process of survives the tests."""
    ray = pytest.importorskip("ray", reason="needs adder-onnx[ray]")
    pytest.importorskip("pyarrow", reason="needs adder-onnx[ray]")
    mark = uuid.uuid4().hex
    with (
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as always,
    ):
        # Without it a thread of Ray Data asks for statistics, and logs that there are none, for as
        # long as this process lives: into the tests that come after.
        always.setenv("RAY_USAGE_STATS_ENABLED", "0")
        with pytest.MonkeyPatch.context() as patch:  # which Ray's processes inherit
            patch.setenv(_MARK, mark)
            patch.delenv("RAY_ADDRESS", raising=False)
            ray.init(
                address="local",
                num_cpus=2,
                num_gpus=0,
                object_store_memory=100_000_000,
                include_dashboard=False,
                logging_level="ERROR",
                log_to_driver=False,
                _temp_dir=folder,  # a socket's path has at most 107 bytes
            )
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        assert processes_with(_MARK, mark), "nothing was started, or it is not found"
        yield
        ray.shutdown()
        end = time.monotonic() + _SECONDS
        while processes_with(_MARK, mark) and time.monotonic() < end:
            time.sleep(0.1)
        assert processes_with(_MARK, mark) == []
        assert not [each.name for each in threading.enumerate() if "poller" in each.name]


def wait_for_cpus() -> None:
    """Until nothing holds a CPU of `ray_here`.

    A pipeline that failed has its actors for as long as its error, whose frames lead to them, is
    not collected; a command that asks for all CPUs would wait for ever.
    """
    import ray

    end = time.monotonic() + _SECONDS
    while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"]:
        assert time.monotonic() < end, "something of another test holds a CPU"
        gc.collect()
        time.sleep(0.1)


def processes_with(name: str, mark: str) -> list[str]:
    """Command lines of the processes that were started with a mark in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if f"{name}={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                found += [command] * (int(process.name) != os.getpid() and bool(command))
    return found
