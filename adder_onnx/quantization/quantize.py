"""Post-training quantization of a model's adder nodes."""

from __future__ import annotations

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
from adder_onnx.quantization.ranges import CALIBRATIONS, Histogram, choose
from adder_onnx.quantization.rewrite import NodeSummary, can_be_quantized, rewrite
from adder_onnx.runtime import InferenceSession

__all__ = ["Quantized", "quantize"]

Feed = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Quantized:
    """The result of `quantize`.

    Attributes:
        model: with QLinearAdderConv nodes, and the bodies of our operators.
        nodes: what became of each adder node that was quantized.
        left: names of those that were not.
        samples: how many arrays of inputs the ranges come from.
    """

    model: onnx.ModelProto
    nodes: tuple[NodeSummary, ...]
    left: tuple[str, ...]
    samples: int


def quantize(
    model: onnx.ModelProto,
    feeds: Iterable[Feed],
    *,
    bits: int = 8,
    calibration: str = "mse",
    percentile: float = 99.9,
    exclude: Sequence[str] = (),
    threads: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Quantized:
    """Turns adder nodes into integer ones, by the ranges that calibration data give.

    Args:
        model: with AdderConv nodes; is not changed.
        feeds: inputs, as for `InferenceSession.run`; each is run once.
        bits: of activations and weights, 2 to 8.
        calibration: ``mse``, ``percentile`` or ``minmax``, see `choose`.
        percentile: for ``percentile``, above 50 to 100.
        exclude: names of adder nodes that stay float.
        threads: for the runs.
        progress: is called with 1 after each run.

    Raises:
        InputError: an option is out of its range, or names a node that is not there.
        ModelError: the model has no adder node, or is quantized already.
        DataError: there is no calibration data, or it is not finite.
    """
    _check(bits, calibration, percentile)
    graph = load_graph(model)
    if any(node.op_type == "QLinearAdderConv" for node in graph.graph):
        raise ModelError("the model is quantized already: quantize the float model it came from")
    plain = _fused_nodes(load_graph(model).graph)
    if not plain:
        raise ModelError("the model has no AdderConv node that could be quantized")
    names = {node.name for node in plain}
    for name in exclude:
        if name not in names:
            raise InputError(
                f"--exclude {name}: the model has no such adder node; its first are "
                f"{', '.join(sorted(names)[:3])}"
            )
    chosen = [n for n in plain if can_be_quantized(n) and n.name not in exclude]
    histograms, samples = _observe(model, chosen, feeds, threads, progress)
    quantizations = {
        name: choose(histogram, bits, calibration, percentile)
        for name, histogram in histograms.items()
    }
    quantized = {node.name for node in chosen}
    _fused_nodes(graph.graph, quantized)
    summaries = rewrite(graph.graph, quantizations, histograms, quantized)
    return Quantized(
        _finish(graph, model),
        tuple(summaries),
        tuple(node.name for node in plain if node.name not in quantized),
        samples,
    )


def _fused_nodes(graph: ir.Graph, names: Collection[str] | None = None) -> list[AdderNode]:
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


def _observe(
    model: onnx.ModelProto,
    nodes: Sequence[AdderNode],
    feeds: Iterable[Feed],
    threads: int | None,
    progress: Callable[[int], None],
) -> tuple[dict[str, Histogram], int]:
    """Histograms of all values that enter or leave the nodes."""
    channels: dict[str, int] = {}
    for node in nodes:
        assert not isinstance(node.weight, str)
        channels[node.x] = node.weight.shape[1] * node.attributes.group
        channels[node.y] = node.weight.shape[0]
        if node.residual is not None:
            channels[node.residual] = node.weight.shape[0]
    observed = _with_outputs(model, list(channels))
    session = InferenceSession(observed.SerializeToString(), threads=threads)
    inputs = {value.name for value in session.get_inputs()}
    histograms = {name: Histogram(count) for name, count in channels.items()}
    samples = 0
    for feed in feeds:
        names = [name for name in channels if name not in inputs]
        values = dict(zip(names, session.run(names, feed), strict=True))
        for name, histogram in histograms.items():
            histogram.add(np.asarray(values.get(name, feed.get(name))), name)
        samples += 1
        progress(1)
    if not samples:
        raise DataError("there is no calibration data")
    if all(h.smallest == h.largest for h in histograms.values()):
        raise DataError("the calibration data are all equal: ranges cannot be found from them")
    return histograms, samples


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of a model that gives inner values, too."""
    loaded = ir.to_proto(load_graph(model))
    taken = {value.name for value in (*loaded.graph.input, *loaded.graph.output)}
    for name in names:
        if name not in taken:
            loaded.graph.output.append(
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * 4)
            )
    return loaded


def _finish(graph: ir.Model, source: onnx.ModelProto) -> onnx.ModelProto:
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
