"""Executing chains of adder nodes in the native CPU kernels."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import AdderError, InputError, ModelError
from adder_onnx.graph.adder_node import AdderNode
from adder_onnx.graph.plan import Step
from adder_onnx.kernels.cpu import Chain as NativeChain
from adder_onnx.kernels.cpu import ShapeError, select_isa
from adder_onnx.memory import require
from adder_onnx.runtime.chain import Chain, ChainMemory, check_filters
from adder_onnx.runtime.chain_description import describe_chain
from adder_onnx.runtime.interruption.run_control import RunControl

__all__ = ["NativeExecutor"]

_logger = logging.getLogger(__name__)


class NativeExecutor:
    """A chain of a plan, with the conversions around it, executed as one call.

    For every combination of shapes the native chain infers the others, and places buffers, once.
    Constant weights are packed once, too; computed ones anew in each run.
    """

    def __init__(self, steps: Sequence[Step], threads: int, arithmetic: str) -> None:
        self._threads = threads
        self._arithmetic = arithmetic
        self._chain = Chain(steps)
        self.inputs, self.outputs = self._chain.inputs, self._chain.outputs
        self._isa = select_isa()
        self._computed: list[tuple[AdderNode, str]] = []
        for node in self._chain.nodes:
            if not isinstance(node, AdderNode):
                continue
            if isinstance(node.weight, str):
                self._computed.append((node, node.weight))
            else:
                check_filters(node, node.weight.shape)
        with _refusals(self._name(), ModelError):
            self._native = self._make()
        self._chain.forget_weights()

    def run(
        self,
        values: Mapping[str, NDArray[Any]],
        control: RunControl,
        seconds: list[float] | None = None,
    ) -> list[NDArray[Any]]:
        """The outputs, (N, M, oH, oW) in the order of `outputs`, as fresh arrays.

        Args:
            values: the inputs, by name.
            control: what ends the run early.
            seconds: takes the time of each conversion and node, where given.

        Raises:
            InputError: shapes do not fit the nodes, or what they need takes too much memory.
            RunTerminatedError: the run was ended.
        """
        chain = self._chain
        arrays = [np.ascontiguousarray(values[step.value]) for step in chain.entries]
        shapes = [array.shape for array in arrays]
        weights = self._computed_weights(values)
        if any(len(shape) != 4 for shape in shapes):
            chain.infer_shapes(shapes, {name: values[name].shape for name in chain.weights})
        with _refusals(self._name(), InputError):
            program = self._native.program(shapes, self._threads, self._approve, weights)
        results = [
            np.empty(shape, step.type)
            for step, shape in zip(chain.exits, program.output_shapes, strict=True)
        ]
        if seconds is None:
            self._native.run(program, arrays, results, control.stop)
        else:
            seconds += self._native.profile(program, arrays, results, control.stop)
        control.check()
        return results

    def memory(self) -> list[ChainMemory]:
        """The memory for each combination of shapes whose plan is kept."""
        names = [step.value for step in self._chain.entries]
        return [
            ChainMemory(
                dict(zip(names, plan.input_shapes, strict=True)), plan.arena_bytes, plan.arenas
            )
            for plan in self._native.plans()
        ]

    def _make(self) -> NativeChain:
        described = describe_chain(self._chain)
        return NativeChain(
            described.integers,
            described.floats,
            described.operands,
            described.labels,
            self._isa,
            self._arithmetic,
        )

    def _computed_weights(self, values: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Those of a run, in the order of their nodes.

        Raises:
            InputError: one has another number of filters than the model says.
            ModelError: one does not fit the attributes.
        """
        weights = []
        for node, name in self._computed:
            weight = values[name]
            check_filters(node, weight.shape)
            weights.append(np.ascontiguousarray(weight, np.float32))
        return weights

    def _approve(self, size: int) -> None:
        """Refuses what a run would take of memory, before it is allocated."""
        require(size, self._name(), InputError)
        _logger.info("%s: %d bytes", self._name(), size)

    def _name(self) -> str:
        nodes = self._chain.nodes
        return f"the chain of nodes {nodes[0].name!r} to {nodes[-1].name!r}"


@contextmanager
def _refusals(what: str, error: type[AdderError]) -> Iterator[None]:
    """The kernels look at all sizes themselves: what they refuse is an error of the model."""
    try:
        yield
    except AdderError:
        raise
    except ShapeError as reason:
        raise error(str(reason)) from reason
    except (OverflowError, ValueError) as reason:
        raise error(f"{what} cannot be computed: {reason}") from reason
