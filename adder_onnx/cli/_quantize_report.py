"""What adder-quantize says of a result, as JSON and as lines."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from adder_onnx.quantization import Quantized

__all__ = ["Loss", "lines_of", "summarize", "without_infinity"]


@dataclass(frozen=True)
class Loss:
    """What is lost, in percent of so many images."""

    percent: float
    images: int
    labelled: bool


def summarize(
    options: argparse.Namespace, result: Quantized, size: int, images: int, loss: Loss | None
) -> dict[str, Any]:
    """A result as docs/quantisation.md describes its JSON, infinities still in it.

    Args:
        options: of the command.
        result: what it found.
        size: of the file that it wrote, in bytes.
        images: that ranges were found on.
        loss: with widths that differ.
    """
    return {
        "model": str(options.model),
        "output": str(options.output),
        "bits": options.bits,
        **({} if options.levels is None else {"levels": options.levels}),
        "calibration": options.calibration,
        "samples": images,
        **({} if loss is None else {"max_loss": options.max_loss, "loss": vars(loss)}),
        "bytes_before": options.model.stat().st_size,
        "bytes_after": size,
        "nodes": [
            {
                "name": n.name,
                "bits": n.bits,
                **({"levels": list(n.levels)} if n.levels else {}),
                "low": n.low,
                "high": n.high,
                "clamped": n.clamped,
                **_ratio(result.snr[n.name]),
            }
            for n in result.nodes
        ],
        "sensitivity": [
            {"name": s.name, **_ratio(s.snr), "changed": s.changed} for s in result.sensitivity
        ],
        "left": list(result.left),
    }


def _ratio(decibels: float) -> dict[str, Any]:
    """A signal-to-noise ratio, and what it is where JSON has no number for it."""
    kinds = {math.inf: "exact", -math.inf: "no signal"}
    kind = "unknown" if math.isnan(decibels) else kinds.get(decibels, "ratio")
    return {"snr_db": decibels, "snr_kind": kind}


def without_infinity(value: Any) -> Any:
    """A result for JSON, which has no infinity and no NaN: null, and ``snr_kind`` says why."""
    if isinstance(value, dict):
        return {key: without_infinity(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_infinity(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def lines_of(summary: dict[str, Any]) -> list[str]:
    """What `summarize` gives, for people."""
    width = max((len(node["name"]) for node in summary["nodes"]), default=4)
    lines = [f"{'node':{width}}  bits  {'range':>22}  clamped weights  SNR of its output"]
    lines += [
        f"{node['name']:{width}}  {node['bits']:4}  {node['low']:10.4g} … {node['high']:9.4g}  "
        f"{100 * node['clamped']:13.1f} %  {_decibels(node['snr_db']):>17}"
        for node in summary["nodes"]
    ]
    if summary["sensitivity"]:
        lines.append(f"{'quantized alone':{width}}  SNR of the output  changed answers")
        lines += [
            f"{node['name']:{width}}  {_decibels(node['snr_db']):>17}  "
            f"{100 * node['changed']:13.1f} %"
            for node in sorted(summary["sensitivity"], key=lambda n: n["snr_db"])
        ]
    before, after = summary["bytes_before"], summary["bytes_after"]
    if "levels" in summary:
        lines.append(f"{'levels':{width}}  of its input, of the integers that weights have")
        lines += [
            f"{node['name']:{width}}  {' '.join(map(str, node['levels']))}"
            for node in summary["nodes"]
            if "levels" in node
        ]
    widths = sorted({node["bits"] for node in summary["nodes"]})
    bits = " to ".join(str(width) for width in dict.fromkeys((*widths[:1], *widths[-1:])))
    if "loss" in summary:
        loss = summary["loss"]
        what = "accuracy lost" if loss["labelled"] else "answers changed"
        mean = np.mean([node["bits"] for node in summary["nodes"]])
        lines.append(
            f"{mean:.2f} bits on average; {what} on {loss['images']} images that ranges were not "
            f"found on: {loss['percent']:.2f} %, at most {summary['max_loss']:g} %"
        )
    levels = f" and {summary['levels']} levels" if "levels" in summary else ""
    lines.append(
        f"{summary['output']}: {len(summary['nodes'])} nodes of {bits or 'no'} bits{levels}, "
        f"{len(summary['left'])} left in float; {after:,} bytes, {after / before:.2f} of {before:,}"
    )
    return lines


def _decibels(value: float) -> str:
    if math.isinf(value):
        return "exact" if value > 0 else "no signal"
    return f"{value:.1f} dB"
