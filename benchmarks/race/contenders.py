"""Who takes part, in which file; kept apart from what imports torch."""

from __future__ import annotations

__all__ = ["CONTENDERS", "RACES", "SIZES", "SLOW"]

CONTENDERS = {
    "adder-onnx, uint8": ("ours", "adder_int8"),
    "adder-onnx, float32": ("ours", "adder"),
    "onnxruntime, float32 conv": ("onnxruntime", "conv"),
    "onnxruntime, int8 conv": ("onnxruntime", "conv_int8"),
    "OpenVINO, float32 conv": ("openvino", "conv"),
    "OpenVINO, int8 conv": ("openvino", "conv_int8"),
    "torch.cdist": ("cdist", ""),
    "onnxruntime, our file": ("onnxruntime", "adder"),
}
"""By name: the kind of runtime, and the file's name behind that of the network."""

SLOW = ("torch.cdist", "onnxruntime, our file")
"""Those that take seconds for a run of a large network: they have fewer turns."""

SIZES = {"resnet20": 32, "resnet50": 224}

RACES = {"resnet20": (1, 16, 128), "resnet50": (1, 8)}
"""Batch sizes by network."""
