"""From PyTorch to ONNX. The only part of the package that imports torch."""

from __future__ import annotations

from adder_onnx.errors import MissingDependencyError

try:
    import onnxscript as _onnxscript  # noqa: F401
    import safetensors as _safetensors  # noqa: F401
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise MissingDependencyError(
        f'{error.name} is not installed; exporting needs it: pip install "adder-onnx[cpu,export]"'
    ) from error

from adder_onnx.export.adder_conv2d import AdderConv2d, adder_conv2d
from adder_onnx.export.api import Exported, export_onnx
from adder_onnx.export.fake_quantization.integers import ExportedQuantized, export_quantized
from adder_onnx.export.fake_quantization.preparation import fake_quantize

__all__ = [
    "AdderConv2d",
    "Exported",
    "ExportedQuantized",
    "adder_conv2d",
    "export_onnx",
    "export_quantized",
    "fake_quantize",
]
