"""From a model's scores to columns of answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.evaluation.accuracy import best_classes
from adder_onnx.evaluation.probabilities import Kind, to_probabilities

__all__ = ["answer_columns"]


def answer_columns(
    scores: NDArray[Any], kind: Kind, k: int, *, logits: bool = False
) -> dict[str, NDArray[Any]]:
    """The k best answers for each image, best first, as adder-run has them.

    Args:
        scores: (N, classes), or class numbers (N,), as `Classified.rows` gives them.
        kind: what they are.
        k: how many answers; there are fewer where there are fewer classes, and one of class
            numbers.
        logits: whether the scores are a column, too.

    Returns:
        ``classes`` (N, k), int64; of scores also ``probabilities`` (N, k), float64, and where
        asked for ``logits`` (N, classes) in their own type.
    """
    best = best_classes(scores, k)
    columns: dict[str, NDArray[Any]] = {"classes": best}
    if kind == "class numbers":
        return columns
    columns["probabilities"] = np.take_along_axis(to_probabilities(scores, kind), best, axis=1)
    return columns | ({"logits": scores} if logits else {})
