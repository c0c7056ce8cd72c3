"""The machines that a run is on: those of a cluster, or this one."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from typing import Any

from adder_onnx.errors import AdderError
from adder_onnx.native_output import stderr_logged
from adder_onnx.runtime.threads import available_cores

__all__ = ["Pool", "connected", "plan_pool", "ray_versions"]

_CPUS_OF_AN_ACTOR = 4
_SECONDS = 10
"""Until a cluster has to answer."""
_OBJECT_STORE = 1 << 28
"""Bytes; a model and descriptions of pieces are in it, but no images."""


@dataclass(frozen=True)
class Pool:
    """The actors of a run.

    Attributes:
        actors: how many.
        cpus: of each.
        gpus: of each.
    """

    actors: int
    cpus: int
    gpus: int


@contextmanager
def connected(address: str | None, *, verbose: bool, model_bytes: int) -> Iterator[None]:
    """Within it, Ray is there: a cluster's, or one of this machine that is stopped at the end.

    Args:
        address: ``auto`` or ``ray://host:port`` of a cluster, or None.
        verbose: whether the messages of its processes are shown.
        model_bytes: the size of what has to fit into the object store.

    Raises:
        AdderError: there is no such cluster.
    """
    import ray
    import ray.data  # which sets how much it says

    # Neither is of use to who has asked for an accuracy; both stay if they are asked for.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not verbose:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    options: dict[str, Any] = {"log_to_driver": verbose}
    if address is None:
        options |= {
            "address": "local",
            "num_cpus": available_cores(),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE + 2 * model_bytes,
        }
    else:
        options |= {"address": address}
    try:
        # Its first line says that there will be no others.
        if address is not None:
            _check_listens(address)
        with _signals_kept(), nullcontext() if verbose else stderr_logged("ray"):
            ray.init(**options, logging_level=logging.INFO if verbose else logging.ERROR)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        where = f"the cluster at {address}" if address else "Ray on this machine"
        raise AdderError(f"cannot reach {where}: {error}{_of_tokens(address)}") from error
    try:
        if not verbose:
            logging.getLogger("ray.data").setLevel(logging.ERROR)
        # What Ray says of processes that died it prints; standard output is for the result.
        with redirect_stdout(sys.stderr):
            yield
    finally:
        ray.shutdown()


def _check_listens(address: str) -> None:
    """Finds out whether anything is at HOST:PORT, for which Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS).close()


def _of_tokens(address: str | None) -> str:
    """What else may be wrong, which Ray keeps to itself."""
    if address is None:
        return ""
    return " (-v shows more; a token, if it wants one, is taken from ~/.ray/auth_token)"


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Within it, a library may take signals for its own; afterwards they are whose they were."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # it was set by native code
                signal.signal(number, handler)


def _nodes() -> list[dict[str, Any]]:
    import ray

    return list(ray.nodes())  # type: ignore[no-untyped-call]


def ray_versions() -> dict[str, str]:
    """The versions that a run on Ray depends on."""
    import pyarrow
    import ray

    return {"ray": ray.__version__, "pyarrow": pyarrow.__version__}


def plan_pool(actors: int | None, cpus: int | None, gpus: int | None) -> Pool:
    """The actors of a run on the machines that are there.

    Args:
        actors: how many, or None for as many as fit.
        cpus: of each, or None: 4, or as many as the largest machine has, or its share where each
            actor has a GPU.
        gpus: of each, or None.

    Raises:
        AdderError: no machine is large enough for one.
    """
    nodes = [node["Resources"] for node in _nodes() if node["Alive"]]
    sizes = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]
    fitting = [size for size in sizes if size[0] >= (cpus or 1) and size[1] >= (gpus or 0)]
    if not fitting:
        asked = f"{cpus or 1} CPUs" + (f" and {gpus} GPUs" if gpus else "")
        most = ", ".join(f"{cpu} CPUs and {gpu} GPUs" for cpu, gpu in sizes)
        raise AdderError(f"no node has {asked} for an actor; there are {most or 'no nodes'}")
    if cpus is None:
        largest = max(fitting)
        cpus = (
            max(1, largest[0] * gpus // largest[1]) if gpus else min(_CPUS_OF_AN_ACTOR, largest[0])
        )
    fits = sum(min(cpu // cpus, gpu // gpus if gpus else cpu) for cpu, gpu in fitting)
    return Pool(actors or max(1, fits), cpus, gpus or 0)
