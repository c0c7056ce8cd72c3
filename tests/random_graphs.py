"""Random models that mix adder nodes with standard ones, for comparison with stock onnxruntime.

A seed gives a model and inputs for it. Sizes and constants are chosen so that values stay of the
order of one and nothing is discontinuous: what differs between two runtimes is rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from adder_onnx.ops import DOMAIN, VERSION, ConvAttributes, function_bodies

OPSET = 18
MAX_VALUES = 4096
"""Bound on the elements of a value, so that the function bodies stay quick."""


@dataclass
class RandomGraph:
    """A model under construction; ``shapes`` holds the sizes that the inputs of a run have."""

    rng: np.random.Generator
    dynamic: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    inputs: dict[str, NDArray[Any]] = field(default_factory=dict)
    input_shapes: dict[str, list[int | str]] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    functions: dict[str, onnx.FunctionProto] = field(default_factory=dict)
    count: int = 0

    def fresh(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def choose(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def pick(self) -> str:
        """A value, the later ones more often."""
        names = list(self.shapes)
        return names[-1 - min(int(self.rng.geometric(0.4)) - 1, len(names) - 1)]

    def constant(self, array: NDArray[Any], prefix: str = "c") -> str:
        """A constant: mostly an initializer, sometimes a Constant node."""
        name = self.fresh(prefix)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        if self.rng.random() < 0.2:
            tensor = onnx.numpy_helper.from_array(array)
            self.nodes.append(helper.make_node("Constant", [], [name], name, value=tensor))
        else:
            self.constants[name] = array
        return name

    def add(self, op_type: str, inputs: list[str], shape: tuple[int, ...], **kwargs: Any) -> str:
        name = self.fresh("v")
        self.nodes.append(helper.make_node(op_type, inputs, [name], f"n_{name}", **kwargs))
        self.shapes[name] = shape
        return name

    # Each of the following adds one operator to a value of the graph, or nothing where none fits.

    def convolution(self, op_type: str) -> None:
        x = self.pick()
        n, c, h, w = self.shapes[x]
        rng = self.rng
        group = self.choose([g for g in (1, 1, 1, 2, 3, c) if c % g == 0])
        filters = group * int(rng.integers(1, max(2, 8 // group)))
        kernel = [int(k) for k in rng.integers(1, 4, 2)]
        attributes: dict[str, Any] = {
            "strides": [int(s) for s in rng.integers(1, 3, 2)],
            "dilations": [int(d) for d in rng.integers(1, 3, 2)],
            "group": group,
        }
        mode = self.choose(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
        if mode == "NOTSET":
            attributes["pads"] = [int(p) for p in rng.integers(0, 3, 4)]
            if rng.random() < 0.5:  # keeps the size, so that residuals fit
                kernel, attributes["strides"] = [3, 3], [1, 1]
                attributes |= {"pads": [1, 1, 1, 1], "dilations": [1, 1]}
        else:
            attributes["auto_pad"] = mode
            if op_type == "Conv":
                attributes["dilations"] = [1, 1]
        if rng.random() < 0.5:
            attributes["kernel_shape"] = kernel
        geometry = ConvAttributes.from_mapping(attributes)
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, geometry.dilations, strict=True)]
        pads = geometry.resolve_pads((h, w), kernel)
        if spans[0] > h + pads[0] + pads[2] or spans[1] > w + pads[1] + pads[3]:
            return
        size = geometry.output_size((h, w), kernel)
        if n * filters * size[0] * size[1] > MAX_VALUES:
            return
        weight = rng.standard_normal((filters, c // group, *kernel))
        taps = weight[0].size
        if op_type == "Conv":
            name = self.constant(weight / taps**0.5, "w")
            self.add("Conv", [x, name], (n, filters, *size), **attributes)
            return
        name = self.weight(weight)
        y = self.add("AdderConv", [x, name], (n, filters, *size), domain=DOMAIN, **attributes)
        if rng.random() < 0.8:  # what AdderNets do; without it sums grow from layer to layer
            self.normalize(y, taps)

    def residual_block(self) -> None:
        """An adder layer that keeps the shape, with what AdderNets put around it."""
        x = self.pick()
        n, c, h, w = self.shapes[x]
        weight = self.rng.standard_normal((c, c, 3, 3))
        if n * c * h * w > MAX_VALUES or c > 12:
            return
        inputs = [x, self.weight(weight)]
        y = self.add("AdderConv", inputs, (n, c, h, w), domain=DOMAIN, pads=[1, 1, 1, 1])
        self.normalize(y, 9 * c)
        operands = [list(self.shapes)[-1], x]
        if self.rng.random() < 0.5:
            operands.reverse()
        y = self.add("Add", operands, (n, c, h, w))
        if self.rng.random() < 0.7:
            self.add("Relu", [y], (n, c, h, w))

    def weight(self, array: NDArray[Any]) -> str:
        """A weight: constant, shared with an earlier node, an input, or computed."""
        array = array.astype(np.float32)
        same = [n for n, a in self.constants.items() if a.shape == array.shape and n[0] == "w"]
        kind = self.rng.random()
        if same and kind < 0.5:
            return str(self.choose(same))
        if kind > 0.93:
            name = self.fresh("wi")
            self.inputs[name] = array
            self.input_shapes[name] = list(array.shape)
            return name
        name = self.constant(array, "w")
        if kind > 0.86:
            computed = self.fresh("w_tanh")
            self.nodes.append(helper.make_node("Tanh", [name], [computed], f"n_{computed}"))
            return computed
        return name

    def normalize(self, x: str, taps: int = 1) -> None:
        shape = self.shapes[x]
        rng, c = self.rng, shape[1]
        parameters = [
            rng.uniform(0.5, 1, c),
            rng.standard_normal(c),
            -1.2 * taps * rng.uniform(0.8, 1.2, c) if taps > 1 else rng.standard_normal(c),
            rng.uniform(1, 2, c) * max(taps, 1),
        ]
        names = [self.constant(p) for p in parameters]
        epsilon = float(rng.choice([1e-5, 1e-2]))
        self.add("BatchNormalization", [x, *names], shape, epsilon=epsilon)

    def batch_normalization(self) -> None:
        self.normalize(self.pick())

    def unary(self, op_type: str) -> None:
        x = self.pick()
        self.add(op_type, [x], self.shapes[x])

    def clip(self) -> None:
        x = self.pick()
        low = self.constant(np.array(self.choose([0.0, -1.0]), np.float32))
        high = self.constant(np.array(self.choose([6.0, 1.0]), np.float32))
        self.add("Clip", [x, low, high], self.shapes[x])

    def binary_with_constant(self, op_type: str) -> None:
        x = self.pick()
        _, c, _, w = self.shapes[x]
        shape = self.choose([(c, 1, 1), (1, c, 1, 1), (), (1,), (1, 1, 1)])
        if not self.dynamic and self.rng.random() < 0.2:
            shape = (w,)
        operands = [x, self.constant(np.asarray(self.rng.uniform(-1, 1, shape)))]
        if self.rng.random() < 0.5:
            operands.reverse()
        self.add(op_type, operands, self.shapes[x])

    def binary(self, op_type: str) -> None:
        x = self.pick()
        shape = self.shapes[x]
        others = [n for n, s in self.shapes.items() if s == shape and (n != x or op_type == "Add")]
        if others:
            self.add(op_type, [x, self.choose(others)], shape)

    def broadcast_add(self) -> None:
        x = self.pick()
        n, c, h, w = self.shapes[x]
        others = [
            name
            for name, (n2, c2, h2, w2) in self.shapes.items()
            if (n2, c2) == (n, c) and (h2, w2) != (h, w) and {h2, w2} == {1}
        ]
        if others:
            self.add("Add", [x, self.choose(others)], (n, c, h, w))

    def concat(self) -> None:
        x = self.pick()
        n, c, h, w = self.shapes[x]
        others = [
            o for o, s in self.shapes.items() if (s[0], *s[2:]) == (n, h, w) and s[1] + c <= 24
        ]
        if others:
            other = self.choose(others)
            shape = (n, c + self.shapes[other][1], h, w)
            self.add("Concat", [x, other], shape, axis=1)

    def split(self) -> None:
        x = self.pick()
        n, c, h, w = self.shapes[x]
        if c < 2:
            return
        first = int(self.rng.integers(1, c))
        sizes = self.constant(np.array([first, c - first], np.int64))
        names = [self.fresh("v"), self.fresh("v")]
        self.nodes.append(helper.make_node("Split", [x, sizes], names, f"n_{names[0]}", axis=1))
        self.shapes[names[0]] = (n, first, h, w)
        self.shapes[names[1]] = (n, c - first, h, w)

    def pool(self, op_type: str) -> None:
        x = self.pick()
        n, c, h, w = self.shapes[x]
        kernel, stride = int(self.rng.integers(1, 4)), int(self.rng.integers(1, 3))
        pad = int(self.rng.integers(0, (kernel + 1) // 2))
        if min(h, w) + 2 * pad < kernel:
            return
        size = [(s + 2 * pad - kernel) // stride + 1 for s in (h, w)]
        self.add(
            op_type,
            [x],
            (n, c, size[0], size[1]),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
        )

    def global_pool(self) -> None:
        x = self.pick()
        n, c, _, _ = self.shapes[x]
        self.add("GlobalAveragePool", [x], (n, c, 1, 1))

    def reshape(self) -> None:
        x = self.pick()
        n, c, h, w = self.shapes[x]
        if c % 2 or n == 0:
            return
        shape = self.constant(np.array([0, c // 2, -1, 0], np.int64))
        # A zero copies the dimension at its own place: the last stays W, the third becomes 2 H.
        self.add("Reshape", [x, shape], (n, c // 2, 2 * h, w))

    def transpose(self) -> None:
        x = self.pick()
        n, c, h, w = self.shapes[x]
        if self.dynamic or self.rng.random() < 0.5 or w > 24:
            self.add("Transpose", [x], (n, c, w, h), perm=[0, 1, 3, 2])
        else:
            self.add("Transpose", [x], (n, w, c, h), perm=[0, 3, 1, 2])

    def keeping_adder(self, x: str, y: str, w: str) -> list[onnx.NodeProto]:
        """An adder node and a scaled Sigmoid behind it, of the shape of ``x``."""
        return [
            helper.make_node(
                "AdderConv", [x, w], [f"{y}_a"], f"n_{y}_a", domain=DOMAIN, pads=[1, 1, 1, 1]
            ),
            helper.make_node("Sigmoid", [f"{y}_a"], [y], f"n_{y}"),
        ]

    def small_filters(self, x: str) -> str:
        c = self.shapes[x][1]
        return self.constant(self.rng.uniform(-0.1, 0.1, (c, c, 3, 3)), "w")

    def branch(self) -> None:
        """If, whose branches capture outer values and hold an adder node."""
        x = self.pick()
        w, name = self.small_filters(x), self.fresh("v")
        if "flag" not in self.inputs:
            self.inputs["flag"] = np.array(bool(self.rng.integers(2)))
            self.input_shapes["flag"] = []
        other = self.choose([o for o, s in self.shapes.items() if s == self.shapes[x]])
        then_out, else_out = f"{name}_then", f"{name}_else"
        then_graph = helper.make_graph(
            self.keeping_adder(x, then_out, w),
            "then",
            [],
            [helper.make_tensor_value_info(then_out, TensorProto.FLOAT, None)],
        )
        else_graph = helper.make_graph(
            [helper.make_node("Tanh", [other], [else_out], f"n_{else_out}")],
            "else",
            [],
            [helper.make_tensor_value_info(else_out, TensorProto.FLOAT, None)],
        )
        self.nodes.append(
            helper.make_node(
                "If",
                ["flag"],
                [name],
                f"n_{name}",
                then_branch=then_graph,
                else_branch=else_graph,
            )
        )
        self.shapes[name] = self.shapes[x]

    def loop(self) -> None:
        """Loop with an adder node in its body, which captures its weight and another value."""
        x = self.pick()
        w, name = self.small_filters(x), self.fresh("v")
        other = self.choose([o for o, s in self.shapes.items() if s == self.shapes[x]])
        body = helper.make_graph(
            [
                *self.keeping_adder(f"{name}_in", f"{name}_s", w),
                helper.make_node("Add", [f"{name}_s", other], [f"{name}_out"], f"n_{name}_out"),
                helper.make_node("Identity", [f"{name}_go"], [f"{name}_on"], f"n_{name}_on"),
            ],
            "body",
            [
                helper.make_tensor_value_info(f"{name}_i", TensorProto.INT64, []),
                helper.make_tensor_value_info(f"{name}_go", TensorProto.BOOL, []),
                helper.make_tensor_value_info(f"{name}_in", TensorProto.FLOAT, [None] * 4),
            ],
            [
                helper.make_tensor_value_info(f"{name}_on", TensorProto.BOOL, []),
                helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [None] * 4),
            ],
        )
        trips = self.constant(np.array(int(self.rng.integers(0, 3)), np.int64))
        go = self.constant(np.array(True))
        self.nodes.append(helper.make_node("Loop", [trips, go, x], [name], f"n_{name}", body=body))
        self.shapes[name] = self.shapes[x]

    def function(self) -> None:
        """A local function of the user's that holds an adder node."""
        x = self.pick()
        self.functions["Block"] = helper.make_function(
            "user",
            "Block",
            ["x", "w"],
            ["y"],
            self.keeping_adder("x", "y", "w"),
            [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)],
        )
        self.add("Block", [x, self.small_filters(x)], self.shapes[x], domain="user")

    def model(self) -> onnx.ModelProto:
        """The finished model: unused values are its outputs, and some that are used."""
        used = {name for node in self.nodes for name in node.input}
        computed = [name for name in self.shapes if name[0] == "v"]
        outputs = [n for n in computed if n not in used or self.rng.random() < 0.1]
        declared = {
            name: [None] * 4 if self.dynamic else list(self.shapes[name]) for name in outputs
        }
        types = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(bool): TensorProto.BOOL}
        graph = helper.make_graph(
            self.nodes,
            "random",
            [
                helper.make_tensor_value_info(n, types[a.dtype], self.input_shapes[n])
                for n, a in self.inputs.items()
            ],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in declared.items()],
            [onnx.numpy_helper.from_array(a, n) for n, a in self.constants.items()],
        )
        domains = {"": OPSET, DOMAIN: VERSION, **{f.domain: 1 for f in self.functions.values()}}
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(d, v) for d, v in domains.items()],
            functions=[*self.functions.values(), *function_bodies(OPSET)],
            ir_version=10,
        )


def random_model(seed: int) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """A checked model and inputs for it."""
    rng = np.random.default_rng(seed)
    graph = RandomGraph(rng, dynamic=bool(rng.integers(2)))
    batch = int(rng.choice([1, 1, 2, 3]))
    size = [int(s) for s in rng.integers(3, 9, 2)]
    for i in range(int(rng.integers(1, 4))):
        channels = int(rng.integers(1, 7))
        shape = (batch, channels, size[0], size[1])
        name = f"x{i}"
        graph.inputs[name] = rng.standard_normal(shape).astype(np.float32)
        graph.input_shapes[name] = (
            ["N", channels, "H", "W"] if graph.dynamic else ["N", channels, size[0], size[1]]
        )
        graph.shapes[name] = shape
    operators: list[tuple[float, Any]] = [
        (6, lambda: graph.convolution("AdderConv")),
        (2, graph.residual_block),
        (2, lambda: graph.convolution("Conv")),
        (1, graph.batch_normalization),
        (2, lambda: graph.unary("Relu")),
        (1, lambda: graph.unary("Sigmoid")),
        (1, graph.clip),
        (1, lambda: graph.binary_with_constant("Add")),
        (1, lambda: graph.binary_with_constant("Mul")),
        (2, lambda: graph.binary("Add")),
        (0.5, lambda: graph.binary("Mul")),
        (0.5, graph.broadcast_add),
        (1, graph.concat),
        (1, graph.split),
        (0.7, lambda: graph.pool("MaxPool")),
        (0.7, lambda: graph.pool("AveragePool")),
        (0.3, graph.global_pool),
        (0.5, graph.reshape),
        (0.5, graph.transpose),
        (0.3, graph.branch),
        (0.3, graph.loop),
        (0.3, graph.function),
    ]
    weights = np.array([weight for weight, _ in operators])
    for _ in range(int(rng.integers(1, 16))):
        operators[int(rng.choice(len(operators), p=weights / weights.sum()))][1]()
    if not any(name[0] == "v" for name in graph.shapes):
        graph.unary("Relu")
    model = graph.model()
    onnx.checker.check_model(model)
    return model, graph.inputs
