"""Executing chains of adder nodes in the native CPU kernels."""

from __future__ import annotations

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

__all__ = ["NativeExecutor"]

_Shape = tuple[int, int, int, int]

_MAX_PROGRAMS = 16
"""Input shapes for which an executor keeps its program and its arenas."""


class NativeExecutor:
    """Consecutive native steps of a plan: conversions and chains, executed as one call.

    For every combination of input shapes a program is made once: shapes are inferred, buffers
    placed. Runs of one program at the same time each use their own arena.
    """

    def __init__(self, steps: Sequence[Step], threads: int) -> None:
        self._threads = threads
        self._nodes = [n for step in steps if isinstance(step, ChainStep) for n in step.nodes]
        conversions = [step for step in steps if isinstance(step, ConversionStep)]
        self.inputs = tuple(step.value for step in conversions if step.to_kernels)
        self.outputs = tuple(step.value for step in conversions if not step.to_kernels)
        isa = select_isa()
        self._convs = [_prepare(node, isa) for node in self._nodes]
        self._programs: LruCache[tuple[_Shape, ...], _Compiled] = LruCache(_MAX_PROGRAMS)

    def run(self, values: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs, (N, M, oH, oW) float32 in the order of `outputs`, as fresh arrays."""
        arrays = [np.ascontiguousarray(values[name]) for name in self.inputs]
        shapes = tuple(array.shape for array in arrays)
        compiled = self._programs.get_or_make(shapes, self._compile)
        results = [np.empty(shape, np.float32) for shape in compiled.output_shapes]
        arena = compiled.take_arena()
        try:
            compiled.program.run(arena, arrays, results, self._threads)
        finally:
            compiled.arenas.append(arena)
        return results

    def _compile(self, input_shapes: tuple[_Shape, ...]) -> _Compiled:
        shapes = dict(zip(self.inputs, input_shapes, strict=True))
        for node in self._nodes:
            shapes[node.y] = _output_shape(node, shapes)
        offsets, size = self._place(shapes)
        program = Program()
        for i, name in enumerate(self.inputs):
            program.add_nchw_to_nhwc(i, shapes[name], offsets[name])
        for node, conv in zip(self._nodes, self._convs, strict=True):
            x, y = shapes[node.x], shapes[node.y]
            top, left, _, _ = node.attributes.resolve_pads(x[2:], node.weight.shape[2:])
            program.add_adder_conv(
                conv,
                x[0],
                x[2:],
                y[2:],
                (top, left),
                offsets[node.x],
                -1 if node.residual is None else offsets[node.residual],
                offsets[node.y],
            )
        for i, name in enumerate(self.outputs):
            program.add_nhwc_to_nchw(offsets[name], shapes[name], i)
        return _Compiled(program, size, [shapes[name] for name in self.outputs])

    def _place(self, shapes: Mapping[str, _Shape]) -> tuple[dict[str, int], int]:
        """Offsets of all channels-last tensors in the arena, and the arena's size, in floats."""
        # Time: all inputs are converted, then nodes run one by one, then outputs are converted.
        end = len(self._nodes)
        first = dict.fromkeys(self.inputs, -1)
        last = dict.fromkeys(self.inputs, -1)
        for time, node in enumerate(self._nodes):
            first[node.y] = last[node.y] = time
            for name in (node.x, node.residual):
                if name is not None:
                    last[name] = time
        last.update(dict.fromkeys(self.outputs, end))
        names = list(first)
        buffers = [Buffer(_nhwc_size(shapes[n]), first[n], last[n]) for n in names]
        offsets, size = place_buffers(buffers)
        return dict(zip(names, offsets, strict=True)), size


@dataclass(frozen=True)
class _Compiled:
    """A program for fixed shapes, and the arenas that are not in use by a run."""

    program: Program
    arena_size: int
    output_shapes: list[_Shape]
    arenas: list[NDArray[np.float32]] = field(default_factory=list)

    def take_arena(self) -> NDArray[np.float32]:
        try:
            return self.arenas.pop()
        except IndexError:
            return np.empty(self.arena_size, np.float32)


def _prepare(node: AdderNode, isa: str) -> AdderConv:
    a = node.attributes
    try:
        a.check_weight(node.weight.shape)
    except ModelError as error:
        raise ModelError(f"node {node.name!r}: {error}") from error
    return AdderConv(
        node.weight,
        node.scale,
        node.bias,
        node.clip_min,
        node.clip_max,
        a.strides,
        a.dilations,
        a.group,
        isa,
    )


def _output_shape(node: AdderNode, shapes: Mapping[str, _Shape]) -> _Shape:
    """The shape of a node's output; checks its inputs' shapes.

    Raises:
        InputError: the input's channels, the residual's shape or the image's size do not fit.
    """
    x = shapes[node.x]
    try:
        if len(x) != 4:
            raise ModelError(f"the input has shape {x}; expected (N, C, H, W)")
        node.attributes.check_weight(node.weight.shape, x[1])
        height, width = node.attributes.output_size(x[2:], node.weight.shape[2:])
    except ModelError as error:
        raise InputError(f"node {node.name!r}: {error}") from error
    shape = (x[0], node.weight.shape[0], height, width)
    if node.residual is not None and shapes[node.residual] != shape:
        raise InputError(
            f"node {node.name!r}: the residual has shape {shapes[node.residual]}, expected {shape}"
        )
    return shape


def _nhwc_size(shape: _Shape) -> int:
    batch, channels, height, width = shape
    return batch * height * width * padded_channels(channels)
