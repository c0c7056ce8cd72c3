"""The same network out of every wrapping, and what is said where it is not clear which is meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from adder_onnx.cli import export, run
from adder_onnx.errors import CheckpointError
from adder_onnx.export.checkpoint import read_checkpoint
from adder_onnx.export.recognition import check_state, load_model
from adder_onnx.export.resnet import ResNet, ResNetConfig
from adder_onnx.export.state_dicts import fit
from tests.checkpoints import KEYS, WRAPPINGS
from tests.test_export_resnet import random_resnet

CONFIG = ResNetConfig("cifar", "basic", (1, 1, 1), (4, 6, 8), 10)


@pytest.fixture(scope="module")
def net() -> ResNet:
    return random_resnet(CONFIG).eval()


def assert_same(found: ResNet, net: ResNet) -> None:
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, rtol=0, atol=0)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(found(x), net(x), rtol=0, atol=0)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_the_network_itself_comes_out(wrapping: str, net: ResNet, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(WRAPPINGS[wrapping](net), path)
    assert_same(load_model(read_checkpoint(path)), net)


@pytest.mark.parametrize("what", KEYS)
def test_key_chooses(what: str, net: ResNet, tmp_path: Path) -> None:
    make, key = KEYS[what]
    path = tmp_path / "net.pth"
    torch.save(make(net), path)
    assert_same(load_model(read_checkpoint(path, key)), net)
    if what != "the average":  # of which a state_dict is the more usual
        with pytest.raises(CheckpointError, match="--key"):
            load_model(read_checkpoint(path))
    with pytest.raises(CheckpointError, match="no network under --key nothing; those it has"):
        read_checkpoint(path, "nothing")


def test_of_several_networks_it_is_said_which_was_taken(
    net: ResNet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "net.pth"
    torch.save(WRAPPINGS["state_dict beside its average"](net), path)
    assert read_checkpoint(path).key == "state_dict"
    assert "'state_dict' is taken; --key takes another, of 'state_dict_ema'" in caplog.text
    caplog.clear()
    assert read_checkpoint(path, "state_dict_ema").key == "state_dict_ema"
    assert caplog.text == ""


def test_what_may_be_part_of_the_network_is_not_left_out(net: ResNet, tmp_path: Path) -> None:
    """A head behind a backbone would be lost."""
    path = tmp_path / "net.pth"
    torch.save(KEYS["with a head beside it"][0](net), path)
    with pytest.raises(
        CheckpointError, match=r"beside the network under 'backbone'.*'head.weight'"
    ):
        load_model(read_checkpoint(path))


def test_what_is_left_out_is_told(
    net: ResNet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "net.pth"
    torch.save(WRAPPINGS["Lightning"](net), path)
    load_model(read_checkpoint(path))
    assert "left out, being no part of the network: 'criterion.weight', 'train_acc.total'" in (
        caplog.text
    )


def test_masks_of_pruning_are_applied(net: ResNet, tmp_path: Path) -> None:
    pruned = random_resnet(CONFIG)
    layer = pruned.get_submodule("layer2.0.conv1")
    prune.random_unstructured(layer, "adder", amount=0.5)  # type: ignore[no-untyped-call]
    path = tmp_path / "net.pth"
    for what in (pruned.state_dict(), pruned):
        torch.save(what, path)
        state = load_model(read_checkpoint(path)).state_dict()
        mask = layer.get_buffer("adder_mask")
        assert 0 < mask.mean() < 1
        expected = layer.get_parameter("adder_orig") * mask
        torch.testing.assert_close(state["layer2.0.conv1.adder"], expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["alpha", "layer1.0.conv1.step_size", "layer1.0.conv1.adder_mask"])
def test_tensors_that_the_family_does_not_have_are_refused(
    name: str, net: ResNet, tmp_path: Path
) -> None:
    path = tmp_path / "net.pth"
    torch.save({**net.state_dict(), name: torch.ones(1)}, path)
    with pytest.raises(
        CheckpointError, match=f"{name} is in the checkpoint not known to a resnet8"
    ):
        load_model(read_checkpoint(path))


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
        self.module = nn.Linear(2, 3)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: f"module.{name}",
        lambda name: f"model.{name}",
        lambda name: f"model.net.{name}",
        lambda name: name.replace("features.", "features.module."),
        lambda name: "model." + name.replace("features.", "features.module."),
    ],
    ids=["as it is", "parallel", "model", "deeper", "features in parallel", "both"],
)
def test_names_are_fitted_to_a_model_of_one_s_own(rename: Callable[[str], str]) -> None:
    """Even if a part of it is called module."""
    state = state_of(Inner())
    assert (
        fit({rename(n): t for n, t in state.items()}, Inner().state_dict()).keys() == state.keys()
    )


def test_model_that_has_a_prefix_itself() -> None:
    wrapped = nn.Sequential()
    wrapped.add_module("net", Inner())
    found = fit(state_of(Inner()), wrapped.state_dict())
    assert found.keys() == wrapped.state_dict().keys()
    parallel = nn.DataParallel(Inner())
    assert fit(state_of(Inner()), parallel.state_dict()).keys() == parallel.state_dict().keys()


def test_names_that_do_not_fit_are_left_for_the_message() -> None:
    state = fit({"a.weight": torch.ones(1), "b": torch.ones(1)}, Inner().state_dict())
    assert state.keys() == {"a.weight", "b"}
    with pytest.raises(CheckpointError, match="features"):
        check_state(Inner(), state, "it")


@pytest.fixture(scope="module")
def real_net(shared: Path) -> ResNet:
    path = shared / "models" / "resnet20_addernet_cifar10.pt"
    return cast(ResNet, load_model(read_checkpoint(path)))


@pytest.mark.parametrize("wrapping", ["prune", "whole network in parallel"])
def test_the_real_network_comes_out(wrapping: str, real_net: ResNet, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(WRAPPINGS[wrapping](real_net), path)
    assert_same(load_model(read_checkpoint(path)), real_net)


def test_real_accuracy(
    real_net: ResNet, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the real network in a wrapping has right, after export: images, top-1, top-5."""
    path, output = tmp_path / "net.pth", tmp_path / "net.onnx"
    torch.save(WRAPPINGS["Lightning"](real_net), path)
    assert export.main([str(path), str(output), "--no-verify"]) == 0
    capsys.readouterr()
    assert run.main([str(output), "--data", str(shared / "cifar10"), "--json", "-"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    found = (result["images"], result["top1_correct"], result["top5_correct"])
    assert found == (500, 456, 499)
