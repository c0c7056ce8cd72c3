"""The page of a model's worst mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adder_onnx.pages.shell import render

__all__ = ["mistakes_page"]


def mistakes_page(sheet: Mapping[str, Any]) -> str:
    """The page.

    Args:
        sheet: what `adder_onnx.evaluation.mistakes.contact_sheet` gives.

    Returns:
        Self-contained HTML.
    """
    return render(f"{sheet['model']} – mistakes", sheet, scripts=["mistakes.js"])
