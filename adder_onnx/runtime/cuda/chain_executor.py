"""Executing a chain on one stream, as single launches or as a CUDA graph."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adder_onnx.errors import DeviceError
from adder_onnx.runtime.chain import Shape
from adder_onnx.runtime.cuda.chain import CudaChain, Program
from adder_onnx.runtime.cuda.errors import DeviceLostError, DeviceMemoryError
from adder_onnx.runtime.cuda.gpu import Gpu
from adder_onnx.runtime.interruption.run_control import RunControl

__all__ = ["MAX_ARENA", "MAX_GRAPHS", "ChainExecutor"]

MAX_GRAPHS = 4
"""Combinations of input shapes for which a chain has a graph on a stream, each with its arena."""

MAX_ARENA = 64 << 20
"""Bytes of an arena that a graph may keep: the kernels that fill more take longer than launching
them, which goes on beside them."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Graph:
    """The captured launches of adder nodes, and the memory that they work in.

    Attributes:
        graph: the launches.
        arena: their memory.
        program: owns what else they point at.
    """

    graph: Any
    arena: Any
    program: Program


class ChainExecutor:
    """Executes a chain for one run at a time, on the caller's current stream, always the same.

    Memory is taken for each run, of the device's pool. From the second run with the same shapes on,
    the launches of adder nodes are one CUDA graph, captured into an arena that stays with it; the
    conversions at the borders, whose arrays differ from run to run, are launched beside it. Chains
    with computed weights have no graph, since those lie elsewhere in each run, nor have shapes that
    need more memory than `MAX_ARENA`.

    Args:
        chain: what to execute, shared by all streams.
        gpu: where.
        graphs: whether there are graphs.

    Attributes:
        chain: what it executes.
    """

    def __init__(self, chain: CudaChain, gpu: Gpu, *, graphs: bool) -> None:
        self.chain = chain
        self._gpu = gpu
        self._has_graphs = graphs and not chain.has_computed_weights
        self.inputs, self.outputs = chain.inputs, chain.outputs
        # By input shapes, those used last at the end; None after one use.
        self._graphs: OrderedDict[tuple[Shape, ...], _Graph | None] = OrderedDict()

    def run(
        self, values: Mapping[str, Any], control: RunControl, seconds: list[float] | None = None
    ) -> list[Any]:
        """The outputs, (N, M, oH, oW) in the order of `outputs`, as new arrays of the device.

        Args:
            values: arrays of the device by name, each in C order.
            control: what ends the run early; launches are not, since they take microseconds.
            seconds: takes the time of each conversion and node, where given, launch and waiting
                for its end included; there is no graph then.

        Raises:
            InputError: shapes do not fit the nodes.
            DeviceError: the device's memory does not suffice.
        """
        chain, gpu = self.chain, self._gpu
        entering = chain.entering(values)
        shapes = tuple(tuple(array.shape) for array in entering)
        program = chain.program(shapes, values)
        graph = self._graph(shapes, program) if seconds is None else None
        arena = graph.arena if graph else gpu.empty((program.arena,), np.uint8)
        leaving = [
            gpu.empty(shape, step.type)
            for step, shape in zip(chain.exits, program.output_shapes, strict=True)
        ]
        start = gpu.pointer(arena)
        borders = [gpu.pointer(array) for array in (*entering, *leaving)]
        if seconds is not None:
            program.start_nodes(gpu, start)
            gpu.finish()
            for call in (*program.entries, *program.nodes, *program.exits):
                begin = time.perf_counter()
                call.run(gpu, start, borders)
                gpu.finish()
                seconds.append(time.perf_counter() - begin)
            return leaving
        for call in program.entries:
            call.run(gpu, start, borders)
        if graph:
            gpu.replay(graph.graph)
        else:
            program.start_nodes(gpu, start)
            for call in program.nodes:
                call.run(gpu, start)
        for call in program.exits:
            call.run(gpu, start, borders)
        return leaving

    def arenas(self, shapes: tuple[Shape, ...]) -> int:
        """How many arenas are kept for these shapes: one with a graph, else none."""
        return int(self._graphs.get(shapes) is not None)

    def forget_graphs(self) -> None:
        """Frees the graphs and their memory, once the stream is through with them."""
        if any(self._graphs.values()):
            self._gpu.finish()
        self._graphs.clear()

    def _graph(self, shapes: tuple[Shape, ...], program: Program) -> _Graph | None:
        """The graph for these shapes, captured now where this is their second use."""
        if not self._has_graphs or program.arena > MAX_ARENA:
            return None
        if shapes not in self._graphs:
            self._graphs[shapes] = None
            if len(self._graphs) > MAX_GRAPHS:
                _, oldest = self._graphs.popitem(last=False)
                if oldest:
                    self._gpu.finish()  # it may still be running
            return None
        self._graphs.move_to_end(shapes)
        if self._graphs[shapes] is None:
            self._graphs[shapes] = self._capture(program)
        return self._graphs[shapes]

    def _capture(self, program: Program) -> _Graph | None:
        arena = self._gpu.empty((program.arena,), np.uint8)
        start = self._gpu.pointer(arena)

        def launch() -> None:
            program.start_nodes(self._gpu, start)
            for call in program.nodes:
                call.run(self._gpu, start)

        try:
            return _Graph(self._gpu.capture(launch), arena, program)
        except (DeviceLostError, DeviceMemoryError):
            raise
        except DeviceError as error:
            _logger.warning("runs go on without CUDA graphs: %s", error)
            self._has_graphs = False
            return None
