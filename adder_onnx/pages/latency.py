"""The page of ``adder-bench --html``: histograms of latencies, rates, and where the time goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adder_onnx.pages import shell

__all__ = ["latency_page"]


def latency_page(found: Mapping[str, Any]) -> str:
    """The page of measurements.

    Args:
        found: the JSON of ``adder-bench --json``, as docs/benchmarks.md describes it.

    Returns:
        The HTML, to be written as UTF-8.
    """
    models = ", ".join(dict.fromkeys(result["model"] for result in found["results"]))
    return shell.render(
        f"Latency of {models}",
        found,
        scripts=["plots.js", "latency.js"],
        libraries=["d3", "plot"],
    )
