"""The residual networks of the reference implementation, with its parameter names.

With the stem ``cifar`` they are its ResNet-20 and deeper or shallower ones of the same plan (He et
al., CVPR 2016, section 4.2), with ``imagenet`` its ResNet-50 and relatives (section 4.1). The first
convolution and the classifier, a 1 x 1 convolution followed by batch normalisation, are ordinary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from adder_onnx.export.adder_conv2d import AdderConv2d

__all__ = ["BasicBlock", "Bottleneck", "ResNet", "ResNetConfig"]


@dataclass(frozen=True)
class ResNetConfig:
    """What tells one of these networks from another.

    Attributes:
        stem: ``cifar`` (3 x 3, stride 1) or ``imagenet`` (7 x 7, stride 2, then max pooling).
        block: ``basic`` (two 3 x 3 layers) or ``bottleneck`` (1 x 1, 3 x 3, 1 x 1).
        depths: blocks in each stage.
        widths: channels of the first layer of each stage's blocks.
        classes: number of classes.
        in_channels: channels of the image.
        classifier_bias: whether the classifier's convolution has a bias.
    """

    stem: str
    block: str
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    classes: int
    in_channels: int = 3
    classifier_bias: bool = False


class BasicBlock(nn.Module):
    """Two 3 x 3 adder layers and a shortcut.

    Args:
        in_channels: channels of the input (N, in_channels, H, W).
        width: channels of both layers and of the output.
        stride: of the first layer and of the shortcut.
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = AdderConv2d(in_channels, width, 3, stride, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = AdderConv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output for its input."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(out + shortcut)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """Adder layers of 1 x 1, 3 x 3 and 1 x 1 and a shortcut.

    Args:
        in_channels: channels of the input (N, in_channels, H, W).
        width: channels of the first two layers, and a quarter of those of the output.
        stride: of the middle layer and of the shortcut.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = AdderConv2d(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = AdderConv2d(width, width, 3, stride, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = AdderConv2d(width, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output for its input."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(out + shortcut)  # type: ignore[no-any-return]


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        AdderConv2d(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels)
    )


class ResNet(nn.Module):
    """A residual network of adder layers.

    Takes images (N, in_channels, H, W) of any size that its strides leave a pixel of; gives logits
    (N, classes).
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        first = config.widths[0]
        if config.stem == "imagenet":
            self.conv1 = nn.Conv2d(config.in_channels, first, 7, 2, padding=3, bias=False)
            self.maxpool: nn.Module = nn.MaxPool2d(3, 2, padding=1)
        else:
            self.conv1 = nn.Conv2d(config.in_channels, first, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        block = Bottleneck if config.block == "bottleneck" else BasicBlock
        channels = first
        for i, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
            blocks = []
            for j in range(depth):
                blocks.append(block(channels, width, 2 if i > 0 and j == 0 else 1))
                channels = width * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Conv2d(channels, config.classes, 1, bias=config.classifier_bias)
        self.bn2 = nn.BatchNorm2d(config.classes)

    def stages(self) -> Sequence[nn.Module]:
        """The stages, in the order in which they run."""
        return [self.get_submodule(f"layer{i + 1}") for i in range(len(self.config.depths))]

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, in_channels, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in self.stages():
            x = stage(x)
        return self.bn2(self.fc(self.avgpool(x))).flatten(1)  # type: ignore[no-any-return]
