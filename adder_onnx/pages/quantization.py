"""The page of ``adder-quantize --html``: ranges, bits and noise of each node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adder_onnx.pages import shell

__all__ = ["quantization_page"]


def quantization_page(summary: Mapping[str, Any]) -> str:
    """The page of a result.

    Args:
        summary: the JSON of ``adder-quantize --json``, as docs/quantisation.md describes it.

    Returns:
        The HTML, to be written as UTF-8.
    """
    return shell.render(
        f"{summary['output']}: quantized",
        summary,
        scripts=["plots.js", "quantization.js"],
        libraries=["d3", "plot"],
    )
