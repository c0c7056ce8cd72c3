"""The function body of a chain: what it computes, in adder nodes and standard operators.

It makes a compiled file run where our library is not: the same layers, with the kernels' arithmetic
as far as standard operators have it. Inside a chain all floats are float32; a border in float16 is
a Cast. Sums of an AdderConv are rounded to float32 before scale and bias, where the kernels keep
them in double.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from adder_onnx.graph.adder_node import AdderNode
from adder_onnx.graph.plan import ConversionStep
from adder_onnx.graph.pools import PoolNode
from adder_onnx.ops import DOMAIN, ConvAttributes
from adder_onnx.runtime.chain import Chain

__all__ = ["chain_body"]


def chain_body(
    name: str, chain: Chain, opset_imports: dict[str, int], attributes: Sequence[str]
) -> onnx.FunctionProto:
    """The body of one chain.

    Its inputs are the images that enter, then the tables of those that have one, (256,), and then
    for each node that is no pooling its weight, scale and bias, in the order of
    `adder_onnx.runtime.chain_description`: (M, 1, 1) of a float node, (M,) of an integer one. Its
    outputs are the images that leave.

    Args:
        name: of the operator.
        chain: of a plan.
        opset_imports: those of the model.
        attributes: names of attributes that nodes of the operator have, which it makes no use of.
    """
    return _Body(chain).function(name, opset_imports, attributes)


class _Body:
    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._nodes: list[onnx.NodeProto] = []
        self._operands: list[str] = []
        self._inside: dict[str, str] = {}
        self._count = 0

    def function(
        self, name: str, opset_imports: dict[str, int], attributes: Sequence[str]
    ) -> onnx.FunctionProto:
        chain = self._chain
        images = [f"x{i}" for i in range(len(chain.entries))]
        for image, step in zip(images, chain.entries, strict=True):
            self._inside[step.inside] = self._enter(image, step)
        for node in chain.nodes:
            self._inside[node.y] = (
                self._pool(node) if isinstance(node, PoolNode) else self._layer(node)
            )
        outputs = [f"y{i}" for i in range(len(chain.exits))]
        for output, step in zip(outputs, chain.exits, strict=True):
            self._leave(output, step)
        return helper.make_function(
            DOMAIN,
            name,
            [*images, *self._operands],
            outputs,
            self._nodes,
            [helper.make_opsetid(*entry) for entry in opset_imports.items()],
            list(attributes),
        )

    def _add(self, op: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> str:
        """Adds a node, and gives its output's name."""
        self._count += 1
        output = f"v{self._count}"
        self._nodes.append(helper.make_node(op, inputs, [output], domain=domain, **attributes))
        return output

    def _constant(self, value: object, type_: type) -> str:
        return self._add("Constant", [], value=numpy_helper.from_array(np.array(value, type_)))

    def _operand(self) -> str:
        self._operands.append(f"w{len(self._operands)}")
        return self._operands[-1]

    def _enter(self, image: str, step: ConversionStep) -> str:
        q = step.quantization
        if q is None:
            is_half = step.type == "float16"
            return self._add("Cast", [image], to=TensorProto.FLOAT) if is_half else image
        scale, zero_point = (
            self._constant(q.scale, np.float32),
            self._constant(q.zero_point, np.uint8),
        )
        if q.top < 255:
            low, high = (
                self._constant(np.float32(n - q.zero_point) * np.float32(q.scale), np.float32)
                for n in (0, q.top)
            )
            image = self._add("Clip", [image, low, high])
        integers = self._add("QuantizeLinear", [image, scale, zero_point])
        if q.table is None:
            return integers
        indices = self._add("Cast", [integers], to=TensorProto.INT32)
        return self._add("Gather", [self._operand(), indices])

    def _leave(self, output: str, step: ConversionStep) -> None:
        inside, q = self._inside[step.inside], step.quantization
        if q is not None:
            parameters = (
                self._constant(q.scale, np.float32),
                self._constant(q.zero_point, np.uint8),
            )
            node = helper.make_node("DequantizeLinear", [inside, *parameters], [output])
        elif step.type == "float16":
            node = helper.make_node("Cast", [inside], [output], to=TensorProto.FLOAT16)
        else:
            node = helper.make_node("Identity", [inside], [output])
        self._nodes.append(node)

    def _layer(self, node: AdderNode) -> str:
        x = self._inside[node.x]
        z = None if node.residual is None else self._inside[node.residual]
        weight, scale, bias = (self._operand() for _ in range(3))
        if node.integers is not None:
            return self._integer_layer(node, x, z, (weight, scale, bias))
        y = self._add("AdderConv", [x, weight], DOMAIN, **_window(node.attributes))
        y = self._add("Add", [self._add("Mul", [y, scale]), bias])
        if z is not None:
            y = self._add("Add", [y, z])
        if (node.clip_min, node.clip_max) == (0, math.inf):
            return self._add("Relu", [y])
        if (node.clip_min, node.clip_max) != (-math.inf, math.inf):
            bounds = (self._constant(v, np.float32) for v in (node.clip_min, node.clip_max))
            y = self._add("Clip", [y, *bounds])
        return y

    def _integer_layer(
        self, node: AdderNode, x: str, z: str | None, operands: tuple[str, str, str]
    ) -> str:
        q = node.integers
        assert q is not None
        weight, factor, bias = operands
        inputs = [x, weight]
        inputs += [self._constant(1.0, np.float32), self._constant(q.x_zero_point, np.uint8)]
        inputs += [factor, bias]
        if z is None:
            inputs += [self._constant(0, np.uint8), self._constant(1.0, np.float32)]
            inputs += [self._constant(0, np.uint8)]
        else:
            inputs += [z, self._constant(q.z_scale, np.float32)]
            inputs += [self._constant(q.z_zero_point, np.uint8)]
        inputs += [self._constant(q.y_scale, np.float32), self._constant(q.y_zero_point, np.uint8)]
        return self._add(
            "QLinearAdderConv",
            inputs,
            DOMAIN,
            bits=q.bits,
            clip_min=node.clip_min,
            **({"levels": list(q.levels)} if q.levels else {}),
            **_window(node.attributes),
        )

    def _pool(self, node: PoolNode) -> str:
        window = _window(node.attributes)
        del window["group"]
        return self._add(
            "MaxPool",
            [self._inside[node.x]],
            kernel_shape=list(node.kernel),
            ceil_mode=int(node.ceil_mode),
            **window,
        )


def _window(a: ConvAttributes) -> dict[str, Any]:
    """The attributes of ONNX Conv; pads beside another auto_pad would be refused."""
    pads = {"pads": list(a.pads)} if a.auto_pad == "NOTSET" else {"auto_pad": a.auto_pad}
    return {
        "strides": list(a.strides),
        "dilations": list(a.dilations),
        "group": a.group,
        **pads,
    }
