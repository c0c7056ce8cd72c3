"""A comparison as tables for a terminal."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from adder_onnx.inspection.difference.comparison import Comparison, LoneNode, Totals
from adder_onnx.inspection.difference.constants import WeightDifference
from adder_onnx.inspection.difference.nodes import NodeDifference, Source
from adder_onnx.inspection.difference.noise import Noise
from adder_onnx.inspection.difference.values import Values
from adder_onnx.inspection.table import Column, print_table
from adder_onnx.inspection.tables import si
from adder_onnx.text import visible

__all__ = ["print_comparison"]

_MOST = 200
"""Characters of a text in a cell."""


def print_comparison(
    console: Console,
    a: str,
    b: str,
    comparison: Comparison,
    values: Values | None = None,
    *,
    threshold: float = 0.0,
    data: str = "",
) -> None:
    """Prints all tables.

    Args:
        console: where; tables are fitted to its width.
        a: name of the first file.
        b: name of the second one.
        comparison: of the models.
        values: of runs of them, if there were any.
        threshold: in decibels, below which a value is pointed out.
        data: what the models ran on, if they did.
    """
    console.print(Text(visible(f"A: {_cut(a)}")))
    console.print(Text(visible(f"B: {_cut(b)}")))
    console.print(Text(_headline(comparison)))
    _model(console, comparison)
    _changed(console, comparison.changed)
    _renamed(console, comparison.renamed)
    _lone(console, "Only in A", comparison.only_a)
    _lone(console, "Only in B", comparison.only_b)
    _costs(console, comparison)
    if values is not None:
        _values(console, values)
        _outputs(console, values)
        for line in _findings(values, threshold, data):
            console.print(Text(visible(line)))


def _headline(comparison: Comparison) -> str:
    matched = f"{len(comparison.nodes)} nodes matched"
    if comparison.is_equal:
        renamed = len(comparison.renamed)
        return f"no difference{f' but the names of {renamed} nodes' if renamed else ''}: {matched}"
    parts = [
        f"{len(comparison.changed)} of them differ",
        f"{len(comparison.only_a)} only in A",
        f"{len(comparison.only_b)} only in B",
    ]
    return f"{matched}, {', '.join(parts)}"


def _cut(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[: _MOST // 2]} … {text[-_MOST // 2 :]}"


def _model(console: Console, comparison: Comparison) -> None:
    if comparison.model:
        columns = [Column(t, is_number=False) for t in ("what", "name", "A", "B")]
        rows = [
            [d.what, _cut(d.name), _cut(d.a or "–"), _cut(d.b or "–")] for d in comparison.model
        ]
        print_table(console, "The models", columns, rows)


def _changed(console: Console, nodes: Sequence[NodeDifference]) -> None:
    if nodes:
        columns = [Column(t, is_number=False) for t in ("node", "what", "A", "B", "difference")]
        rows = [[_cut(node.a), *row] for node in nodes for row in _rows(node)]
        print_table(console, "Nodes that differ", columns, rows)


def _rows(node: NodeDifference) -> Iterable[list[str]]:
    if node.op_a != node.op_b:
        yield ["operator", _short(node.op_a), _short(node.op_b), ""]
    for attribute in node.attributes:
        yield [attribute.name, _shown(attribute.a), _shown(attribute.b), attribute.note]
    for feed in node.feeds:
        yield [f"input {feed.input}", _from(feed.a), _from(feed.b), "comes from elsewhere"]
    for weight in node.weights:
        sizes = [
            "–" if shape is None else f"{type_} {' x '.join(map(str, shape)) or 'scalar'}"
            for type_, shape in ((weight.type_a, weight.shape_a), (weight.type_b, weight.shape_b))
        ]
        yield [weight.input, *sizes, _distance(weight)]


def _distance(weight: WeightDifference) -> str:
    if weight.largest is None:
        return "cannot be compared"
    if weight.clamped:
        others = weight.largest_inside
        inside = "" if others is None else f", others by at most {others:.3g}"
        return f"{100 * weight.clamped:.1f} % clamped, by at most {weight.largest:.3g}{inside}"
    relative = weight.relative
    share = "" if relative is None else f", {100 * relative:.3g} % of the largest value"
    return f"at most {weight.largest:.3g}{share}"


def _short(op: str) -> str:
    return op.rpartition(".")[2]


def _shown(value: Any) -> str:
    return "–" if value is None else _cut(value if isinstance(value, str) else json.dumps(value))


def _from(source: Source | None) -> str:
    if source is None:
        return "–"
    if source.is_constant:
        return f"a constant, {_cut(source.value)}"
    return _cut(f"input {source.value}" if source.node is None else source.node)


def _renamed(console: Console, nodes: Sequence[NodeDifference]) -> None:
    if nodes:
        columns = [Column(t, is_number=False) for t in ("in A", "in B", "operator", "matched by")]
        rows = [[_cut(n.a), _cut(n.b), _short(n.op_a), n.how] for n in nodes]
        print_table(console, "Nodes of other names", columns, rows)


def _lone(console: Console, title: str, nodes: Sequence[LoneNode]) -> None:
    if nodes:
        columns = [Column(t, is_number=False) for t in ("node", "operator", "")]
        rows = [
            [
                _cut(node.name),
                _short(node.op),
                "" if node.fused_into is None else f"fused into {_cut(node.fused_into)}",
            ]
            for node in nodes
        ]
        print_table(console, title, columns, rows)


def _costs(console: Console, comparison: Comparison) -> None:
    a, b = comparison.totals_a, comparison.totals_b
    rows = [
        [name, *("?" if n is None else f"{n:,}" for n in (one, other)), _change(one, other)]
        for (name, one), (_, other) in zip(_figures(a), _figures(b), strict=True)
        if one or other
    ]
    counts = Counter(a.operators), Counter(b.operators)
    for op in dict.fromkeys((*counts[0], *counts[1])):
        if counts[0][op] != counts[1][op]:
            rows.append([f"{_short(op)} nodes", *(str(count[op]) for count in counts), ""])
    assumed = ", ".join(f"{name} = {number}" for name, number in comparison.assumes.items())
    columns = [Column("", is_number=False), Column("A"), Column("B"), Column("B by A")]
    print_table(console, f"Cost{' for ' if assumed else ''}{_cut(assumed)}", columns, rows)


def _figures(totals: Totals) -> list[tuple[str, int | None]]:
    return [
        ("taps", totals.operations.taps),
        ("MACs", totals.operations.macs),
        ("additions", totals.operations.adds),
        ("multiplications", totals.operations.multiplications),
        ("other operations", totals.operations.other),
        ("nodes not counted", totals.not_counted),
        ("nodes", totals.nodes),
        ("parameters", totals.parameters),
        ("bytes of weights", totals.weight_bytes),
        ("bytes of activations", totals.activation_bytes),
        ("bytes of the file", totals.file_bytes),
    ]


def _change(a: int | None, b: int | None) -> str:
    return "" if not a or b is None else f"{b / a:.3g}"


def _values(console: Console, values: Values) -> None:
    columns = [
        Column("value of A", is_number=False),
        Column("of B", is_number=False, need=3),
        Column("operator", is_number=False, need=5),
        Column("SNR"),
        Column("drop", need=8),
        Column("largest difference", need=7),
        Column("of the largest value", need=6),
    ]
    rows = [
        [
            _cut(value.a),
            "" if value.a == value.b else _cut(value.b),
            _short(value.op),
            _ratio(value.noise),
            "" if value.drop is None else f"{round(value.drop, 1) + 0.0:.1f} dB",  # no "-0.0"
            *_largest(value.noise),
        ]
        for value in values.values
    ]
    print_table(console, "Values, in the order of A", columns, rows)


def _outputs(console: Console, values: Values) -> None:
    columns = [
        Column("output of A", is_number=False),
        Column("of B", is_number=False, need=3),
        Column("SNR"),
        Column("largest difference"),
        Column("of the largest value", need=6),
        Column("same answers"),
    ]
    rows = [
        [
            _cut(output.a),
            "" if output.a == output.b else _cut(output.b),
            _ratio(output.noise),
            *_largest(output.noise),
            "" if output.same_answers is None else f"{100 * output.same_answers:.1f} %",
        ]
        for output in values.outputs
    ]
    if rows:
        print_table(console, "Outputs", columns, rows)


def _largest(noise: Noise) -> list[str]:
    if noise.is_identical:
        return ["", ""]
    relative = noise.relative
    return [f"{noise.largest:.3g}", "" if relative is None else f"{100 * relative:.3g} %"]


def _ratio(noise: Noise) -> str:
    if noise.is_identical:
        return "identical"
    if noise.not_finite:
        return f"{si(noise.not_finite)} not finite"
    if not math.isfinite(noise.decibels):
        return "no signal"
    return f"{noise.decibels:.1f} dB"


def _findings(values: Values, threshold: float, data: str) -> list[str]:
    lines = [f"compared on {values.inputs} images, {_cut(data)}, on {values.device}"]
    first, below, drop = (
        values.first_difference,
        values.first_below(threshold),
        values.largest_drop,
    )
    if first is None:
        lines.append("all values are identical")
        return [*lines, *_skipped(values)]
    lines.append(f"the first value that differs is {_cut(first.a)}, {_ratio(first.noise)}")
    if below is None:
        lines.append(f"no value is below {threshold:g} dB")
    else:
        lines.append(f"the first below {threshold:g} dB is {_cut(below.a)}, {_ratio(below.noise)}")
    if drop is not None and drop.drop is not None:
        lines.append(f"the largest drop is that of {_cut(drop.a)}, by {drop.drop:.1f} dB")
    return [*lines, *_skipped(values)]


def _skipped(values: Values) -> list[str]:
    why = Counter(reason for _, _, reason in values.skipped)
    return [f"not compared: {count} values, since {reason}" for reason, count in why.items()]
