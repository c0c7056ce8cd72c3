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

    For every combination of input shapes the native chain makes a program once: shapes are
    inferred, buffers placed. Where weights are computed, they are packed, and the chain is made,
    anew in each run.
    """

    def __init__(self, steps: Sequence[Step], threads: int, arithmetic: str) -> None:
        self._threads = threads
        self._arithmetic = arithmetic
        self._chain = Chain(steps)
        self.inputs, self.outputs = self._chain.inputs, self._chain.outputs
        self._isa = select_isa()
        for node in self._chain.nodes:
            if isinstance(node, AdderNode) and isinstance(node.weight, np.ndarray):
                check_filters(node, node.weight.shape)
        self._constant: NativeChain | None = None
        if not self._chain.weights:
            with _refusals(self._name(), ModelError):
                self._constant = self._make({})
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
        native = self._constant or self._with_weights(values)
        if any(len(shape) != 4 for shape in shapes):
            chain.infer_shapes(shapes, {name: values[name].shape for name in chain.weights})
        with _refusals(self._name(), InputError):
            program = native.program(shapes, self._threads, self._approve)
        results = [
            np.empty(shape, step.type)
            for step, shape in zip(chain.exits, program.output_shapes, strict=True)
        ]
        if seconds is None:
            native.run(program, arrays, results, control.stop)
        else:
            seconds += native.profile(program, arrays, results, control.stop)
        control.check()
        return results

    def memory(self) -> list[ChainMemory]:
        """The memory for each combination of input shapes whose program is kept."""
        if self._constant is None:
            return []
        names = [step.value for step in self._chain.entries]
        return [
            ChainMemory(
                dict(zip(names, program.input_shapes, strict=True)),
                program.arena_bytes,
                program.arenas,
            )
            for program in self._constant.programs()
        ]

    def _make(self, weights: Mapping[str, NDArray[Any]]) -> NativeChain:
        described = describe_chain(self._chain, weights)
        return NativeChain(
            described.integers,
            described.floats,
            described.operands,
            described.labels,
            self._isa,
            self._arithmetic,
        )

    def _with_weights(self, values: Mapping[str, NDArray[Any]]) -> NativeChain:
        """The chain with the weights that were computed."""
        for node in self._chain.nodes:
            if isinstance(node, AdderNode) and isinstance(node.weight, str):
                check_filters(node, values[node.weight].shape)
        with _refusals(self._name(), InputError):
            return self._make({name: values[name] for name in self._chain.weights})

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
