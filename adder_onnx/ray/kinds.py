"""What scores are that come in batches, whose answers cannot wait for the last.

1. What the caller says they are.
2. Otherwise what the graph tells.
3. Otherwise what the first batch tells, by the rules of `adder_onnx.evaluation.probabilities`. A
   later batch contradicts where the first had probabilities and not all its images' sum to 1.
"""

from __future__ import annotations

from typing import Any, get_args

from numpy.typing import NDArray

from adder_onnx.errors import InputError, ModelError
from adder_onnx.evaluation.probabilities import Kind, KindOfScores

__all__ = ["KindOfBatches", "choose_kind"]


def choose_kind(given: Kind | None, by_graph: Kind | None) -> Kind | None:
    """The kind by rules 1 and 2; None where the values must tell.

    Raises:
        InputError: the one that is given is none, or is of class numbers where the model gives
            scores, or the reverse.
    """
    if given is None:
        return by_graph
    if given not in get_args(Kind):
        raise InputError(f"kind is {given!r}; expected one of {', '.join(get_args(Kind))}")
    if "class numbers" in (given, by_graph) and given != by_graph:
        gives = by_graph if by_graph == "class numbers" else "scores"
        raise InputError(f"kind is {given!r}, but the model gives {gives}")
    return given


class KindOfBatches:
    """What scores are, by the rules above.

    Args:
        known: what is known before the first batch, as `choose_kind` finds it.
    """

    def __init__(self, known: Kind | None) -> None:
        self._known = known
        self._found: Kind | None = None

    def of(self, scores: NDArray[Any]) -> Kind:
        """The kind of a batch (N, classes), and of all before.

        Raises:
            ModelError: it contradicts those before.
        """
        if self._known is not None:
            return self._known
        kinds = KindOfScores(self._found if self._found == "logits" else None)
        kinds.see(scores)
        if not len(scores):
            return self._found or kinds.kind
        if self._found not in (None, kinds.kind):
            raise ModelError(
                "the model's scores looked like probabilities, and do not any more: say what they "
                'are, such as kind="logits"'
            )
        self._found = kinds.kind
        return kinds.kind
