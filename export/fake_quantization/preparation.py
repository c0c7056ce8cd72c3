"""`fake_quantize`: a copy of a model that learns to do with few bits."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adder_onnx.errors import AdderError, ExportError, InputError
from adder_onnx.export.adder_conv2d import AdderConv2d
from adder_onnx.export.adder_layers import convert_adder_layers
from adder_onnx.export.capture import error_line
from adder_onnx.export.factories import bare, unwrap
from adder_onnx.export.fake_quantization.places import Value, find_values
from adder_onnx.export.fake_quantization.quantizer import (
    FakeQuantizer,
    RoundInput,
    RoundOutput,
    RoundWeights,
)
from adder_onnx.quantization.few_levels import check_levels, choose_levels
from adder_onnx.quantization.ranges import Histogram, choose

__all__ = ["Batch", "copied", "fake_quantize", "images_of", "is_fake_quantized", "running"]

_logger = logging.getLogger(__name__)

_CALIBRATION = "mse"
"""How the first scales are chosen."""

Batch = Tensor | Sequence[Tensor]
"""Images (N, C, H, W), or these first among other tensors."""


def fake_quantize(
    model: nn.Module,
    bits: int,
    batches: Iterable[Batch],
    *,
    levels: int | None = None,
    adder_classes: Collection[str] = (),
) -> nn.Module:
    """A copy of a model that computes as the integer network of so many bits, and can be trained.

    The input and the weights of every adder layer are rounded to 2**bits integers, or the input to
    few levels among them; how, where and with which gradients is in docs/quantisation.md. The
    scales are among ``parameters()`` of the copy; they start from the least mean squared error on
    the batches. Train it as the model was trained, with an optimizer of its own; `export_quantized`
    then writes its integers. The copy is saved by its ``state_dict()``.

    Args:
        model: takes images, and is trained. Its adder layers become `AdderConv2d`.
        bits: 2 to 8.
        batches: a few of the training images, as the model takes them; each batch a tensor
            (N, C, H, W), or a tuple or list that begins with one, as a DataLoader gives it.
        levels: how many integers each input becomes, 2 to 16; None for all. Which they are is
            chosen on the batches; training changes the scale alone.
        adder_classes: names of classes of adder layers that do not look like the reference's.

    Returns:
        The copy, on the model's device and in its mode.

    Raises:
        InputError: ``bits`` or ``levels`` is out of its range, or there are no batches of images.
        DataError: a batch makes a layer's input infinite or undefined.
        ExportError: the model is fake-quantized already, does not run on the batches, cannot be
            copied, or has no adder layer.
    """
    if not 2 <= bits <= 8:
        raise InputError(f"bits is {bits}; expected 2 to 8")
    if levels is not None:
        check_levels(levels, bits)
    if is_fake_quantized(model):
        raise ExportError("the model is fake-quantized already: start from the float model")
    model = convert_adder_layers(unwrap(copied(model)), adder_classes)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    images = [images_of(batch).to(device) for batch in batches]
    if not images:
        raise InputError("there are no batches, which the first scales are found on")
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    with running():
        values = find_values(model, images[0])
    _check(model, values)
    for value, histogram in _observe(model, values, images):
        if levels is None:
            start = choose(histogram, bits, _CALIBRATION)
        else:
            start = choose_levels(histogram, bits, levels)
        _round(model, value, FakeQuantizer(start, _layers(model, value)[0].adder))
    for module, was_training in training:
        module.training = was_training
    return model


def is_fake_quantized(model: nn.Module) -> bool:
    """Whether a model came from `fake_quantize`."""
    return any(isinstance(module, FakeQuantizer) for module in model.modules())


def copied(model: nn.Module) -> nn.Module:
    """A copy of a model, out of what it is wrapped in.

    Raises:
        ExportError: an attribute of it refuses.
    """
    try:
        return copy.deepcopy(bare(model))
    except Exception as error:  # of whatever the model holds
        raise ExportError(
            f"the model cannot be copied ({type(error).__name__}: {error_line(error)})"
        ) from error


def images_of(batch: Batch) -> Tensor:
    """The images of a batch.

    Raises:
        InputError: there are none.
    """
    found = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if not isinstance(found, Tensor) or found.dim() != 4 or not len(found):
        what = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"a batch is {what}; expected images (N, C, H, W), or these first")
    return found


def _check(model: nn.Module, values: Sequence[Value]) -> None:
    """Whether there are adder layers; those that the example did not reach are named."""
    found = [name for name, module in model.named_modules() if isinstance(module, AdderConv2d)]
    if not found:
        raise ExportError(
            "the model has no adder layer that could be rounded (adder_classes= names the class of "
            "those there are)"
        )
    reached = {layer for value in values for layer in value.layers}
    for name in found:
        if name not in reached:
            _logger.warning("layer %r is not used in evaluation: it is left as it is", name)


def _observe(
    model: nn.Module, values: Sequence[Value], images: Iterable[Tensor]
) -> list[tuple[Value, Histogram]]:
    """Histograms of the values on all images."""
    found = []
    handles = []
    for value in values:
        histogram = Histogram(_layers(model, value)[0].in_channels)
        found.append((value, histogram))
        for layer, name in zip(_layers(model, value), value.layers, strict=True):
            handles.append(layer.register_forward_pre_hook(_Count(histogram, name)))
    try:
        with torch.no_grad(), running():
            for batch in images:
                model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


class _Count:
    """A forward pre-hook that counts what enters a layer."""

    def __init__(self, histogram: Histogram, layer: str) -> None:
        self._histogram = histogram
        self._name = f"the input of layer {layer!r}"

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._histogram.add(args[0].to(torch.float64).numpy(force=True), self._name)


def _round(model: nn.Module, value: Value, quantizer: FakeQuantizer) -> None:
    for layer in _layers(model, value):
        parametrize.register_parametrization(layer, "adder", RoundWeights(quantizer))
    for place in value.places:
        module = model.get_submodule(place.module)
        if place.argument is None:
            module.register_forward_hook(RoundOutput(quantizer))
        else:
            module.register_forward_pre_hook(RoundInput(quantizer, place.argument))


def _layers(model: nn.Module, value: Value) -> list[AdderConv2d]:
    layers = [model.get_submodule(name) for name in value.layers]
    return [layer for layer in layers if isinstance(layer, AdderConv2d)]


@contextmanager
def running() -> Iterator[None]:
    """Within it a model runs.

    Raises:
        ExportError: it does not.
    """
    try:
        yield
    except AdderError:
        raise
    except Exception as error:  # the model's code may raise anything
        raise ExportError(
            f"the model does not run: {type(error).__name__}: {error_line(error)}"
        ) from error
