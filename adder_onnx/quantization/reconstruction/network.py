"""The walk through a network, in which each value gets a range and each layer its integers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.graph.adder_node import AdderNode
from adder_onnx.quantization.few_levels import choose_levels, enter
from adder_onnx.quantization.observation import FeedCheck
from adder_onnx.quantization.pooling import SharedScale
from adder_onnx.quantization.ranges import Histogram, Quantization, choose
from adder_onnx.quantization.reconstruction.choices import (
    Seen,
    choose_range,
    choose_weights,
    matching_bias,
    steps_from,
    wanted_sums,
)
from adder_onnx.quantization.reconstruction.layers import run_layer, sums
from adder_onnx.quantization.reconstruction.samples import columns, draw, pixels_of
from adder_onnx.quantization.reconstruction.segments import Segment, sources
from adder_onnx.quantization.reconstruction.store import Store
from adder_onnx.quantization.sensitivity import decibels
from adder_onnx.quantization.weights import IntegerLayer, weight_of
from adder_onnx.runtime.threads import resolve_threads

__all__ = ["FREE_BITS", "Reconstruction", "reconstruct"]

Feed = Mapping[str, NDArray[Any]]
Progress = Callable[[int, int], None]

FREE_BITS = 8
"""Of a value that no adder layer takes: only widths of what is compared make a layer cheaper."""

_RANGE_SAMPLES = 1536
_WEIGHT_SAMPLES = 4096
"""Output pixels that a layer is judged by."""


@dataclass(frozen=True)
class Reconstruction:
    """The result of `reconstruct`.

    Attributes:
        quantizations: of the values that enter and leave the layers, by name.
        layers: integers and biases, by the name of the node.
        snr: signal-to-noise ratio of each layer's output, in decibels, by the name of the node.
        samples: how many arrays of inputs there were.
    """

    quantizations: dict[str, Quantization]
    layers: dict[str, IntegerLayer]
    snr: dict[str, float]
    samples: int


def reconstruct(
    model: ir.Model,
    nodes: Sequence[AdderNode],
    shared: Sequence[SharedScale],
    feeds: Iterable[Feed],
    widths: Mapping[str, int],
    *,
    levels: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Reconstruction:
    """Chooses ranges, integer weights and biases, a value after the other.

    Values of all feeds lie in temporary files, as long as something is computed from them; in
    memory are those of one feed and the samples of one layer.

    Args:
        model: the float model, as written.
        nodes: what is quantized of it, epilogues fused, in the order of the graph.
        shared: values around MaxPool nodes that have one scale.
        feeds: inputs of the model; each is taken once.
        widths: bits of the values that layers take, by name.
        levels: how many integers each of these values becomes; None for all.
        seed: of the pixels that are drawn.
        threads: to use; None for all cores.
        progress: is called with the number of values that are done, and that of all.

    Raises:
        DataError: there are no feeds, or they are not finite, or all equal.
    """
    with Store() as store:
        check = FeedCheck()
        count = 0
        for feed in feeds:
            check.add(feed)
            for name, array in feed.items():
                store.put(_given(name), count, np.asarray(array))
            count += 1
        check.finish()
        walk = _Walk(
            model, nodes, shared, widths, levels, store, count, seed, resolve_threads(threads)
        )
        for done, total in walk.steps():
            progress(done, total)
        return Reconstruction(walk.quantizations, walk.layers, walk.snr(), count)


class _Walk:
    """Both networks as far as they are computed.

    Arrays in the store, for each feed: what is given; of each value what the float network has and
    what ours has, in floats until its range is chosen, in integers from then on.
    """

    def __init__(
        self,
        model: ir.Model,
        nodes: Sequence[AdderNode],
        shared: Sequence[SharedScale],
        widths: Mapping[str, int],
        levels: int | None,
        store: Store,
        feeds: int,
        seed: int,
        threads: int,
    ) -> None:
        self.quantizations: dict[str, Quantization] = {}
        self.layers: dict[str, IntegerLayer] = {}
        self._model, self._nodes = model, nodes
        self._widths, self._levels = widths, levels
        self._store, self._feeds = store, range(feeds)
        self._seed, self._threads = seed, threads
        self._later = {s.before: s.after for s in shared if s.by_after}
        self._as_before = {s.after: s.before for s in shared if not s.by_after}
        self._layer_of = {node.y: node for node in nodes}
        self._bounds: dict[str, tuple[float, float]] = {}
        self._shapes: dict[str, list[tuple[int, ...]]] = {}
        self._noise: dict[str, tuple[float, float]] = {}
        self._order = _order(model.graph, nodes)
        known = set(self._order)
        self._sources = {
            value: [v for v in (layer.x, layer.residual) if v is not None]
            if (layer := self._layer_of.get(value))
            else sources(model.graph, value, known)
            for value in self._order
        }
        self._given = {value.name for value in model.graph.inputs}

    def steps(self) -> Iterator[tuple[int, int]]:
        """Computes all; gives how many values are done, and how many there are."""
        last = {v: i for i, value in enumerate(self._order) for v in (value, *self._sources[value])}
        for number, value in enumerate(self._order):
            self._compute(value)
            if value not in self._later:
                self._choose(value)
            for name in [n for n, end in last.items() if end == number and n not in self._later]:
                self._drop(name)
            yield number + 1, len(self._order)

    def snr(self) -> dict[str, float]:
        """The signal-to-noise ratio of each layer's output, by the name of the layer."""
        return {node.name: decibels(*self._noise[node.y]) for node in self._nodes}

    def _compute(self, value: str) -> None:
        """Runs both networks from what a value is computed from."""
        layer = self._layer_of.get(value)
        if layer is not None:
            self.layers[layer.name] = self._integers(layer)
        segment = None
        if layer is None and value not in self._given:
            segment = Segment(self._model, self._sources[value], value, self._threads)
        low, high, shapes = math.inf, -math.inf, []
        for feed in self._feeds:
            if layer is not None:
                exact, ours = self._run(layer, feed)
            elif segment is not None:
                exact, ours = (
                    segment.run({name: get(name, feed) for name in self._sources[value]})
                    for get in (self._exact, self._ours)
                )
            else:
                exact = ours = self._exact(value, feed).astype(np.float32)
            if exact.size:
                least, most = float(exact.min()), float(exact.max())
                FeedCheck.check_finite(value, least, most)
                low, high = min(low, least), max(high, most)
            shapes.append(exact.shape)
            self._store.put(_of_float(value), feed, exact)
            self._store.put(_of_ours(value), feed, ours)
        self._bounds[value], self._shapes[value] = (low, high), shapes

    def _run(self, layer: AdderNode, feed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A layer's output in the float network and in ours."""
        q, integers = self.quantizations[layer.x], self.layers[layer.name]
        exact = run_layer(
            layer,
            self._exact(layer.x, feed),
            None if layer.residual is None else self._exact(layer.residual, feed),
            weight_of(layer),
            layer.scale,
            layer.bias,
            self._threads,
        )
        ours = run_layer(
            layer,
            self._steps(layer.x, feed),
            None if layer.residual is None else self._ours(layer.residual, feed),
            steps_from(q, integers.weight),
            layer.scale * q.scale,
            integers.bias,
            self._threads,
        )
        return exact, ours

    def _choose(self, value: str) -> None:
        """Chooses the range of a value that is computed, and rounds it."""
        takers = [n for n in self._nodes if n.x == value]
        before = self._as_before.get(value)
        if before is not None:
            q = self.quantizations[before]
        elif takers:
            seen = [self._seen(layer) for layer in takers]
            q = choose_range(
                *self._bounds[value], self._widths[value], seen, self._threads, self._levels
            )
        else:
            histogram = Histogram(self._shapes[value][0][1])
            for feed in self._feeds:
                histogram.add(self._ours(value, feed), value)
            pooled = [v for v, before in self._as_before.items() if before == value]
            widths = [self._widths[v] for v in pooled if v in self._widths]
            if self._levels is None or not widths:
                q = choose(histogram, FREE_BITS, "mse")
            else:  # for the layers that take it pooled
                q = choose_levels(histogram, max(widths), self._levels)
        for name in (value, *(b for b, after in self._later.items() if after == value)):
            self.quantizations[name] = q
            signal = noise = 0.0
            for feed in self._feeds:
                ours = self._store.get(_of_ours(name), feed)
                integers = q.quantize(ours) if name in self._layer_of else enter(q, ours)
                exact = self._exact(name, feed).astype(np.float64)
                signal += float((exact**2).sum())
                noise += float(((q.dequantize(integers) - exact) ** 2).sum())
                self._store.put(_of_ours(name), feed, integers)
            self._noise[name] = signal, noise
            if name != value:
                self._drop(name)

    def _seen(self, layer: AdderNode) -> Seen:
        """What a layer takes whose input has no range yet."""
        pixels = draw(layer, self._shapes[layer.x], _RANGE_SAMPLES, self._rng(layer, 0))
        exact = columns(layer, pixels, lambda feed: self._exact(layer.x, feed))
        ours = columns(layer, pixels, lambda feed: self._ours(layer.x, feed))
        return Seen(layer, exact, ours)

    def _integers(self, layer: AdderNode) -> IntegerLayer:
        """A layer's weights and bias, for inputs whose ranges are chosen."""
        q, residual = self.quantizations[layer.x], layer.residual
        pixels = draw(layer, self._shapes[layer.x], _WEIGHT_SAMPLES, self._rng(layer, 1))
        group = layer.attributes.group
        scale = layer.scale.astype(np.float64)[:, None]
        exact = columns(layer, pixels, lambda feed: self._exact(layer.x, feed))
        exact_sums = sums(exact, weight_of(layer), group, self._threads)
        targets = layer.bias.astype(np.float64)[:, None] - scale * exact_sums
        added = np.zeros((1, 1))
        if residual is not None:
            targets += pixels_of(pixels, lambda feed: self._exact(residual, feed))
            added = pixels_of(pixels, lambda feed: self._ours(residual, feed))
        steps = columns(layer, pixels, lambda feed: self._steps(layer.x, feed))
        step_scale = scale * float(q.scale)
        wanted = wanted_sums(targets, added, step_scale, exact_sums / q.scale)
        x = (steps + q.zero_point).astype(np.uint8)
        weight = choose_weights(layer, q, x, wanted, self._threads)
        found = sums(steps, steps_from(q, weight), group, self._threads, arithmetic="fast")
        bias = matching_bias(added - step_scale * found, targets, layer.clip_min)
        return IntegerLayer.of(layer, q, weight, bias)

    def _rng(self, layer: AdderNode, use: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, use, self._nodes.index(layer)])

    def _exact(self, name: str, feed: int) -> NDArray[np.float32]:
        """What the float network has."""
        kept = _of_float(name) if name in self._shapes else _given(name)
        return self._store.get(kept, feed)

    def _ours(self, name: str, feed: int) -> NDArray[np.float32]:
        """What the quantized network has: rounded, once the value's range is chosen."""
        if name not in self._shapes:
            return self._store.get(_given(name), feed)
        array, q = self._store.get(_of_ours(name), feed), self.quantizations.get(name)
        return array if q is None else steps_from(q, array) * q.scale

    def _steps(self, name: str, feed: int) -> NDArray[np.float32]:
        return steps_from(self.quantizations[name], self._store.get(_of_ours(name), feed))

    def _drop(self, name: str) -> None:
        self._store.drop(_of_float(name))
        self._store.drop(_of_ours(name))


def _order(graph: ir.Graph, nodes: Sequence[AdderNode]) -> list[str]:
    """The values that enter and leave layers, as they are computed."""
    wanted = {v for n in nodes for v in (n.x, n.residual, n.y) if v is not None}
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    return [value.name for value in values if value.name in wanted]


def _given(name: str) -> str:
    return f"given {name}"


def _of_float(name: str) -> str:
    return f"float {name}"


def _of_ours(name: str) -> str:
    return f"ours {name}"
