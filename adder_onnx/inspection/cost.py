"""What a node costs: taps, additions, multiplications, other operations; parameters and bytes.

An operation is counted once per element that it produces, as one scalar operation:

* AdderConv: a tap, and two additions per tap (a difference, a sum; the absolute value is a bit).
  QLinearAdderConv: the same, and its epilogue per element.
* Convolution, MatMul, Gemm: a multiplication and an addition per multiply-accumulate, and an
  addition per output for a bias.
* BatchNormalization in inference: a multiplication and an addition per element, its parameters
  folded into two.
* Averages and sums: an addition per element that is summed, less one per result, and a
  multiplication per average. Maxima and comparisons, exponentials, divisions, roots: other
  operations.
* Moving data costs no arithmetic.

What is not in these tables is listed as not counted, never as zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from adder_onnx.ops import DOMAIN

__all__ = ["Cost", "Operations", "cost_of", "operations_of"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operations:
    """Arithmetic of a node or of several.

    Attributes:
        taps: terms |x - w|.
        macs: multiply-accumulates of convolutions and matrix products.
        adds: additions and subtractions, those of taps and macs included.
        multiplications: those of macs included.
        other: comparisons, divisions, exponentials and the like.
    """

    taps: int = 0
    macs: int = 0
    adds: int = 0
    multiplications: int = 0
    other: int = 0

    def __add__(self, o: Operations) -> Operations:
        return Operations(
            self.taps + o.taps,
            self.macs + o.macs,
            self.adds + o.adds,
            self.multiplications + o.multiplications,
            self.other + o.other,
        )

    @property
    def total(self) -> int:
        """All operations."""
        return self.adds + self.multiplications + self.other

    def as_convolution(self) -> Operations:
        """The same with a multiply-accumulate for each tap: the convolutional twin."""
        return Operations(
            0,
            self.macs + self.taps,
            self.adds - self.taps,
            self.multiplications + self.taps,
            self.other,
        )


@dataclass(frozen=True)
class Cost:
    """What a node or a model costs.

    Attributes:
        operations: None where they are not counted.
        parameters: elements of its constant inputs.
        weight_bytes: of its constant inputs.
        activation_bytes: of its other inputs and its outputs; None where a shape is not known.
        why_not_counted: the reason, where operations is None.
    """

    operations: Operations | None
    parameters: int
    weight_bytes: int
    activation_bytes: int | None
    why_not_counted: str = ""

    @property
    def intensity(self) -> float | None:
        """Operations per byte of weights and activations."""
        if self.operations is None or self.activation_bytes is None:
            return None
        size = self.weight_bytes + self.activation_bytes
        return self.operations.total / size if size else None

    @property
    def taps_per_byte(self) -> float | None:
        """Taps per byte of weights and activations; None where there are none."""
        if self.operations is None or not self.operations.taps or self.activation_bytes is None:
            return None
        return self.operations.taps / (self.weight_bytes + self.activation_bytes)


def cost_of(node: ir.Node) -> Cost:
    """A node's cost, for the shapes that its values have."""
    found = operations_of(node)
    constants = dict.fromkeys(v for v in node.inputs if v is not None and v.const_value is not None)
    others = dict.fromkeys(
        v for v in (*node.inputs, *node.outputs) if v is not None and v not in constants
    )
    sizes = [_bytes(value) for value in others]
    return Cost(
        found if isinstance(found, Operations) else None,
        sum(_elements(value) for value in constants),
        sum(_bytes(value) or 0 for value in constants),
        None if None in sizes else sum(sizes),  # type: ignore[arg-type]
        found if isinstance(found, str) else "",
    )


def _elements(value: ir.Value) -> int:
    assert value.const_value is not None
    return int(value.const_value.size)


def _bytes(value: ir.Value) -> int | None:
    """Bytes of a tensor; None where its shape or its type is not known."""
    shape = _shape(value)
    if shape is None or value.dtype is None:
        return None
    try:
        return math.ceil(_size(shape) * value.dtype.itemsize)
    except (TypeError, ValueError):  # text has no fixed size
        return None


_Rule = Callable[[ir.Node, list[Shape | None], Shape], Operations | None]


def operations_of(node: ir.Node) -> Operations | str:
    """A node's operations, or why they are not counted."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    key = node.op_type if not domain else f"{domain}.{node.op_type}"
    rule = _RULES.get(key)
    if rule is None:
        return f"the cost of {key} is not known"
    inputs = [_shape(value) for value in node.inputs]
    output = _shape(node.outputs[0]) if node.outputs else None
    if output is None:
        return "its output's shape is not known"
    found = rule(node, inputs, output)
    return found if found is not None else "its inputs' shapes are not known"


def _shape(value: ir.Value | None) -> Shape | None:
    """A value's sizes, or None where one is not a number."""
    if value is None or value.shape is None:
        return None
    dims = tuple(dim if isinstance(dim, int) else None for dim in value.shape)
    return None if None in dims else dims  # type: ignore[return-value]


def _size(shape: Sequence[int]) -> int:
    return math.prod(shape)


def _per_element(**counts: int) -> _Rule:
    """So many operations of each kind for every element of the output."""

    def rule(node: ir.Node, inputs: list[Shape | None], output: Shape) -> Operations:
        return Operations(**{name: count * _size(output) for name, count in counts.items()})

    return rule


def _adder_conv(node: ir.Node, inputs: list[Shape | None], output: Shape) -> Operations | None:
    weight = inputs[1]
    if weight is None:
        return None
    taps = _size(output) * _size(weight[1:])
    return Operations(taps=taps, adds=2 * taps)


def _qlinear_adder_conv(
    node: ir.Node, inputs: list[Shape | None], output: Shape
) -> Operations | None:
    """The taps; then a scale, a bias and the residual, a bound, and the rounding of a quotient."""
    found = _adder_conv(node, inputs, output)
    size = _size(output)
    z = inputs[6]
    if found is None or z is None:
        return None
    adds = 4 * size if z else 2 * size  # Z less its zero point and its addition among them
    multiplications = 2 * size if z else size
    return found + Operations(adds=adds, multiplications=multiplications, other=5 * size)


def _macs(macs: int, outputs: int, has_bias: bool) -> Operations:
    return Operations(macs=macs, adds=macs + outputs * has_bias, multiplications=macs)


def _conv(node: ir.Node, inputs: list[Shape | None], output: Shape) -> Operations | None:
    weight = inputs[1]
    if weight is None:
        return None
    return _macs(_size(output) * _size(weight[1:]), _size(output), _has_input(node, 2))


def _conv_transpose(node: ir.Node, inputs: list[Shape | None], output: Shape) -> Operations | None:
    x, weight = inputs[0], inputs[1]
    if x is None or weight is None:
        return None
    return _macs(_size(x) * _size(weight[1:]), _size(output), _has_input(node, 2))


def _gemm(node: ir.Node, inputs: list[Shape | None], output: Shape) -> Operations | None:
    a = inputs[0]
    if a is None or len(a) != 2:
        return None
    depth = a[0] if node.attributes.get_int("transA", 0) else a[1]
    return _macs(_size(output) * depth, _size(output), _has_input(node, 2))


def _matmul(node: ir.Node, inputs: list[Shape | None], output: Shape) -> Operations | None:
    a = inputs[0]
    return None if not a else _macs(_size(output) * a[-1], _size(output), has_bias=False)


def _has_input(node: ir.Node, number: int) -> bool:
    return len(node.inputs) > number and node.inputs[number] is not None


def _max_pool(node: ir.Node, inputs: list[Shape | None], output: Shape) -> Operations:
    kernel = _size(node.attributes["kernel_shape"].as_ints())
    return Operations(other=_size(output) * (kernel - 1))


def _average_pool(node: ir.Node, inputs: list[Shape | None], output: Shape) -> Operations:
    kernel = _size(node.attributes["kernel_shape"].as_ints())
    return Operations(adds=_size(output) * (kernel - 1), multiplications=_size(output))


def _reduction(*, average: bool = False, maximum: bool = False) -> _Rule:
    """Sums, averages or maxima of all elements that an output element comes from."""

    def rule(node: ir.Node, inputs: list[Shape | None], output: Shape) -> Operations | None:
        if inputs[0] is None:
            return None
        steps = max(_size(inputs[0]) - _size(output), 0)
        if maximum:
            return Operations(other=steps)
        return Operations(adds=steps, multiplications=_size(output) * average)

    return rule


def _softmax(node: ir.Node, inputs: list[Shape | None], output: Shape) -> Operations | None:
    """A maximum, differences from it, exponentials, their sum, quotients."""
    size, axis = _size(output), node.attributes.get_int("axis", -1)
    if output and not -len(output) <= axis < len(output):
        return None
    length = output[axis] if output else 1
    rows = size // length if length else 0
    return Operations(adds=size + size - rows, other=size - rows + 2 * size)


def _variadic(kind: str) -> _Rule:
    def rule(node: ir.Node, inputs: list[Shape | None], output: Shape) -> Operations:
        return Operations(**{kind: (len(inputs) - 1) * _size(output)})

    return rule


_MOVES = (
    "Cast Concat Constant ConstantOfShape DepthToSpace Dropout Expand Flatten Gather "
    "GatherElements GatherND Identity Pad Reshape ScatterElements ScatterND Shape Size Slice "
    "SpaceToDepth Split Squeeze Tile Transpose Unsqueeze"
)
_ONE_OTHER = (
    "Abs Acos And Asin Atan Ceil Cos Div Equal Erf Exp Floor Greater GreaterOrEqual LeakyRelu Less "
    "LessOrEqual Log Mod Not Or PRelu Pow Reciprocal Relu Round Sign Sin Sqrt Tan Tanh Where Xor"
)

_RULES: dict[str, _Rule] = {
    f"{DOMAIN}.AdderConv": _adder_conv,
    f"{DOMAIN}.QLinearAdderConv": _qlinear_adder_conv,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _per_element(multiplications=1, adds=1),
    "Add": _per_element(adds=1),
    "Sub": _per_element(adds=1),
    "Neg": _per_element(adds=1),
    "Mul": _per_element(multiplications=1),
    "Sum": _variadic("adds"),
    "Max": _variadic("other"),
    "Min": _variadic("other"),
    "Clip": _per_element(other=2),
    "Sigmoid": _per_element(other=2, adds=1),
    "HardSigmoid": _per_element(multiplications=1, adds=1, other=2),
    "HardSwish": _per_element(multiplications=2, adds=1, other=2),
    "QuantizeLinear": _per_element(other=3, adds=1),
    "DequantizeLinear": _per_element(adds=1, multiplications=1),
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _reduction(average=True),
    "GlobalMaxPool": _reduction(maximum=True),
    "ReduceMean": _reduction(average=True),
    "ReduceSum": _reduction(),
    "ReduceMax": _reduction(maximum=True),
    "ReduceMin": _reduction(maximum=True),
    "ArgMax": _reduction(maximum=True),
    "ArgMin": _reduction(maximum=True),
    "Softmax": _softmax,
    **{name: _per_element() for name in _MOVES.split()},
    **{name: _per_element(other=1) for name in _ONE_OTHER.split()},
}
