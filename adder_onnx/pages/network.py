"""The page of a network: its graph, what its nodes cost, and where the time of a run goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adder_onnx.pages.shell import render

__all__ = ["network_page"]

_PARTS = (
    "graph",
    "layout",
    "colors",
    "boxes",
    "overview",
    "drawing",
    "panel",
    "plots",
    "page",
)


def network_page(report: Mapping[str, Any]) -> str:
    """The page.

    Args:
        report: what `adder_onnx.inspection.json_report.to_json` gives.

    Returns:
        Self-contained HTML.
    """
    return render(
        f"{report['model']} – adder-inspect",
        report,
        scripts=[f"network/{part}.js" for part in _PARTS],
        libraries=("d3", "plot", "dagre"),
    )
