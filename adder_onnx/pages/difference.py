"""The page of ``adder-inspect --diff --html``: how two models differ."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from adder_onnx.pages.shell import render

__all__ = ["difference_page"]


def difference_page(result: dict[str, Any]) -> str:
    """The page.

    Args:
        result: what `adder_onnx.inspection.difference.to_json` gives.

    Returns:
        The HTML, see `render`.
    """
    names = (PurePath(str(result[side])).name for side in ("a", "b"))
    return render(
        " and ".join(names),
        result,
        scripts=["difference/plots.js", "difference/page.js"],
        libraries=["d3", "plot"],
    )
