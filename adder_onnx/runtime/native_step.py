"""Executing chains of adder nodes in the native CPU kernels."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import AdderError, InputError, ModelError
from adder_onnx.graph.adder_node import AdderNode
from adder_onnx.graph.plan import ConversionStep, Step
from adder_onnx.graph.pools import PoolNode
from adder_onnx.kernels.cpu import (
    AdderConv,
    Program,
    QAdderConv,
    StopFlag,
    padded_channels,
    select_isa,
)
from adder_onnx.memory import require
from adder_onnx.runtime.chain import (
    Chain,
    ChainMemory,
    Image,
    Shape,
    check_filters,
    plan_passes,
    type_inside,
)
from adder_onnx.runtime.interruption.run_control import RunControl
from adder_onnx.runtime.lru import LruCache

__all__ = ["NativeExecutor"]

_MAX_PROGRAMS = 16
"""Input shapes for which an executor keeps its program and its arenas."""

_MAX_ARENAS = 8
"""Arenas that a program keeps for its next runs: as many as have run at the same time, at most."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Compiled:
    """A program for fixed shapes, and the arenas that are not in use by a run."""

    program: Program
    arena_size: int
    output_shapes: list[Image]
    arenas: list[NDArray[np.float32]] = field(default_factory=list)

    def run(
        self,
        inputs: list[NDArray[Any]],
        outputs: list[NDArray[Any]],
        threads: int,
        stop: StopFlag,
        seconds: list[float] | None,
    ) -> None:
        try:
            arena = self.arenas.pop()
        except IndexError:
            arena = np.empty(self.arena_size, np.float32)
        if seconds is None:
            self.program.run(arena, inputs, outputs, threads, stop)
        else:
            seconds += self.program.profile(arena, inputs, outputs, threads, stop)
        if len(self.arenas) < _MAX_ARENAS:
            self.arenas.append(arena)


class NativeExecutor:
    """A chain of a plan, with the conversions around it, executed as one call.

    For every combination of input shapes a program is made once: shapes are inferred, buffers
    placed. Runs of one program at the same time each use their own arena. Where weights are
    computed, they are packed, and the program is made, anew in each run.
    """

    def __init__(self, steps: Sequence[Step], threads: int, arithmetic: str) -> None:
        self._threads = threads
        self._arithmetic = arithmetic
        self._chain = Chain(steps)
        self.inputs, self.outputs = self._chain.inputs, self._chain.outputs
        self._isa = select_isa()
        self._convs = {
            node.y: _prepare(node, node.weight, self._isa, arithmetic)
            for node in self._chain.nodes
            if isinstance(node, AdderNode) and isinstance(node.weight, np.ndarray)
        }
        self._chain.forget_weights()
        self._programs: LruCache[tuple[Shape, ...], _Compiled] = LruCache(_MAX_PROGRAMS)

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
        shapes = tuple(array.shape for array in arrays)
        if chain.weights:
            compiled = self._compile(shapes, {name: values[name] for name in chain.weights})
        else:
            compiled = self._programs.get_or_make(shapes, self._compile)
        results = [
            np.empty(shape, step.type)
            for step, shape in zip(chain.exits, compiled.output_shapes, strict=True)
        ]
        compiled.run(arrays, results, self._threads, control.stop, seconds)
        control.check()
        return results

    def memory(self) -> list[ChainMemory]:
        """The memory for each combination of input shapes whose program is kept."""
        names = [step.value for step in self._chain.entries]
        return [
            ChainMemory(
                dict(zip(names, shapes, strict=True)),
                compiled.arena_size * np.dtype(np.float32).itemsize,
                len(compiled.arenas),
            )
            for shapes, compiled in self._programs.items()
        ]

    def _compile(
        self,
        input_shapes: tuple[Shape, ...],
        weights: Mapping[str, NDArray[Any]] | None = None,
    ) -> _Compiled:
        chain = self._chain
        weights = weights or {}
        shapes = chain.infer_shapes(input_shapes, {n: w.shape for n, w in weights.items()})
        convs = dict(self._convs)
        for node in chain.nodes:
            if isinstance(node, AdderNode) and isinstance(node.weight, str):
                weight = np.ascontiguousarray(weights[node.weight], np.float32)
                convs[node.y] = _prepare(node, weight, self._isa, self._arithmetic)
        types = {step.inside: step.type_inside for step in chain.entries}
        types |= {node.y: node.type for node in chain.nodes}

        def floats(name: str, shape: Image) -> int:
            return _floats(shape, types[name])

        passes = plan_passes(shapes, floats, self._threads)
        offsets, total = chain.place(
            shapes, lambda name, shape: floats(name, passes.image_of_one(shape))
        )
        output_shapes = [shapes[step.inside] for step in chain.exits]
        results = sum(map(_bytes, chain.exits, output_shapes))
        self._require(4 * total * passes.at_once + results)
        with _refusals(self._name(), InputError):
            program = Program(passes.batch, passes.images)
            for i, step in enumerate(chain.entries):
                place = offsets[step.inside]
                program.add_nchw_to_nhwc(i, shapes[step.inside], place, *_types(step))
            for node in chain.nodes:
                if isinstance(node, PoolNode):
                    _add_pool(program, node, shapes, offsets)
                    continue
                kernel = _weight_shape(node, weights)[2:]
                x, y = shapes[node.x], shapes[node.y]
                top, left, _, _ = node.attributes.resolve_pads(x[2:], kernel)
                conv = convs[node.y]
                residual = -1 if node.residual is None else offsets[node.residual]
                geometry = (x[0], x[2:], y[2:], (top, left))
                places = (offsets[node.x], residual, offsets[node.y])
                if isinstance(conv, QAdderConv):
                    program.add_qadder_conv(conv, *geometry, *places)
                else:
                    program.add_adder_conv(conv, *geometry, *places)
            for i, step in enumerate(chain.exits):
                place = offsets[step.inside]
                program.add_nhwc_to_nchw(place, shapes[step.inside], i, *_types(step))
            size = program.arena_size(self._threads)
        self._require(4 * size + program.scratch_size(self._threads) + results)
        _logger.info("chain of %d nodes for %s: %d bytes", len(chain.nodes), input_shapes, 4 * size)
        return _Compiled(program, size, output_shapes)

    def _require(self, size: int) -> None:
        """Refuses what a run would take of memory, before it is allocated."""
        require(size, self._name(), InputError)

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
    except (OverflowError, ValueError) as reason:
        raise error(f"{what} cannot be computed: {reason}") from reason


def _add_pool(
    program: Program, node: PoolNode, shapes: Mapping[str, Image], offsets: Mapping[str, int]
) -> None:
    x, y = shapes[node.x], shapes[node.y]
    top, left, _, _ = node.attributes.resolve_pads(x[2:], node.kernel)
    program.add_max_pool(
        x[1],
        node.kernel,
        node.attributes.strides,
        node.attributes.dilations,
        x[0],
        x[2:],
        y[2:],
        (top, left),
        offsets[node.x],
        offsets[node.y],
    )


def _prepare(
    node: AdderNode, weight: NDArray[Any], isa: str, arithmetic: str
) -> AdderConv | QAdderConv:
    check_filters(node, weight.shape)
    with _refusals(f"node {node.name!r}", ModelError):
        return _convolution(node, weight, isa, arithmetic)


def _convolution(
    node: AdderNode, weight: NDArray[Any], isa: str, arithmetic: str
) -> AdderConv | QAdderConv:
    a = node.attributes
    if node.integers is not None:
        q = node.integers
        return QAdderConv(
            weight,
            q.x_zero_point,
            node.scale,
            node.bias,
            q.z_scale,
            q.z_zero_point,
            q.y_scale,
            q.y_zero_point,
            node.clip_min,
            q.bits,
            a.strides,
            a.dilations,
            a.group,
            isa,
        )
    return AdderConv(
        weight,
        node.scale,
        node.bias,
        node.clip_min,
        node.clip_max,
        a.strides,
        a.dilations,
        a.group,
        isa,
        arithmetic,
    )


def _types(step: ConversionStep) -> tuple[str, str, tuple[float, int, int] | None]:
    """The types outside and inside, and the quantization between them."""
    q = step.quantization
    return (
        step.type,
        type_inside(step.type_inside, "cpu"),
        None if q is None else (q.scale, q.zero_point, q.top),
    )


def _bytes(step: ConversionStep, shape: Image) -> int:
    """What an output takes."""
    return int(np.dtype(step.type).itemsize) * math.prod(shape)


def _weight_shape(node: AdderNode, weights: Mapping[str, NDArray[Any]]) -> Shape:
    return (weights[node.weight] if isinstance(node.weight, str) else node.weight).shape


def _floats(shape: Image, type_: str) -> int:
    """What a channels-last tensor takes of the arena: float32 stands for float16 too."""
    batch, channels, height, width = shape
    elements = batch * height * width * padded_channels(channels)
    return elements // 4 if type_ == "uint8" else elements
