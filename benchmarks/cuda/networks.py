"""Whole networks on a GPU, beside their convolutional twins in torch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adder_onnx.runtime.devices import has_cuda_provider
from benchmarks.cuda.machine import Machine
from benchmarks.cuda.timing import Call, summary, take_turns
from benchmarks.networks import NETWORKS, export_adder, twin

__all__ = ["BATCHES", "NetworkContenders", "measure_networks"]

BATCHES = {"resnet20": (1, 16, 128), "resnet50": (1, 64)}

_WARM_UPS = 3
"""Runs before a capture, in which cuDNN chooses its algorithms."""


def measure_networks(
    machine: Machine, rounds: int, quick: bool, done: Callable[[Any], None]
) -> None:
    """Times whole networks beside their convolutional twins; each row goes to ``done``."""
    with tempfile.TemporaryDirectory() as folder:
        # Exporting the second network alone takes most of a quick run.
        for name in list(BATCHES)[: 1 if quick else None]:
            contenders = NetworkContenders(machine, name, Path(folder))
            for batch in BATCHES[name]:
                calls = contenders.all(batch)
                seconds = take_turns(calls, machine.wall_timer, rounds, least=0.02)
                row: dict[str, Any] = {
                    "network": name,
                    "batch": batch,
                    "standard_nodes": "CUDA" if has_cuda_provider() else "CPU",
                    "seconds": {key: summary(values) for key, values in seconds.items()},
                }
                row["images_per_second"] = {
                    key: batch / values["median"] for key, values in row["seconds"].items()
                }
                rates = ", ".join(f"{k} {r:.0f}" for k, r in row["images_per_second"].items())
                print(f"{name}, batch {batch}, images/s: {rates}", flush=True)
                done(row)
                del calls
                machine.release()


class NetworkContenders:
    """A network in our runtime, and its twin in torch.

    Args:
        machine: where.
        name: which.
        folder: where its file goes.
    """

    def __init__(self, machine: Machine, name: str, folder: Path) -> None:
        import torch

        import adder_onnx

        self._torch: Any = torch
        self._machine = machine
        self._size = NETWORKS[name].size
        path = export_adder(name, folder)
        self._session = adder_onnx.InferenceSession(path, device=machine.session_device)
        place = machine.torch_device
        network: Any = twin(name).to(place)
        self._twin = network.to(memory_format=torch.channels_last)
        network = twin(name).to(place).half()
        self._half = network.to(memory_format=torch.channels_last)

    def all(self, batch: int) -> dict[str, Call]:
        """The contenders by name, for inputs on the GPU."""
        torch, place = self._torch, self._machine.torch_device
        shape = (batch, 3, self._size, self._size)
        feed = {"input": self._machine.random(shape, "float32")}
        images = torch.randn(*shape, device=place).to(memory_format=torch.channels_last)
        half = images.half()
        calls: dict[str, Call] = {"adder float32": lambda: self._session.run(None, feed)}
        for name, network, x, tf32 in (
            ("conv float32", self._twin, images, False),
            ("conv tf32", self._twin, images, True),
            ("conv float16", self._half, half, False),
        ):
            calls[name] = self._runner(network, x, tf32)
            if place == "cuda":
                calls[f"{name}, CUDA graph"] = self._graphed(calls[name])
        return calls

    def _runner(self, network: Any, images: Any, tf32: bool) -> Call:
        backends = self._torch.backends

        def call() -> object:
            backends.cudnn.allow_tf32 = tf32
            backends.cuda.matmul.allow_tf32 = tf32
            with self._torch.inference_mode():
                return network(images)

        return call

    def _graphed(self, call: Call) -> Call:
        """All that a call launches, replayed as one CUDA graph."""
        cuda = self._torch.cuda
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            for _ in range(_WARM_UPS):
                call()
        cuda.current_stream().wait_stream(side)
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            call()
        replay: Call = graph.replay
        return replay
