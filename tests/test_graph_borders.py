"""Which quantizations are taken into the conversions at a chain's border, rule by rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import adder_onnx
from adder_onnx.graph.adder_node import PackedWeight
from adder_onnx.graph.plan import ChainStep, ConversionStep, OnnxruntimeStep
from adder_onnx.ops import DOMAIN, VERSION, function_bodies
from tests.models import node

RNG = np.random.default_rng(0)
SHAPE = ["N", 4, 6, 5]
SCALE, ZERO = np.float32(0.05), np.uint8(3)
CONSTANTS: dict[str, NDArray[Any]] = {
    "W": RNG.integers(0, 200, (4, 4, 3, 3), np.uint8),
    "s": np.asarray(SCALE),
    "z": np.asarray(ZERO),
    "s1": np.asarray(np.float32(1)),
    "s2": np.asarray(np.float32(0.3)),
    "none": np.asarray(np.uint8(0)),
    "m": np.asarray([1, -1, 0.5, 2], np.float32),
    "b": np.asarray([195, -130, 110, 350], np.float32),
    "low": np.asarray((0 - np.float32(ZERO)) * SCALE, np.float32),
    "high": np.asarray((15 - np.float32(ZERO)) * SCALE, np.float32),
    "above": np.asarray(1.0, np.float32),
    "F": RNG.integers(0, 200, (4, 4, 1, 1)).astype(np.float32),
    "each": np.asarray([0.05, 0.1, 0.05, 0.2], np.float32),
    "zeros": np.zeros(4, np.uint8),
    "signed": np.asarray(np.int8(-3)),
    "table": RNG.integers(0, 256, 256, np.uint8),
    "few": np.asarray([3, 200], np.uint8)[RNG.integers(0, 2, 256)],
    "longer": RNG.integers(0, 256, 257, np.uint8),
    "deep": RNG.integers(0, 256, (256, 1), np.uint8),
    "floats": RNG.uniform(0, 9, 256).astype(np.float32),
    "last": np.asarray([4]),
    "eye": np.eye(4, dtype=np.uint8).reshape(4, 4, 1, 1),
}
ABSORBED = ("QuantizeLinear", "Clip", "Cast", "Gather", "DequantizeLinear")


def adder(x: str, y: str, z: str = "") -> onnx.NodeProto:
    """An integer adder node of the output's own scale; a residual has the input's."""
    residual = [z, "s", "z"] if z else ["none", "s1", "none"]
    inputs = [x, "W", "s", "z", "m", "b", *residual, "s2", "z"]
    return helper.make_node(
        "QLinearAdderConv", inputs, [y], f"n_{y}", domain=DOMAIN, pads=[1] * 4, clip_min=-np.inf
    )


QUANTIZE = node("QuantizeLinear", ["R", "s", "z"], "q")
ADDER = adder("q", "a")
DEQUANTIZE = node("DequantizeLinear", ["a", "s2", "z"], "D")
RELU, LAST = node("Relu", ["X"], "R"), node("Sigmoid", ["D"], "Y")


def model(nodes: list[onnx.NodeProto], outputs: dict[str, int], opset: int = 18) -> onnx.ModelProto:
    used = {name for n in nodes for name in n.input}
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info(n, t, SHAPE) for n, t in outputs.items()],
        [onnx.numpy_helper.from_array(v, n) for n, v in CONSTANTS.items() if n in used],
    )
    result = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, VERSION)],
        functions=function_bodies(opset),
        ir_version=10,
    )
    onnx.checker.check_model(result)
    return result


TO_INTEGERS = node("QuantizeLinear", ["R", "s", "z"], "i")
TO_INDICES = node("Cast", ["i"], "j", to=TensorProto.INT32)
LOOKUP = node("Gather", ["table", "j"], "q")
LEFT = ["QuantizeLinear", "Cast", "Gather"]

FLOAT, BYTE = TensorProto.FLOAT, TensorProto.UINT8
CLIP = node("Clip", ["R", "low", "high"], "C")
CLIPPED = node("QuantizeLinear", ["C", "s", "z"], "q")

# Nodes, outputs, and the operators among them that are left to onnxruntime.
CASES: dict[str, tuple[list[onnx.NodeProto], dict[str, int], list[str]]] = {
    "both": ([RELU, QUANTIZE, ADDER, DEQUANTIZE, LAST], {"Y": FLOAT}, []),
    "of the input, as an output": (
        [node("QuantizeLinear", ["X", "s", "z"], "q"), ADDER, DEQUANTIZE],
        {"D": FLOAT},
        [],
    ),
    "without a zero point": (
        [RELU, node("QuantizeLinear", ["R", "s"], "q"), ADDER],
        {"a": BYTE},
        [],
    ),
    "clip": ([RELU, CLIP, CLIPPED, ADDER, DEQUANTIZE, LAST], {"Y": FLOAT}, []),
    "clip above zero": (
        [RELU, node("Clip", ["R", "above", "high"], "C"), CLIPPED, ADDER],
        {"a": BYTE},
        ["Clip"],
    ),
    "clip without a bound": (
        [RELU, node("Clip", ["R", "", "high"], "C"), CLIPPED, ADDER],
        {"a": BYTE},
        ["Clip"],
    ),
    "clip with another use": (
        [RELU, CLIP, CLIPPED, ADDER, node("Exp", ["C"], "Y")],
        {"a": BYTE, "Y": FLOAT},
        ["Clip"],
    ),
    "clip as an output": ([RELU, CLIP, CLIPPED, ADDER], {"a": BYTE, "C": FLOAT}, ["Clip"]),
    "input and residual": (
        [RELU, QUANTIZE, adder("q", "a", "q"), DEQUANTIZE, LAST],
        {"Y": FLOAT},
        [],
    ),
    "quantized for a standard node too": (
        [RELU, QUANTIZE, ADDER, node("MaxPool", ["q"], "p", kernel_shape=[1, 1])],
        {"a": BYTE, "p": BYTE},
        ["QuantizeLinear"],
    ),
    "quantized as an output": (
        [RELU, QUANTIZE, ADDER],
        {"a": BYTE, "q": BYTE},
        ["QuantizeLinear"],
    ),
    "scale by channel": (
        [RELU, node("QuantizeLinear", ["R", "each", "zeros"], "q"), ADDER],
        {"a": BYTE},
        ["QuantizeLinear"],
    ),
    "what an adder node gives, requantized": (
        [RELU, QUANTIZE, ADDER, DEQUANTIZE, node("QuantizeLinear", ["D", "s", "z"], "q1"),
         adder("q1", "a1")],
        {"a1": BYTE},
        ["QuantizeLinear"],
    ),
    "scale by channel, without a zero point": (
        [RELU, node("QuantizeLinear", ["R", "each"], "q", axis=1), ADDER],
        {"a": BYTE},
        ["QuantizeLinear"],
    ),
    "dequantized from a standard node": (
        [RELU, QUANTIZE, ADDER, node("Transpose", ["a"], "p", perm=[0, 1, 2, 3]),
         node("DequantizeLinear", ["p", "s2", "z"], "D"), LAST],
        {"Y": FLOAT},
        ["DequantizeLinear"],
    ),
    "dequantized from a MaxPool in the chain": (
        [RELU, QUANTIZE, ADDER, node("MaxPool", ["a"], "p", kernel_shape=[1, 1]),
         node("DequantizeLinear", ["p", "s2", "z"], "D"), LAST],
        {"Y": FLOAT},
        [],
    ),
    "dequantized for a float adder node": (
        [RELU, QUANTIZE, ADDER, DEQUANTIZE,
         helper.make_node("AdderConv", ["D", "F"], ["Y"], "n_Y", domain=DOMAIN)],
        {"Y": FLOAT},
        ["DequantizeLinear"],
    ),
    "dequantized by channel": (
        [RELU, QUANTIZE, ADDER, node("DequantizeLinear", ["a", "each", "zeros"], "D"), LAST],
        {"Y": FLOAT},
        ["DequantizeLinear"],
    ),
    "dequantized, and integers for others": (
        [RELU, QUANTIZE, ADDER, DEQUANTIZE, LAST],
        {"Y": FLOAT, "a": BYTE},
        [],
    ),
    "used by two chains": (
        [RELU, QUANTIZE, ADDER, DEQUANTIZE, LAST, node("QuantizeLinear", ["Y", "s", "z"], "q1"),
         adder("q1", "a1", "q")],
        {"a1": BYTE},
        [],
    ),
    "quantized long before it is used": (
        [RELU, QUANTIZE, node("QuantizeLinear", ["X", "s", "z"], "q0"), adder("q0", "a0"),
         node("DequantizeLinear", ["a0", "s2", "z"], "D"), LAST,
         node("QuantizeLinear", ["Y", "s", "z"], "q1"), adder("q1", "a1", "q")],
        {"a1": BYTE},
        [],
    ),
    "table": ([RELU, TO_INTEGERS, TO_INDICES, LOOKUP, ADDER, DEQUANTIZE, LAST], {"Y": FLOAT}, []),
    "table of few values, of the input": (
        [node("QuantizeLinear", ["X", "s", "z"], "i"), TO_INDICES,
         node("Gather", ["few", "j"], "q"), ADDER],
        {"a": BYTE},
        [],
    ),
    "table behind a clip": (
        [RELU, CLIP, node("QuantizeLinear", ["C", "s", "z"], "i"), TO_INDICES, LOOKUP, ADDER],
        {"a": BYTE},
        [],
    ),
    "table by 64-bit indices, along axis 0": (
        [RELU, TO_INTEGERS, node("Cast", ["i"], "j", to=TensorProto.INT64),
         node("Gather", ["table", "j"], "q", axis=0), ADDER],
        {"a": BYTE},
        [],
    ),
    "table for an input and a residual": (
        [RELU, TO_INTEGERS, TO_INDICES, LOOKUP, adder("q", "a", "q"), adder("a", "a1", "q")],
        {"a1": BYTE},
        [],
    ),
    "table along the last axis": (
        [RELU, TO_INTEGERS, TO_INDICES, node("Gather", ["table", "j"], "q", axis=-1), ADDER],
        {"a": BYTE},
        LEFT,
    ),
    "table of more integers": (
        [RELU, TO_INTEGERS, TO_INDICES, node("Gather", ["longer", "j"], "q"), ADDER],
        {"a": BYTE},
        LEFT,
    ),
    "table of more dimensions": (
        [RELU, TO_INTEGERS, TO_INDICES, node("Gather", ["deep", "j"], "g"),
         node("Squeeze", ["g", "last"], "q"), ADDER],
        {"a": BYTE},
        LEFT,
    ),
    "table of floats": (
        [RELU, TO_INTEGERS, TO_INDICES, node("Gather", ["floats", "j"], "g"),
         node("QuantizeLinear", ["g", "s", "z"], "q"), ADDER],
        {"a": BYTE},
        LEFT,
    ),
    "table of signed integers": (
        [RELU, node("QuantizeLinear", ["R", "s", "signed"], "i"), TO_INDICES, LOOKUP, ADDER],
        {"a": BYTE},
        LEFT,
    ),
    "table by indices that are computed": (
        [RELU, TO_INTEGERS, node("ConvInteger", ["i", "eye"], "j"), LOOKUP, ADDER],
        {"a": BYTE},
        ["QuantizeLinear", "Gather"],
    ),
    "table for a standard node, too": (
        [RELU, TO_INTEGERS, TO_INDICES, LOOKUP, ADDER,
         node("MaxPool", ["q"], "p", kernel_shape=[1, 1])],
        {"a": BYTE, "p": BYTE},
        LEFT,
    ),
    "table as an output": (
        [RELU, TO_INTEGERS, TO_INDICES, LOOKUP, ADDER],
        {"a": BYTE, "q": BYTE},
        LEFT,
    ),
    "indices as an output": (
        [RELU, TO_INTEGERS, TO_INDICES, LOOKUP, ADDER],
        {"a": BYTE, "j": TensorProto.INT32},
        LEFT,
    ),
    "indices for two tables": (
        [RELU, TO_INTEGERS, TO_INDICES, LOOKUP, node("Gather", ["few", "j"], "q1"), ADDER,
         adder("q1", "a1")],
        {"a": BYTE, "a1": BYTE},
        [*LEFT, "Gather"],
    ),
    "integers for others than the table": (
        [RELU, TO_INTEGERS, TO_INDICES, LOOKUP, ADDER, node("Identity", ["i"], "p")],
        {"a": BYTE, "p": BYTE},
        LEFT,
    ),
    "integers for the table and an adder node": (
        [RELU, TO_INTEGERS, TO_INDICES, LOOKUP, ADDER, adder("i", "a1")],
        {"a": BYTE, "a1": BYTE},
        LEFT,
    ),
    "table of what an adder node gives": (
        [RELU, QUANTIZE, ADDER, DEQUANTIZE, node("QuantizeLinear", ["D", "s", "z"], "i1"),
         node("Cast", ["i1"], "j1", to=TensorProto.INT32), node("Gather", ["table", "j1"], "q1"),
         adder("q1", "a1")],
        {"a1": BYTE},
        LEFT,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_rules(case: str) -> None:
    nodes, outputs, left = CASES[case]
    proto = model(nodes, outputs)
    session = adder_onnx.InferenceSession(proto.SerializeToString())
    steps = session.plan.steps
    models = [step.model.graph for step in steps if isinstance(step, OnnxruntimeStep)]
    assert [n.op_type for g in models for n in g.node if n.op_type in ABSORBED] == left
    absorbed = [s.quantization for s in steps if isinstance(s, ConversionStep) and s.quantization]
    count = sum(n.op_type in ABSORBED for n in nodes) - len(left)
    assert sum(len(q.nodes) for q in absorbed) == count
    x = RNG.uniform(-1, 20 * SCALE, (3, 4, 6, 5)).astype(np.float32)
    x.flat[:3] = [np.inf, -np.inf, 1e30]
    expected = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(None, {"X": x})
    for ours, theirs in zip(session.run(None, {"X": x}), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        assert len(np.unique(theirs)) > 3


@pytest.mark.parametrize("table", [False, True])
def test_float16_is_quantized_by_onnxruntime(table: bool) -> None:
    CONSTANTS["half"] = np.asarray(np.float16(0.05))
    nodes = [
        node("Cast", ["X"], "R", to=TensorProto.FLOAT16),
        node("QuantizeLinear", ["R", "half", "z"], "i" if table else "q"),
        *([TO_INDICES, LOOKUP] if table else []),
        ADDER,
    ]
    proto = model(nodes, {"a": BYTE}, opset=19)
    session = adder_onnx.InferenceSession(proto.SerializeToString())
    assert not any(getattr(step, "quantization", None) for step in session.plan.steps)
    x = RNG.uniform(-1, 20 * SCALE, (3, 4, 6, 5)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(None, {"X": x})
    np.testing.assert_array_equal(session.run(None, {"X": x})[0], expected)


def test_what_is_clipped_is_used() -> None:
    """The case with a Clip has values above its bound, which would become other integers."""
    nodes, outputs, _ = CASES["clip"]
    plain = [RELU, QUANTIZE, *nodes[3:]]
    x = RNG.uniform(-1, 20 * SCALE, (3, 4, 6, 5)).astype(np.float32)
    results = [
        adder_onnx.InferenceSession(model(n, outputs).SerializeToString()).run(None, {"X": x})[0]
        for n in (nodes, plain)
    ]
    assert not np.array_equal(*results)


def test_weights_are_dequantized_where_they_are_used() -> None:
    """A constant's DequantizeLinear is not computed in the first sub-model for the last one."""
    constants = {"k": RNG.integers(0, 9, (2, 4, 1, 1), np.uint8)}
    CONSTANTS.update(constants)
    nodes = [RELU, QUANTIZE, ADDER, DEQUANTIZE, node("DequantizeLinear", ["k", "s", "z"], "kf"),
             node("Conv", ["D", "kf"], "Y")]  # fmt: skip
    proto = model(nodes, {"Y": FLOAT})
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    session = adder_onnx.InferenceSession(proto.SerializeToString())
    first, last = (s for s in session.plan.steps if isinstance(s, OnnxruntimeStep))
    assert (first.nodes, last.nodes) == (("n_R",), ("n_kf", "n_Y"))
    assert (first.outputs, last.inputs) == (("R",), ("D",))


@pytest.mark.parametrize("scale", [0.0, -0.3, np.inf])
def test_scales_that_the_kernels_cannot_divide_by(scale: float) -> None:
    """Such a node runs by its body, as in onnxruntime."""
    proto = model([RELU, QUANTIZE, ADDER], {"a": BYTE})
    for tensor in proto.graph.initializer:
        if tensor.name == "s2":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32(scale), "s2"))
    session = adder_onnx.InferenceSession(proto.SerializeToString())
    assert not any(isinstance(step, ChainStep) for step in session.plan.steps)
    assert session.run(None, {"X": np.ones((1, 4, 6, 5), np.float32)})[0].shape == (1, 4, 6, 5)


def test_a_sessions_plan_keeps_shapes_of_weights_only() -> None:
    session = adder_onnx.InferenceSession(
        model([RELU, QUANTIZE, ADDER], {"a": BYTE}).SerializeToString()
    )
    (chain,) = (step for step in session.plan.steps if isinstance(step, ChainStep))
    assert chain.nodes[0].weight == PackedWeight((4, 4, 3, 3))
