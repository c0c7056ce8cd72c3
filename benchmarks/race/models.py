"""The files that the contenders run, made once in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn
from torch.nn import functional

from adder_onnx.export import AdderConv2d
from adder_onnx.quantization import quantize
from benchmarks.networks import NETWORKS, adder_network, export_adder, twin
from benchmarks.race.contenders import LEVELS

__all__ = ["files", "reference_network"]

CALIBRATION_IMAGES = 16


def files(name: str, folder: Path) -> dict[str, Path]:
    """Paths of the adder network and of its convolutional twin, each in float32 and int8."""
    folder.mkdir(parents=True, exist_ok=True)
    float32, int8 = folder / f"{name}_conv.onnx", folder / f"{name}_conv_int8.onnx"
    adder, adder_int8 = export_adder(name, folder), folder / f"{name}_adder_int8.onnx"
    for levels in LEVELS.values():
        few = folder / f"{name}_adder_levels{levels}.onnx"
        if not few.exists():
            _quantize_adder(adder, NETWORKS[name].size, few, levels)
    if not float32.exists():
        _export(twin(name), NETWORKS[name].size, float32)
    if not int8.exists():
        _quantize(float32, NETWORKS[name].size, int8)
    if not adder_int8.exists():
        _quantize_adder(adder, NETWORKS[name].size, adder_int8)
    return {"adder": adder, "adder int8": adder_int8, "conv": float32, "conv int8": int8}


def _export(network: nn.Module, size: int, path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.onnx.export(
        network,
        (torch.randn(2, 3, size, size),),
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: batch},),
        dynamo=True,
        opset_version=18,
        verbose=False,
    )
    assert program is not None
    program.save(path)


def _quantize_adder(float32: Path, size: int, path: Path, levels: int | None = None) -> None:
    """As ``adder-quantize`` does; stem and head stay float, which is faster than QDQ here."""
    onnx.save(quantize(onnx.load(float32), _images(size), levels=levels).model, path)


def _images(size: int) -> Iterator[dict[str, Any]]:
    """Random images, of the distribution that the network's statistics were set by."""
    rng = np.random.default_rng(0)
    for _ in range(CALIBRATION_IMAGES):
        yield {"input": rng.standard_normal((1, 3, size, size)).astype(np.float32)}


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, size: int) -> None:
        self._images = _images(size)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._images, None)


def _quantize(float32: Path, size: int, path: Path) -> None:
    """QDQ, weights per channel: what onnxruntime's and OpenVINO's int8 kernels both take."""
    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(float32, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        path,
        _Images(size),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()


class _Reference(nn.Module):
    """An adder layer in the reference implementation's formulation: unfold, then torch.cdist."""

    def __init__(self, layer: AdderConv2d) -> None:
        super().__init__()
        self.register_buffer("filters", layer.adder.detach().flatten(1))
        self.kernel, self.stride, self.padding = layer.kernel_size, layer.stride, layer.padding

    def forward(self, x: Tensor) -> Tensor:
        columns = functional.unfold(x, self.kernel, padding=self.padding, stride=self.stride)
        batch, taps, _ = columns.shape
        columns = columns.permute(1, 2, 0).reshape(taps, -1)
        y = -torch.cdist(self.filters, columns.t().contiguous(), p=1)  # type: ignore[arg-type]
        size = [
            (x.shape[i + 2] + 2 * self.padding[i] - self.kernel[i]) // self.stride[i] + 1
            for i in range(2)
        ]
        return y.reshape(-1, *size, batch).permute(3, 0, 1, 2).contiguous()


def reference_network(name: str) -> nn.Module:
    """The adder network as people run it today."""
    network = adder_network(name)
    for path, module in list(network.named_modules()):
        if isinstance(module, AdderConv2d):
            parent, _, child = path.rpartition(".")
            setattr(network.get_submodule(parent), child, _Reference(module))
    return network.eval()
