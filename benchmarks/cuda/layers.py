"""Ways to compute one layer on a GPU, and their times."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from adder_onnx.errors import AdderError
from adder_onnx.kernels.cuda import layout
from adder_onnx.kernels.cuda.conv import AdderConv
from adder_onnx.runtime.gpu import CupyGpu
from benchmarks.cuda.timing import Call, Timer, summary, take_turns
from benchmarks.networks import Layer, adder_layers

__all__ = ["BATCHES", "LayerContenders", "best_layouts", "layer_row", "measure_layers"]

BATCHES = {"resnet20": (128,), "resnet50": (64, 1)}

UNFOLDED_LIMIT = 8 << 30
"""Bytes that torch.cdist may have for the unfolded image."""


class LayerContenders:
    """All ways to compute one layer, with inputs that rotate over more than the L2 cache."""

    def __init__(self, layer: Layer, batch: int) -> None:
        import cupy
        import torch

        self.layer, self.batch = layer, batch
        self._torch: Any = torch
        self._gpu = CupyGpu(0)
        rng = np.random.default_rng(0)
        shape = (layer.filters, layer.channels, layer.kernel, layer.kernel)
        self.w = rng.standard_normal(shape).astype(np.float32)
        size = batch * layer.channels * layer.size**2 * 4
        cache = cupy.cuda.Device().attributes["L2CacheSize"]
        self._copies = min(max(2 * cache // size + 1, 2), 64)
        self.scale = rng.uniform(0.5, 1.5, layer.filters).astype(np.float32)
        self.bias = rng.standard_normal(layer.filters).astype(np.float32)

    def all(self) -> dict[str, Call]:
        """The contenders by name."""
        calls = {
            "float32": self._ours("float32"),
            "float16": self._ours("float16"),
            "naive": self._ours("float32", force_direct=True),
        }
        if self._unfolded_bytes() <= UNFOLDED_LIMIT:
            calls["cdist"] = self._cdist()
        for name, half, tf32 in (
            ("conv float32", False, False),
            ("conv tf32", False, True),
            ("conv float16", True, False),
        ):
            for last in (False, True):
                calls[f"{name}{', channels last' * last}"] = self._conv(half, tf32, last)
        return calls

    def _pad(self) -> int:
        return self.layer.kernel // 2

    def _ours(self, type_: str, *, force_direct: bool = False) -> Call:
        xs, launch, y = self._prepare(type_, force_direct)
        turns = itertools.cycle(xs)

        def call() -> None:
            gpu = self._gpu
            launch.run(gpu, x=gpu.pointer(next(turns)), y=gpu.pointer(y))

        return call

    def _prepare(self, type_: str, force_direct: bool) -> tuple[list[Any], Any, Any]:
        import cupy

        a = self.layer
        conv = AdderConv(
            self._gpu,
            self.w.astype(type_),
            self.scale,
            self.bias,
            (0.0, float("inf")),
            (a.stride, a.stride),
            (1, 1),
            1,
            type_,
            force_direct=force_direct,
        )
        row = layout.padded_channels(a.channels, type_)
        shape = (self.batch, a.size, a.size, row)
        cupy.random.seed(1)
        xs = [
            cupy.random.standard_normal(shape, cupy.float32).astype(type_)
            for _ in range(self._copies)
        ]
        out = layout.padded_channels(a.filters, type_)
        y = cupy.empty((self.batch, a.out, a.out, out), type_)
        pads = (self._pad(), self._pad())
        return xs, conv.launch(self.batch, (a.size, a.size), (a.out, a.out), pads), y

    def check(self, outputs: int = 64) -> None:
        """Compares some outputs with float64.

        Raises:
            AdderError: one is wrong.
        """
        a = self.layer
        rng = np.random.default_rng(2)
        for type_, direct in (("float32", False), ("float16", False), ("float32", True)):
            xs, launch, y = self._prepare(type_, direct)
            launch.run(self._gpu, x=self._gpu.pointer(xs[0]), y=self._gpu.pointer(y))
            x = self._gpu.download(xs[0]).astype(np.float64)[..., : a.channels]
            result = self._gpu.download(y).astype(np.float64)
            w = self.w.astype(type_).astype(np.float64)
            pad = self._pad()
            x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
            for _ in range(outputs):
                n, h, v = rng.integers((self.batch, a.out, a.out))
                m = rng.integers(a.filters)
                top, left = h * a.stride, v * a.stride
                window = x[n, top : top + a.kernel, left : left + a.kernel]
                taps = np.abs(window - w[m].transpose(1, 2, 0))
                exact = max(self.bias[m] - float(self.scale[m]) * taps.sum(), 0.0)
                bound = float(self.scale[m]) * taps.sum() * (2e-5 if type_ == "float32" else 1e-2)
                if not abs(result[n, h, v, m] - exact) <= bound + 1e-5:
                    raise AdderError(
                        f"{a}, batch {self.batch}, {type_}: output {(n, m, h, v)} is "
                        f"{result[n, h, v, m]}, in float64 {exact}"
                    )

    def _unfolded_bytes(self) -> int:
        a = self.layer
        return self.batch * a.out**2 * (a.channels * a.kernel**2 + a.filters) * 4

    def _images(self, half: bool, last: bool) -> Any:
        torch, a = self._torch, self.layer
        dtype = torch.float16 if half else torch.float32
        layout_ = torch.channels_last if last else torch.contiguous_format
        shape = (self.batch, a.channels, a.size, a.size)
        return itertools.cycle(
            [
                torch.randn(shape, device="cuda", dtype=dtype).to(memory_format=layout_)
                for _ in range(self._copies)
            ]
        )

    def _cdist(self) -> Call:
        torch, a = self._torch, self.layer
        filters = torch.from_numpy(self.w).cuda().reshape(a.filters, -1)
        images = self._images(half=False, last=False)

        def call() -> None:
            columns = torch.nn.functional.unfold(
                next(images), a.kernel, padding=self._pad(), stride=a.stride
            )
            columns = columns.permute(0, 2, 1).reshape(-1, filters.shape[1])
            torch.cdist(columns, filters, p=1.0)

        return call

    def _conv(self, half: bool, tf32: bool, last: bool) -> Call:
        torch, a = self._torch, self.layer
        weight = torch.from_numpy(self.w).cuda()
        weight = weight.half() if half else weight
        if last:
            weight = weight.to(memory_format=torch.channels_last)
        images = self._images(half, last)

        def call() -> None:
            torch.backends.cudnn.allow_tf32 = tf32
            torch.nn.functional.conv2d(next(images), weight, stride=a.stride, padding=self._pad())

        return call


def best_layouts(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    """Each convolution in the faster of its two layouts."""
    found = {name: values for name, values in seconds.items() if not name.startswith("conv")}
    for name in ("conv float32", "conv tf32", "conv float16"):
        options = [seconds[key] for key in (name, f"{name}, channels last") if key in seconds]
        found[name] = min(options, key=statistics.median)
    return found


def layer_row(
    network: str, layer: Layer, batch: int, seconds: dict[str, list[float]], bound: dict[str, float]
) -> dict[str, Any]:
    """What the result says of one layer."""
    taps = layer.taps * batch
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "network": network,
        "layer": str(layer),
        "kernel": layer.kernel,
        "count": layer.count,
        "batch": batch,
        "taps": taps,
        "seconds": {name: summary(values) for name, values in seconds.items()},
        "share_of_bound": {t: taps / medians[t] / bound[t] for t in ("float32", "float16")},
        "times_faster_than": {
            name: medians[name] / medians["float32"] for name in medians if name != "float32"
        },
    }


def measure_layers(
    timer: Timer, bound: dict[str, float], rounds: int, quick: bool, done: Callable[[Any], None]
) -> None:
    """Times all layers; each row goes to ``done``."""
    import cupy
    import torch

    torch.backends.cudnn.benchmark = True
    print(f"{'layer':31}{'batch':>6}" + "".join(f"{name:>9}" for name in _HEADINGS) + "  of bound")
    for network, batches in BATCHES.items():
        for batch in batches[:1] if quick else batches:
            layers = adder_layers(network)
            for layer in layers[:: 4 if quick else 1]:
                contenders = LayerContenders(layer, batch)
                contenders.check()
                seconds = best_layouts(take_turns(contenders.all(), timer, rounds))
                row = layer_row(network, layer, batch, seconds, bound)
                print(_line(row), flush=True)
                done(row)
                del contenders
                cupy.get_default_memory_pool().free_all_blocks()
                torch.cuda.empty_cache()


_HEADINGS = {
    "f32": "float32",
    "f16": "float16",
    "naive": "naive",
    "cdist": "cdist",
    "c-f32": "conv float32",
    "c-tf32": "conv tf32",
    "c-f16": "conv float16",
}


def _line(row: dict[str, Any]) -> str:
    rates = [
        f"{row['taps'] / row['seconds'][name]['median'] / 1e12:9.3f}"
        if name in row["seconds"]
        else f"{'-':>9}"
        for name in _HEADINGS.values()
    ]
    share = f"{100 * row['share_of_bound']['float32']:7.0f} %"
    return f"{row['network']} {row['layer']:22}{row['batch']:>6}" + "".join(rates) + share
