"""Small models of integer adder nodes and MaxPool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from adder_onnx.ops import DOMAIN, VERSION, function_bodies
from tests.models import node

__all__ = ["CHANNELS", "adder", "make_model", "pool", "pooled_network"]

CHANNELS = 5


def adder(x: str, y: str, bits: int = 8) -> onnx.NodeProto:
    inputs = [x, "w", "s", "z", "scale", "bias", "none", "one", "none", "s", "z"]
    attributes: dict[str, Any] = {"bits": bits, "clip_min": 0.0, "kernel_shape": [1, 1]}
    attributes |= {"auto_pad": "NOTSET", "dilations": [1, 1], "group": 1, "strides": [1, 1]}
    return helper.make_node(
        "QLinearAdderConv", inputs, [y], f"n_{y}", domain=DOMAIN, pads=[0] * 4, **attributes
    )


def pool(x: str, y: str, kernel: Sequence[int] = (2, 2), **attributes: Any) -> onnx.NodeProto:
    return node("MaxPool", [x], y, kernel_shape=list(kernel), **attributes)


def make_model(
    nodes: Sequence[onnx.NodeProto],
    outputs: dict[str, int] | Sequence[str],
    constants: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    """From X, uint8, (N, 5, H, W), to ``outputs``, of these element types or of uint8."""
    if not isinstance(outputs, dict):
        outputs = dict.fromkeys(outputs, TensorProto.UINT8)
    rng = np.random.default_rng(0)
    values: dict[str, Any] = {
        "w": rng.integers(0, 256, (CHANNELS, CHANNELS, 1, 1), np.uint8),
        "s": np.float32(0.05),
        "z": np.uint8(3),
        "scale": -rng.uniform(0.5, 1.5, CHANNELS).astype(np.float32),
        "bias": -rng.uniform(5, 20, CHANNELS).astype(np.float32),
        "none": np.uint8(0),
        "one": np.float32(1),
        **(constants or {}),
    }
    shape = ["N", CHANNELS, "H", "W"]
    graph = helper.make_graph(
        list(nodes),
        "pools",
        [helper.make_tensor_value_info("X", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(n, t, [None] * 4) for n, t in outputs.items()],
        [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in values.items()],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)],
        functions=function_bodies(18),
        ir_version=10,
    )
    onnx.checker.check_model(model)
    return model


def pooled_network() -> onnx.ModelProto:
    """Two pools, with padding and with overlap, between three adder nodes."""
    nodes = [
        adder("X", "A"),
        pool("A", "P", (3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
        adder("P", "B"),
        pool("B", "Q"),
        adder("Q", "Y"),
    ]
    return make_model(nodes, "Y")
