"""What calibration data make of a model's values: histograms of them, and checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.errors import DataError
from adder_onnx.graph.adder_node import AdderNode
from adder_onnx.graph.loading import load_graph
from adder_onnx.quantization.ranges import Histogram
from adder_onnx.quantization.weights import weight_of
from adder_onnx.runtime import InferenceSession

__all__ = ["KEPT", "FeedCheck", "Observation", "make_runner", "observe"]

Feed = Mapping[str, NDArray[Any]]

KEPT = 2
"""Arrays of inputs that noise is measured with, kept with all values that they make."""


class FeedCheck:
    """Whether there are calibration data, and whether a range can be found from them."""

    def __init__(self) -> None:
        self._extremes: set[float] = set()
        self._count = 0

    def add(self, feed: Feed) -> None:
        """Looks at one array of inputs."""
        self._count += 1
        if len(self._extremes) < 2:
            arrays = [a for a in map(np.asarray, feed.values()) if a.dtype.kind in "biuf"]
            self._extremes |= {float(f(a)) for a in arrays if a.size for f in (np.min, np.max)}

    def finish(self) -> None:
        """After the last one.

        Raises:
            DataError: there are none, or they are all equal.
        """
        if not self._count:
            raise DataError("there is no calibration data")
        if len(self._extremes) < 2:
            raise DataError("the calibration data are all equal: ranges cannot be found from them")

    @staticmethod
    def check_finite(name: str, low: float, high: float) -> None:
        """Looks at the least and the greatest of what the data make of a value.

        Raises:
            DataError: one of them is not finite.
        """
        if (low <= high and not np.isfinite([low, high]).all()) or np.isnan([low, high]).any():
            raise DataError(
                f"the calibration data make {name} infinite or undefined: leave out the samples "
                "that are"
            )


@dataclass(frozen=True)
class Observation:
    """What the calibration data show.

    Attributes:
        histograms: of all values that enter or leave the nodes.
        samples: how many arrays of inputs there were.
        kept: the first of them, each with the values that it makes.
    """

    histograms: dict[str, Histogram]
    samples: int
    kept: list[tuple[Feed, dict[str, NDArray[Any]]]]


def observe(
    model: onnx.ModelProto,
    nodes: Sequence[AdderNode],
    feeds: Iterable[Feed],
    threads: int | None,
    progress: Callable[[int], None],
) -> Observation:
    """Runs a model, and counts the values that enter and leave its nodes.

    Raises:
        DataError: there are no data; they are all equal; or they make a value not finite.
    """
    channels: dict[str, int] = {}
    for node in nodes:
        weight = weight_of(node)
        channels[node.x] = weight.shape[1] * node.attributes.group
        channels[node.y] = weight.shape[0]
        if node.residual is not None:
            channels[node.residual] = weight.shape[0]
    run = make_runner(model, list(channels), threads)
    histograms = {name: Histogram(count) for name, count in channels.items()}
    kept: list[tuple[Feed, dict[str, NDArray[Any]]]] = []
    samples = 0
    check = FeedCheck()
    for feed in feeds:
        values = run(feed)
        check.add(feed)
        for name, histogram in histograms.items():
            histogram.add(values[name], name)
        if samples < KEPT:
            kept.append((feed, values))
        samples += 1
        progress(samples)
    check.finish()
    return Observation(histograms, samples, kept)


def make_runner(
    model: onnx.ModelProto, names: Sequence[str], threads: int | None
) -> Callable[[Feed], dict[str, NDArray[Any]]]:
    """A function from inputs to values of the graph, by name."""
    session = InferenceSession(_with_outputs(model, names), threads=threads)
    inputs = {value.name for value in session.get_inputs()}
    computed = [name for name in names if name not in inputs]

    def run(feed: Feed) -> dict[str, NDArray[Any]]:
        # Without names all outputs would be computed; the inputs are checked in any case.
        values = session.run(computed or None, feed)
        found = dict(zip(computed, values, strict=bool(computed)))
        return {name: np.asarray(found.get(name, feed.get(name))) for name in names}

    return run


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of a model that gives inner values, too."""
    graph = load_graph(model)
    found = {value.name: value for node in graph.graph for value in node.outputs}
    taken = {value.name for value in (*graph.graph.inputs, *graph.graph.outputs)}
    for name in names:
        if name not in taken:
            graph.graph.outputs.append(found[name])
    return ir.to_proto(graph)
