"""What runners of all devices need of a plan."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import onnx
from numpy.typing import NDArray

from adder_onnx.graph.plan import ChainStep, ConversionStep, OnnxruntimeStep, Plan, Step
from adder_onnx.runtime.interruption.run_control import RunControl

__all__ = ["Executor", "constants_of", "last_uses", "parts_of"]


class Executor(Protocol):
    """Executes one part of a plan.

    Attributes:
        inputs: names of the values it takes.
        outputs: names of the values it gives.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(
        self, values: dict[str, Any], control: RunControl, seconds: list[float] | None = None
    ) -> list[Any]:
        """The outputs, in the order of `outputs`, as new arrays.

        Args:
            values: the inputs, by name.
            control: what ends the run early.
            seconds: takes the times of kernels, where given and where there are any of ours.
        """


def parts_of(steps: Sequence[Step]) -> list[OnnxruntimeStep | list[Step]]:
    """What executes as one: each sub-model, and each chain with the conversions around it."""
    parts: list[OnnxruntimeStep | list[Step]] = []
    chain: list[Step] = []
    for step in (*steps, None):
        enters = isinstance(step, ConversionStep) and step.to_kernels
        if any(isinstance(s, ChainStep) for s in chain) and (
            enters or step is None or isinstance(step, OnnxruntimeStep)
        ):
            parts.append(chain)
            chain = []
        if isinstance(step, OnnxruntimeStep):
            parts.append(step)
        elif step is not None:
            chain.append(step)
    return parts


def last_uses(executors: Sequence[Executor], outputs: Collection[str]) -> list[list[str]]:
    """For each executor the values that nobody needs after it."""
    last: dict[str, int] = {}
    for i, executor in enumerate(executors):
        last.update(dict.fromkeys((*executor.inputs, *executor.outputs), i))
    release: list[list[str]] = [[] for _ in executors]
    for name, i in last.items():
        if name not in outputs:
            release[i].append(name)
    return release


def constants_of(plan: Plan) -> dict[str, NDArray[Any]]:
    """The outputs of a plan that are constants, by name."""
    return {name: onnx.numpy_helper.to_array(tensor) for name, tensor in plan.constants.items()}
