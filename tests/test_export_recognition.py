"""Telling the architecture of a state dict, and what is said of one that does not fit."""

from __future__ import annotations

import functools
import re

import pytest
import torch
from torch import Tensor

from adder_onnx.errors import CheckpointError
from adder_onnx.export.checkpoint import Checkpoint
from adder_onnx.export.recognition import architecture_name, recognize
from adder_onnx.export.recognition import load_model as load_checkpoint
from adder_onnx.export.resnet import ResNet, ResNetConfig
from tests.test_export_resnet import random_resnet

State = dict[str, Tensor]

BASIC = ResNetConfig("cifar", "basic", (1, 2), (4, 6), 5)
BOTTLENECK = ResNetConfig("imagenet", "bottleneck", (1, 2), (2, 3), 5, classifier_bias=True)


def load_model(state: State, arch: str = "auto") -> ResNet:
    return load_checkpoint(Checkpoint(dict(state)), arch)


@functools.cache
def _zeros(config: ResNetConfig) -> State:
    with torch.device("meta"):
        meta = ResNet(config).state_dict()
    return {name: torch.zeros(v.shape, dtype=v.dtype) for name, v in meta.items()}


def state_of(config: ResNetConfig) -> State:
    """A state dict of zeros."""
    return dict(_zeros(config))


KEYS = [(BASIC, key) for key in state_of(BASIC)]
KEYS += [
    (BOTTLENECK, key) for key in state_of(BOTTLENECK) if re.search("conv|fc|downs.*adder", key)
]


def refusal(state: State, arch: str = "auto") -> str:
    """The one-line message with which a state dict is refused."""
    with pytest.raises(CheckpointError) as caught:
        load_model(state, arch)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "config",
    [
        ResNetConfig("cifar", "basic", (1, 1, 1), (4, 8, 8), 10),
        ResNetConfig("cifar", "basic", (3, 3, 3), (16, 32, 64), 10),
        ResNetConfig("cifar", "basic", (1, 3), (6, 4), 7, in_channels=1),
        ResNetConfig("cifar", "basic", (2,), (3,), 2, in_channels=4, classifier_bias=True),
        ResNetConfig("cifar", "bottleneck", (2, 1, 2), (2, 3, 4), 100),
        ResNetConfig("cifar", "basic", (1,) * 10, (2,) * 10, 3),
        ResNetConfig("cifar", "basic", (11, 1), (2, 2), 3),
        ResNetConfig("imagenet", "basic", (2, 2, 2, 2), (4, 5, 6, 7), 1000),
        ResNetConfig("imagenet", "bottleneck", (3, 4, 6, 3), (2, 3, 4, 5), 21, 1, True),
    ],
    ids=architecture_name,
)
def test_config_comes_back_from_the_state_dict(config: ResNetConfig) -> None:
    state = state_of(config)
    assert recognize(state) == config
    assert recognize(dict(reversed(state.items()))) == config
    assert load_model(state).config == config


@pytest.mark.parametrize(
    ("stem", "block", "depths", "name"),
    [
        ("cifar", "basic", (1, 1, 1), "resnet8"),
        ("cifar", "basic", (3, 3, 3), "resnet20"),
        ("cifar", "basic", (18, 18, 18), "resnet110"),
        ("imagenet", "basic", (2, 2, 2, 2), "resnet18"),
        ("imagenet", "basic", (3, 4, 6, 3), "resnet34"),
        ("imagenet", "bottleneck", (3, 4, 6, 3), "resnet50"),
        ("imagenet", "bottleneck", (3, 4, 23, 3), "resnet101"),
        ("imagenet", "bottleneck", (3, 8, 36, 3), "resnet152"),
        ("cifar", "basic", (1, 2, 1), "resnet-cifar-basic-1-2-1"),
        ("cifar", "basic", (2, 2, 2, 2), "resnet-cifar-basic-2-2-2-2"),
        ("cifar", "basic", (3, 3), "resnet-cifar-basic-3-3"),
        ("cifar", "bottleneck", (3, 3, 3), "resnet-cifar-bottleneck-3-3-3"),
        ("imagenet", "basic", (3, 3, 3), "resnet-imagenet-basic-3-3-3"),
        ("imagenet", "bottleneck", (2, 2, 2, 2), "resnet-imagenet-bottleneck-2-2-2-2"),
    ],
)
def test_names(stem: str, block: str, depths: tuple[int, ...], name: str) -> None:
    assert architecture_name(ResNetConfig(stem, block, depths, (4,) * len(depths), 10)) == name


def test_model_has_the_parameters_of_the_checkpoint() -> None:
    trained = random_resnet(BASIC)
    model = load_model(trained.state_dict())
    assert not any(module.training for module in model.modules())
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(model(x), trained(x), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_parameters_of_any_precision_become_float32(dtype: torch.dtype) -> None:
    trained = random_resnet(BASIC).to(dtype)
    model = load_model(trained.state_dict())
    for name, value in trained.state_dict().items():
        loaded = model.state_dict()[name]
        assert loaded.dtype == (torch.int64 if "num_batches" in name else torch.float32)
        torch.testing.assert_close(loaded, value.to(loaded.dtype), rtol=0, atol=0)


def test_counters_of_batches_may_be_missing() -> None:
    trained = random_resnet(BASIC)
    state = {k: v for k, v in trained.state_dict().items() if "num_batches" not in k}
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(load_model(state)(x), trained(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("config", "key"),
    # Without its bias a classifier is one that has none.
    [(config, key) for config, key in KEYS if "num_batches" not in key and key != "fc.bias"],
)
def test_missing_key_is_named(config: ResNetConfig, key: str) -> None:
    state = state_of(config)
    del state[key]
    message = refusal(state)
    assert key in message
    assert "missing" in message


@pytest.mark.parametrize(("config", "key"), KEYS)
def test_misshapen_key_is_named(config: ResNetConfig, key: str) -> None:
    """One more along the last dimension, which tells nothing of the architecture."""
    state = state_of(config)
    shape = list(state[key].shape) or [0]
    shape[-1] += 1
    state[key] = torch.zeros(shape)
    message = refusal(state)
    assert message.startswith(f"{key} has shape {tuple(shape)}")


@pytest.mark.parametrize("key", ["conv1.weight", "fc.weight", "layer2.0.conv1.adder"])
@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 1, 1, 1), (), (0, 6, 3, 3)], ids=str)
def test_key_that_tells_the_architecture_has_four_dimensions(
    key: str, shape: tuple[int, ...]
) -> None:
    message = refusal({**state_of(BASIC), key: torch.zeros(shape)})
    assert message.startswith(f"{key} has shape {shape}; expected four dimensions")


@pytest.mark.parametrize(
    "key",
    [
        "extra",
        "layer1.0.bn9.weight",
        "layer1.0.conv9.adder",
        "bn3.weight",
        "fc.b",
        "layer0.0.conv1.adder",
    ],
)
def test_unexpected_key_is_named(key: str) -> None:
    message = refusal({**state_of(BASIC), key: torch.zeros(1)})
    assert key in message
    assert "not known to a resnet-cifar-basic-1-2" in message


def test_long_lists_of_keys_are_cut() -> None:
    message = refusal({**state_of(BASIC), **{f"extra{i}": torch.zeros(1) for i in range(7)}})
    assert "extra0, extra1, extra2, extra3, extra4 and 2 more are" in message


def test_gap_between_stages_is_named() -> None:
    state = state_of(ResNetConfig("cifar", "basic", (1, 1, 1), (2, 2, 2), 3))
    message = refusal({k: v for k, v in state.items() if not k.startswith("layer2.")})
    assert message == "layer2.0.conv1.adder is missing from the checkpoint"


def test_gap_between_blocks_is_named() -> None:
    state = state_of(ResNetConfig("cifar", "basic", (1, 3), (2, 2), 3))
    message = refusal({k: v for k, v in state.items() if not k.startswith("layer2.1.")})
    assert message.startswith("layer2.1.conv1.adder, ")


@pytest.mark.parametrize("number", ["1000000000000", "9" * 5000], ids=["large", "endless"])
@pytest.mark.parametrize("name", ["layer{}.0.conv1.adder", "layer1.{}.conv1.adder"])
def test_absurd_numbers_are_refused_at_once(name: str, number: str) -> None:
    refusal({**state_of(BASIC), name.format(number): torch.zeros(2, 2, 3, 3)})


@pytest.mark.parametrize(
    "keys",
    [
        ["features.0.weight", "classifier.bias"],
        ["conv1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.weight", "fc.weight", "fc.bias"],
        ["0.adder", "1.weight"],
        ["layer0.0.conv1.adder", "conv1.weight", "fc.weight"],
    ],
    ids=["plain", "torchvision", "sequential", "counted from 0"],
)
def test_other_networks_are_unknown(keys: list[str]) -> None:
    message = refusal({key: torch.zeros(2, 2, 3, 3) for key in keys})
    assert message.startswith("unknown architecture")
    assert "layer1.0.conv1.adder" in message


def test_other_kernel_of_the_first_layer_is_unknown() -> None:
    message = refusal({**state_of(BASIC), "conv1.weight": torch.zeros(4, 3, 5, 5)})
    assert message.startswith("unknown architecture: conv1.weight is 5 x 5; expected 3 x 3")


@pytest.mark.parametrize("kind", ["sparse", "complex", "meta"])
def test_tensors_that_hold_no_dense_real_numbers_are_refused(kind: str) -> None:
    state = state_of(BASIC)
    value = state["fc.weight"]
    state["fc.weight"] = {
        "sparse": value.to_sparse(),
        "complex": value.to(torch.complex64),
        "meta": value.to("meta"),
    }[kind]
    assert re.match(r"fc\.weight is a .*; expected dense real numbers$", refusal(state))


def test_architecture_asked_for() -> None:
    state = state_of(ResNetConfig("cifar", "basic", (1, 1, 1), (2, 2, 2), 3))
    assert load_model(state, "resnet8").config.depths == (1, 1, 1)
    assert load_model(state, "auto").config.depths == (1, 1, 1)
    unusual = architecture_name(BASIC)
    assert load_model(state_of(BASIC), unusual).config == BASIC


@pytest.mark.parametrize("arch", ["resnet20", "resnet50", "resnet9"])
def test_architecture_that_contradicts_the_checkpoint(arch: str) -> None:
    state = state_of(ResNetConfig("cifar", "basic", (1, 1, 1), (2, 2, 2), 3))
    message = refusal(state, arch)
    assert message == f"the checkpoint is a resnet8 by its names and shapes, not a {arch}"


@pytest.mark.parametrize("arch", ["vgg16", "", "ResNet8", "resnet", "resnet8\n"])
def test_architecture_that_does_not_exist(arch: str) -> None:
    message = refusal(state_of(ResNetConfig("cifar", "basic", (1, 1, 1), (2, 2, 2), 3)), arch)
    assert message.startswith(f"unknown architecture {arch!r}; known are resnet8, 14, 20")
