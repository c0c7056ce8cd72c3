"""Comparing what a file computes with PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from adder_onnx.export import AdderConv2d
from adder_onnx.export.verification import Verification, verify

SHAPE = (2, 6, 5)
RTOL = 1e-4

Array = NDArray[Any]
Runner = Callable[[Array], Array]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (AdderConv2d(2, 3, 3, bias=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def right(model: nn.Module) -> Runner:
    """The definition of the model, in double precision."""
    layer = model[0]  # type: ignore[index]
    w, b = layer.adder.detach().double().numpy(), layer.b.detach().double().numpy()

    def run(images: Array) -> Array:
        windows = np.lib.stride_tricks.sliding_window_view(images.astype(float), (3, 3), (2, 3))
        taps = np.moveaxis(windows, 1, 3)[:, None] - w[:, None, None]
        logits: Array = b - np.abs(taps).sum((4, 5, 6)).mean((2, 3))
        return logits

    return run


def largest_logit(right: Runner) -> float:
    images: list[Array] = []

    def record(given: Array) -> Array:
        images.append(given)
        return right(given)

    verify(nn.Flatten(), SHAPE, {"record": record})
    return float(np.abs(right(images[0])).max())


def test_right_runner_passes(model: nn.Module, right: Runner) -> None:
    result = verify(model, SHAPE, {"right": right})
    assert result.passes(RTOL)
    assert result.errors["right"] <= 1e-12
    assert result.scale == pytest.approx(largest_logit(right), rel=1e-12)
    assert 0 < result.pytorch_float32 < 1e-4


def test_float32_runner_passes(model: nn.Module, right: Runner) -> None:
    result = verify(model, SHAPE, {"rounded": lambda images: right(images).astype(np.float32)})
    assert 0 < result.errors["rounded"] < 1e-5
    assert result.passes(RTOL)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("factor", "passes"), [(0.99, True), (1.01, False)])
def test_bound_is_relative_to_the_largest_logit(
    model: nn.Module, right: Runner, factor: float, sign: int, passes: bool
) -> None:
    difference = sign * factor * RTOL * largest_logit(right)

    def run(images: Array) -> Array:
        logits = right(images)
        logits[1, 2] += difference  # one logit alone
        return logits

    result = verify(model, SHAPE, {"off": run})
    assert result.errors["off"] == pytest.approx(abs(difference), rel=1e-6)
    assert result.passes(RTOL) is passes


def test_one_wrong_runner_of_two_fails(model: nn.Module, right: Runner) -> None:
    for names in (("right", "wrong"), ("wrong", "right")):
        runners = {"right": right, "wrong": lambda images: right(images) + 1}
        result = verify(model, SHAPE, {name: runners[name] for name in names})
        assert result.errors["wrong"] == pytest.approx(1)
        assert result.errors["right"] <= 1e-12
        assert not result.passes(RTOL)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda logits: logits[:, :2],
        lambda logits: logits[:1],
        lambda logits: logits[..., None],
        lambda logits: logits.ravel(),
        lambda logits: np.where(logits == logits.max(), np.nan, logits),
        lambda logits: np.where(logits == logits.max(), np.inf, logits),
        lambda logits: np.full_like(logits, np.nan),
        np.zeros_like,
    ],
    ids=["class less", "image less", "dimension more", "flat", "a NaN", "infinite", "NaN", "zeros"],
)
def test_spoilt_logits_fail(
    model: nn.Module, right: Runner, spoil: Callable[[Array], Array]
) -> None:
    result = verify(model, SHAPE, {"spoilt": lambda images: spoil(right(images))})
    assert not result.passes(RTOL)
    assert not result.passes(0.9)
    assert not np.isnan(result.errors["spoilt"])  # NaN is neither the largest nor the smallest


def test_broadcastable_logits_fail(model: nn.Module, right: Runner) -> None:
    """Equal rows would be equal to a single one, if shapes were not compared."""
    constant = nn.Sequential(model, nn.Threshold(1e9, 3.0))
    result = verify(constant, SHAPE, {"one": lambda images: np.full((1, 3), 3.0)})
    assert result.errors["one"] == float("inf")
    assert not result.passes(RTOL)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_network_without_finite_logits_fails(right: Runner, value: float) -> None:
    layer = AdderConv2d(2, 3, 3)
    with torch.no_grad():
        layer.adder.fill_(value)
    broken = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def run(images: Array) -> Array:
        with torch.no_grad():
            return broken(torch.from_numpy(images)).numpy()  # type: ignore[no-any-return]

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning would be a second line on standard error
        assert not verify(broken, SHAPE, {"same": run}).passes(RTOL)
        assert not verify(broken, SHAPE, {"finite": right}).passes(RTOL)


def test_logits_of_zero_must_be_zero() -> None:
    assert Verification(0.0, {"same": 0.0}, 0.0).passes(RTOL)
    assert not Verification(0.0, {"off": 1e-30}, 0.0).passes(RTOL)


def test_runners_get_the_same_noise_each_time(model: nn.Module, right: Runner) -> None:
    seen: list[Array] = []

    def record(images: Array) -> Array:
        seen.append(images.copy())
        return right(images)

    verify(model, SHAPE, {"a": record, "b": record})
    verify(model, SHAPE, {"a": record})
    assert all(images.dtype == np.float32 and images.shape == (2, *SHAPE) for images in seen)
    assert all(np.array_equal(images, seen[0]) for images in seen)
    assert not np.array_equal(seen[0][0], seen[0][1])
    assert np.std(seen[0]) == pytest.approx(1, abs=0.2)


def test_model_is_left_as_it_was(model: nn.Module, right: Runner) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    verify(model, SHAPE, {"right": right})
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
        assert value.dtype == torch.float32


def test_without_rtol_pytorch_s_own_error_counts() -> None:
    """1e-4 of the largest logit, or twice PyTorch's float32 error, but never beyond 2 %."""
    assert Verification(10.0, {"r": 0.9e-3}, 0.0).passes()
    assert not Verification(10.0, {"r": 1.1e-3}, 0.0).passes()
    assert Verification(10.0, {"r": 0.019}, 0.01).passes()
    assert not Verification(10.0, {"r": 0.021}, 0.01).passes()
    assert not Verification(10.0, {"r": 0.21}, 5.0).passes()
    assert not Verification(10.0, {"r": 0.1}, float("inf")).passes()
    assert not Verification(10.0, {"r": 0.019}, 0.01).passes(1e-4)
