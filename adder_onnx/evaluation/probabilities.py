"""What the scores (N, classes) of a model are, and the probabilities that they mean.

The graph tells, by the ending of the output (`adder_onnx.evaluation.endings`):

1. Softmax over the classes: the scores are probabilities.
2. LogSoftmax over the classes: they are logarithms of probabilities.
3. Sigmoid or HardSigmoid: each is the probability of its class alone, whatever the others'.

Softmax is over the classes where the values that it makes sum to 1 are as many as there are classes
and lie beside each other, so that they are a row of the output: from opset 13 on those along its
axis, if all axes after that have the size 1; before, those of its axis and all after it.

With any other ending, the values tell:

4. Where all scores are in [0, 1] and each image's sum to 1, for all images, they are probabilities:
   softmax was written out in other operators, or models were averaged.
5. Otherwise they are logits.

The probabilities of an image then are

* softmax of logits, and of logarithms of probabilities, where it is their exponential;
* probabilities over their sum, which is not quite 1 where they were rounded to float16 or 8 bits;
* what Sigmoid and HardSigmoid gave, as it is.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adder_onnx.evaluation.endings import Ending, Endings

__all__ = ["Kind", "KindOfScores", "kind_by_graph", "to_probabilities"]

Kind = Literal[
    "logits", "probabilities", "log probabilities", "independent probabilities", "class numbers"
]
"""What an output is that says what class an image is of; class numbers are no scores."""

_OVER_CLASSES: dict[str, Kind] = {
    "Softmax": "probabilities",
    "QLinearSoftmax": "probabilities",
    "LogSoftmax": "log probabilities",
}
_ALONE = frozenset(("Sigmoid", "QLinearSigmoid", "HardSigmoid"))

_OPSET_OF_ONE_AXIS = 13
"""From here on Softmax is over one axis, by default the last; before, over all from axis 1 on."""

_TOLERANCE = 1e-5
"""How far from 1 an image's probabilities may sum in float32, and in float64 that came from it."""

_TOLERANCE_FLOAT16 = 2e-3
"""The same where all values are ones of float16: each was rounded by up to 2**-11 of it."""


def kind_by_graph(endings: Endings, output: str, classes: int) -> Kind | None:
    """What an output (N, classes) is by rules 1 to 3; None where only its values can tell."""
    ending = endings.find(output)
    if ending is None:
        return None
    op = ending.node.op_type
    if op in _ALONE:
        return "independent probabilities"
    if op in _OVER_CLASSES and _row_length(ending) == classes:
        return _OVER_CLASSES[op]
    return None


def _row_length(ending: Ending) -> int | None:
    """How many values beside each other Softmax makes sum to 1; None if not known or not beside."""
    one_axis = ending.attribute("opset", ending.opset) >= _OPSET_OF_ONE_AXIS  # of QLinearSoftmax
    axis = ending.axis(-1 if one_axis else 1)
    if axis is None or ending.shape is None:
        return None
    sizes = [size for size in ending.shape[axis:] if size is not None]
    if len(sizes) < len(ending.shape[axis:]) or (one_axis and math.prod(sizes[1:]) != 1):
        return None
    return math.prod(sizes)


class KindOfScores:
    """What scores are, which is known once all of them were seen.

    Args:
        by_graph: what the graph tells, if it does.
    """

    def __init__(self, by_graph: Kind | None) -> None:
        self._by_graph = by_graph
        self._rows = 0
        self._sum_to_one = True

    def see(self, scores: NDArray[Any]) -> None:
        """Takes a batch of them into account, (N, classes)."""
        if self._by_graph is None and self._sum_to_one:
            self._sum_to_one = _sum_to_one(scores)
        self._rows += len(scores)

    @property
    def kind(self) -> Kind:
        """What the scores seen so far are."""
        if self._by_graph is not None:
            return self._by_graph
        return "probabilities" if self._rows and self._sum_to_one else "logits"


def _sum_to_one(scores: NDArray[Any]) -> bool:
    if scores.size and not 0 <= scores.min() <= scores.max() <= 1:
        return False
    from_float16 = np.array_equal(scores, scores.astype(np.float16))
    tolerance = _TOLERANCE_FLOAT16 if from_float16 else _TOLERANCE
    return bool((abs(scores.sum(axis=1, dtype=np.float64) - 1) <= tolerance).all())


def to_probabilities(scores: NDArray[Any], kind: Kind) -> NDArray[np.float64]:
    """The probabilities of each image's classes (…, classes), from its scores, in float64.

    Those of an image sum to 1, unless each is that of its class alone, or all of them were rounded
    to 0. They have the same bits whatever other images are beside it.

    Args:
        scores: (…, classes), what the model gives for each image; (classes,) of a single one.
        kind: of the scores, as `KindOfScores` finds it.

    Returns:
        (…, classes), float64.
    """
    # Rows that lie in one piece are summed up in the same order as a single one.
    values: NDArray[np.float64] = scores.astype(np.float64, order="C")
    if kind == "independent probabilities":
        return values
    if kind != "probabilities":
        values = np.exp(values - values.max(axis=-1, keepdims=True))
    total = values.sum(axis=-1, keepdims=True)
    np.divide(values, total, out=values, where=total > 0)
    return values
