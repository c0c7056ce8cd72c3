"""A report and a profile as tables for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from rich.console import Console
from rich.text import Text

from adder_onnx.inspection.cost import Operations
from adder_onnx.inspection.energy import ADD_PICOJOULES, energy
from adder_onnx.inspection.profile import Profile, StepProfile
from adder_onnx.inspection.report import NodeReport, Report, ValueReport
from adder_onnx.inspection.table import Column, print_table

__all__ = ["SORT_KEYS", "print_report", "si"]

SORT_KEYS = ("order", "taps", "operations", "parameters", "bytes", "time")
"""What the table of nodes can be sorted by; all but the order are descending."""


def print_report(
    console: Console,
    model: str,
    report: Report,
    profile: Profile | None = None,
    *,
    sort: str = "order",
    ops: Collection[str] = (),
) -> None:
    """Prints all tables.

    Args:
        console: where; tables are fitted to its width.
        model: the file's name.
        report: of the model.
        profile: of runs of it, if there were any.
        sort: one of `SORT_KEYS`.
        ops: operators that the table of nodes is restricted to, with or without their domain.
    """
    console.print(Text(_headline(model, report)))
    _nodes(console, report, profile, sort, ops)
    _plan(console, report, profile)
    _totals(console, report)
    for line in _notes(report, profile):
        console.print(Text(line))


def si(value: float, unit: str = "") -> str:
    """A number with three digits and a metric prefix: ``40.4 M``."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    number = f"{value:.3g}" if isinstance(value, float) else str(value)
    return f"{number} {unit}".rstrip()


def _headline(model: str, report: Report) -> str:
    inputs = ", ".join(f"{v.name} {_tensor(v)}" for v in report.inputs)
    architecture = report.metadata.get("ai.addernet.architecture")
    name = f"{model} ({architecture})" if architecture else model
    return (
        f"{name}: {len(report.nodes)} nodes, {sum(n.is_adder for n in report.nodes)} of them adder "
        f"nodes; opset {report.opset}, {si(float(report.file_bytes), 'B')}; input {inputs}"
    )


def _tensor(value: ValueReport) -> str:
    if value.shape is None:
        return f"{value.type} of unknown rank".strip()
    dims = " x ".join("?" if dim is None else str(dim) for dim in value.shape)
    return f"{value.type} {dims or 'scalar'}"


_NODE_COLUMNS = (
    Column("node", is_number=False),
    Column("operator", is_number=False),
    Column("output", is_number=False, need=3),
    Column("taps"),
    Column("mult.", need=7),
    Column("adds", need=6),
    Column("other", need=1),
    Column("param.", need=5),
    Column("bytes", need=4),
    Column("op/B", need=2),
    Column("step", need=8),
)
_NODE_TIMES = (Column("time"), Column("share", need=8), Column("taps/s"), Column("of bound"))


def _nodes(
    console: Console, report: Report, profile: Profile | None, sort: str, ops: Collection[str]
) -> None:
    rows = [
        _node_row(node, profile)
        for node in _sorted(report, profile, sort)
        if not ops or _matches(node, ops)
    ]
    print_table(console, "Nodes", (*_NODE_COLUMNS, *(_NODE_TIMES if profile else ())), rows)


def _matches(node: NodeReport, ops: Collection[str]) -> bool:
    return node.op in ops or node.op.rpartition(".")[2] in ops


def _sorted(report: Report, profile: Profile | None, sort: str) -> list[NodeReport]:
    def seconds(node: NodeReport) -> float:
        found = profile.nodes.get(node.name) if profile else None
        return found.times.median if found else 0.0

    keys: dict[str, Callable[[NodeReport], float]] = {
        "taps": lambda node: node.cost.operations.taps if node.cost.operations else 0,
        "operations": lambda node: node.cost.operations.total if node.cost.operations else 0,
        "parameters": lambda node: node.cost.parameters,
        "bytes": lambda node: node.cost.weight_bytes + (node.cost.activation_bytes or 0),
        "time": seconds,
    }
    nodes = list(report.nodes)
    return nodes if sort == "order" else sorted(nodes, key=keys[sort], reverse=True)


def _node_row(node: NodeReport, profile: Profile | None) -> list[str]:
    operations, cost = node.cost.operations, node.cost
    if operations is None:
        counts = ["?"] * 4
    else:
        counts = [
            si(count) if count else ""
            for count in (
                operations.taps,
                operations.multiplications,
                operations.adds,
                operations.other,
            )
        ]
    size = cost.activation_bytes
    row = [
        node.name,
        node.op.rpartition(".")[2],
        _tensor(node.outputs[0]) if node.outputs else "",
        *counts,
        si(cost.parameters) if cost.parameters else "",
        "?" if size is None else si(size + cost.weight_bytes),
        "" if cost.intensity is None else f"{cost.intensity:.3g}",
        str(node.step) if node.fused_into is None else f"{node.step} fused",
    ]
    if profile:
        times = profile.nodes.get(node.name)
        if times is None:
            row += [""] * 4
        else:
            row += [
                _time(times.times.median),
                f"{100 * times.share:.1f} %",
                "" if times.taps_per_second is None else si(times.taps_per_second),
                "" if times.share_of_bound is None else f"{100 * times.share_of_bound:.0f} %",
            ]
    return row


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"


_PLAN_COLUMNS = (
    Column("step"),
    Column("kind", is_number=False),
    Column("executes", is_number=False, need=5),
    Column("layout, type", is_number=False, need=4),
    Column("bytes", need=6),
)
_PLAN_TIMES = (Column("time"), Column("p10 … p90", need=3), Column("share"))


def _plan(console: Console, report: Report, profile: Profile | None) -> None:
    fused = Counter(node.fused_into for node in report.nodes)
    rows = []
    for i, step in enumerate(report.steps):
        executes = step.outputs[0] if step.kind == "conversion" else f"{len(step.nodes)} nodes"
        if step.kind == "chain":
            more = sum(fused[name] for name in step.nodes)
            executes += f", {more} fused into them" if more else ""
        row = [
            str(i),
            step.kind,
            executes,
            ", ".join(filter(None, (step.layout, step.type))),
            "" if step.bytes is None else si(step.bytes),
        ]
        rows.append(row + (_times(profile.steps[i]) if profile else []))
    if profile:
        rows.append(["", "overhead", "", "", "", *_times(profile.overhead)])
        rows.append(["", "run", "", "", "", *_times(StepProfile(profile.run, 1.0))])
    columns = (*_PLAN_COLUMNS, *(_PLAN_TIMES if profile else ()))
    print_table(console, f"Plan for {report.device}", columns, rows)


def _times(found: StepProfile) -> list[str]:
    times = found.times
    spread = f"{_time(times.p10)} … {_time(times.p90)}"
    return [_time(times.median), spread, f"{100 * found.share:.1f} %"]


def _totals(console: Console, report: Report) -> None:
    assumed = ", ".join(f"{name} = {number}" for name, number in report.assumes.items())
    columns = (
        Column("", is_number=False),
        Column("taps"),
        Column("multiplications", need=7),
        Column("additions", need=6),
        Column("other", need=1),
        *(Column(f"energy, {type_}", need=3) for type_ in ADD_PICOJOULES),
    )
    rows = [["this model", *_total_row(report.totals)]]
    if report.totals.taps:
        twin = report.totals.as_convolution()
        rows.append(["convolutional twin", *_total_row(twin)])
    print_table(console, f"Totals{' for ' if assumed else ''}{assumed}", columns, rows)


def _total_row(operations: Operations) -> list[str]:
    counts = (operations.taps, operations.multiplications, operations.adds, operations.other)
    return [
        *(f"{count:,}" for count in counts),
        *(f"{energy(operations, type_):,.4g} µJ" for type_ in ADD_PICOJOULES),
    ]


def _notes(report: Report, profile: Profile | None) -> list[str]:
    parameters = sum(node.cost.parameters for node in report.nodes)
    weights = sum(node.cost.weight_bytes for node in report.nodes)
    lines = [f"{parameters:,} parameters, {weights:,} bytes"]
    peaks = [step.bytes for step in report.steps if step.kind == "chain"]
    if peaks and None not in peaks:
        lines.append(f"peak memory of the chains: {max(p for p in peaks if p is not None):,} bytes")
    moved = [step.bytes for step in report.steps if step.kind == "conversion"]
    if moved and None not in moved:
        lines.append(f"conversions move {sum(m for m in moved if m is not None):,} bytes")
    if report.not_counted:
        reasons = dict.fromkeys(node.cost.why_not_counted for node in report.not_counted)
        lines.append(
            f"not counted: {len(report.not_counted)} nodes, since {'; '.join(reasons)}"
            + (
                f" (unknown: {', '.join(report.unknown)}; give them with --dim)"
                if report.unknown
                else ""
            )
        )
    if profile:
        bounds = ", ".join(f"{si(rate, 'taps/s')} in {t}" for t, rate in profile.bound.items())
        lines.append(
            f"{profile.runs} runs on {profile.device}, {profile.threads} threads; without timing "
            f"of the steps a run takes {_time(profile.plain_run.median)}"
            + (f"; the bare inner loop does {bounds}" if bounds else "")
        )
    return lines
