"""Whether a whole pickled network is what its names and shapes make it look like.

A pickle has no code, but it names the class of every module and has its attributes.

1. Each module must be of a class that is known to compute what the module in its place does: those
   of PyTorch by their full name, those of the reference implementation and of its relatives by
   their own (`_CLASSES`).
2. A module that has no counterpart must do nothing in evaluation mode, as dropout.
3. An adder layer has no attributes but those of a convolution, and the average is taken over whole
   images.
4. Nothing is called before or after a module, except to prune it.

Who names the architecture (``--arch resnet20``) vouches for rules 1 to 4, and is told what he
vouches for.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from adder_onnx.errors import CheckpointError
from adder_onnx.export.adder_conv2d import AdderConv2d
from adder_onnx.export.pickled_network import PickledModule
from adder_onnx.export.resnet import BasicBlock, Bottleneck, ResNet

__all__ = ["take_over"]

_logger = logging.getLogger(__name__)

_CLASSES: dict[type[nn.Module], frozenset[str]] = {
    AdderConv2d: frozenset({"adder2d", "AdderConv2d"}),
    BasicBlock: frozenset({"BasicBlock"}),
    Bottleneck: frozenset({"Bottleneck"}),
    ResNet: frozenset({"ResNet"}),
    nn.Conv2d: frozenset({"torch.nn.modules.conv.Conv2d"}),
    nn.BatchNorm2d: frozenset(
        {
            "torch.nn.modules.batchnorm.BatchNorm2d",
            "torch.nn.modules.batchnorm.SyncBatchNorm",
        }
    ),
    nn.ReLU: frozenset({"torch.nn.modules.activation.ReLU"}),
    nn.Sequential: frozenset(
        {"torch.nn.modules.container.Sequential", "torch.nn.modules.container.ModuleList"}
    ),
    nn.MaxPool2d: frozenset({"torch.nn.modules.pooling.MaxPool2d"}),
    nn.AdaptiveAvgPool2d: frozenset(
        {
            "torch.nn.modules.pooling.AdaptiveAvgPool2d",
            # The reference's covers the last images, and fails for larger ones.
            "torch.nn.modules.pooling.AvgPool2d",
        }
    ),
}
_IDLE = (
    "torch.nn.modules.dropout.",
    "torch.nn.modules.linear.Identity",
    "torch.nn.modules.loss.",
)
_PRUNING = "torch.nn.utils.prune."
_LARGEST = 64
"""Strides, paddings and dilations beyond any network's, which would take more than its memory."""

_ADDER_ATTRIBUTES = frozenset(
    {"stride", "padding", "dilation", "groups", "kernel_size", "bias", "input_channel"}
    | {"output_channel", "in_channels", "out_channels", "adder"}
)


def take_over(
    model: ResNet,
    modules: Mapping[str, PickledModule],
    prefix: str,
    name: str,
    *,
    asked_for: bool,
) -> None:
    """Compares a network with the modules of a pickled one and gives it their settings.

    Args:
        model: with the pickled network's parameters; its strides, paddings, dilations, pooling
            and the epsilons of batch normalisation are set.
        modules: of the pickled network, by path.
        prefix: what their paths have in front of the model's.
        name: of the architecture, for messages.
        asked_for: whether the user has named it.

    Raises:
        CheckpointError: one of the rules does not hold, and the architecture was not asked for; or
            a setting cannot be taken over.
    """
    ours = {prefix + path if path else prefix.rstrip("."): m for path, m in model.named_modules()}
    doubts = []
    for path, pickled in modules.items():
        doubt = _doubt(ours.get(path), pickled, model)
        if doubt:
            doubts.append(f"{path or 'the whole'} {doubt}")
    if doubts:
        more = f" (and {len(doubts) - 1} more)" if len(doubts) > 1 else ""
        if not asked_for:
            raise CheckpointError(
                f"the checkpoint has the names and shapes of a {name}, but {doubts[0]}{more}: if "
                f"it computes the same, say so by --arch {name}, else give its code by "
                "--arch file.py:factory"
            )
        _logger.warning("taken for a %s as asked, although %s%s", name, doubts[0], more)
    kinds = {p.class_name for path, p in modules.items() if isinstance(ours.get(path), AdderConv2d)}
    for kind in sorted(kinds):
        if kind.split(".")[-2:-1] != ["adder"] and not kind.startswith("adder_onnx."):
            _logger.warning("layers %s are taken for the reference implementation's adder2d", kind)
    for path, module in ours.items():
        if path in modules:
            _set(module, modules[path].attributes, path)


def _doubt(ours: nn.Module | None, pickled: PickledModule, model: ResNet) -> str | None:
    """What speaks against a module's being the same as ours."""
    kind = pickled.class_name
    hooks = [hook for hook in pickled.hooks if not hook.startswith(_PRUNING)]
    if hooks:
        return f"calls {hooks[0]} whenever it runs"
    if ours is None or isinstance(ours, nn.Identity):
        if not kind.startswith(_IDLE):
            return f"is a {kind}, which such a network does not have"
        return None
    known = _CLASSES[type(ours)]
    if kind not in known and (kind.startswith("torch.") or kind.rpartition(".")[2] not in known):
        return f"is a {kind}"
    given = pickled.attributes
    if isinstance(ours, AdderConv2d):
        unknown = [n for n, v in given.items() if n not in _ADDER_ATTRIBUTES and v is not None]
        if unknown:
            return f"({kind}) has the attribute {unknown[0]!r}"
    if given.get("padding_mode", "zeros") != "zeros":
        return f"has the padding mode {given['padding_mode']!r}"
    if isinstance(ours, nn.AdaptiveAvgPool2d):
        size, whole = given.get("output_size", 1), _last_size(model)
        if size not in (1, (1, 1)) or given.get("kernel_size", whole) not in (
            whole,
            (whole, whole),
        ):
            return f"({kind}) does not average whole images"
    return None


def _last_size(model: ResNet) -> int:
    """Height and width of the last stage's images for a data set's usual input."""
    stages = len(model.config.depths)
    return 32 >> (stages - 1) if model.config.stem == "cifar" else 224 >> (stages + 1)


def _set(module: nn.Module, given: Mapping[str, Any], path: str) -> None:
    if isinstance(module, (AdderConv2d, nn.Conv2d, nn.MaxPool2d)):
        for key in ("stride", "padding", "dilation"):
            if key in given:
                setattr(module, key, _pair(given[key], f"{path}.{key}"))
        if given.get("groups", 1) != getattr(module, "groups", 1):
            raise CheckpointError(f"{path} has {given['groups']} groups in the checkpoint")
    if isinstance(module, nn.MaxPool2d):
        if "kernel_size" in given:
            module.kernel_size = _pair(given["kernel_size"], f"{path}.kernel_size")
        module.ceil_mode = bool(given.get("ceil_mode", False))
    if isinstance(module, nn.BatchNorm2d) and isinstance(given.get("eps"), float):
        module.eps = given["eps"]


def _pair(value: Any, what: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else value
    if (
        not isinstance(pair, (tuple, list))
        or len(pair) != 2
        or not all(isinstance(v, int) and 0 <= v <= _LARGEST for v in pair)
    ):
        raise CheckpointError(
            f"{what} is {value!r} in the checkpoint; expected one or two integers up to {_LARGEST}"
        )
    return (pair[0], pair[1])
