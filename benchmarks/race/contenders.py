"""Who takes part, in which file; kept apart from what imports torch."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CONTENDERS", "HOLDS", "LEVELS", "RACES", "SIZES", "SLOW", "has_more_than"]

CONTENDERS = {
    "adder-onnx, uint8": ("ours", "adder_int8"),
    "adder-onnx, 8 levels": ("ours", "adder_levels8"),
    "adder-onnx, 4 levels": ("ours", "adder_levels4"),
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

LEVELS = {"adder-onnx, 8 levels": 8, "adder-onnx, 4 levels": 4}
"""Contenders of few levels, which take part where taps of so many are looked up."""

SIZES = {"resnet20": 32, "resnet50": 224}

RACES = {"resnet20": (1, 16, 128), "resnet50": (1, 8)}
"""Batch sizes by network."""

HOLDS = {
    "avx2": {
        "ours": {"ADDER_ONNX_CPU_ISA": "avx2"},
        "openvino": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    }
}
"""By instruction set and kind: the variables by which a runtime uses no more than that set.

onnxruntime has none: its kernels ask the processor and nobody else. So where a processor has more,
it takes no part, and it runs the standard nodes of our networks, stem and head, as it likes.
"""

_MORE = {"avx2": ("avx512", "avx_vnni", "avx10")}


def has_more_than(isa: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this machine has vector instructions beyond a set, by what Linux says of it.

    Raises:
        OSError: it says nothing.
    """
    flags = set()
    for line in cpuinfo.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            flags.update(value.split())
    return any(flag.startswith(_MORE[isa]) for flag in flags)
