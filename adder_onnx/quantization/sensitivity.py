"""What quantizing one node alone does to a model's output."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from adder_onnx.errors import ModelError
from adder_onnx.runtime import InferenceSession

__all__ = ["Sensitivity", "decibels", "first_float", "measure_alone"]

Feed = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Sensitivity:
    """What quantizing one node alone does to the model's first float output.

    Attributes:
        name: of the node.
        snr: signal-to-noise ratio of the output, in decibels.
        changed: share of the samples whose largest output is another one.
    """

    name: str
    snr: float
    changed: float


def measure_alone(
    model: onnx.ModelProto,
    singles: Iterable[tuple[str, onnx.ModelProto]],
    feeds: Sequence[Feed],
    threads: int | None,
) -> tuple[Sensitivity, ...]:
    """What models, each with the node of that name quantized alone, give beside the model.

    Raises:
        ModelError: there is no float output, or a model gives one of another shape.
    """
    plain = InferenceSession(model, threads=threads)
    output = first_float(plain)

    def results(session: InferenceSession) -> list[NDArray[np.float64]]:
        return [np.asarray(session.run([output], feed)[0], np.float64) for feed in feeds]

    truths = results(plain)
    found = []
    for name, single in singles:
        signal = noise = changed = count = 0.0
        alone = InferenceSession(single, threads=threads)
        for truth, ours in zip(truths, results(alone), strict=True):
            if truth.shape != ours.shape or not truth.size:
                raise ModelError(
                    f"the model's output {output} has shape {list(truth.shape)}, and "
                    f"{list(ours.shape)} with {name} quantized: its sensitivity cannot be told"
                )
            signal += float((truth**2).sum())
            noise += float(((ours - truth) ** 2).sum())
            rows = len(truth) if truth.ndim else 1
            flat = [array.reshape(rows, -1).argmax(axis=1) for array in (truth, ours)]
            changed += float((flat[0] != flat[1]).sum())
            count += rows
        found.append(Sensitivity(name, decibels(signal, noise), changed / count))
    return tuple(found)


def first_float(session: InferenceSession) -> str:
    """Name of the first output of a float type.

    Raises:
        ModelError: there is none.
    """
    for output in session.get_outputs():
        if output.type in ("tensor(float16)", "tensor(float)", "tensor(double)"):
            return output.name
    raise ModelError("the model has no float output that a node's sensitivity could be seen in")


def decibels(signal: float, noise: float) -> float:
    """A signal-to-noise ratio of two sums of squares."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
