"""A comparison as JSON: schema 1 of differences, described in docs/inspect.md."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from adder_onnx.inspection.difference.comparison import Comparison, Totals
from adder_onnx.inspection.difference.nodes import NodeDifference
from adder_onnx.inspection.difference.noise import Noise
from adder_onnx.inspection.difference.values import OutputDifference, ValueDifference, Values
from adder_onnx.inspection.json_report import operations_json

__all__ = ["SCHEMA", "to_json"]

SCHEMA = 1


def to_json(
    a: str,
    b: str,
    comparison: Comparison,
    values: Values | None = None,
    *,
    threshold: float = 0.0,
    data: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that is known of how two models differ, for programs.

    Args:
        a: name of the first file.
        b: name of the second one.
        comparison: of the models.
        values: of runs of them, if there were any.
        threshold: in decibels, below which a value is pointed out.
        data: what the models ran on, if they did.

    Returns:
        An object for ``json.dumps``, without infinities.
    """
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "report": "difference",
        "a": a,
        "b": b,
        "equal": comparison.is_equal,
        "assumes": comparison.assumes,
        "matched": len(comparison.nodes),
        "model": [asdict(difference) for difference in comparison.model],
        "changed": [_node(node) for node in comparison.changed],
        "renamed": [{"a": n.a, "b": n.b, "matched_by": n.how} for n in comparison.renamed],
        "only_a": [asdict(node) for node in comparison.only_a],
        "only_b": [asdict(node) for node in comparison.only_b],
        "cost": {"a": _totals(comparison.totals_a), "b": _totals(comparison.totals_b)},
    }
    if values is not None:
        result["data"] = data
        result["values"] = _values(values, threshold)
    return result


def _node(node: NodeDifference) -> dict[str, Any]:
    found = asdict(node)
    found["matched_by"] = found.pop("how")
    return found


def _totals(totals: Totals) -> dict[str, Any]:
    return {
        **operations_json(totals.operations),
        "not_counted": totals.not_counted,
        "nodes": totals.nodes,
        "parameters": totals.parameters,
        "weight_bytes": totals.weight_bytes,
        "activation_bytes": totals.activation_bytes,
        "file_bytes": totals.file_bytes,
        "operators": totals.operators,
    }


def _values(values: Values, threshold: float) -> dict[str, Any]:
    first, below, drop = (
        values.first_difference,
        values.first_below(threshold),
        values.largest_drop,
    )
    return {
        "inputs": values.inputs,
        "device": values.device,
        "threshold_db": threshold,
        "first_difference": None if first is None else _value(first),
        "first_below": None if below is None else _value(below),
        "largest_drop": None if drop is None else _value(drop),
        "values": [_value(value) for value in values.values],
        "outputs": [_output(output) for output in values.outputs],
        "skipped": [{"a": a, "b": b, "why": why} for a, b, why in values.skipped],
    }


def _value(value: ValueDifference) -> dict[str, Any]:
    return {
        "a": value.a,
        "b": value.b,
        "node": value.node,
        "op": value.op,
        **_noise(value.noise),
        "drop_db": value.drop,
    }


def _output(output: OutputDifference) -> dict[str, Any]:
    found = {"a": output.a, "b": output.b, **_noise(output.noise)}
    return {**found, "same_answers": output.same_answers}


def _noise(noise: Noise) -> dict[str, Any]:
    ratio = noise.decibels
    return {
        "snr_db": ratio if math.isfinite(ratio) else None,
        "identical": noise.is_identical,
        "no_signal": ratio == -math.inf,
        "largest_difference": noise.largest,
        "relative_difference": noise.relative,
        "not_finite": noise.not_finite,
    }
