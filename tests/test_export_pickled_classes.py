"""Whole pickled networks: recognised by their classes, not by their names."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adder_onnx.cli import export
from adder_onnx.errors import CheckpointError
from adder_onnx.export import AdderConv2d
from adder_onnx.export.checkpoint import read_checkpoint
from adder_onnx.export.recognition import load_model
from adder_onnx.export.resnet import BasicBlock, ResNet, ResNetConfig
from tests.test_export_resnet import random_resnet

CONFIG = ResNetConfig("cifar", "basic", (1, 1, 1), (4, 6, 8), 10)


class QuantAdder(AdderConv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x.clamp(0, 4) * 3.75).round() / 3.75)


class adder2d(AdderConv2d):  # noqa: N801
    """By name the reference's."""


class PreActBlock(BasicBlock):
    pass


class LitNet(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def set_class(path: str, kind: type) -> Callable[[ResNet], None]:
    def change(net: ResNet) -> None:
        net.get_submodule(path).__class__ = kind

    return change


def set_module(path: str, module: nn.Module) -> Callable[[ResNet], None]:
    return lambda net: net.set_submodule(path, module)


def set_attribute(path: str, name: str, value: object) -> Callable[[ResNet], None]:
    return lambda net: setattr(net.get_submodule(path), name, value)


def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """A hook that a pickle can name."""


def add_hook(net: ResNet) -> None:
    net.layer1.register_forward_pre_hook(hook)


DOUBTFUL: dict[str, tuple[Callable[[ResNet], None], str]] = {
    "a subclass that quantizes": (
        set_class("layer1.0.conv1", QuantAdder),
        f"layer1.0.conv1 is a {__name__}.QuantAdder",
    ),
    "two of them": (
        lambda net: (
            [set_class(p, QuantAdder)(net) for p in ("layer1.0.conv1", "layer2.0.conv2")] and None
        ),
        "(and 1 more)",
    ),
    "another block": (set_class("layer2.0", PreActBlock), f"layer2.0 is a {__name__}.PreActBlock"),
    "another activation": (
        set_module("layer1.0.relu", nn.LeakyReLU()),
        "layer1.0.relu is a torch.nn.modules.activation.LeakyReLU",
    ),
    "another pooling": (
        set_module("avgpool", nn.AdaptiveMaxPool2d(1)),
        "avgpool is a torch.nn.modules.pooling.AdaptiveMaxPool2d",
    ),
    "pooling of parts": (set_module("avgpool", nn.AvgPool2d(4)), "does not average whole images"),
    "pooling to four": (
        set_module("avgpool", nn.AdaptiveAvgPool2d(2)),
        "does not average whole images",
    ),
    "one more module": (
        lambda net: net.layer1.add_module("gate", nn.Sigmoid()),
        "layer1.gate is a torch.nn.modules.activation.Sigmoid, which such a network does not have",
    ),
    "one more setting": (
        set_attribute("layer1.0.conv2", "bits", 4),
        "has the attribute 'bits'",
    ),
    "a hook": (add_hook, f"layer1 calls {__name__}.hook whenever it runs"),
    "circular padding": (
        set_attribute("conv1", "padding_mode", "circular"),
        "conv1 has the padding mode 'circular'",
    ),
}


@pytest.mark.parametrize("what", DOUBTFUL)
def test_network_that_computes_something_else(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, words = DOUBTFUL[what]
    net = random_resnet(CONFIG)
    change(net)
    path, output = tmp_path / "whole", tmp_path / "net.onnx"
    torch.save(net, path)
    assert export.main([str(path), str(output)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert "say so by --arch resnet8, else give its code by --arch file.py:factory" in line
    assert not output.exists()


@pytest.mark.parametrize("what", DOUBTFUL)
def test_architecture_asked_for_is_taken_with_a_warning(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change, words = DOUBTFUL[what]
    net = random_resnet(CONFIG)
    change(net)
    torch.save(net, tmp_path / "whole")
    assert load_model(read_checkpoint(tmp_path / "whole"), "resnet8").config == CONFIG
    assert "taken for a resnet8 as asked, although " in caplog.text
    if "more" not in words:
        assert words in caplog.text


HARMLESS: dict[str, Callable[[ResNet], None]] = {
    "nothing": lambda net: None,
    "dropout": lambda net: net.layer1.add_module("drop", nn.Dropout(0.1)),
    "a loss": lambda net: net.add_module("criterion", nn.CrossEntropyLoss()),
    "the reference's pooling": set_module("avgpool", nn.AvgPool2d(8, stride=1)),
    "synchronised normalisation": set_class("bn1", nn.SyncBatchNorm),
    "activation in place": set_module("layer1.0.relu", nn.ReLU(inplace=True)),
    "activations as functions": lambda net: delattr(net.layer1[0], "relu"),
    "notes": set_attribute("layer1.0", "note", "first"),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_network_that_computes_the_same(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = random_resnet(CONFIG).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = net(x)
    HARMLESS[what](net)
    torch.save(net, tmp_path / "whole")
    with torch.no_grad():
        found = load_model(read_checkpoint(tmp_path / "whole"))(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert caplog.text == ""


def test_epsilon_of_batch_normalisation_is_taken_over(tmp_path: Path) -> None:
    net = random_resnet(CONFIG).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.1
    torch.save(net, tmp_path / "whole")
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found = load_model(read_checkpoint(tmp_path / "whole"))(x)
        torch.testing.assert_close(found, net(x), rtol=1e-5, atol=1e-5)


def test_class_that_only_has_the_name_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = random_resnet(CONFIG)
    set_class("layer1.0.conv1", adder2d)(net)
    torch.save(net, tmp_path / "whole")
    load_model(read_checkpoint(tmp_path / "whole"))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"layers {__name__}.adder2d are taken for the reference implementation's" in caplog.text


def test_network_inside_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its code may do more than call it; strides are taken over from where they are."""
    net = random_resnet(CONFIG)
    layer = net.get_submodule("layer2.0.conv1")
    layer.stride = (1, 1)  # type: ignore[assignment]
    net.get_submodule("layer2.0.downsample.0").stride = (1, 1)  # type: ignore[assignment]
    torch.save(LitNet(net), tmp_path / "whole")
    checkpoint = read_checkpoint(tmp_path / "whole")
    with pytest.raises(CheckpointError, match=r"but the whole is a .*LitNet, which such a network"):
        load_model(checkpoint)
    found = load_model(checkpoint, "resnet8")
    assert found.get_submodule("layer2.0.conv1").stride == (1, 1)
    assert "LitNet" in caplog.text
