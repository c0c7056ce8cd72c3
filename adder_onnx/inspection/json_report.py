"""A report and a profile as JSON: schema 1, described in docs/inspect.md."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from adder_onnx.inspection.cost import Operations
from adder_onnx.inspection.energy import ADD_PICOJOULES, energy
from adder_onnx.inspection.profile import Profile
from adder_onnx.inspection.report import NodeReport, Report

__all__ = ["SCHEMA", "operations_json", "to_json"]

SCHEMA = 1


def to_json(model: str, report: Report, profile: Profile | None = None) -> dict[str, Any]:
    """Everything that adder-inspect knows, for programs.

    Args:
        model: the file's name.
        report: of the model.
        profile: of runs of it, if there were any.

    Returns:
        An object for ``json.dumps``.
    """
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "model": model,
        "metadata": report.metadata,
        "opset": report.opset,
        "file_bytes": report.file_bytes,
        "inputs": [asdict(value) for value in report.inputs],
        "outputs": [asdict(value) for value in report.outputs],
        "assumes": report.assumes,
        "device": report.device,
        "nodes": [_node(node) for node in report.nodes],
        "plan": [{"step": i, **asdict(step)} for i, step in enumerate(report.steps)],
        "totals": _totals(report),
        "twin": operations_json(report.totals.as_convolution()),
        "energy_microjoules": _energy(report.totals),
        "operators": _operators(report),
    }
    if profile is not None:
        _add_profile(result, profile)
    return result


def operations_json(operations: Operations) -> dict[str, int]:
    """Counts of operations, by the keys that all reports have for them."""
    return {
        "taps": operations.taps,
        "macs": operations.macs,
        "adds": operations.adds,
        "multiplications": operations.multiplications,
        "other_operations": operations.other,
    }


def _node(node: NodeReport) -> dict[str, Any]:
    operations = node.cost.operations
    counts = dict.fromkeys(operations_json(Operations())) if operations is None else None
    return {
        "name": node.name,
        "op": node.op,
        "is_adder": node.is_adder,
        "inputs": list(node.inputs),
        "constants": [asdict(value) for value in node.constants],
        "attributes": node.attributes,
        "integers": None if node.integers is None else asdict(node.integers),
        "outputs": [asdict(value) for value in node.outputs],
        **(counts or operations_json(operations or Operations())),
        "counted": operations is not None,
        "why_not_counted": node.cost.why_not_counted,
        "parameters": node.cost.parameters,
        "weight_bytes": node.cost.weight_bytes,
        "activation_bytes": node.cost.activation_bytes,
        "intensity": node.cost.intensity,
        "taps_per_byte": node.cost.taps_per_byte,
        "step": node.step,
        "fused_into": node.fused_into,
    }


def _energy(operations: Operations) -> dict[str, dict[str, float]]:
    twin = operations.as_convolution()
    return {
        type_: {"model": energy(operations, type_), "twin": energy(twin, type_)}
        for type_ in ADD_PICOJOULES
    }


def _operators(report: Report) -> list[dict[str, Any]]:
    """What the nodes of each operator cost together; those that are not counted cost nothing."""
    nodes: dict[str, list[NodeReport]] = {}
    for node in report.nodes:
        nodes.setdefault(node.op, []).append(node)
    result = []
    for op, own in nodes.items():
        counted = [node.cost.operations for node in own if node.cost.operations is not None]
        operations = sum(counted, Operations())
        result.append(
            {
                "op": op,
                "nodes": len(own),
                "counted": len(counted),
                **operations_json(operations),
                "energy_microjoules": _energy(operations),
            }
        )
    return result


def _totals(report: Report) -> dict[str, Any]:
    activations = [node.cost.activation_bytes for node in report.nodes]
    return {
        **operations_json(report.totals),
        "nodes": len(report.nodes),
        "adder_nodes": sum(node.is_adder for node in report.nodes),
        "parameters": sum(node.cost.parameters for node in report.nodes),
        "weight_bytes": sum(node.cost.weight_bytes for node in report.nodes),
        "activation_bytes": (
            None if None in activations else sum(size or 0 for size in activations)
        ),
        "not_counted": [node.name for node in report.not_counted],
    }


def _add_profile(result: dict[str, Any], profile: Profile) -> None:
    for node in result["nodes"]:
        found = profile.nodes.get(node["name"])
        if found is not None:
            node["profile"] = asdict(found)
    for step, times in zip(result["plan"], profile.steps, strict=True):
        step["profile"] = asdict(times)
    result["profile"] = {
        "runs": profile.runs,
        "device": profile.device,
        "threads": profile.threads,
        "run_seconds": asdict(profile.run),
        "plain_run_seconds": asdict(profile.plain_run),
        "runtime_overhead": asdict(profile.overhead),
        "bound_taps_per_second": profile.bound,
        "bound_bytes_per_second": profile.bandwidth,
        "last_run": [asdict(event) for event in profile.last_run],
    }
