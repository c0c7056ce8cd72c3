"""From PyTorch to ONNX. The only part of the package that imports torch."""

from __future__ import annotations

from adder_onnx.dependencies import import_failure

try:
    import onnxscript as _onnxscript  # noqa: F401
    import safetensors as _safetensors  # noqa: F401
    import torch as _torch  # noqa: F401
except (ImportError, OSError) as error:
    _package = getattr(error, "name", None) or "torch"
    raise import_failure(
        error,
        _package,
        'pip install "adder-onnx[cpu,export]"',
        f"{_package}, which exporting needs,",
    ) from error

from adder_onnx.export.adder_conv2d import AdderConv2d, adder_conv2d
from adder_onnx.export.api import Exported, export_onnx
from adder_onnx.export.fake_quantization.integers import ExportedQuantized, export_quantized
from adder_onnx.export.fake_quantization.preparation import fake_quantize
from adder_onnx.export.verification import Comparison, Verification

__all__ = [
    "AdderConv2d",
    "Comparison",
    "Exported",
    "ExportedQuantized",
    "Verification",
    "adder_conv2d",
    "export_onnx",
    "export_quantized",
    "fake_quantize",
]
