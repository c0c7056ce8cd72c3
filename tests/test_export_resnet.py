"""The residual networks: parameters as in the reference implementation, and what they compute."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import backward
from torch.nn import functional

from adder_onnx.export import AdderConv2d
from adder_onnx.export.resnet import ResNet, ResNetConfig

RESNET20 = ResNetConfig("cifar", "basic", (3, 3, 3), (16, 32, 64), 10)
RESNET50 = ResNetConfig("imagenet", "bottleneck", (3, 4, 6, 3), (64, 128, 256, 512), 1000)


def random_resnet(config: ResNetConfig, seed: int = 0) -> ResNet:
    """A network in evaluation mode whose logits are of the order of 1.

    Its batch normalisations are of random scales and hold the statistics of one batch of noise:
    without those every activation behind an adder layer would be zero.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ResNet(config)
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
            norm.momentum = 1.0
        with torch.no_grad():
            model.train()(torch.randn(8, config.in_channels, 16, 16))
        for norm in norms:
            norm.momentum = 0.1
    return model.eval()


def shapes_of(config: ResNetConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(v.shape) for name, v in ResNet(config).state_dict().items()}


def norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    of_channels = ("weight", "bias", "running_mean", "running_var")
    shapes: dict[str, tuple[int, ...]] = {f"{name}.{key}": (channels,) for key in of_channels}
    return {**shapes, f"{name}.num_batches_tracked": ()}


def test_resnet20_has_the_parameters_of_the_reference_implementation() -> None:
    expected = {"conv1.weight": (16, 3, 3, 3), **norm_shapes("bn1", 16)}
    for s, width in ((1, 16), (2, 32), (3, 64)):
        for b in range(3):
            first = width // 2 if s > 1 and b == 0 else width
            block = f"layer{s}.{b}"
            expected[f"{block}.conv1.adder"] = (width, first, 3, 3)
            expected |= norm_shapes(f"{block}.bn1", width)
            expected[f"{block}.conv2.adder"] = (width, width, 3, 3)
            expected |= norm_shapes(f"{block}.bn2", width)
            if s > 1 and b == 0:
                expected[f"{block}.downsample.0.adder"] = (width, first, 1, 1)
                expected |= norm_shapes(f"{block}.downsample.1", width)
    expected["fc.weight"] = (10, 64, 1, 1)
    expected |= norm_shapes("bn2", 10)
    assert shapes_of(RESNET20) == expected


def test_resnet50_has_the_parameters_of_the_reference_implementation() -> None:
    expected = {"conv1.weight": (64, 3, 7, 7), **norm_shapes("bn1", 64)}
    channels = 64
    for s, (depth, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True), 1):
        for b in range(depth):
            block = f"layer{s}.{b}"
            expected[f"{block}.conv1.adder"] = (width, channels, 1, 1)
            expected[f"{block}.conv2.adder"] = (width, width, 3, 3)
            expected[f"{block}.conv3.adder"] = (4 * width, width, 1, 1)
            expected |= norm_shapes(f"{block}.bn1", width)
            expected |= norm_shapes(f"{block}.bn2", width)
            expected |= norm_shapes(f"{block}.bn3", 4 * width)
            if b == 0:
                expected[f"{block}.downsample.0.adder"] = (4 * width, channels, 1, 1)
                expected |= norm_shapes(f"{block}.downsample.1", 4 * width)
            channels = 4 * width
    expected["fc.weight"] = (1000, 2048, 1, 1)
    expected |= norm_shapes("bn2", 1000)
    assert shapes_of(RESNET50) == expected


@pytest.mark.parametrize(("config", "layers"), [(RESNET20, 20), (RESNET50, 52)])
def test_number_of_adder_layers(config: ResNetConfig, layers: int) -> None:
    with torch.device("meta"):
        model = ResNet(config)
    assert sum(isinstance(module, AdderConv2d) for module in model.modules()) == layers


def test_classifier_bias() -> None:
    config = ResNetConfig("cifar", "basic", (1,), (4,), 7, classifier_bias=True)
    assert shapes_of(config)["fc.bias"] == (7,)


def functional_forward(config: ResNetConfig, state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The network from its parameters alone, after the papers' descriptions."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{key}"][:, None, None]
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def adder(x: Tensor, name: str, stride: int = 1) -> Tensor:
        w = state[f"{name}.adder"]
        pad = (w.shape[2] - 1) // 2
        patches = functional.unfold(x, w.shape[2], padding=pad, stride=stride)
        distance = torch.cdist(w.flatten(1)[None], patches.transpose(1, 2), p=1)
        size = [(length + 2 * pad - w.shape[2]) // stride + 1 for length in x.shape[2:]]
        return -distance.reshape(*distance.shape[:2], *size)

    imagenet, bottleneck = config.stem == "imagenet", config.block == "bottleneck"
    x = functional.conv2d(
        x, state["conv1.weight"], stride=2 if imagenet else 1, padding=3 if imagenet else 1
    )
    x = norm(x, "bn1").relu()
    if imagenet:
        x = functional.max_pool2d(x, 3, 2, 1)
    for s, depth in enumerate(config.depths, 1):
        for b in range(depth):
            name, stride = f"layer{s}.{b}", 2 if s > 1 and b == 0 else 1
            strides = (1, stride, 1) if bottleneck else (stride, 1)
            y = x
            for i, step in enumerate(strides, 1):
                y = norm(adder(y, f"{name}.conv{i}", step), f"{name}.bn{i}")
                y = y.relu() if i < len(strides) else y
            if f"{name}.downsample.0.adder" in state:
                x = norm(adder(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = (y + x).relu()
    x = functional.conv2d(x.mean((2, 3), keepdim=True), state["fc.weight"], state.get("fc.bias"))
    return norm(x, "bn2")[:, :, 0, 0]


@pytest.mark.parametrize(
    "config",
    [
        ResNetConfig("cifar", "basic", (1, 2, 1), (4, 6, 6), 10),
        ResNetConfig("cifar", "basic", (2, 1), (5, 3), 4, in_channels=1, classifier_bias=True),
        ResNetConfig("cifar", "bottleneck", (1, 2), (2, 3), 5),
        ResNetConfig("imagenet", "basic", (1, 1, 1, 1), (4, 5, 6, 7), 6),
        ResNetConfig("imagenet", "bottleneck", (2, 1), (3, 4), 6),
    ],
    ids=lambda c: f"{c.stem}-{c.block}-{c.depths}",
)
def test_forward_equals_functional_implementation(config: ResNetConfig) -> None:
    model = random_resnet(config).double()
    generator = torch.Generator().manual_seed(0)
    for size in ((16, 16), (21, 10), (2, 5)):
        x = torch.randn(3, config.in_channels, *size, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            logits = model(x)
        assert logits.shape == (3, config.classes)
        assert logits.std() > 0.01  # a network of dead activations would hide any difference
        expected = functional_forward(config, model.state_dict(), x)
        torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)


def test_stages_are_in_the_order_in_which_they_run() -> None:
    config = ResNetConfig("cifar", "basic", (1,) * 11, (2,) * 11, 3)
    with torch.device("meta"):
        model = ResNet(config)
    assert list(model.stages()) == [getattr(model, f"layer{i}") for i in range(1, 12)]


def test_all_adder_filters_get_a_gradient() -> None:
    model = random_resnet(ResNetConfig("cifar", "basic", (1, 1), (4, 6), 3)).train()
    target = torch.tensor([0, 1, 2, 0])
    backward(functional.cross_entropy(model(torch.randn(4, 3, 8, 8)), target))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name.endswith(".adder"):
            assert parameter.grad.norm().item() == pytest.approx(0.2 * parameter.numel() ** 0.5)
