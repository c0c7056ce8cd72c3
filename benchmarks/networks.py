"""The networks that are measured: ResNets of adder layers with random filters, and their twins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from adder_onnx.export import AdderConv2d, export_onnx
from adder_onnx.export.resnet import ResNet, ResNetConfig
from benchmarks.shapes import Layer

__all__ = ["NETWORKS", "adder_layers", "adder_network", "export_adder", "twin"]


@dataclass(frozen=True)
class _Network:
    config: ResNetConfig
    size: int


NETWORKS = {
    "resnet20": _Network(ResNetConfig("cifar", "basic", (3, 3, 3), (16, 32, 64), 10), 32),
    "resnet50": _Network(
        ResNetConfig(
            "imagenet",
            "bottleneck",
            (3, 4, 6, 3),
            (64, 128, 256, 512),
            1000,
            classifier_bias=True,
        ),
        224,
    ),
}


def adder_layers(name: str) -> list[Layer]:
    """The different adder layers of a network, in the order in which they first run."""
    network = ResNet(NETWORKS[name].config).to("meta")  # shapes, no values
    found: dict[Layer, int] = {}

    def see(module: nn.Module, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        filters, channels, kernel, _ = module.weight.shape
        layer = Layer(channels, filters, inputs[0].shape[2], kernel, module.stride[0])
        found[layer] = found.get(layer, 0) + 1

    for module in _replace_adder_layers(network):
        module.register_forward_hook(see)
    size = NETWORKS[name].size
    network.eval()(torch.zeros(1, 3, size, size, device="meta"))
    return [replace(layer, count=count) for layer, count in found.items()]


def _replace_adder_layers(network: nn.Module) -> list[nn.Conv2d]:
    """Puts convolutions in the place of adder layers, which have the same arguments."""
    convolutions = []
    for name, module in list(network.named_modules()):
        if isinstance(module, AdderConv2d):
            weight = module.adder
            filters, channels, kernel, _ = weight.shape
            convolution = nn.Conv2d(
                channels, filters, kernel, module.stride, module.padding, bias=False
            ).to(weight.device)
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, convolution)
            convolutions.append(convolution)
    return convolutions


def adder_network(name: str) -> ResNet:
    """A network with random filters, its batch normalisation set by a forward pass."""
    torch.manual_seed(0)
    return _normalized(ResNet(NETWORKS[name].config), name)


def twin(name: str) -> ResNet:
    """The same architecture with convolutions in the place of the adder layers."""
    torch.manual_seed(0)
    network = ResNet(NETWORKS[name].config)
    _replace_adder_layers(network)
    return _normalized(network, name)


def _normalized(network: ResNet, name: str) -> ResNet:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of the one batch that follows
    size = min(NETWORKS[name].size, 128)
    with torch.no_grad():
        network.train()(torch.randn(4, 3, size, size))
    return network.eval()


def export_adder(name: str, folder: Path) -> Path:
    """The adder network as ONNX; made once in ``folder``."""
    path = folder / f"{name}_adder.onnx"
    if not path.exists():
        size = NETWORKS[name].size
        export_onnx(adder_network(name), path, (3, size, size), no_verify=True)
    return path
