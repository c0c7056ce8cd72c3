"""Telling the architecture of a checkpoint from its names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from adder_onnx.errors import CheckpointError
from adder_onnx.export.checkpoint import Checkpoint
from adder_onnx.export.pickled_classes import take_over
from adder_onnx.export.resnet import ResNet, ResNetConfig
from adder_onnx.export.state_dicts import is_counter, network_in

__all__ = ["apply_state", "architecture_name", "check_state", "load_model", "recognize"]

_IMAGENET_DEPTHS: dict[tuple[str, tuple[int, ...]], int] = {
    ("basic", (2, 2, 2, 2)): 18,
    ("basic", (3, 4, 6, 3)): 34,
    ("bottleneck", (3, 4, 6, 3)): 50,
    ("bottleneck", (3, 4, 23, 3)): 101,
    ("bottleneck", (3, 8, 36, 3)): 152,
}
_KNOWN = "resnet8, 14, 20, … (CIFAR) and resnet18, 34, 50, 101, 152 (ImageNet)"
_EXAMPLES = (
    ResNetConfig("cifar", "basic", (3, 3, 3), (16, 32, 64), 10),
    ResNetConfig("imagenet", "basic", (2, 2, 2, 2), (64, 128, 256, 512), 1000, 3, True),
    ResNetConfig("imagenet", "bottleneck", (3, 4, 6, 3), (64, 128, 256, 512), 1000, 3, True),
)
_MOST_BLOCKS = 1000
_FIRST = "layer1.0.conv1.adder"
_BLOCK = re.compile(r"layer([1-9][0-9]?)\.([0-9]+)\..+\.adder")
_THIRD = re.compile(r"layer[0-9]+\.[0-9]+\.conv3\.adder")


def architecture_name(config: ResNetConfig) -> str:
    """The usual name, ``resnet`` and the number of layers, or one that lists the depths."""
    if config.stem == "imagenet":
        layers = _IMAGENET_DEPTHS.get((config.block, config.depths))
        if layers is not None:
            return f"resnet{layers}"
    elif config.block == "basic" and len(config.depths) == 3 and len(set(config.depths)) == 1:
        return f"resnet{6 * config.depths[0] + 2}"
    return "-".join(["resnet", config.stem, config.block, *map(str, config.depths)])


def recognize(state: Mapping[str, Tensor]) -> ResNetConfig:
    """The network that a state dict belongs to.

    The names ``layer1.0.conv1.adder`` and so on give the number of stages and blocks; the shapes
    give the widths, classes and channels; a third layer in a block makes it a bottleneck; the size
    of the first kernel tells CIFAR's networks from ImageNet's.

    Raises:
        CheckpointError: the names are not those of a known family, or one that is needed to tell
            is missing or misshapen.
    """
    blocks = {(int(m[1]), m[2]) for m in map(_BLOCK.fullmatch, state) if m}
    if not blocks:
        raise CheckpointError(
            f"unknown architecture: the checkpoint has no parameter {_FIRST}; "
            f"{_nearest(state)}. Known are {_KNOWN}, with the parameter names of the reference "
            "implementation; for a model of your own give --arch file.py:factory"
        )
    if len(blocks) > _MOST_BLOCKS:
        raise CheckpointError(
            f"unknown architecture: {len(blocks)} blocks; expected at most {_MOST_BLOCKS}"
        )
    stages = max(stage for stage, _ in blocks)
    depths = [sum(stage == i for stage, _ in blocks) for i in range(1, stages + 1)]
    for i, depth in enumerate(depths, 1):
        if depth == 0:
            raise CheckpointError(f"layer{i}.0.conv1.adder is missing from the checkpoint")
    widths = [_shape(state, f"layer{i}.0.conv1.adder")[0] for i in range(1, stages + 1)]
    stem = _shape(state, "conv1.weight")
    classes = _shape(state, "fc.weight")[0]
    if stem[2] not in (3, 7):
        raise CheckpointError(
            f"unknown architecture: conv1.weight is {stem[2]} x {stem[3]}; expected 3 x 3 (CIFAR) "
            "or 7 x 7 (ImageNet)"
        )
    return ResNetConfig(
        stem="cifar" if stem[2] == 3 else "imagenet",
        block="bottleneck" if any(map(_THIRD.fullmatch, state)) else "basic",
        depths=tuple(depths),
        widths=tuple(widths),
        classes=classes,
        in_channels=stem[1],
        classifier_bias="fc.bias" in state,
    )


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, int, int, int]:
    if name not in state:
        raise CheckpointError(f"{name} is missing from the checkpoint")
    shape = tuple(state[name].shape)
    if len(shape) != 4 or 0 in shape:
        raise CheckpointError(f"{name} has shape {shape}; expected four dimensions, none of them 0")
    return shape


def load_model(checkpoint: Checkpoint, arch: str = "auto") -> ResNet:
    """The network of a checkpoint, with its parameters, in evaluation mode.

    Of a whole pickled model the classes are compared (`check_classes`), and strides, paddings and
    the like are taken over.

    Args:
        checkpoint: as `read_checkpoint` gives it.
        arch: the name that the network must have, or ``auto``.

    Raises:
        CheckpointError: the architecture is unknown or not ``arch``, or a parameter is missing,
            misshapen or superfluous; or its classes are not those of the architecture.
    """
    state, prefix = network_in(checkpoint.state, _FIRST)
    config = recognize(state)
    name = architecture_name(config)
    if arch not in ("auto", name):
        if re.fullmatch(r"resnet(\d+|-(cifar|imagenet)-[\w-]+)", arch) is None:
            raise CheckpointError(f"unknown architecture {arch!r}; known are {_KNOWN}")
        raise CheckpointError(f"the checkpoint is a {name} by its names and shapes, not a {arch}")
    with torch.device("meta"):
        model = ResNet(config)
    check_state(model, state, f"a {name} with these widths")
    model.to_empty(device="cpu")
    apply_state(model, state)
    if checkpoint.modules:
        take_over(model, checkpoint.modules, prefix, name, asked_for=arch == name)
    return model.eval()


def check_state(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Checks that a state has what a model needs, and nothing else.

    Raises:
        CheckpointError: a parameter is missing, misshapen or superfluous; each is named.
    """
    expected = model.state_dict()
    missing = [key for key in expected if key not in state and not is_counter(key)]
    if missing:
        raise CheckpointError(f"{_list(missing)} missing from the checkpoint, taken for {what}")
    unexpected = [key for key in state if key not in expected]
    if unexpected:
        raise CheckpointError(f"{_list(unexpected)} in the checkpoint not known to {what}")
    for key, tensor in state.items():
        if tensor.is_meta or tensor.is_complex() or tensor.layout is not torch.strided:
            raise CheckpointError(
                f"{key} is a {tensor.dtype} tensor in {tensor.layout} on {tensor.device}; expected "
                "dense real numbers"
            )
        if tensor.shape != expected[key].shape:
            raise CheckpointError(
                f"{key} has shape {tuple(tensor.shape)} in the checkpoint; {what} needs "
                f"{tuple(expected[key].shape)}"
            )


def apply_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copies a checked state into a model; floating-point values become float32."""
    counters = {k: torch.zeros_like(v) for k, v in model.state_dict().items() if is_counter(k)}
    floats = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    model.load_state_dict({**counters, **floats}, strict=False)


def _nearest(state: Mapping[str, Tensor]) -> str:
    """The known network that shares most names with a state, and what it lacks and has too much."""
    best: tuple[int, str, list[str], list[str]] | None = None
    for config in _EXAMPLES:
        with torch.device("meta"):
            expected = list(ResNet(config).state_dict())
        missing = [key for key in expected if key not in state]
        unexpected = [key for key in state if key not in expected]
        shared = len(expected) - len(missing)
        if best is None or shared > best[0]:
            best = (shared, architecture_name(config), missing, unexpected)
    assert best is not None
    _, name, missing, unexpected = best
    return (
        f"the nearest is {name}, for which {_list(missing)} missing and {_list(unexpected)} unknown"
    )


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{shown}{more} {'is' if len(names) == 1 else 'are'}"
