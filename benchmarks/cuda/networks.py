"""Whole networks on a GPU, beside their convolutional twins in torch."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adder_onnx.runtime.devices import has_cuda_provider
from benchmarks.cuda.timing import Call, WallTimer, summary, take_turns
from benchmarks.networks import NETWORKS, export_adder, twin

__all__ = ["BATCHES", "measure_networks"]

BATCHES = {"resnet20": (1, 16, 128), "resnet50": (1, 64)}


def measure_networks(rounds: int, quick: bool, done: Callable[[Any], None]) -> None:
    """Times whole networks beside their convolutional twins in torch."""
    with tempfile.TemporaryDirectory() as folder:
        for name, batches in BATCHES.items():
            contenders = NetworkContenders(name, Path(folder))
            for batch in batches[:1] if quick else batches:
                seconds = take_turns(contenders.all(batch), WallTimer(), rounds, least=0.02)
                row = {
                    "network": name,
                    "batch": batch,
                    "standard_nodes": "CUDA" if has_cuda_provider() else "CPU",
                    "seconds": {key: summary(values) for key, values in seconds.items()},
                }
                rates = ", ".join(
                    f"{key} {batch / statistics.median(values):.0f}"
                    for key, values in seconds.items()
                )
                print(f"{name}, batch {batch}, images/s: {rates}", flush=True)
                done(row)


class NetworkContenders:
    """A network in our runtime, and its twin in torch."""

    def __init__(self, name: str, folder: Path) -> None:
        import torch

        import adder_onnx

        self._torch: Any = torch
        self._size = NETWORKS[name].size
        self._session = adder_onnx.InferenceSession(export_adder(name, folder), device="cuda")
        self._twin = twin(name).cuda().to(memory_format=torch.channels_last)
        self._half = twin(name).cuda().half().to(memory_format=torch.channels_last)

    def all(self, batch: int) -> dict[str, Call]:
        """The contenders by name, for inputs on the GPU."""
        import cupy

        x = self._torch.randn(batch, 3, self._size, self._size, device="cuda")
        feed = {"input": cupy.from_dlpack(x)}
        last = x.to(memory_format=self._torch.channels_last)
        half = last.half()
        return {
            "adder float32": lambda: self._session.run(None, feed),
            "conv float32": lambda: self._run(self._twin, last, tf32=False),
            "conv tf32": lambda: self._run(self._twin, last, tf32=True),
            "conv float16": lambda: self._run(self._half, half, tf32=False),
        }

    def _run(self, network: Any, images: Any, *, tf32: bool) -> None:
        self._torch.backends.cudnn.allow_tf32 = tf32
        self._torch.backends.cuda.matmul.allow_tf32 = tf32
        with self._torch.inference_mode():
            network(images)
