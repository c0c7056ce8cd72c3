"""Ways to compute one layer on a GPU, and their times."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from adder_onnx.kernels.cuda.launch import layout
from adder_onnx.kernels.cuda.launch.device import Launch
from adder_onnx.kernels.cuda.launch.variants import TYPES
from benchmarks.cuda.integers import integer_conv, wrong_integers
from benchmarks.cuda.launches import float_conv, prepare
from benchmarks.cuda.machine import Inputs, Machine, copies_beyond
from benchmarks.cuda.rounding import MEAN_DIFFERENCE, TOLERANCE, WrongResultError
from benchmarks.cuda.timing import Call, summary, take_turns
from benchmarks.networks import adder_layers
from benchmarks.shapes import Layer

__all__ = [
    "BATCHES",
    "BOUNDED",
    "LayerContenders",
    "best_layouts",
    "layer_row",
    "measure_layers",
]

BATCHES = {"resnet20": (128,), "resnet50": (64, 1)}

BOUNDED = (*TYPES, "uint8")
"""What our kernels compute in, each with a bound of its own."""

CDIST_LIMIT = 8 << 30
"""Bytes that torch.cdist may have for columns and distances; beyond, it gets a smaller batch."""


class LayerContenders:
    """All ways to compute one layer, with inputs that rotate over more than the L2 cache.

    Args:
        machine: where.
        layer: which.
        batch: images at a time.

    Attributes:
        cdist_batch: images that torch.cdist computes at a time.
    """

    def __init__(self, machine: Machine, layer: Layer, batch: int) -> None:
        import torch

        self.layer, self.batch = layer, batch
        self._machine = machine
        self._torch: Any = torch
        rng = np.random.default_rng(0)
        shape = (layer.filters, layer.channels, layer.kernel, layer.kernel)
        self.w = rng.standard_normal(shape).astype(np.float32)
        taps = self._taps()
        self.scale = rng.uniform(0.5, 1.5, layer.filters).astype(np.float32)
        # As after batch normalisation: sums lie around the bias, and ReLU clips half of them.
        middle = MEAN_DIFFERENCE * taps + math.sqrt(taps) * rng.standard_normal(layer.filters) / 4
        self.bias = (self.scale * middle).astype(np.float32)
        # The columns, in the order of unfold and in that of cdist, and the distances.
        per_image = 4 * layer.out**2 * (2 * taps + layer.filters)
        self.cdist_batch = max(min(batch, CDIST_LIMIT // per_image), 1)

    def all(self) -> dict[str, Call]:
        """The contenders by name."""
        calls = {
            "float32": self._ours("float32"),
            "float16": self._ours("float16"),
            "uint8": self._ours("uint8"),
            "naive": self._ours("float32", force_direct=True),
            "cdist": self._cdist(),
        }
        for name, half, tf32 in (
            ("conv float32", False, False),
            ("conv tf32", False, True),
            ("conv float16", True, False),
        ):
            for last in (False, True):
                calls[f"{name}{', channels last' * last}"] = self._conv(half, tf32, last)
        return calls

    def check(self, outputs: int = 64) -> None:
        """Compares some outputs of each of our kernels with float64, corners among them.

        Those of uint8 are compared to the bit with the arithmetic of QLinearAdderConv.

        Raises:
            WrongResultError: one is wrong, or ReLU has left too few to compare.
        """
        for type_, direct in (("float32", False), ("float16", False), ("float32", True)):
            self._check(type_, direct, outputs)
        wrong = wrong_integers(self._machine, self.layer, self.batch, outputs)
        if wrong:
            layer = " ".join(str(self.layer).split())
            raise WrongResultError(f"{layer}, batch {self.batch}, kernel, uint8: {wrong}")

    def _check(self, type_: str, direct: bool, outputs: int) -> None:
        a, pad = self.layer, self._pad()
        device, download = self._machine.device, self._machine.download
        row = layout.padded_channels(a.channels, type_)
        xs = self._machine.random((self.batch, a.size, a.size, row), type_)
        launch, ys = self._prepare(type_, direct)
        launch.run(device, x=device.pointer(xs), y=device.pointer(ys))
        w = self.w.astype(type_).astype(np.float64)
        rng = np.random.default_rng(2)
        positive = checked = 0
        for n in {0, self.batch // 2, self.batch - 1}:
            x = download(xs[n]).astype(np.float64)[..., : a.channels]
            x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
            y = download(ys[n])
            places = [(0, 0), (a.out - 1, a.out - 1), *rng.integers(a.out, size=(outputs, 2))]
            for h, v in places:
                m = int(rng.integers(a.filters))
                window = x[h * a.stride :, v * a.stride :][: a.kernel, : a.kernel]
                total = np.abs(window - w[m].transpose(1, 2, 0)).sum()
                exact = max(float(self.bias[m]) - float(self.scale[m]) * total, 0.0)
                of_root, of_output = TOLERANCE[type_]
                allowed = float(self.scale[m]) * of_root * math.sqrt(self._taps())
                found = float(y[h, v, m])
                if not abs(found - exact) <= allowed + of_output * exact:
                    kernel = "naive kernel" if direct else "kernel"
                    raise WrongResultError(
                        f"{' '.join(str(a).split())}, batch {self.batch}, {kernel}, {type_}: "
                        f"output {(n, m, int(h), int(v))} is {found}, in float64 {exact}"
                    )
                positive += exact > 0
                checked += 1
        if positive < checked / 8:
            raise WrongResultError(
                f"{' '.join(str(a).split())}, {type_}: {positive} of {checked} outputs are not 0: "
                "too few to compare"
            )

    def _taps(self) -> int:
        """Of one output."""
        return self.layer.channels * self.layer.kernel**2

    def _pad(self) -> int:
        return self.layer.kernel // 2

    def _ours(self, type_: str, *, force_direct: bool = False) -> Call:
        a, device = self.layer, self._machine.device
        row = layout.padded_channels(a.channels, type_)
        inputs = Inputs(self._machine, (self.batch, a.size, a.size, row), type_)
        launch, y = self._prepare(type_, force_direct)

        def call() -> None:
            launch.run(device, x=inputs.next_address(), y=device.pointer(y))

        return call

    def _prepare(self, type_: str, force_direct: bool) -> tuple[Launch, Any]:
        """The launch, and the array for its output."""
        device, a = self._machine.device, self.layer
        conv = (
            integer_conv(device, a)
            if type_ == "uint8"
            else float_conv(
                device, a, self.w, self.scale, self.bias, type_, force_direct=force_direct
            )
        )
        return prepare(device, conv, a, self.batch, type_)

    def _images(self, batch: int, *, half: bool, last: bool) -> Any:
        """Batches for torch that take turns."""
        torch, a = self._torch, self.layer
        dtype = torch.float16 if half else torch.float32
        size = batch * a.channels * a.size**2 * dtype.itemsize
        copies = copies_beyond(self._machine.cache_bytes, size)
        shape = (copies * batch, a.channels, a.size, a.size)
        images = torch.randn(shape, device=self._machine.torch_device, dtype=dtype)
        layout_ = torch.channels_last if last else torch.contiguous_format
        return itertools.cycle(images.to(memory_format=layout_).split(batch))

    def _cdist(self) -> Call:
        torch, a = self._torch, self.layer
        filters = torch.from_numpy(self.w).to(self._machine.torch_device).reshape(a.filters, -1)
        images = self._images(self.cdist_batch, half=False, last=False)

        def call() -> object:
            columns = torch.nn.functional.unfold(
                next(images), a.kernel, padding=self._pad(), stride=a.stride
            )
            columns = columns.permute(0, 2, 1).reshape(-1, filters.shape[1])
            return torch.cdist(columns, filters, p=1.0)

        return call

    def _conv(self, half: bool, tf32: bool, last: bool) -> Call:
        torch, a = self._torch, self.layer
        weight = torch.from_numpy(self.w).to(self._machine.torch_device)
        weight = weight.half() if half else weight
        if last:
            weight = weight.to(memory_format=torch.channels_last)
        images = self._images(self.batch, half=half, last=last)

        def call() -> object:
            torch.backends.cudnn.allow_tf32 = tf32
            return torch.nn.functional.conv2d(
                next(images), weight, stride=a.stride, padding=self._pad()
            )

        return call


def best_layouts(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    """Each convolution in the faster of its two layouts."""
    found = {name: values for name, values in seconds.items() if not name.startswith("conv")}
    for name in ("conv float32", "conv tf32", "conv float16"):
        options = [seconds[key] for key in (name, f"{name}, channels last") if key in seconds]
        found[name] = min(options, key=statistics.median)
    return found


def layer_row(
    network: str,
    layer: Layer,
    batch: int,
    seconds: dict[str, list[float]],
    bound: dict[str, float],
    cdist_batch: int | None = None,
) -> dict[str, Any]:
    """What the result says of one layer.

    Args:
        network: whose layer it is.
        layer: which.
        batch: images at a time.
        seconds: of each contender.
        bound: taps per second of the bare inner loop, by type.
        cdist_batch: images for which torch.cdist was timed, where they were fewer: its time is
            scaled up.
    """
    taps = layer.taps * batch
    cdist_batch = cdist_batch or batch
    seconds = {
        name: [value * batch / cdist_batch for value in values] if name == "cdist" else values
        for name, values in seconds.items()
    }
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "network": network,
        "layer": str(layer),
        "kernel": layer.kernel,
        "count": layer.count,
        "batch": batch,
        "cdist_batch": cdist_batch,
        "taps": taps,
        "seconds": {name: summary(values) for name, values in seconds.items()},
        "taps_per_second": {name: taps / median for name, median in medians.items()},
        "share_of_bound": {t: taps / medians[t] / bound[t] for t in BOUNDED if t in medians},
        "times_faster_than": _ratios(medians, "float32"),
        "float16_times_faster_than": _ratios(medians, "float16"),
    }


def _ratios(medians: dict[str, float], ours: str) -> dict[str, float]:
    return {name: medians[name] / medians[ours] for name in medians if name != ours}


def measure_layers(
    machine: Machine,
    bound: dict[str, float],
    rounds: int,
    quick: bool,
    done: Callable[[Any], None],
) -> None:
    """Times all layers; each row goes to ``done``.

    Raises:
        WrongResultError: a kernel computes something else.
    """
    print(f"{'layer':31}{'batch':>6}" + "".join(f"{name:>9}" for name in _HEADINGS) + "  of bound")
    for network, batches in BATCHES.items():
        for batch in batches[:1] if quick else batches:
            for layer in adder_layers(network)[:: 4 if quick else 1]:
                contenders = LayerContenders(machine, layer, batch)
                contenders.check()
                seconds = take_turns(contenders.all(), machine.kernel_timer, rounds)
                row = layer_row(
                    network, layer, batch, best_layouts(seconds), bound, contenders.cdist_batch
                )
                print(_line(row), flush=True)
                done(row)
                machine.release()


_HEADINGS = {
    "f32": "float32",
    "f16": "float16",
    "u8": "uint8",
    "naive": "naive",
    "cdist": "cdist",
    "c-f32": "conv float32",
    "c-tf32": "conv tf32",
    "c-f16": "conv float16",
}


def _line(row: dict[str, Any]) -> str:
    rates = [f"{row['taps_per_second'][name] / 1e12:9.3f}" for name in _HEADINGS.values()]
    shares = " /".join(f"{100 * row['share_of_bound'][t]:4.0f} %" for t in BOUNDED)
    return f"{row['network']} {row['layer']:22}{row['batch']:>6}" + "".join(rates) + f"  {shares}"
