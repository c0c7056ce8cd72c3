"""Models whose adder nodes another tool has replaced by their function bodies."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from onnx_ir.passes.common import InlinePass

import adder_onnx
from adder_onnx.graph.loading import load_graph
from adder_onnx.ops import DOMAIN
from tests.models import Shape, adder_conv, make_model

Tool = Callable[[onnx.ModelProto], onnx.ModelProto]
Change = Callable[[onnx.FunctionProto], None]

WRITTEN_OUT: dict[str, Any] = {
    "auto_pad": "NOTSET",
    "dilations": [1, 1],
    "group": 1,
    "pads": [0, 0, 0, 0],
    "strides": [1, 1],
}
"""onnx's inliner does not know defaults of functions' attributes; our files write all out."""


def optimized_by_onnxruntime(level: str) -> Tool:
    """Onnxruntime's optimizer, as with ``SessionOptions.optimized_model_filepath``."""

    def optimize(model: onnx.ModelProto) -> onnx.ModelProto:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.log_severity_level = 4
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimized.onnx"
            options.optimized_model_filepath = str(path)
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            return onnx.load(path)

    return optimize


def inlined_by_onnx_ir(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = ir.from_proto(model)
    InlinePass()(graph)
    graph.functions.clear()  # those that no node uses stay
    return ir.to_proto(graph)


def inlined_by_onnx(model: onnx.ModelProto) -> onnx.ModelProto:
    inlined: onnx.ModelProto = onnx.inliner.inline_local_functions(model)
    return inlined


TOOLS: dict[str, Tool] = {
    "onnx": inlined_by_onnx,
    "onnx_ir": inlined_by_onnx_ir,
    "onnxruntime disable all": optimized_by_onnxruntime("ORT_DISABLE_ALL"),
    "onnxruntime basic": optimized_by_onnxruntime("ORT_ENABLE_BASIC"),
    "onnxruntime extended": optimized_by_onnxruntime("ORT_ENABLE_EXTENDED"),
    "onnxruntime all": optimized_by_onnxruntime("ORT_ENABLE_ALL"),
}


GEOMETRY: dict[str, Any] = {
    "auto_pad": "NOTSET",
    "dilations": [1, 2],
    "group": 2,
    "kernel_shape": [3, 2],
    "pads": [1, 0, 2, 1],
    "strides": [2, 1],
}
RNG = np.random.default_rng(0)
W = RNG.standard_normal((6, 3, 3, 2)).astype(np.float32)
X = RNG.standard_normal((2, 6, 7, 8)).astype(np.float32)


def no_change(body: onnx.FunctionProto) -> None:
    pass


def inlined(
    alter: Change = no_change,
    *,
    geometry: dict[str, Any] | None = None,
    x: Shape = ("N", 6, "H", "W"),
    w: NDArray[Any] = W,
    elem_type: int = TensorProto.FLOAT,
    output_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """One AdderConv between graph input and output, by its body with a change in it."""
    model = make_model(
        [adder_conv("X", "W", "Y", **(geometry or GEOMETRY))],
        {"X": x},
        {"Y": [None] * 4},
        {"W": w},
        elem_type=elem_type,
    )
    alter(next(f for f in model.functions if f.name == "AdderConv"))
    model.graph.output[0].type.tensor_type.elem_type = output_type
    return inlined_by_onnx_ir(model)


def adder_nodes(model: onnx.ModelProto) -> list[ir.Node]:
    """The adder nodes that a loaded model has."""
    return [node for node in load_graph(model).graph if node.domain == DOMAIN]


def by_onnxruntime(model: onnx.ModelProto, feed: dict[str, Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, feed)  # type: ignore[no-any-return]


def assert_left(
    model: onnx.ModelProto,
    reason: str,
    caplog: pytest.LogCaptureFixture,
    feed: dict[str, Any] | None = None,
) -> None:
    """No loop becomes an adder node, for this reason; and the results are onnxruntime's."""
    with caplog.at_level(logging.INFO, "adder_onnx"):
        assert not adder_nodes(model)
    assert reason in caplog.text
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "optimizer or inliner" in warnings[0].message
    if feed is not None:
        results = adder_onnx.InferenceSession(model.SerializeToString()).run(None, feed)
        for result, expected in zip(results, by_onnxruntime(model, feed), strict=True):
            np.testing.assert_array_equal(result, expected)


def insert(body: onnx.FunctionProto | onnx.GraphProto, output: str, node: onnx.NodeProto) -> None:
    """Inserts a node before the one that gives a value."""
    place = next(i for i, old in enumerate(body.node) if output in old.output)
    body.node.insert(place, node)


def node_of(graph: onnx.GraphProto | onnx.FunctionProto, output: str) -> onnx.NodeProto:
    """The node that gives a value, of a graph or function or a loop in it."""
    for node in graph.node:
        if output in node.output:
            return node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                try:
                    return node_of(attribute.g, output)
                except KeyError:
                    pass
    raise KeyError(output)


def change(
    graph: onnx.GraphProto | onnx.FunctionProto,
    output: str,
    op_type: str | None = None,
    inputs: list[str] | None = None,
    **attributes: Any,
) -> None:
    """Changes the node that gives a value; an attribute that is None is removed."""
    node = node_of(graph, output)
    if op_type is not None:
        node.op_type = op_type
        del node.attribute[:]
    if inputs is not None:
        node.input[:] = inputs
    for name, value in attributes.items():
        for old in [a for a in node.attribute if a.name == name]:
            node.attribute.remove(old)
        if value is not None:
            node.attribute.append(onnx.helper.make_attribute(name, value))
