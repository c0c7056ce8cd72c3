"""Which output of a model says what class an image is of.

1. Scores are a float output (N, classes), or one that has more axes, all of size 1, such as
   (N, classes, 1, 1) of a network without a Flatten at its end.
2. Class numbers are an output of integers (N,), or with more axes, all of size 1, that ArgMax made
   along an axis other than the first, of known size: that is the number of classes. They are taken
   where no output of scores is left.
3. Outputs whose first axis is not the batch, by the model's own word, are left out, but not all.
4. Where the model's metadata have labels, only outputs with as many classes are left.
5. Of several outputs it is that called ``logits``; else, if some are (N, classes) as they are, only
   these are left, and it is the first output of the model, or the only one. Without such an
   output, a choice would be a guess, and there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import ModelError
from adder_onnx.evaluation.endings import Endings
from adder_onnx.evaluation.inference import Outputs
from adder_onnx.evaluation.probabilities import Kind, kind_by_graph
from adder_onnx.runtime import InferenceSession, NodeArg

__all__ = ["Classified", "choose_output", "describe_outputs", "may_have_rows"]

_FLOATS = ("tensor(float16)", "tensor(float)", "tensor(double)")
_INTEGERS = tuple(f"tensor({sign}int{bits})" for sign in ("", "u") for bits in (8, 16, 32, 64))
_PREFERRED = "logits"
_DESCRIBED = 4
"""How many outputs are described in a message, which is one line."""


@dataclass(frozen=True)
class Classified:
    """The output that says what class an image is of.

    Attributes:
        name: of the output.
        classes: how many there are.
        kind: what it is, where the graph tells; ``class numbers`` where it is no scores.
        others: names of other outputs that it might have been.
    """

    name: str
    classes: int
    kind: Kind | None = None
    others: tuple[str, ...] = ()

    def rows(self, outputs: Outputs) -> NDArray[Any]:
        """Its scores (N, classes), or its class numbers (N,), for a batch of N images.

        Raises:
            ModelError: they are not finite, or no numbers of classes, or the output has another
                shape than the model says.
        """
        array = outputs[self.name]
        shape = (len(array),) if self.kind == "class numbers" else (len(array), self.classes)
        if array.size != math.prod(shape):
            raise ModelError(
                f"the model's output {self.name} has shape {list(array.shape)} for {len(array)} "
                f"images; expected {list(shape)}, as the model says"
            )
        if not np.isfinite(array).all():
            raise ModelError(f"the model's output {self.name} holds values that are not finite")
        if self.kind == "class numbers":
            for number in (int(array.min()), int(array.max())):
                if not 0 <= number < self.classes:
                    raise ModelError(
                        f"the model's output {self.name} is {number}; expected the number of a "
                        f"class, 0 to {self.classes - 1}"
                    )
        return array.reshape(shape)


def choose_output(session: InferenceSession, labels: Sequence[str] | None) -> Classified:
    """The output of a model that says what class an image is of, by the rules above.

    Args:
        session: the model.
        labels: of its classes, from its metadata, if it has any.

    Returns:
        The output, and what it says of a class.

    Raises:
        ModelError: there is no such output; the message says why.
    """
    every = {output.name: output for output in session.get_outputs()}
    outputs = {name: o for name, o in every.items() if may_have_rows(session, o)} or every
    endings = Endings(session.plan)
    scores = _known({name: _classes_of_scores(output) for name, output in outputs.items()})
    numbers = _known({name: _classes_of_numbers(endings, o) for name, o in outputs.items()})
    if not scores and not numbers:
        raise ModelError(
            f"no output of the model is float (N, classes), but {describe_outputs(session)}"
        )
    if labels is not None:
        found = scores | numbers
        scores, numbers = _of_size(scores, len(labels)), _of_size(numbers, len(labels))
        if not scores and not numbers:
            raise ModelError(_unfitting(found, len(labels)))
    left = scores or numbers
    name = _preferred([outputs[name] for name in left], next(iter(every)))
    if name is None:
        raise ModelError(
            f"several outputs of the model may be the classes, {', '.join(left)}, and none of them "
            f"is the first or called {_PREFERRED}"
        )
    kind = kind_by_graph(endings, name, left[name]) if scores else "class numbers"
    return Classified(name, left[name], kind, tuple(other for other in left if other != name))


def may_have_rows(session: InferenceSession, output: NodeArg) -> bool:
    """Whether an output may be (N, …) for batches of N, by the shapes that the model says.

    The size 1 tells nothing, nor does one below it: files are common that say so, though they take
    and give any number.
    """
    rows = output.shape[0] if output.shape else None
    batches = [value.shape[0] for value in session.get_inputs() if value.shape]
    return not isinstance(rows, int) or rows <= 1 or rows in batches


def describe_outputs(session: InferenceSession) -> str:
    """Names, types and shapes of a model's outputs, or of the first of many."""
    outputs = session.get_outputs()
    texts = [f"{o.name} {o.type} {o.shape}" for o in outputs[:_DESCRIBED]]
    more = len(outputs) - len(texts)
    return ", ".join([*texts, *([f"and {more} more"] if more else [])])


def _classes_of_scores(output: NodeArg) -> int | None:
    if output.type not in _FLOATS or len(output.shape) < 2:
        return None
    if len(output.shape) == 2:
        sizes = output.shape[1:]
    else:
        sizes = [size for size in output.shape[1:] if size != 1]
    classes = sizes[0] if len(sizes) == 1 else None
    return classes if isinstance(classes, int) and classes > 0 else None


def _classes_of_numbers(endings: Endings, output: NodeArg) -> int | None:
    if output.type not in _INTEGERS or not output.shape or any(s != 1 for s in output.shape[1:]):
        return None
    ending = endings.find(output.name, integer=True)
    if ending is None or ending.node.op_type != "ArgMax" or ending.shape is None:
        return None
    axis = ending.axis(0)
    return ending.shape[axis] if axis else None


def _known(classes: dict[str, int | None]) -> dict[str, int]:
    return {name: count for name, count in classes.items() if count is not None}


def _of_size(classes: dict[str, int], size: int) -> dict[str, int]:
    return {name: count for name, count in classes.items() if count == size}


def _preferred(outputs: Sequence[NodeArg], first: str) -> str | None:
    names = [output.name for output in outputs]
    flat = [output.name for output in outputs if len(output.shape) == 2] or names
    if _PREFERRED in names:
        return _PREFERRED
    if first in flat:
        return first
    return flat[0] if len(flat) == 1 else None


def _unfitting(classes: dict[str, int], labels: int) -> str:
    counts = [str(count) for count in classes.values()]
    if len(classes) > 1:
        counts = [f"{count} ({name})" for name, count in classes.items()]
    return f"the model has {', '.join(counts)} classes, but its metadata {labels} labels"
