"""Kernels in sessions of single layers, against the definition in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

import adder_onnx
from adder_onnx.ops import DOMAIN, VERSION, ConvAttributes
from adder_onnx.ops.reference import adder_conv, qlinear_adder_conv
from benchmarks.cuda.check.results import FailedError
from benchmarks.cuda.rounding import MEAN_DIFFERENCE, TOLERANCE

__all__ = ["SHAPES", "Shape", "check_float", "check_integers"]

Session = Callable[[onnx.ModelProto], adder_onnx.InferenceSession]


@dataclass(frozen=True)
class Shape:
    """A layer; its padding is half of its kernel."""

    channels: int
    filters: int
    size: int
    kernel: int
    stride: int = 1
    group: int = 1
    batch: int = 2

    def __str__(self) -> str:
        stride = f" / {self.stride}" if self.stride > 1 else ""
        group = f", {self.group} groups" if self.group > 1 else ""
        return (
            f"{self.channels} x {self.size} -> {self.filters}, {self.kernel}x{self.kernel}"
            f"{stride}{group}, batch {self.batch}"
        )

    @property
    def attributes(self) -> dict[str, Any]:
        return {
            "dilations": [1, 1],
            "group": self.group,
            "kernel_shape": [self.kernel] * 2,
            "pads": [self.kernel // 2] * 4,
            "strides": [self.stride] * 2,
        }

    @property
    def taps_per_output(self) -> int:
        return self.channels // self.group * self.kernel**2

    @property
    def taps(self) -> int:
        """Of the whole layer."""
        out = (self.size + 2 * (self.kernel // 2) - self.kernel) // self.stride + 1
        return self.batch * self.filters * out**2 * self.taps_per_output


SHAPES = (
    Shape(16, 16, 32, 3),
    Shape(16, 32, 32, 3, stride=2),
    Shape(64, 64, 14, 3),
    Shape(64, 64, 56, 3, batch=4),
    Shape(8, 64, 30, 3, batch=1),
    Shape(64, 200, 7, 1, stride=2),
    Shape(512, 64, 7, 3, batch=1),  # few outputs of many taps
    Shape(2048, 512, 7, 1, batch=1),
    Shape(33, 70, 5, 2),
    Shape(4, 8, 30, 11, stride=4),
    Shape(96, 48, 9, 5, group=3),
    Shape(32, 32, 9, 3, group=32),
    Shape(3, 5, 6, 3, batch=1),
)
"""Every tile, with and without whole chunks of channels, few and many pixels, groups."""


def check_float(session: Session, type_: str) -> str:
    """All shapes in a floating-point type, with scale, bias, residual and ReLU.

    Raises:
        FailedError: an output is off by more than its rounding errors are by chance.
    """
    worst, where = 0.0, ""
    for seed, shape in enumerate(SHAPES):
        error = _float_error(session, shape, type_, seed)
        if not error <= worst:  # so that NaN counts
            worst, where = error, str(shape)
    if not worst <= 1:
        raise FailedError(f"{where}: an output is off by {worst:.3g} times what it may be")
    return f"{len(SHAPES)} shapes, at most {100 * worst:.0f} % of what rounding may be ({where})"


def _float_error(session: Session, shape: Shape, type_: str, seed: int) -> float:
    """The largest error of an output by what it may be."""
    rng = np.random.default_rng(seed)
    taps = shape.taps_per_output
    x = rng.standard_normal((shape.batch, shape.channels, shape.size, shape.size)).astype(type_)
    w = rng.standard_normal(
        (shape.filters, shape.channels // shape.group, shape.kernel, shape.kernel)
    ).astype(type_)
    sums = adder_conv(x, w, ConvAttributes.from_mapping(shape.attributes))
    # Exact in float16, so that all types have the same.
    scale = rng.choice([0.5, 1, 2], shape.filters)
    bias = np.round(scale * MEAN_DIFFERENCE * taps)
    z = rng.standard_normal(sums.shape).astype(type_)
    exact = np.maximum(sums * scale[:, None, None] + bias[:, None, None] + z, 0)
    constants = {"W": w, "scale": scale[:, None, None], "bias": bias[:, None, None]}
    model = _model(
        [
            helper.make_node("AdderConv", ["X", "W"], ["A"], domain=DOMAIN, **shape.attributes),
            helper.make_node("Mul", ["A", "scale"], ["B"]),
            helper.make_node("Add", ["B", "bias"], ["C"]),
            helper.make_node("Add", ["C", "Z"], ["D"]),
            helper.make_node("Relu", ["D"], ["Y"]),
        ],
        {"X": x, "Z": z},
        exact.astype(type_),
        {name: array.astype(type_) for name, array in constants.items()},
    )
    (y,) = session(model).run(None, {"X": x, "Z": z})
    of_root, of_output = TOLERANCE[type_]
    allowed = scale[:, None, None] * of_root * math.sqrt(taps) + of_output * exact
    return float((np.abs(y - exact) / allowed).max())


def check_integers(session: Session) -> str:
    """All shapes in 8 bits, and a chain of two with a MaxPool between them, to the bit.

    Raises:
        FailedError: an output is another number.
    """
    for seed, shape in enumerate(SHAPES):
        rng = np.random.default_rng(seed)
        size = (shape.batch, shape.channels, shape.size, shape.size)
        layer = _integer_layer(rng, "X", rng.integers(0, 256, size, np.uint8), shape, "Y")
        _compare(session, str(shape), [layer], [layer.node])
    _check_pool(session)
    return f"{len(SHAPES)} shapes and a MaxPool, to the bit"


@dataclass(frozen=True)
class _IntegerLayer:
    """A QLinearAdderConv with a residual, and what it gives."""

    node: onnx.NodeProto
    inputs: dict[str, NDArray[Any]]
    constants: dict[str, Any]
    output: NDArray[np.uint8]


def _integer_layer(
    rng: np.random.Generator, x_name: str, x: NDArray[np.uint8], shape: Shape, y: str
) -> _IntegerLayer:
    w_shape = (shape.filters, shape.channels // shape.group, shape.kernel, shape.kernel)
    w = rng.integers(0, 256, w_shape, np.uint8)
    a = ConvAttributes.from_mapping(shape.attributes)
    sums = adder_conv(x.astype(np.int16), w.astype(np.int16), a)
    scale = rng.uniform(0.5, 1.5, shape.filters).astype(np.float32)
    # By their places among the inputs; outputs fill the range.
    values: dict[str, Any] = {
        x_name: x,
        f"{y}_W": w,
        f"{y}_x_scale": np.float32(0.02),
        f"{y}_x_zero": np.uint8(120),
        f"{y}_scale": scale,
        f"{y}_bias": (-sums.mean(axis=(0, 2, 3)) * 0.02 * scale).astype(np.float32),
        f"{y}_Z": rng.integers(0, 256, sums.shape, np.uint8),
        f"{y}_z_scale": np.float32(0.05),
        f"{y}_z_zero": np.uint8(7),
        f"{y}_y_scale": np.float32(0.02 * sums.std() / 40),
        f"{y}_y_zero": np.uint8(100),
    }
    node = helper.make_node(
        *("QLinearAdderConv", list(values), [y]),
        domain=DOMAIN,
        auto_pad="NOTSET",
        bits=8,
        clip_min=-math.inf,
        **shape.attributes,
    )
    arguments: tuple[Any, ...] = (*values.values(), a)
    inputs = {name: values.pop(name) for name in (x_name, f"{y}_Z")}
    return _IntegerLayer(node, inputs, values, qlinear_adder_conv(*arguments))


def _check_pool(session: Session) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2, 16, 11, 11), np.uint8)
    first = _integer_layer(rng, "X", x, Shape(16, 24, 11, 3), "A")
    padded = np.pad(first.output, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]
    pool = helper.make_node(
        "MaxPool", ["A"], ["B"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    )
    second = _integer_layer(rng, "B", windows.max(axis=(4, 5)), Shape(24, 16, 6, 3), "Y")
    del second.inputs["B"]
    _compare(session, "MaxPool", [first, second], [first.node, pool, second.node])


def _compare(
    session: Session, name: str, layers: list[_IntegerLayer], nodes: list[onnx.NodeProto]
) -> None:
    """Raises FailedError where the last layer's output is another one."""
    feed = {name: array for layer in layers for name, array in layer.inputs.items()}
    constants = {name: value for layer in layers for name, value in layer.constants.items()}
    (y,) = session(_model(nodes, feed, layers[-1].output, constants)).run(None, feed)
    different = int((y != layers[-1].output).sum())
    if different:
        raise FailedError(f"{name}: {different} outputs are other numbers")


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, NDArray[Any]],
    output: NDArray[Any],
    constants: dict[str, Any],
) -> onnx.ModelProto:
    def info(name: str, array: NDArray[Any]) -> onnx.ValueInfoProto:
        type_: TensorProto.DataType = helper.np_dtype_to_tensor_dtype(array.dtype)
        return helper.make_tensor_value_info(name, type_, array.shape)

    graph = helper.make_graph(
        nodes,
        "check",
        [info(name, array) for name, array in inputs.items()],
        [info("Y", output)],
        [onnx.numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)
