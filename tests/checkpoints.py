"""A network's state in all the wrappings that people keep it in, for tests."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from adder_onnx.export import AdderConv2d
from adder_onnx.export.resnet import ResNet

State = dict[str, Tensor]

__all__ = ["KEYS", "WRAPPINGS"]


def _prefixed(prefix: str) -> Callable[[ResNet], Any]:
    return lambda net: {prefix + name: tensor for name, tensor in net.state_dict().items()}


def _lightning(net: ResNet) -> Any:
    return {
        "epoch": 7,
        "global_step": 1234,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": OrderedDict(
            {
                **_prefixed("model.")(net),
                "criterion.weight": torch.ones(10),
                "train_acc.total": torch.tensor(5),
            }
        ),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9)}},
        "optimizer_states": [torch.optim.SGD(net.parameters(), 0.1).state_dict()],
        "hyper_parameters": {"lr": 0.1, "net": SimpleNamespace(depth=20)},
    }


def _averaged(net: ResNet) -> Any:
    return torch.optim.swa_utils.AveragedModel(net).state_dict()


def _counted(net: ResNet) -> Any:
    """As thop leaves a network that it has counted."""
    net = copy.deepcopy(net)
    for module in net.modules():
        module.register_buffer("total_ops", torch.zeros(1, dtype=torch.float64))
        module.register_buffer("total_params", torch.zeros(1, dtype=torch.float64))
    return net.state_dict()


def _pruned_by_nothing(net: ResNet) -> Any:
    """Pruned, with masks that are all ones, so that it stays the same network."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, AdderConv2d):
            prune.identity(module, "adder")  # type: ignore[no-untyped-call]
        elif isinstance(module, nn.Conv2d):
            prune.identity(module, "weight")  # type: ignore[no-untyped-call]
    return net.state_dict()


def _among(key: str) -> Callable[[ResNet], Any]:
    return lambda net: {"epoch": 3, "best_acc": torch.tensor(91.2), key: net.state_dict()}


def _spoilt(net: ResNet) -> State:
    return {name: tensor + 1 for name, tensor in net.state_dict().items()}


def _with_average(net: ResNet) -> Any:
    return {"arch": "resnet20", "state_dict": net.state_dict(), "state_dict_ema": _spoilt(net)}


def _nested(net: ResNet) -> Any:
    optimizer = torch.optim.Adam(net.parameters())
    return {"state": {"model": net.state_dict(), "optimizer": optimizer.state_dict()}, "step": 1}


def _training(net: ResNet) -> Any:
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.zeros(9)}


def _defaultdict(net: ResNet) -> Any:
    return defaultdict(dict, {"state_dict": net.state_dict()})


WRAPPINGS: dict[str, Callable[[ResNet], Any]] = {
    "state dict": lambda net: net.state_dict(),
    "module.": _prefixed("module."),
    "module. twice": _prefixed("module.module."),
    "compiled": _prefixed("_orig_mod."),
    "compiled in parallel": _prefixed("module._orig_mod."),
    "model.": _prefixed("model."),
    "net.": _prefixed("net."),
    "backbone.": _prefixed("backbone."),
    "model.module.": _prefixed("model.module."),
    "model._orig_mod.": _prefixed("model._orig_mod."),
    "Lightning": _lightning,
    "AveragedModel": _averaged,
    "thop": _counted,
    "prune": _pruned_by_nothing,
    "state_dict": _among("state_dict"),
    "model_state_dict": _among("model_state_dict"),
    "ema": _among("ema"),
    "model_ema": _among("model_ema"),
    "params": _among("params"),
    "weights": _among("weights"),
    "my_best_net": _among("my_best_net"),
    "state_dict beside its average": _with_average,
    "nested": _nested,
    "beside an optimizer": _training,
    "defaultdict": _defaultdict,
    "whole network": lambda net: net,
    "whole network in parallel": nn.DataParallel,
    "whole network averaged": torch.optim.swa_utils.AveragedModel,
    "whole network among others": lambda net: {"epoch": 3, "model": net, "ema": None},
}
"""What ``torch.save`` is given, by name: each holds the network itself."""

KEYS: dict[str, tuple[Callable[[ResNet], Any], str]] = {
    "the average": (
        lambda net: {"state_dict": _spoilt(net), "state_dict_ema": net.state_dict()},
        "state_dict_ema",
    ),
    "one of two": (lambda net: {"student": net.state_dict(), "teacher": _spoilt(net)}, "student"),
    "one of two prefixes": (
        lambda net: {
            **_prefixed("online_model.")(net),
            **{f"ema_model.{n}": t for n, t in _spoilt(net).items()},
        },
        "online_model",
    ),
    "deep": (lambda net: {"a": {"b": net.state_dict(), "c": _spoilt(net)}}, "a.b"),
    "with a head beside it": (
        lambda net: {**_prefixed("backbone.")(net), "head.weight": torch.ones(3, 10)},
        "backbone",
    ),
}
"""What needs a key, and the key."""
