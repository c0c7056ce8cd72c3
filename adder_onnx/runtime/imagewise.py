"""Sub-models that treat the images of a batch one by one.

Such a sub-model may run on a few images at a time: its inner tensors, which are the largest of
a network in float32 before the first chain, then take little memory. It is one where

1. every node is one of a list of operators that do not mix images, with one output, constants for
   all inputs but the first, and, where it scales per axis, not along the batch;
2. all that enters and leaves it has a batch as its first dimension.
"""

from __future__ import annotations

import onnx

__all__ = ["is_imagewise", "with_any_batch"]

_OPERATORS = frozenset(
    (
        *("AveragePool", "BatchNormalization", "Clip", "Conv", "DequantizeLinear", "Elu"),
        *("GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "LeakyRelu"),
        *("MaxPool", "QuantizeLinear", "Relu", "Sigmoid", "Tanh"),
    )
)


def is_imagewise(model: onnx.ModelProto) -> bool:
    """Whether a sub-model treats images one by one."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer} | {""}
    images = {value.name for value in graph.input}
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in _OPERATORS:
            return False
        if len(node.output) != 1:
            return False
        if constants.issuperset(node.input):
            constants.update(node.output)
            continue
        if not constants.issuperset(node.input[1:]) or _mixes_images(node):
            return False
        images.update(node.output)
    return all(
        value.name in images and len(value.type.tensor_type.shape.dim) > 0
        for value in (*graph.input, *graph.output)
    )


def _mixes_images(node: onnx.NodeProto) -> bool:
    for attribute in node.attribute:
        if attribute.name == "axis" and attribute.i != 1:  # it may count from the end
            return True
        if attribute.name == "training_mode" and attribute.i:
            return True
    return False


def with_any_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """An image-wise sub-model for any number of images, also where its inputs have a fixed one."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.shape.dim[0].Clear()
    del copy.graph.value_info[:]  # the runtime infers what it needs
    return copy
