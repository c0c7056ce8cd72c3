"""What adder-export says of the file that it has written."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from adder_onnx.cli._command import print_lines, write_json
from adder_onnx.metadata import ModelMetadata

if TYPE_CHECKING:
    from adder_onnx.export.api import Exported
    from adder_onnx.export.verification import Comparison, Verification

__all__ = ["report"]


def report(
    options: argparse.Namespace, metadata: ModelMetadata, key: str, exported: Exported
) -> None:
    """Prints the result, or writes it as JSON, as the options say.

    Args:
        options: of the command.
        metadata: of the file.
        key: where in the checkpoint the network was.
        exported: the file.
    """
    if options.json:
        write_json(options.json, _as_json(options, metadata, key, exported))
    if options.json != "-":
        print_lines(_lines(options, metadata, exported))


def _as_json(
    options: argparse.Namespace, metadata: ModelMetadata, key: str, exported: Exported
) -> dict[str, Any]:
    return {
        "checkpoint": str(options.checkpoint),
        "key": key,
        "output": str(options.output),
        "bytes": exported.bytes,
        "external_data": str(exported.external_data) if exported.external_data else None,
        "opset": options.opset,
        "batch_size": exported.batch_size,
        "adder_nodes": exported.adder_nodes,
        "nodes": exported.nodes,
        "outputs": list(exported.outputs),
        "metadata": metadata.to_props(),
        "verification": _comparisons(exported.verification),
        "why_not_verified": exported.why_not_verified,
        "conversion": _comparisons(exported.conversion),
    }


def _comparisons(verification: Verification | None) -> dict[str, Any] | None:
    """The output that is furthest from PyTorch, and all of them by name."""
    if verification is None:
        return None
    outputs = {name: _comparison(output) for name, output in verification.outputs.items()}
    worst = max(verification.outputs.items(), key=lambda item: item[1].relative_error)[0]
    return {
        **outputs[worst],
        "why_not_float64": verification.why_not_float64,
        "outputs": outputs,
    }


def _comparison(output: Comparison) -> dict[str, Any]:
    return {
        "reference": output.reference,
        "largest_logit": output.scale,
        "errors": output.errors,
        "pytorch_float32_error": output.pytorch_float32,
    }


def _lines(options: argparse.Namespace, metadata: ModelMetadata, exported: Exported) -> list[str]:
    lines = [
        f"{options.output}: {metadata.architecture}, {exported.adder_nodes} AdderConv nodes of "
        f"{exported.nodes}, {exported.bytes / 1e6:.2f} MB, opset {options.opset}"
    ]
    if exported.external_data:
        lines.append(f"weights in {exported.external_data}, which belongs to it")
    if len(exported.outputs) > 1:
        lines.append(f"outputs: {', '.join(exported.outputs)}")
    if exported.batch_size:
        lines.append(f"takes batches of {exported.batch_size} only")
    if exported.verification is not None:
        lines += _differences(exported.verification, "PyTorch in {}")
    elif exported.conversion is not None:
        lines.append(f"NOT verified: the model does not run here ({exported.why_not_verified})")
        lines += _differences(exported.conversion, "our own conversion of it in {}")
    else:
        lines.append("not compared with PyTorch (--no-verify)")
    return lines


def _differences(verification: Verification, what: str) -> list[str]:
    lines = []
    if verification.why_not_float64:
        lines.append(f"compared in float32: {verification.why_not_float64}")
    for name, output in verification.outputs.items():
        value = "logit" if name == "logits" else "value"
        which = f"{name}: " if len(verification.outputs) > 1 else ""
        lines.append(
            f"{which}largest difference from {what.format(output.reference)} (largest {value} "
            f"{output.scale:.3g}):"
        )
        errors = dict(output.errors)
        if output.reference == "float64":
            errors["PyTorch in float32"] = output.pytorch_float32
        lines += [f"  {runner:<20}{error:.2g}" for runner, error in errors.items()]
    return lines
