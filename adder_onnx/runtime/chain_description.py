"""A chain of a plan as numbers and arrays: what the native `Chain` and compiled files are made of.

The order of the numbers is written down in ``kernels/cpu/chain/description.h``.
"""

from __future__ import annotations

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

_WITHOUT_LEVELS, _WITH_LEVELS = 1, 2
"""Versions: chains without levels and tables are written so that older libraries read them."""

_TYPES = ("float32", "float16", "uint8")
_ADDER_CONV, _QLINEAR_ADDER_CONV, _MAX_POOL = range(3)


@dataclass(frozen=True)
class ChainDescription:
    """A chain as numbers and arrays.

    Attributes:
        integers: what it is made of.
        floats: its scales and bounds.
        operands: weights, (M, C/group, kH, kW), float32 or uint8, None where they are computed;
            scales and biases, (M,), float32.
            Tables of entries, (256,), uint8, come before them.
        labels: what messages call its layers.
    """

    integers: list[int] = field(default_factory=list)
    floats: list[float] = field(default_factory=list)
    operands: list[NDArray[np.float32] | NDArray[np.uint8] | None] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def add_operand(self, array: NDArray[Any] | None) -> int:
        """Its number."""
        self.operands.append(None if array is None else np.ascontiguousarray(array))
        return len(self.operands) - 1


def describe_chain(chain: Chain) -> ChainDescription:
    """Writes a chain down.

    Args:
        chain: of a plan, with its constant weights.

    Raises:
        ModelError: a number is beyond 64 bits, or no number.
    """
    description = ChainDescription()
    integers = description.integers
    version = _version(chain)
    integers += [version, len(chain.entries), len(chain.nodes), len(chain.exits)]
    numbers = {step.inside: i for i, step in enumerate(chain.entries)}
    for step in chain.entries:
        _describe_conversion(description, step)
        if version == _WITH_LEVELS:
            table = _table(step)
            integers.append(-1 if table is None else description.add_operand(table))
    for i, node in enumerate(chain.nodes):
        residual = -1 if node.residual is None else numbers[node.residual]
        a = node.attributes
        kind, own = _own(description, node, version)
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


def _version(chain: Chain) -> int:
    nodes = (node for node in chain.nodes if isinstance(node, AdderNode))
    has_levels = any(node.integers is not None and node.integers.levels for node in nodes)
    has_tables = any(_table(step) is not None for step in chain.entries)
    return _WITH_LEVELS if has_levels or has_tables else _WITHOUT_LEVELS


def _table(step: ConversionStep) -> NDArray[np.uint8] | None:
    """What integers become behind a quantization, (256,)."""
    table = None if step.quantization is None else step.quantization.table
    return None if table is None else np.frombuffer(table, np.uint8)


def _describe_conversion(description: ChainDescription, step: ConversionStep) -> None:
    q = step.quantization
    inside = type_inside(step.type_inside, "cpu")
    description.integers.extend([_TYPES.index(step.type), _TYPES.index(inside)])
    description.integers.extend([0, 255] if q is None else [q.zero_point, q.top])
    description.floats.append(1.0 if q is None else q.scale)


def _own(
    description: ChainDescription, node: AdderNode | PoolNode, version: int
) -> tuple[int, list[int]]:
    """The kind of a layer, and the numbers that only this kind has; its floats are added."""
    if isinstance(node, PoolNode):
        return _MAX_POOL, [*node.kernel, int(node.ceil_mode)]
    own = [
        node.attributes.group,
        *map(description.add_operand, (_constant_weight(node), node.scale, node.bias)),
    ]
    if node.integers is None:
        description.floats.extend([node.clip_min, node.clip_max])
        return _ADDER_CONV, own
    q = node.integers
    description.floats.extend([q.z_scale, q.y_scale, node.clip_min])
    own += [q.x_zero_point, q.z_zero_point, q.y_zero_point, q.bits]
    if version == _WITH_LEVELS:
        own += [len(q.levels), *q.levels]
    return _QLINEAR_ADDER_CONV, own


def _constant_weight(node: AdderNode) -> NDArray[Any] | None:
    """The weight in the kernels' type; None where it is computed."""
    if isinstance(node.weight, str):
        return None
    assert isinstance(node.weight, np.ndarray)
    return node.weight.astype(np.float32 if node.integers is None else np.uint8, copy=False)
