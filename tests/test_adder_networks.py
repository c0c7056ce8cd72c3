"""Networks other than ResNets, built with AdderConv2d, exported, and run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import adder_onnx
from adder_onnx.export import AdderConv2d
from adder_onnx.export.exporter import export_model
from adder_onnx.graph.plan import ChainStep, OnnxruntimeStep


class Unit(nn.Sequential):
    """Adder layer, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            AdderConv2d(inputs, outputs, kernel, stride, padding=kernel // 2),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class Head(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


class DenseNet(nn.Module):
    """A stem, two blocks whose layers see all before them, a transition between the blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.ModuleList([Unit(8 + 4 * i, 4) for i in range(3)])
        self.transition = nn.Sequential(Unit(20, 10, 1), nn.AvgPool2d(2))
        self.second = nn.ModuleList([Unit(10 + 4 * i, 4) for i in range(2)])
        self.head = Head(18)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for unit in self.first:
            x = torch.cat([x, unit(x)], 1)
        x = self.transition(x)
        for unit in self.second:
            x = torch.cat([x, unit(x)], 1)
        return self.head(x)  # type: ignore[no-any-return]


class UNet(nn.Module):
    """Two levels down and up again, with the skipped values concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(Unit(3, 6), Unit(6, 6))
        self.down2 = nn.Sequential(Unit(6, 12), Unit(12, 12))
        self.bottom = Unit(12, 12)
        self.up2 = Unit(24, 6)
        self.up1 = Unit(12, 6)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(functional.max_pool2d(a, 2))
        c = self.bottom(functional.max_pool2d(b, 2))
        b = self.up2(torch.cat([b, functional.interpolate(c, scale_factor=2)], 1))
        a = self.up1(torch.cat([a, functional.interpolate(b, scale_factor=2)], 1))
        return self.last(a)  # type: ignore[no-any-return]


class Inception(nn.Module):
    """A stem and two modules of four parallel branches, one of which pools first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList([self.block(8), self.block(16)])
        self.head = Head(16)

    @staticmethod
    def block(inputs: int) -> nn.ModuleList:
        return nn.ModuleList(
            [
                Unit(inputs, 4, 1),
                nn.Sequential(Unit(inputs, 4, 1), Unit(4, 4, 3)),
                nn.Sequential(Unit(inputs, 4, 1), Unit(4, 4, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, padding=1), Unit(inputs, 4, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branches in self.blocks:
            x = torch.cat([branch(x) for branch in branches], 1)  # type: ignore[union-attr]
        return self.head(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("network", "sub_models", "chains"),
    [
        # The stem; a Concat before each of the layers but the first (two in the first block; the
        # third is before the transition); pooling; the Concat in the second block; that and the
        # head. Between each two of them one chain.
        (DenseNet, 1 + 2 + 1 + 1 + 1 + 1, 6),
        # A MaxPool each on the way down, Resize with Concat each on the way up, the last layer.
        (UNet, 2 + 2 + 1, 5),
        # The stem with the first module's pooling; Concat with the next pooling; Concat and head.
        (Inception, 3, 2),
    ],
)
def test_network(network: type[nn.Module], sub_models: int, chains: int) -> None:
    torch.manual_seed(0)
    model = network()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(8, 3, 16, 16))  # sets the statistics
    model.eval()
    data = export_model(model, (3, 16, 16)).SerializeToString()
    for fuse in (True, False):
        session = adder_onnx.InferenceSession(data, fuse=fuse)
        for batch in (1, 3):
            x = torch.randn(batch, 3, 16, 16)
            with torch.no_grad():
                expected = model.double()(x.double()).numpy()
                model.float()
            (y,) = session.run(None, {"input": x.numpy()})
            np.testing.assert_allclose(y, expected, atol=1e-4 * np.abs(expected).max())
        if fuse:
            steps = session.plan.steps
            assert sum(isinstance(s, OnnxruntimeStep) for s in steps) == sub_models
            assert sum(isinstance(s, ChainStep) for s in steps) == chains
