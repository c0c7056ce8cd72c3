"""Chains of adder nodes as launches of the CUDA kernels."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adder_onnx.graph.adder_node import AdderNode
from adder_onnx.graph.plan import ConversionStep, Step
from adder_onnx.graph.pools import PoolNode
from adder_onnx.kernels.cuda.launch import layout
from adder_onnx.kernels.cuda.launch.conv import AdderConv
from adder_onnx.kernels.cuda.launch.device import SCRATCH_ZEROS, Device, Launch
from adder_onnx.kernels.cuda.launch.integer_conv import IntegerAdderConv
from adder_onnx.kernels.cuda.launch.integer_epilogue import IntegerEpilogue
from adder_onnx.kernels.cuda.launch.max_pool import launch_max_pool
from adder_onnx.kernels.cuda.launch.needed import conv_kernels, integer_conv_kernels
from adder_onnx.kernels.cuda.launch.variants import Kernel, max_pool, nchw_to_nhwc, nhwc_to_nchw
from adder_onnx.runtime.chain import Chain, Image, Shape, check_filters
from adder_onnx.runtime.lru import LruCache

__all__ = ["Call", "CudaChain", "Program", "needed_kernels"]

_MAX_PROGRAMS = 16
"""Input shapes for which a chain keeps its launches."""

_UNIT = 4
"""Bytes of an element, as memory is placed: a float32."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """A launch, with the addresses that it takes.

    Attributes:
        launch: the kernel and its constant arguments.
        tensors: byte offsets of channels-last tensors and scratch memory in the arena, by field.
        borders: numbers of arrays that enter or leave the chain, by field.
    """

    launch: Launch
    tensors: Mapping[str, int]
    borders: Mapping[str, int]

    def run(self, device: Device, arena: int, borders: Sequence[int] = ()) -> None:
        """Starts it, for the addresses of the arena and of the arrays at the borders."""
        self.launch.run(
            device,
            **{field: arena + offset for field, offset in self.tensors.items()},
            **{field: borders[number] for field, number in self.borders.items()},
        )


@dataclass(frozen=True)
class Program:
    """The launches for fixed shapes.

    Attributes:
        entries: the conversions of what enters; they and the exits alone know of arrays outside.
        nodes: the adder nodes, which know nothing but the arena.
        exits: the conversions of what leaves.
        arena: bytes of all channels-last tensors and of the scratch memory behind them.
        scratch: where that begins, which all nodes share; None where none needs it.
        output_shapes: of the arrays that leave.
    """

    entries: Sequence[Call]
    nodes: Sequence[Call]
    exits: Sequence[Call]
    arena: int
    scratch: int | None
    output_shapes: Sequence[Image]

    def start_nodes(self, device: Device, arena: int) -> None:
        """Makes the scratch memory ready for the nodes, which leave it so."""
        if self.scratch is not None:
            device.clear(arena + self.scratch, SCRATCH_ZEROS)


class CudaChain:
    """A chain of a plan, with the conversions around it: packed weights, and programs by shape.

    Weights are packed on the caller's current stream. May be used from several threads at once.

    Args:
        steps: the chain and its conversions.
        device: where.

    Attributes:
        device: where.
        exits: the conversions of what leaves.
        inputs: names of all values that it takes.
        outputs: names of the values that it gives.
    """

    def __init__(self, steps: Sequence[Step], device: Device) -> None:
        self.device = device
        self._chain = Chain(steps)
        self.exits = self._chain.exits
        self.inputs, self.outputs = self._chain.inputs, self._chain.outputs
        self._convs = {
            node.y: _prepare(device, node, node.weight)
            for node in self._chain.nodes
            if isinstance(node, AdderNode) and isinstance(node.weight, np.ndarray)
        }
        self._tables = {
            step.inside: device.upload(np.frombuffer(step.quantization.table, np.uint8))
            for step in self._chain.entries
            if step.quantization is not None and step.quantization.table is not None
        }
        self._chain.forget_weights()
        self._programs: LruCache[tuple[Shape, ...], Program] = LruCache(_MAX_PROGRAMS)

    @property
    def has_computed_weights(self) -> bool:
        """Whether a run packs weights: its program is then its own."""
        return bool(self._chain.weights)

    def entering(self, values: Mapping[str, Any]) -> list[Any]:
        """The arrays that enter, of all values by name."""
        return [values[step.value] for step in self._chain.entries]

    def program(self, shapes: tuple[Shape, ...], values: Mapping[str, Any]) -> Program:
        """The launches for arrays of these shapes; kept, unless weights are computed.

        Args:
            shapes: of the arrays that enter.
            values: all values by name: the computed weights are among them.

        Raises:
            InputError: shapes do not fit the nodes.
            DeviceError: the device's memory does not suffice.
        """
        if self.has_computed_weights:
            return self._compile(shapes, {name: values[name] for name in self._chain.weights})
        return self._programs.get_or_make(shapes, self._compile)

    def planned(self) -> list[tuple[tuple[Shape, ...], dict[str, Shape], int]]:
        """For the programs that are kept: shapes, the same by name, and the arena's bytes."""
        names = [step.value for step in self._chain.entries]
        return [
            (shapes, dict(zip(names, shapes, strict=True)), program.arena)
            for shapes, program in self._programs.items()
        ]

    def _compile(
        self, entering: tuple[Shape, ...], weights: Mapping[str, Any] | None = None
    ) -> Program:
        chain = self._chain
        weights = weights or {}
        shapes = chain.infer_shapes(entering, {n: tuple(w.shape) for n, w in weights.items()})
        types = {step.inside: step.type_inside for step in chain.entries}
        types |= {node.y: node.type for node in chain.nodes}
        places, size = chain.place(
            shapes, lambda name, shape: layout.nhwc_size(shape, types[name]) // _UNIT
        )
        offsets = {name: place * _UNIT for name, place in places.items()}
        entries, nodes, exits = [], [], []
        for i, step in enumerate(chain.entries):
            table = self._tables.get(step.inside)
            address = 0 if table is None else self.device.pointer(table)
            launch = layout.enter(shapes[step.inside], step.type, *_inside(step), address)
            entries.append(Call(launch, {"to": offsets[step.inside]}, {"from": i}))
        for node in chain.nodes:
            x, y = shapes[node.x], shapes[node.y]
            tensors = {"x": offsets[node.x], "y": offsets[node.y]}
            if isinstance(node, PoolNode):
                nodes.append(Call(_pool(node, x, y), tensors, {}))
                continue
            if isinstance(node.weight, str):
                conv = _prepare(self.device, node, weights[node.weight])
            else:
                conv = self._convs[node.y]
            top, left, _, _ = node.attributes.resolve_pads(x[2:], conv.geometry.kernel)
            if node.residual is not None:
                tensors["z"] = offsets[node.residual]
            launch = conv.launch(x[0], x[2:], y[2:], (top, left))
            if launch.scratch:
                tensors["scratch"] = size * _UNIT
            nodes.append(Call(launch, tensors, {}))
        for i, step in enumerate(chain.exits):
            type_inside, quantization = _inside(step)
            launch = layout.leave(shapes[step.inside], type_inside, step.type, quantization)
            number = len(chain.entries) + i
            exits.append(Call(launch, {"from": offsets[step.inside]}, {"to": number}))
        scratch = max(call.launch.scratch for call in nodes)
        arena = size * _UNIT + scratch
        _logger.info("chain of %d nodes for %s: %d bytes", len(nodes), entering, arena)
        output_shapes = [shapes[step.inside] for step in chain.exits]
        first = size * _UNIT if scratch else None
        return Program(entries, nodes, exits, arena, first, output_shapes)


def needed_kernels(chains: Iterable[Sequence[Step]], target: str) -> set[Kernel]:
    """The kernels that chains, each with its conversions, need for images of any size.

    Args:
        chains: their steps.
        target: what kernels are compiled for, for example ``sm_90``.
    """
    found: set[Kernel] = set()
    for steps in chains:
        chain = Chain(steps)
        for node in chain.nodes:
            if isinstance(node, PoolNode):
                found.add(max_pool())
                continue
            group, group_out = node.attributes.group, len(node.scale) // node.attributes.group
            if isinstance(node.weight, str):
                found |= conv_kernels(node.type, group, None, group_out, None)
                continue
            _, group_in, height, width = node.weight.shape
            layer = (group, group_in, group_out, (height, width))
            if node.integers is None:
                found |= conv_kernels(node.type, *layer)
            else:
                found |= integer_conv_kernels(target, *layer)
        found |= {nchw_to_nhwc(step.type, step.type_inside) for step in chain.entries}
        found |= {nhwc_to_nchw(step.type_inside, step.type) for step in chain.exits}
    return found


def _inside(step: ConversionStep) -> tuple[str, tuple[float, int, int] | None]:
    """The type inside, and the quantization between it and the type outside."""
    q = step.quantization
    return step.type_inside, None if q is None else (q.scale, q.zero_point, q.top)


def _pool(node: PoolNode, x: Image, y: Image) -> Launch:
    a = node.attributes
    top, left, _, _ = a.resolve_pads(x[2:], node.kernel)
    return launch_max_pool(x, y[2:], node.kernel, a.strides, a.dilations, (top, left))


def _prepare(device: Device, node: AdderNode, weight: Any) -> AdderConv | IntegerAdderConv:
    check_filters(node, weight.shape)
    a = node.attributes
    geometry = (a.strides, a.dilations, a.group)
    if node.integers is not None:
        q = node.integers
        epilogue = IntegerEpilogue(
            *(q.z_scale, q.z_zero_point, q.y_scale, q.y_zero_point),
            *(node.clip_min, q.bits, q.levels),
        )
        return IntegerAdderConv(
            device, weight, q.x_zero_point, node.scale, node.bias, epilogue, *geometry
        )
    if isinstance(weight, np.ndarray):
        weight = np.ascontiguousarray(weight, node.type)
    clip = (node.clip_min, node.clip_max)
    return AdderConv(device, weight, node.scale, node.bias, clip, *geometry, node.type)
