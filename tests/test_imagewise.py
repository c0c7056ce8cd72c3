"""Sub-models that run on a few images of a batch at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import adder_onnx
from adder_onnx.errors import InputError
from adder_onnx.runtime import onnxruntime_step
from adder_onnx.runtime.imagewise import is_imagewise
from tests.models import K, adder_conv, image, make_model, node

SHAPE = ["N", 3, 8, 9]


CONSTANTS: dict[str, np.ndarray[Any, Any]] = {
    "K": K,
    "c": np.ones((1, 3, 1, 1), np.float32),
    "s": np.asarray(np.float32(0.1)),
    "z": np.asarray(np.uint8(3)),
    "each": np.full(3, 0.1, np.float32),
    "zeros": np.zeros(3, np.uint8),
    "shape": np.asarray([-1, 216], np.int64),
    "weights": np.ones((3, 3, 1, 1), np.uint8),
}


def model(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    """Not checked: some of the nodes are not as onnx wants them."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, [None] * 4)],
        [onnx.numpy_helper.from_array(value, name) for name, value in CONSTANTS.items()],
    )
    return helper.make_model(graph)


CONV = node("Conv", ["X", "K"], "Y")
YES: dict[str, list[onnx.NodeProto]] = {
    "conv": [CONV],
    "stem": [
        node("Conv", ["X", "K"], "A"),
        node("Relu", ["A"], "B"),
        node("MaxPool", ["B"], "Y", kernel_shape=[2, 2]),
    ],
    "quantized": [
        node("QuantizeLinear", ["X", "s", "z"], "A"),
        node("DequantizeLinear", ["A", "s", "z"], "B"),
        node("DequantizeLinear", ["weights", "s", "z"], "C"),
        node("Conv", ["B", "C"], "Y"),
    ],
    "quantized by channel": [
        node("QuantizeLinear", ["X", "each", "zeros"], "A", axis=1),
        node("DequantizeLinear", ["A", "each", "zeros"], "Y", axis=1),
    ],
}
NO: dict[str, list[onnx.NodeProto]] = {
    "reshape": [node("Reshape", ["X", "shape"], "Y")],
    "softmax over the batch": [node("Softmax", ["X"], "Y", axis=0)],
    "computed filters": [
        node("ReduceMean", ["X"], "A", keepdims=1),
        node("Conv", ["X", "A"], "Y"),
    ],
    "a mean among filters": [node("Relu", ["X"], "A"), node("Conv", ["A", "X"], "Y")],
    "quantized by image": [
        node("QuantizeLinear", ["X", "each", "zeros"], "A", axis=0),
        node("DequantizeLinear", ["A", "each", "zeros"], "Y", axis=0),
    ],
    "quantized by image, counted from the end": [
        node("QuantizeLinear", ["X", "each", "zeros"], "Y", axis=-4),
    ],
    "an axis that may be the batch": [
        node("QuantizeLinear", ["X", "each", "zeros"], "Y", axis=-2),
    ],
    "a constant comes out": [node("Relu", ["c"], "Y")],
    "several outputs": [helper.make_node("MaxPool", ["X"], ["Y", "I"], "n", kernel_shape=[2, 2])],
    "another domain": [helper.make_node("Relu", ["X"], ["Y"], "n", domain="custom")],
}


@pytest.mark.parametrize("name", YES)
def test_treats_images_one_by_one(name: str) -> None:
    assert is_imagewise(model(YES[name]))


@pytest.mark.parametrize("name", NO)
def test_may_mix_images(name: str) -> None:
    assert not is_imagewise(model(NO[name]))


def test_an_output_without_a_batch() -> None:
    scalar = model([CONV])
    del scalar.graph.output[0].type.tensor_type.shape.dim[:]
    assert not is_imagewise(scalar)


@pytest.mark.parametrize("batch", [1, 3, 4, 5, 8])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("is_fixed", [False, True])
def test_slices_give_what_the_batch_gives(
    monkeypatch: pytest.MonkeyPatch, batch: int, threads: int, is_fixed: bool
) -> None:
    monkeypatch.setattr(onnxruntime_step, "_LARGE_BYTES", 1)
    monkeypatch.setattr(onnxruntime_step, "_SLICE_BYTES", 2 * 3 * 8 * 9 * 4)
    images = batch if is_fixed else "N"
    proto = make_model(
        [
            node("Conv", ["X", "K"], "A"),
            node("Relu", ["A"], "B"),
            adder_conv("B", "W", "C"),
            node("Sigmoid", ["C"], "Y"),
        ],
        {"X": [images, 3, 8, 9]},
        {"Y": [images, 2, 8, 9], "B": [images, 3, 8, 9]},
        {"K": K, "W": np.ones((2, 3, 1, 1), np.float32)},
    )
    feed = {"X": image(batch, 3, 8, 9)}
    session = adder_onnx.InferenceSession(proto.SerializeToString(), threads=threads)
    calls: list[Any] = []
    executor = session._runner._executors[0]  # type: ignore[union-attr]
    run = executor._run  # type: ignore[union-attr]
    monkeypatch.setattr(
        executor,
        "_run",
        lambda feeds, options: calls.append(len(feeds["X"])) or run(feeds, options),
    )
    found = session.run(None, feed)
    assert calls == [min(batch, max(2, threads))]
    expected = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(None, feed)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    again = session.run(None, feed)
    assert found[0].ctypes.data != again[0].ctypes.data
    if is_fixed:
        with pytest.raises(InputError, match=rf"expected \[{batch}, 3, 8, 9\]"):
            session.run(None, {"X": image(9, 3, 8, 9)})
