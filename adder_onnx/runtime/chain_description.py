"""A chain of a plan as numbers and arrays: what the native `Chain` and compiled files are made of.

The order of the numbers is written down in ``kernels/cpu/chain/description.h``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import ModelError
from adder_onnx.graph.adder_node import AdderNode
from adder_onnx.graph.plan import ConversionStep
from adder_onnx.graph.pools import PoolNode
from adder_onnx.ops.conv_attributes import AUTO_PAD_MODES
from adder_onnx.runtime.chain import Chain, type_inside

__all__ = ["ChainDescription", "describe_chain"]

_VERSION = 1
_TYPES = ("float32", "float16", "uint8")
_ADDER_CONV, _QLINEAR_ADDER_CONV, _MAX_POOL = range(3)


@dataclass(frozen=True)
class ChainDescription:
    """A chain as numbers and arrays.

    Attributes:
        integers: what it is made of.
        floats: its scales and bounds.
        operands: weights, (M, C/group, kH, kW), float32 or uint8; scales and biases, (M,), float32.
        labels: what messages call its layers.
    """

    integers: list[int] = field(default_factory=list)
    floats: list[float] = field(default_factory=list)
    operands: list[NDArray[np.float32] | NDArray[np.uint8]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def add_operand(self, array: NDArray[Any]) -> int:
        """Its number."""
        self.operands.append(np.ascontiguousarray(array))
        return len(self.operands) - 1


def describe_chain(
    chain: Chain, weights: Mapping[str, NDArray[Any]] | None = None
) -> ChainDescription:
    """Writes a chain down.

    Args:
        chain: of a plan, with its constant weights.
        weights: the computed ones, by name.

    Raises:
        ModelError: a number is beyond 64 bits, or no number.
    """
    description = ChainDescription()
    integers = description.integers
    integers += [_VERSION, len(chain.entries), len(chain.nodes), len(chain.exits)]
    numbers = {step.inside: i for i, step in enumerate(chain.entries)}
    for step in chain.entries:
        _describe_conversion(description, step)
    for i, node in enumerate(chain.nodes):
        residual = -1 if node.residual is None else numbers[node.residual]
        a = node.attributes
        kind, own = _own(description, node, weights or {})
        integers += [kind, numbers[node.x], residual, *a.strides, *a.dilations]
        integers += [AUTO_PAD_MODES.index(a.auto_pad), *a.pads, *own]
        description.labels.append(f"node {node.name!r}")
        numbers[node.y] = len(chain.entries) + i
    for step in chain.exits:
        integers.append(numbers[step.inside])
        _describe_conversion(description, step)
    if any(not -(1 << 63) <= number < 1 << 63 for number in integers):
        raise ModelError("an attribute of an adder node is beyond 64 bits")
    return description


def _describe_conversion(description: ChainDescription, step: ConversionStep) -> None:
    q = step.quantization
    inside = type_inside(step.type_inside, "cpu")
    description.integers.extend([_TYPES.index(step.type), _TYPES.index(inside)])
    description.integers.extend([0, 255] if q is None else [q.zero_point, q.top])
    description.floats.append(1.0 if q is None else q.scale)


def _own(
    description: ChainDescription, node: AdderNode | PoolNode, weights: Mapping[str, NDArray[Any]]
) -> tuple[int, list[int]]:
    """The kind of a layer, and the numbers that only this kind has; its floats are added."""
    if isinstance(node, PoolNode):
        return _MAX_POOL, [*node.kernel, int(node.ceil_mode)]
    weight = weights[node.weight] if isinstance(node.weight, str) else node.weight
    assert isinstance(weight, np.ndarray)
    type_ = np.float32 if node.integers is None else np.uint8
    arrays = (weight.astype(type_, copy=False), node.scale, node.bias)
    own = [node.attributes.group, *map(description.add_operand, arrays)]
    if node.integers is None:
        description.floats.extend([node.clip_min, node.clip_max])
        return _ADDER_CONV, own
    q = node.integers
    description.floats.extend([q.z_scale, q.y_scale, node.clip_min])
    return _QLINEAR_ADDER_CONV, [*own, q.x_zero_point, q.z_zero_point, q.y_zero_point, q.bits]
