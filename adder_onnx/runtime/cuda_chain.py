"""Executing chains of adder nodes in the CUDA kernels."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adder_onnx.graph.adder_node import AdderNode
from adder_onnx.graph.plan import ConversionStep, Step
from adder_onnx.kernels.cuda.launch import layout
from adder_onnx.kernels.cuda.launch.conv import AdderConv
from adder_onnx.kernels.cuda.launch.device import Device, Launch
from adder_onnx.kernels.cuda.launch.integer_conv import IntegerAdderConv
from adder_onnx.kernels.cuda.launch.integer_epilogue import IntegerEpilogue
from adder_onnx.runtime.chain import Chain, ChainMemory, Image, Shape, check_filters
from adder_onnx.runtime.lru import LruCache

__all__ = ["CudaChain"]

_MAX_PROGRAMS = 16
"""Input shapes for which a chain keeps its launches."""

_UNIT = 4
"""Bytes of an element, as memory is placed: a float32."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Call:
    """A launch, with the addresses that it takes.

    Attributes:
        launch: the kernel and its constant arguments.
        tensors: byte offsets of channels-last tensors, by field.
        borders: numbers of arrays that enter or leave the chain, by field.
    """

    launch: Launch
    tensors: dict[str, int]
    borders: dict[str, int]


@dataclass(frozen=True)
class _Program:
    """The launches for fixed shapes; `arena` is the bytes of all channels-last tensors."""

    calls: list[_Call]
    arena: int
    output_shapes: list[Image]


class CudaChain:
    """A chain of a plan, with the conversions around it, as a sequence of launches.

    Kernels start in the order of the caller's current stream. Memory is taken for each run, of the
    caller's pool. Where weights are computed, they are packed in each run.

    Args:
        steps: the chain and its conversions.
        device: where.
    """

    def __init__(self, steps: Sequence[Step], device: Device) -> None:
        self._device = device
        self._chain = Chain(steps)
        self.inputs, self.outputs = self._chain.inputs, self._chain.outputs
        self._convs = {
            node.y: _prepare(device, node, node.weight)
            for node in self._chain.nodes
            if isinstance(node.weight, np.ndarray)
        }
        self._chain.forget_weights()
        self._programs: LruCache[tuple[Shape, ...], _Program] = LruCache(_MAX_PROGRAMS)

    def run(self, values: Mapping[str, Any], seconds: list[float] | None = None) -> list[Any]:
        """The outputs, (N, M, oH, oW) in the order of `outputs`, as new arrays of the device.

        Args:
            values: arrays of the device by name, each in C order.
            seconds: takes the time of each conversion and node, where given, launch and waiting
                for its end included.

        Raises:
            InputError: shapes do not fit the nodes.
            DeviceError: the device's memory does not suffice.
        """
        chain, device = self._chain, self._device
        entering = [values[step.value] for step in chain.entries]
        shapes = tuple(tuple(array.shape) for array in entering)
        if chain.weights:
            program = self._compile(shapes, {name: values[name] for name in chain.weights})
        else:
            program = self._programs.get_or_make(shapes, self._compile)
        arena = device.empty((program.arena,), np.uint8)
        leaving = [
            device.empty(shape, step.type)
            for step, shape in zip(chain.exits, program.output_shapes, strict=True)
        ]
        start = device.pointer(arena)
        borders = [device.pointer(array) for array in (*entering, *leaving)]
        if seconds is not None:
            device.finish()
        for call in program.calls:
            begin = time.perf_counter()
            call.launch.run(
                device,
                **{field: start + offset for field, offset in call.tensors.items()},
                **{field: borders[number] for field, number in call.borders.items()},
            )
            if seconds is not None:
                device.finish()
                seconds.append(time.perf_counter() - begin)
        return leaving

    def memory(self) -> list[ChainMemory]:
        """The memory for each combination of input shapes whose launches are kept."""
        names = [step.value for step in self._chain.entries]
        return [
            ChainMemory(dict(zip(names, shapes, strict=True)), program.arena, 0)
            for shapes, program in self._programs.items()
        ]

    def _compile(
        self, entering: tuple[Shape, ...], weights: Mapping[str, Any] | None = None
    ) -> _Program:
        chain = self._chain
        weights = weights or {}
        shapes = chain.infer_shapes(entering, {n: tuple(w.shape) for n, w in weights.items()})
        types = {step.inside: step.type_inside for step in chain.entries}
        types |= {node.y: node.type for node in chain.nodes}
        places, size = chain.place(
            shapes, lambda name, shape: layout.nhwc_size(shape, types[name]) // _UNIT
        )
        offsets = {name: place * _UNIT for name, place in places.items()}
        calls = []
        for i, step in enumerate(chain.entries):
            launch = layout.enter(shapes[step.inside], step.type, *_inside(step))
            calls.append(_Call(launch, {"to": offsets[step.inside]}, {"from": i}))
        for node in chain.nodes:
            if isinstance(node.weight, str):
                conv = _prepare(self._device, node, weights[node.weight])
            else:
                conv = self._convs[node.y]
            x, y = shapes[node.x], shapes[node.y]
            top, left, _, _ = node.attributes.resolve_pads(x[2:], conv.kernel)
            tensors = {"x": offsets[node.x], "y": offsets[node.y]}
            if node.residual is not None:
                tensors["z"] = offsets[node.residual]
            calls.append(_Call(conv.launch(x[0], x[2:], y[2:], (top, left)), tensors, {}))
        for i, step in enumerate(chain.exits):
            type_inside, quantization = _inside(step)
            launch = layout.leave(shapes[step.inside], type_inside, step.type, quantization)
            number = len(chain.entries) + i
            calls.append(_Call(launch, {"from": offsets[step.inside]}, {"to": number}))
        _logger.info(
            "chain of %d adder nodes for %s: %d bytes", len(chain.nodes), entering, size * _UNIT
        )
        return _Program(calls, size * _UNIT, [shapes[step.inside] for step in chain.exits])


def _inside(step: ConversionStep) -> tuple[str, tuple[float, int, int] | None]:
    """The type inside, and the quantization between it and the type outside."""
    q = step.quantization
    return step.type_inside, None if q is None else (q.scale, q.zero_point, q.top)


def _prepare(device: Device, node: AdderNode, weight: Any) -> AdderConv | IntegerAdderConv:
    check_filters(node, weight.shape)
    a = node.attributes
    geometry = (a.strides, a.dilations, a.group)
    if node.integers is not None:
        q = node.integers
        epilogue = IntegerEpilogue(
            q.z_scale, q.z_zero_point, q.y_scale, q.y_zero_point, node.clip_min, q.bits
        )
        return IntegerAdderConv(
            device, weight, q.x_zero_point, node.scale, node.bias, epilogue, *geometry
        )
    if isinstance(weight, np.ndarray):
        weight = np.ascontiguousarray(weight, node.type)
    clip = (node.clip_min, node.clip_max)
    return AdderConv(device, weight, node.scale, node.bias, clip, *geometry, node.type)
