"""Post-training quantization of a model's adder nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common as passes

from adder_onnx.errors import DataError, InputError, ModelError
from adder_onnx.graph.adder_node import AdderNode, adder_node, is_adder_node, mark_adder_nodes
from adder_onnx.graph.fusion import fuse_epilogues
from adder_onnx.graph.loading import load_graph
from adder_onnx.ops import DOMAIN, function_bodies
from adder_onnx.quantization.pooling import share_scales
from adder_onnx.quantization.ranges import CALIBRATIONS, Histogram, Quantization, choose
from adder_onnx.quantization.rewrite import NodeSummary, can_be_quantized, rewrite
from adder_onnx.quantization.weights import quantize_weights
from adder_onnx.runtime import InferenceSession

__all__ = [
    "Quantized",
    "Seen",
    "Sensitivity",
    "decibels",
    "finish",
    "fused_nodes",
    "observe",
    "quantize",
]

Feed = Mapping[str, NDArray[Any]]

_KEPT = 2
"""Arrays of inputs that noise is measured with, kept with all values that they make."""


@dataclass(frozen=True)
class Sensitivity:
    """What quantizing one node alone does to the model's first float output.

    Attributes:
        name: of the node.
        snr: signal-to-noise ratio of the output, in decibels.
        changed: share of the samples whose largest output is another one.
    """

    name: str
    snr: float
    changed: float


@dataclass(frozen=True)
class Quantized:
    """The result of `quantize`.

    Attributes:
        model: with QLinearAdderConv nodes, and the bodies of our operators.
        nodes: what became of each adder node that was quantized.
        snr: signal-to-noise ratio of each of these nodes' outputs, in decibels, with all of them
            quantized; over the first arrays of inputs.
        left: names of adder nodes that were not quantized.
        samples: how many arrays of inputs the ranges come from.
        sensitivity: by node, where that was asked for.
    """

    model: onnx.ModelProto
    nodes: tuple[NodeSummary, ...]
    snr: dict[str, float]
    left: tuple[str, ...]
    samples: int
    sensitivity: tuple[Sensitivity, ...] = ()


def quantize(
    model: onnx.ModelProto,
    feeds: Iterable[Feed],
    *,
    bits: int = 8,
    calibration: str = "mse",
    percentile: float = 99.9,
    exclude: Sequence[str] = (),
    sensitivity: bool = False,
    threads: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Quantized:
    """Turns adder nodes into integer ones, by the ranges that calibration data give.

    Args:
        model: with AdderConv nodes; is not changed.
        feeds: inputs, as for `InferenceSession.run`; each is run once, a few are kept.
        bits: of activations and weights, 2 to 8.
        calibration: ``mse``, ``percentile`` or ``minmax``, see `choose`.
        percentile: for ``percentile``, above 50 to 100.
        exclude: names of adder nodes that stay float.
        sensitivity: whether each node is quantized alone, too, to see what it does to the output.
        threads: for the runs.
        progress: is called with 1 after each run of ``feeds``.

    Raises:
        InputError: an option is out of its range, or names a node that is not there.
        ModelError: the model has no adder node, or is quantized already; or it has no output that
            the sensitivity could be seen in.
        DataError: there is no calibration data, or it is not finite.
    """
    _check(bits, calibration, percentile)
    plain = _adder_nodes(model, exclude)
    names = [n.name for n in plain if can_be_quantized(n) and n.name not in exclude]
    # What is fused into a node depends on which others are there to take it.
    fused = load_graph(model).graph
    chosen = fused_nodes(fused, names)
    observed = list(chosen)
    if sensitivity:
        observed += [n for name in names for n in fused_nodes(load_graph(model).graph, [name])]
    seen = observe(model, observed, feeds, threads, progress)
    quantizations = {
        name: choose(histogram, bits, calibration, percentile)
        for name, histogram in seen.histograms.items()
    }
    share_scales(fused, quantizations)

    def build(names: Collection[str]) -> tuple[onnx.ModelProto, list[NodeSummary]]:
        graph = load_graph(model)
        weights = {
            node.name: quantize_weights(
                np.asarray(node.weight, np.float32),
                node.attributes.group,
                quantizations[node.x],
                seen.histograms[node.x],
            )
            for node in fused_nodes(graph.graph, names)
        }
        summaries = rewrite(graph.graph, quantizations, weights)
        return finish(graph, model), summaries

    result, summaries = build(names)
    outputs = {summary.name: summary.output for summary in summaries}
    return Quantized(
        result,
        tuple(summaries),
        _noise(result, chosen, outputs, seen, quantizations, threads),
        tuple(node.name for node in plain if node.name not in names),
        seen.samples,
        _alone(model, ((name, build([name])[0]) for name in names), seen, threads)
        if sensitivity
        else (),
    )


def _adder_nodes(model: onnx.ModelProto, exclude: Sequence[str]) -> list[AdderNode]:
    """The adder nodes of a model, epilogues fused.

    Raises:
        ModelError: there are none, or they are quantized already.
        InputError: one that is excluded is not there.
    """
    graph = load_graph(model).graph
    if any(node.op_type == "QLinearAdderConv" for node in graph):
        raise ModelError("the model is quantized already: quantize the float model it came from")
    nodes = fused_nodes(graph)
    if not nodes:
        raise ModelError("the model has no AdderConv node that could be quantized")
    names = {node.name for node in nodes}
    for name in exclude:
        if name not in names:
            raise InputError(
                f"--exclude {name}: the model has no such adder node; its first are "
                f"{', '.join(sorted(names)[:3])}"
            )
    return nodes


def fused_nodes(graph: ir.Graph, names: Collection[str] | None = None) -> list[AdderNode]:
    """Fuses epilogues into the adder nodes of these names, or into all; others stay as written."""
    mark_adder_nodes(graph, integers=False)
    for node in graph:
        if is_adder_node(node) and names is not None and node.name not in names:
            node.op_type = "AdderConv"
    fuse_epilogues(graph)
    return [adder_node(node) for node in graph if is_adder_node(node)]


def _check(bits: int, calibration: str, percentile: float) -> None:
    if not 2 <= bits <= 8:
        raise InputError(f"bits is {bits}; expected 2 to 8")
    if calibration not in CALIBRATIONS:
        raise InputError(
            f"calibration is {calibration!r}; expected one of {', '.join(CALIBRATIONS)}"
        )
    if not 50 < percentile <= 100:
        raise InputError(f"percentile is {percentile}; expected more than 50, at most 100")


@dataclass(frozen=True)
class Seen:
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
) -> Seen:
    """Runs the model on all inputs, and counts what enters and leaves the nodes."""
    channels: dict[str, int] = {}
    for node in nodes:
        assert isinstance(node.weight, np.ndarray)
        channels[node.x] = node.weight.shape[1] * node.attributes.group
        channels[node.y] = node.weight.shape[0]
        if node.residual is not None:
            channels[node.residual] = node.weight.shape[0]
    run = _runner(model, list(channels), threads)
    histograms = {name: Histogram(count) for name, count in channels.items()}
    kept: list[tuple[Feed, dict[str, NDArray[Any]]]] = []
    samples = 0
    extremes: list[NDArray[Any]] = []
    for feed in feeds:
        values = run(feed)
        extremes += [f(array) for array in feed.values() if array.size for f in (np.min, np.max)]
        for name, histogram in histograms.items():
            histogram.add(values[name], name)
        if samples < _KEPT:
            kept.append((feed, values))
        samples += 1
        progress(1)
    if not samples:
        raise DataError("there is no calibration data")
    if len(set(map(float, extremes))) < 2:
        raise DataError("the calibration data are all equal: ranges cannot be found from them")
    return Seen(histograms, samples, kept)


def _runner(
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


def _noise(
    result: onnx.ModelProto,
    nodes: Sequence[AdderNode],
    outputs: Mapping[str, str],
    seen: Seen,
    quantizations: Mapping[str, Quantization],
    threads: int | None,
) -> dict[str, float]:
    """The signal-to-noise ratio of each node's output, whose integers are ``outputs``."""
    exact = dict.fromkeys(outputs, 0.0)
    noise = dict(exact)
    values_of = {node.name: node.y for node in nodes}
    run_integers = _runner(result, list(outputs.values()), threads)
    for feed, values in seen.kept:
        integers = run_integers(feed)
        for name, output in outputs.items():
            y = values_of[name]
            truth = values[y].astype(np.float64)
            error = quantizations[y].dequantize(integers[output]) - truth
            exact[name] += float((truth**2).sum())
            noise[name] += float((error**2).sum())
    return {name: decibels(exact[name], noise[name]) for name in exact}


def _alone(
    model: onnx.ModelProto,
    singles: Iterable[tuple[str, onnx.ModelProto]],
    seen: Seen,
    threads: int | None,
) -> tuple[Sensitivity, ...]:
    """What models, each with the node of that name quantized alone, give beside the model."""
    plain = InferenceSession(model, threads=threads)
    output = _first_float(plain)

    def results(session: InferenceSession) -> list[NDArray[np.float64]]:
        return [np.asarray(session.run([output], feed)[0], np.float64) for feed, _ in seen.kept]

    truths = results(plain)
    found = []
    for name, single in singles:
        signal = noise = changed = count = 0.0
        alone = InferenceSession(single, threads=threads)
        for truth, ours in zip(truths, results(alone), strict=True):
            if truth.shape != ours.shape or not truth.size:
                raise ModelError(
                    f"the model's output {output} has shape {list(truth.shape)}, and "
                    f"{list(ours.shape)} with {name} quantized: its sensitivity cannot be told"
                )
            signal += float((truth**2).sum())
            noise += float(((ours - truth) ** 2).sum())
            rows = len(truth) if truth.ndim else 1
            flat = [array.reshape(rows, -1).argmax(axis=1) for array in (truth, ours)]
            changed += float((flat[0] != flat[1]).sum())
            count += rows
        found.append(Sensitivity(name, decibels(signal, noise), changed / count))
    return tuple(found)


def _first_float(session: InferenceSession) -> str:
    for output in session.get_outputs():
        if output.type in ("tensor(float16)", "tensor(float)", "tensor(double)"):
            return output.name
    raise ModelError("the model has no float output that a node's sensitivity could be seen in")


def decibels(signal: float, noise: float) -> float:
    """The ratio of two sums of squares."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of a model that gives inner values, too."""
    graph = load_graph(model)
    found = {value.name: value for node in graph.graph for value in node.outputs}
    taken = {value.name for value in (*graph.graph.inputs, *graph.graph.outputs)}
    for name in names:
        if name not in taken:
            graph.graph.outputs.append(found[name])
    return ir.to_proto(graph)


def finish(graph: ir.Model, source: onnx.ModelProto) -> onnx.ModelProto:
    """The rewritten graph as a checked model, with the bodies of our operators."""
    passes.RemoveUnusedNodesPass()(graph)
    proto = ir.to_proto(graph)
    opset = graph.opset_imports.get("", 0)
    kept = [f for f in proto.functions if f.domain != DOMAIN]
    del proto.functions[:]
    proto.functions.extend((*kept, *function_bodies(opset)))
    del proto.metadata_props[:]
    proto.metadata_props.extend(source.metadata_props)
    proto.producer_name = "adder-onnx"
    onnx.checker.check_model(proto)
    return proto
