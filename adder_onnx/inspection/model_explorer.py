"""A report and a profile as node data for Model Explorer.

Source of the format: ``node_data_builder.py`` of ai-edge-model-explorer, whose classes these
objects are as JSON. A file holds one metric: a value for each node, by the ids of graph and node.
These are those of the adapter model-explorer-onnx: a graph is called by its name, a function
``[function]domain::name``, and a node by its name, which onnx_ir's `NameFixPass` makes where there
is none, or one that another node has.

1. A node has the value of what became of it. A call of a function has that of all nodes inlined in
   its place, and a node in a function that of its copies in all calls.
2. Counts, bytes and times add up; a share of the bound is the mean, weighted by time; a step is
   shown where there is one only.
3. What is fused into an adder node has no time of its own. Of nodes in onnxruntime only the total
   of a sub-model is known: it is shown where that has one node.
4. Nodes of which a value is not known, or 0, have none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass

from adder_onnx.inspection.origins import Origin
from adder_onnx.inspection.profile import Profile
from adder_onnx.inspection.report import NodeReport, Report

__all__ = ["COUNTS", "TIMES", "node_data"]

TIMES: tuple[str, ...] = ("time", "share", "bound")
"""Metrics that need a profile."""

COUNTS: tuple[str, ...] = ("taps", "operations", "bytes", "step")
"""Metrics that need none."""

_DIGITS = 4
_HEAT = ("#fff7ec", "#fdbb84", "#d7301f")
"""Colours from the least value to the greatest, also for those who see no colours."""

_KINDS = {"onnxruntime": "#bdbdbd", "conversion": "#fdd49e", "chain": "#9ecae1"}
"""Colours of steps by what they are."""


@dataclass(frozen=True)
class _Part:
    """What a node of the loaded graph has for those of the file that it comes from.

    Attributes:
        value: a number.
        weight: in a mean.
    """

    value: float
    weight: float = 1.0


@dataclass(frozen=True)
class _Metric:
    """Something that is known of nodes.

    Attributes:
        key: a word, for the name of a file.
        title: what Model Explorer calls it.
        part: that of a node, or None.
        merge: makes one value of those that belong to one node of the file, or None.
        color: of a value; without it, all are coloured from the least to the greatest.
        options: what else Model Explorer is told, such as sums not to show that mean nothing.
    """

    key: str
    title: str
    part: Callable[[NodeReport], _Part | None]
    merge: Callable[[Sequence[_Part]], float | None]
    color: Callable[[float], str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def node_data(report: Report, profile: Profile | None = None) -> dict[str, dict[str, Any]]:
    """What Model Explorer shows of nodes, by metric; the first is the one that matters most.

    Args:
        report: of the model.
        profile: of runs of it, if there were any.

    Returns:
        For each of `TIMES`, with a profile, and of `COUNTS` an object for ``json.dumps``.
    """
    graphs = _Ids(report.model)
    metrics = [*(_times(report, profile) if profile else ()), *_counts(report)]
    return {metric.key: _data(metric, report, graphs) for metric in metrics}


class _Ids:
    """The ids of graphs and nodes, by their numbers in an `Origin`."""

    def __init__(self, model: onnx.ModelProto) -> None:
        named = ir.from_proto(model)
        NameFixPass()(named)
        self.graphs = [model.graph.name]
        self._nodes = [[node.name or "" for node in named.graph]]
        for proto in model.functions:
            function = named.functions[proto.domain, proto.name, proto.overload]
            id_ = f"[function]{proto.domain}::{proto.name}"
            self.graphs.append(f"{id_}::{proto.overload}" if proto.overload else id_)
            self._nodes.append([node.name or "" for node in function])

    def node(self, origin: Origin) -> str:
        return self._nodes[origin.graph][origin.node]


def _data(metric: _Metric, report: Report, ids: _Ids) -> dict[str, Any]:
    parts: dict[Origin, list[_Part]] = defaultdict(list)
    for node in report.nodes:
        part = metric.part(node)
        if part is not None:
            for origin in node.origins:
                parts[origin].append(part)
    results: dict[str, dict[str, dict[str, Any]]] = {ids.graphs[0]: {}}
    for origin, found in parts.items():
        value = metric.merge(found)
        if value is not None:
            graph = results.setdefault(ids.graphs[origin.graph], {})
            graph[ids.node(origin)] = _result(metric, value)
    more = {**metric.options, **({} if metric.color else {"gradient": _gradient()})}
    return {
        graph: {"name": metric.title, "results": found, **more} for graph, found in results.items()
    }


def _result(metric: _Metric, value: float) -> dict[str, Any]:
    number = value if isinstance(value, int) else float(f"{value:.{_DIGITS}g}")
    return {"value": number, **({"bgColor": metric.color(value)} if metric.color else {})}


def _gradient() -> list[dict[str, Any]]:
    last = len(_HEAT) - 1
    return [{"stop": i / last, "bgColor": color} for i, color in enumerate(_HEAT)]


def _counts(report: Report) -> Iterator[_Metric]:
    def taps(node: NodeReport) -> int | None:
        return None if node.cost.operations is None else node.cost.operations.taps

    def operations(node: NodeReport) -> int | None:
        return None if node.cost.operations is None else node.cost.operations.total

    def size(node: NodeReport) -> int | None:
        activations = node.cost.activation_bytes
        return None if activations is None else activations + node.cost.weight_bytes

    yield _Metric("taps", "taps", _positive(taps), _sum)
    yield _Metric("operations", "operations", _positive(operations), _sum)
    yield _Metric("bytes", "bytes", _positive(size), _sum)
    yield _Metric(
        "step",
        "step of the plan",
        lambda node: _Part(node.step),
        _only,
        lambda step: _KINDS[report.steps[int(step)].kind],
        {"hideInAggregatedStatsTable": True, "hideInChildrenStatsTable": True},
    )


def _times(report: Report, profile: Profile) -> Iterator[_Metric]:
    def seconds(node: NodeReport) -> float | None:
        times = profile.nodes.get(node.name)
        if times is not None:
            return times.times.median
        step = report.steps[node.step]
        if step.kind != "chain" and len(step.nodes) == 1:
            return profile.steps[node.step].times.median
        return None

    def times(factor: float) -> Callable[[NodeReport], float | None]:
        return lambda node: None if (found := seconds(node)) is None else factor * found

    def bound(node: NodeReport) -> _Part | None:
        times = profile.nodes.get(node.name)
        if times is None or times.share_of_bound is None:
            return None
        return _Part(100 * times.share_of_bound, times.times.median)

    share = 100 / profile.run.median
    yield _Metric("time", "time in µs", _positive(times(1e6)), _sum)
    yield _Metric("share", "share of the run in %", _positive(times(share)), _sum)
    no_sum = {"hideAggregatedStats": ["sum"]}
    yield _Metric("bound", "share of the bound in %", bound, _mean, options=no_sum)


def _positive(value: Callable[[NodeReport], float | None]) -> Callable[[NodeReport], _Part | None]:
    def part(node: NodeReport) -> _Part | None:
        found = value(node)
        return _Part(found) if found else None

    return part


def _sum(parts: Sequence[_Part]) -> float:
    return sum(part.value for part in parts)


def _mean(parts: Sequence[_Part]) -> float | None:
    weights = sum(part.weight for part in parts)
    return sum(part.value * part.weight for part in parts) / weights if weights else None


def _only(parts: Sequence[_Part]) -> float | None:
    values = {part.value for part in parts}
    return values.pop() if len(values) == 1 else None
