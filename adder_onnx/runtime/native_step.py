"""Executing chains of adder nodes in the native CPU kernels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import InputError, ModelError
from adder_onnx.graph.adder_node import AdderNode
from adder_onnx.graph.memory import Buffer, place_buffers
from adder_onnx.graph.plan import ChainStep, ConversionStep, Step
from adder_onnx.kernels.cpu import AdderConv, Program, padded_channels, select_isa
from adder_onnx.runtime.lru import LruCache

__all__ = ["NativeExecutor", "NativeMemory"]

_Shape = tuple[int, ...]
_Shapes = dict[str, _Shape]

_MAX_PROGRAMS = 16
"""Input shapes for which an executor keeps its program and its arenas."""

_MAX_ARENAS = 8
"""Arenas that a program keeps for its next runs: as many as have run at the same time, at most."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NativeMemory:
    """The memory of a chain for one combination of input shapes.

    Attributes:
        shapes: of the chain's inputs, by name.
        peak_bytes: size of the arena that a run needs for all its channels-last tensors.
        arenas: how many are kept at the moment; one per run at the same time.
    """

    shapes: dict[str, tuple[int, ...]]
    peak_bytes: int
    arenas: int


@dataclass(frozen=True)
class _Compiled:
    """A program for fixed shapes, and the arenas that are not in use by a run."""

    program: Program
    arena_size: int
    output_shapes: list[_Shape]
    arenas: list[NDArray[np.float32]] = field(default_factory=list)

    def run(self, inputs: list[NDArray[Any]], outputs: list[NDArray[Any]], threads: int) -> None:
        try:
            arena = self.arenas.pop()
        except IndexError:
            arena = np.empty(self.arena_size, np.float32)
        self.program.run(arena, inputs, outputs, threads)
        if len(self.arenas) < _MAX_ARENAS:
            self.arenas.append(arena)


class NativeExecutor:
    """A chain of a plan, with the conversions around it, executed as one call.

    For every combination of input shapes a program is made once: shapes are inferred, buffers
    placed. Runs of one program at the same time each use their own arena. Where weights are
    computed, they are packed, and the program is made, anew in each run.
    """

    def __init__(self, steps: Sequence[Step], threads: int) -> None:
        self._threads = threads
        (chain,) = [step for step in steps if isinstance(step, ChainStep)]
        self._nodes = chain.nodes
        self._entries = [s for s in steps if isinstance(s, ConversionStep) and s.to_kernels]
        self._exits = [s for s in steps if isinstance(s, ConversionStep) and not s.to_kernels]
        self._weights = chain.weights
        images = [step.value for step in self._entries]
        self.inputs = tuple(dict.fromkeys((*images, *self._weights)))
        self.outputs = tuple(step.value for step in self._exits)
        self._isa = select_isa()
        self._convs = {
            node.y: _prepare(node, node.weight, self._isa)
            for node in self._nodes
            if not isinstance(node.weight, str)
        }
        self._programs: LruCache[tuple[_Shape, ...], _Compiled] = LruCache(_MAX_PROGRAMS)

    def run(self, values: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs, (N, M, oH, oW) in the order of `outputs`, as fresh arrays.

        Raises:
            InputError: shapes do not fit the nodes.
        """
        arrays = [np.ascontiguousarray(values[step.value]) for step in self._entries]
        shapes = tuple(array.shape for array in arrays)
        if self._weights:
            compiled = self._compile(shapes, {name: values[name] for name in self._weights})
        else:
            compiled = self._programs.get_or_make(shapes, self._compile)
        results = [
            np.empty(shape, step.type)
            for step, shape in zip(self._exits, compiled.output_shapes, strict=True)
        ]
        compiled.run(arrays, results, self._threads)
        return results

    def memory(self) -> list[NativeMemory]:
        """The memory for each combination of input shapes whose program is kept."""
        names = [step.value for step in self._entries]
        return [
            NativeMemory(
                dict(zip(names, shapes, strict=True)),
                compiled.arena_size * np.dtype(np.float32).itemsize,
                len(compiled.arenas),
            )
            for shapes, compiled in self._programs.items()
        ]

    def _compile(
        self,
        input_shapes: tuple[_Shape, ...],
        weights: Mapping[str, NDArray[Any]] | None = None,
    ) -> _Compiled:
        shapes = dict(zip((s.value for s in self._entries), input_shapes, strict=True))
        kernels: _Shapes = {}
        convs = dict(self._convs)
        for node in self._nodes:
            if isinstance(node.weight, str):
                assert weights is not None
                weight = np.ascontiguousarray(weights[node.weight], np.float32)
                convs[node.y] = _prepare(node, weight, self._isa)
            else:
                weight = node.weight
            kernels[node.y] = weight.shape
            shapes[node.y] = _output_shape(node, weight.shape, shapes)
        offsets, size = self._place(shapes)
        program = Program()
        for i, step in enumerate(self._entries):
            name = step.value
            program.add_nchw_to_nhwc(i, step.type, _image(shapes[name]), offsets[name])
        for node in self._nodes:
            x, y = _image(shapes[node.x]), _image(shapes[node.y])
            top, left, _, _ = node.attributes.resolve_pads(x[2:], kernels[node.y][2:])
            program.add_adder_conv(
                convs[node.y],
                x[0],
                x[2:],
                y[2:],
                (top, left),
                offsets[node.x],
                -1 if node.residual is None else offsets[node.residual],
                offsets[node.y],
            )
        for i, step in enumerate(self._exits):
            name = step.value
            program.add_nhwc_to_nchw(offsets[name], _image(shapes[name]), i, step.type)
        _logger.info(
            "chain of %d adder nodes for %s: %d bytes", len(self._nodes), input_shapes, 4 * size
        )
        return _Compiled(program, size, [shapes[name] for name in self.outputs])

    def _place(self, shapes: _Shapes) -> tuple[dict[str, int], int]:
        """Offsets of all channels-last tensors in the arena, and the arena's size, in floats."""
        # Time: all inputs are converted, then nodes run one by one, then outputs are converted.
        end = len(self._nodes)
        entering = [step.value for step in self._entries]
        first = dict.fromkeys(entering, -1)
        last = dict.fromkeys(entering, -1)
        for time, node in enumerate(self._nodes):
            first[node.y] = last[node.y] = time
            for name in (node.x, node.residual):
                if name is not None:
                    last[name] = time
        last.update(dict.fromkeys(self.outputs, end))
        names = list(first)
        buffers = [Buffer(_nhwc_size(_image(shapes[n])), first[n], last[n]) for n in names]
        offsets, size = place_buffers(buffers)
        return dict(zip(names, offsets, strict=True)), size


def _prepare(node: AdderNode, weight: NDArray[np.float32], isa: str) -> AdderConv:
    a = node.attributes
    try:
        a.check_weight(weight.shape)
    except ModelError as error:
        raise ModelError(f"node {node.name!r}: {error}") from error
    if weight.shape[0] != len(node.scale):
        raise InputError(
            f"node {node.name!r}: the weight has {weight.shape[0]} filters; the model declares "
            f"{len(node.scale)}"
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
    )


def _output_shape(node: AdderNode, weight: _Shape, shapes: _Shapes) -> _Shape:
    """The shape of a node's output; checks its inputs' shapes.

    Raises:
        InputError: the input's channels, the residual's shape or the image's size do not fit.
    """
    x = shapes[node.x]
    try:
        if len(x) != 4:
            raise ModelError(f"the input has shape {list(x)}; expected (N, C, H, W)")
        node.attributes.check_weight(weight, x[1])
        height, width = node.attributes.output_size(x[2:], weight[2:])
    except ModelError as error:
        raise InputError(f"node {node.name!r}: {error}") from error
    shape = (x[0], weight[0], height, width)
    if node.residual is not None and shapes[node.residual] != shape:
        raise InputError(
            f"node {node.name!r}: the residual has shape {shapes[node.residual]}, expected {shape}"
        )
    return shape


def _image(shape: _Shape) -> tuple[int, int, int, int]:
    batch, channels, height, width = shape
    return (batch, channels, height, width)


def _nhwc_size(shape: tuple[int, int, int, int]) -> int:
    batch, channels, height, width = shape
    return batch * height * width * padded_channels(channels)
