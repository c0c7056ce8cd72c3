"""`export_quantized`: from a fine-tuned model to a file with integer nodes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adder_onnx.errors import ExportError, InputError
from adder_onnx.export.adder_layers import convert_adder_layers
from adder_onnx.export.api import runners
from adder_onnx.export.exporter import DEFAULT_OPSET, export_model
from adder_onnx.export.fake_quantization.preparation import (
    Batch,
    copied,
    images_of,
    is_fake_quantized,
    running,
)
from adder_onnx.export.fake_quantization.quantizer import FakeQuantizer
from adder_onnx.export.outputs import named_outputs
from adder_onnx.export.verification import Runner
from adder_onnx.export.writing import staged
from adder_onnx.files import check_writable
from adder_onnx.metadata import ModelMetadata
from adder_onnx.quantization.rewrite import NodeSummary
from adder_onnx.quantization.sensitivity import decibels
from adder_onnx.quantization.trained import quantize_trained

__all__ = ["ExportedQuantized", "export_quantized"]

_logger = logging.getLogger(__name__)

_LEAST_SNR = 10.0
"""In decibels. Values that training does not round have 8 bits, and a level more or less is chosen
where float32 rounds otherwise: both cost less. A wrong scale or bias costs all."""

_PORTABLE = 2
"""Images that onnxruntime is given, in which the function bodies are slow."""


@dataclass(frozen=True)
class ExportedQuantized:
    """What was written.

    Attributes:
        path: the file.
        bytes: its size, that of external data included.
        nodes: what became of each adder node that takes rounded values.
        left: names of adder nodes that stay float.
        snr: of each output beside what the model gives in PyTorch, in decibels; over all batches in
            our runtime, or two images in onnxruntime where that is less.
        external_data: the file beside it that holds the weights, or None.
    """

    path: Path
    bytes: int
    nodes: tuple[NodeSummary, ...]
    left: tuple[str, ...]
    snr: dict[str, float]
    external_data: Path | None = None


def export_quantized(
    model: nn.Module,
    path: str | Path,
    batches: Iterable[Batch],
    *,
    opset: int = DEFAULT_OPSET,
    metadata: ModelMetadata | None = None,
) -> ExportedQuantized:
    """Writes a fine-tuned model with QLinearAdderConv nodes of its own integers and scales.

    Ranges are found on the batches only for values that training does not round, such as a shortcut
    that is added; these have 8 bits. The file is compared with the model in evaluation mode, in our
    runtime and in onnxruntime by the function bodies, before it is written.

    Args:
        model: from `fake_quantize`; is not changed.
        path: where the file goes; written under another name and renamed.
        batches: a few of the training images, as for `fake_quantize`.
        opset: version of the standard operator set, 18 to 23.
        metadata: what the file says about itself, such as the preprocessing.

    Returns:
        What was written, and how far it is from the model.

    Raises:
        InputError: there are no batches of images.
        DataError: a batch makes a value infinite or undefined.
        ExportError: the model is not from `fake_quantize`, PyTorch cannot run or export it, or the
            file differs from it. Nothing is written.
        ModelError: no adder layer that is rounded can become an integer node.
    """
    path = Path(path)
    check_writable(path)
    if not is_fake_quantized(model):
        raise ExportError("the model is not fake-quantized: call fake_quantize and train it first")
    images = [images_of(batch).float().cpu() for batch in batches]
    if not images:
        raise InputError("there are no batches, which the other values' ranges are found on")
    model = _fixed(model)
    expected = [_outputs(model, batch) for batch in images]
    rounding = export_model(
        convert_adder_layers(model, check=False),
        (images[0].shape[1], images[0].shape[2], images[0].shape[3]),
        opset=opset,
        metadata=(metadata or ModelMetadata()).to_props(),
    )
    at_once = _fixed_batch(rounding)
    feeds = ({"input": part} for batch in images for part in _parts(batch.numpy(), at_once))
    result = quantize_trained(rounding, feeds)
    if result.left:
        _logger.warning("these adder nodes stay float: %s", ", ".join(result.left))
    with staged(result.model, path, external_data=False) as file:
        snr = _compare(runners(file.source), images, expected, at_once)
    return ExportedQuantized(path, file.bytes, result.nodes, result.left, snr, file.external_data)


def _fixed(model: nn.Module) -> nn.Module:
    """A copy whose scales are constants, for inference on the CPU."""
    model = copied(model)
    with running():
        model.cpu().float().eval()
    for module in model.modules():
        if isinstance(module, FakeQuantizer):
            module.fix()
    return model


_Outputs = dict[str, NDArray[Any]]


def _outputs(model: nn.Module, images: Tensor) -> _Outputs:
    with torch.no_grad(), running():
        result = model(images.clone())  # which it may change
    return {name: y.numpy(force=True) for name, y in named_outputs(result).items()}


def _fixed_batch(model: onnx.ModelProto) -> int | None:
    """The only number of images that a file takes; None for any."""
    size = model.graph.input[0].type.tensor_type.shape.dim[0]
    return size.dim_value if size.HasField("dim_value") else None


def _parts(images: NDArray[np.float32], at_once: int | None) -> Iterator[NDArray[np.float32]]:
    """The batch as the file takes it."""
    size = at_once or len(images)
    for first in range(0, len(images), size):
        yield images[first : first + size]


def _compare(
    runners_: dict[str, Runner],
    images: list[Tensor],
    expected: list[_Outputs],
    at_once: int | None,
) -> dict[str, float]:
    """The smaller signal-to-noise ratio of the two runtimes, by output.

    Raises:
        ExportError: it is too small.
    """
    least: dict[str, float] = {}
    for runner, run in runners_.items():
        portable = runner == "onnxruntime"
        signal, noise = dict.fromkeys(expected[0], 0.0), dict.fromkeys(expected[0], 0.0)
        for batch, truths in zip(images, expected, strict=True):
            given = batch.numpy()[: _PORTABLE if portable else None]
            parts = [run(part) for part in _parts(given, at_once)]
            for name, truth in truths.items():
                found = np.concatenate([part[name] for part in parts]).astype(np.float64)
                exact = truth[: len(given)].astype(np.float64)
                signal[name] += float((exact**2).sum())
                noise[name] += float(((found - exact) ** 2).sum())
            if portable:
                break
        for name in signal:
            snr = decibels(signal[name], noise[name])
            if not snr >= _LEAST_SNR:
                raise ExportError(
                    f"{name}: the file in {runner} differs from PyTorch: the signal-to-noise ratio "
                    f"is {snr:.3g} dB, less than {_LEAST_SNR:g} dB; nothing was written"
                )
            least[name] = min(snr, least.get(name, snr))
    return least
