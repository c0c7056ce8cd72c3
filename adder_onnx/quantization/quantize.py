"""Post-training quantization of a model's adder nodes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common as passes

from adder_onnx.errors import InputError, ModelError
from adder_onnx.graph.adder_node import AdderNode, adder_node, is_adder_node, mark_adder_nodes
from adder_onnx.graph.fusion import fuse_epilogues
from adder_onnx.graph.loading import check_valid, load_graph
from adder_onnx.ops import DOMAIN, describe_model, describe_nodes, function_bodies, write_out_levels
from adder_onnx.quantization.few_levels import check_levels
from adder_onnx.quantization.observation import KEPT, Observation, make_runner, observe
from adder_onnx.quantization.pooling import share_scales, shared_scales
from adder_onnx.quantization.ranges import CALIBRATIONS, Quantization, choose
from adder_onnx.quantization.reconstruction import reconstruct
from adder_onnx.quantization.rewrite import NodeSummary, can_be_quantized, rewrite
from adder_onnx.quantization.sensitivity import Sensitivity, decibels, measure_alone
from adder_onnx.quantization.weights import IntegerLayer, quantize_weights, weight_of
from adder_onnx.runtime import InferenceSession

__all__ = [
    "DEFAULT_BITS",
    "DEFAULT_BITS_OF_LEVELS",
    "Quantized",
    "Sensitivity",
    "finish",
    "fused_nodes",
    "quantize",
]

DEFAULT_BITS, DEFAULT_BITS_OF_LEVELS = 8, 4

Feed = Mapping[str, NDArray[Any]]
Bits = int | Mapping[str, int]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Quantized:
    """The result of `quantize`.

    Attributes:
        model: with QLinearAdderConv nodes, and the bodies of our operators.
        nodes: what became of each adder node that was quantized.
        snr: signal-to-noise ratio of each of these nodes' outputs, in decibels, with all of them
            quantized; over all arrays of inputs for ``output``,
            over the first ones for other calibrations.
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
    bits: Bits | None = None,
    levels: int | None = None,
    calibration: str = "output",
    percentile: float = 99.9,
    exclude: Sequence[str] = (),
    sensitivity: bool = False,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = lambda done, total: None,
    alone: Progress = lambda done, total: None,
) -> Quantized:
    """Turns adder nodes into integer ones, by what calibration data show.

    Args:
        model: with AdderConv nodes; is not changed.
        feeds: inputs, as for `InferenceSession.run`; each is taken once.
        bits: of each node's input and weights, 2 to 8; for ``output`` also by the node's name. A
            value that several nodes take has the most bits of theirs. With ``output``, values that
            no adder node takes have 8 bits. None for 8, and for 4 with ``levels``.
        levels: how many of the integers of these bits each node's input has, 2 to 16, while weights
            have all; for ``output``. None for all.
        calibration: ``output``, by what the output of each node loses, in the order of the graph;
            or by the node's input alone, ``mse``, ``percentile`` or ``minmax``.
            docs/quantisation.md says how each is done.
        percentile: for ``percentile``, above 50 to 100.
        exclude: names of adder nodes that stay float.
        sensitivity: whether each node is quantized alone, too, to see what it does to the output.
        seed: of the output pixels that ``output`` draws.
        threads: for the runs; None for all cores.
        progress: is called with how much is done, and of how much: values for ``output``, else
            arrays of inputs, of which 0 says that their number is not known.
        alone: is called with the number of nodes whose sensitivity is known, and that of all.

    Returns:
        The model with integer nodes, and what became of each adder node.

    Raises:
        InputError: an option is out of its range, or names a node that is not there.
        ModelError: the model has no adder node, or is quantized already; or it has no output that
            the sensitivity could be seen in.
        DataError: there is no calibration data, or it is not finite.
    """
    if bits is None:
        bits = DEFAULT_BITS if levels is None else DEFAULT_BITS_OF_LEVELS
    _check(bits, levels, calibration, percentile)
    plain = _adder_nodes(model, exclude)
    names = [n.name for n in plain if can_be_quantized(n) and n.name not in exclude]
    kept: list[Feed] = []
    if calibration == "output":

        def quantized(names: Collection[str], feeds: Iterable[Feed], progress: Progress) -> _Result:
            return _by_output(
                model, names, feeds, _widths(bits, plain), levels, seed, threads, progress
            )

        result = quantized(names, _checked(model, feeds, kept), progress)
        singles = (
            (name, quantized([name], kept, lambda done, total: None).model) for name in names
        )
    else:
        assert isinstance(bits, int)
        choices = _ByValue(model, names, bits, calibration, percentile, sensitivity, threads)
        result = choices.quantize(feeds, progress)
        kept = [feed for feed, _ in choices.seen.kept]
        singles = ((name, choices.build([name])[0]) for name in names)
    return Quantized(
        result.model,
        tuple(result.nodes),
        result.snr,
        tuple(node.name for node in plain if node.name not in names),
        result.samples,
        measure_alone(model, _counted(singles, len(names), alone), kept, threads)
        if sensitivity
        else (),
    )


def _counted(
    singles: Iterable[tuple[str, onnx.ModelProto]], count: int, progress: Progress
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Gives on what it gets, and tells how much the taker is done with."""
    for done, single in enumerate(singles):
        progress(done, count)
        yield single
    progress(count, count)


@dataclass(frozen=True)
class _Result:
    """A model with integer nodes, and what `Quantized` says of them."""

    model: onnx.ModelProto
    nodes: list[NodeSummary]
    snr: dict[str, float]
    samples: int


def _by_output(
    model: onnx.ModelProto,
    names: Collection[str],
    feeds: Iterable[Feed],
    widths: Mapping[str, int],
    levels: int | None,
    seed: int,
    threads: int | None,
    progress: Progress,
) -> _Result:
    # What is fused into a node depends on which others are there to take it.
    graph = load_graph(model)
    nodes = fused_nodes(graph.graph, names)
    values = {v for n in nodes for v in (n.x, n.y, n.residual) if v is not None}
    found = reconstruct(
        load_graph(model),
        nodes,
        shared_scales(graph.graph, values),
        feeds,
        {n.x: max(widths[m.name] for m in nodes if m.x == n.x) for n in nodes},
        levels=levels,
        seed=seed,
        threads=threads,
        progress=progress,
    )
    summaries = rewrite(graph.graph, found.quantizations, lambda n: found.layers[n.name], names)
    return _Result(finish(graph, model), summaries, found.snr, found.samples)


class _ByValue:
    """Quantization by histograms of values, each node for itself."""

    seen: Observation

    def __init__(
        self,
        model: onnx.ModelProto,
        names: Sequence[str],
        bits: int,
        calibration: str,
        percentile: float,
        alone: bool,
        threads: int | None,
    ) -> None:
        self._model, self._names, self._threads = model, names, threads
        self._bits, self._calibration, self._percentile = bits, calibration, percentile
        self._alone = alone
        self._quantizations: dict[str, Quantization] = {}

    def quantize(self, feeds: Iterable[Feed], progress: Progress) -> _Result:
        fused = load_graph(self._model).graph
        nodes = fused_nodes(fused, self._names)
        observed = list(nodes)
        if self._alone:
            for name in self._names:
                observed += fused_nodes(load_graph(self._model).graph, [name])
        self.seen = observe(
            self._model, observed, feeds, self._threads, lambda done: progress(done, 0)
        )
        self._quantizations = {
            name: choose(histogram, self._bits, self._calibration, self._percentile)
            for name, histogram in self.seen.histograms.items()
        }
        share_scales(fused, self._quantizations)
        result, summaries = self.build(self._names)
        outputs = {summary.name: summary.output for summary in summaries}
        snr = _noise(result, nodes, outputs, self.seen, self._quantizations, self._threads)
        return _Result(result, summaries, snr, self.seen.samples)

    def build(self, names: Collection[str]) -> tuple[onnx.ModelProto, list[NodeSummary]]:
        """The model with these nodes quantized."""
        graph = load_graph(self._model)
        fused_nodes(graph.graph, names)
        summaries = rewrite(graph.graph, self._quantizations, self._layer, names)
        return finish(graph, self._model), summaries

    def _layer(self, node: AdderNode) -> IntegerLayer:
        q = self._quantizations[node.x]
        group, histogram = node.attributes.group, self.seen.histograms[node.x]
        packed = quantize_weights(weight_of(node), group, q, histogram)
        bias = node.bias.astype(np.float64) - node.scale.astype(np.float64) * packed.constant
        return IntegerLayer.of(node, q, packed.integers, bias)


def _checked(model: onnx.ModelProto, feeds: Iterable[Feed], kept: list[Feed]) -> Iterator[Feed]:
    """Gives the feeds on, as arrays that the model takes; the first are also kept."""
    session = InferenceSession(model, threads=1)
    for feed in feeds:
        arrays = session.check(feed)
        if len(kept) < KEPT:
            kept.append(arrays)
        yield arrays


def _widths(bits: Bits, nodes: Sequence[AdderNode]) -> dict[str, int]:
    """The bits of each node.

    Raises:
        InputError: one of them that are given by name is not there, or one that is there is not
            given.
    """
    names = {node.name for node in nodes}
    if isinstance(bits, int):
        return dict.fromkeys(names, bits)
    for name in sorted(names ^ bits.keys()):
        what = "has no such adder node" if name in bits else "has this adder node, too"
        raise InputError(f"bits of {name}: the model {what}")
    return dict(bits)


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


def _check(bits: Bits, levels: int | None, calibration: str, percentile: float) -> None:
    if calibration not in CALIBRATIONS:
        raise InputError(
            f"calibration is {calibration!r}; expected one of {', '.join(CALIBRATIONS)}"
        )
    if levels is not None and calibration != "output":
        raise InputError(f"levels need calibration output, not {calibration}")
    if not isinstance(bits, int) and calibration != "output":
        raise InputError(f"calibration {calibration} takes one width for all nodes")
    for width in [bits] if isinstance(bits, int) else bits.values():
        if not 2 <= width <= 8:
            raise InputError(f"bits is {width}; expected 2 to 8")
        if levels is not None:
            check_levels(levels, width)
    if not 50 < percentile <= 100:
        raise InputError(f"percentile is {percentile}; expected more than 50, at most 100")


def _noise(
    result: onnx.ModelProto,
    nodes: Sequence[AdderNode],
    outputs: Mapping[str, str],
    seen: Observation,
    quantizations: Mapping[str, Quantization],
    threads: int | None,
) -> dict[str, float]:
    """The signal-to-noise ratio of each node's output, whose integers are ``outputs``."""
    exact = dict.fromkeys(outputs, 0.0)
    noise = dict(exact)
    values_of = {node.name: node.y for node in nodes}
    run_integers = make_runner(result, list(outputs.values()), threads)
    for feed, values in seen.kept:
        integers = run_integers(feed)
        for name, output in outputs.items():
            y = values_of[name]
            truth = values[y].astype(np.float64)
            error = quantizations[y].dequantize(integers[output]) - truth
            exact[name] += float((truth**2).sum())
            noise[name] += float((error**2).sum())
    return {name: decibels(exact[name], noise[name]) for name in exact}


def finish(graph: ir.Model, source: onnx.ModelProto) -> onnx.ModelProto:
    """The rewritten graph as a checked model, with the bodies of our operators."""
    passes.RemoveUnusedNodesPass()(graph)
    proto = ir.to_proto(graph)
    opset = graph.opset_imports.get("", 0)
    levels = write_out_levels(proto.graph.node)
    kept = [f for f in proto.functions if f.domain != DOMAIN]
    del proto.functions[:]
    proto.functions.extend((*kept, *function_bodies(opset, levels=levels)))
    del proto.metadata_props[:]
    proto.metadata_props.extend(source.metadata_props)
    proto.producer_name = "adder-onnx"
    proto.doc_string = describe_model(proto, "Quantized by adder-onnx from a float network.")
    describe_nodes(proto)
    check_valid(proto)
    return proto
