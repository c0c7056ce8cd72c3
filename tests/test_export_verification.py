"""Comparing what a file computes with PyTorch."""

from __future__ import annotations

import contextlib
import re
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from adder_onnx.errors import ExportError
from adder_onnx.export import AdderConv2d
from adder_onnx.export.verification import (
    Comparison,
    DoesNotRunError,
    compare,
    run_pytorch,
)

SHAPE = (2, 6, 5)
RTOL = 1e-4

Array = NDArray[Any]
Runner = Callable[[Array], Array]


def verify(
    model: nn.Module, input_shape: tuple[int, int, int], runners: dict[str, Runner]
) -> Comparison:
    """The comparison of a model that has one output."""

    def named(run: Runner) -> Callable[[Array], dict[str, Array]]:
        return lambda images: {"logits": run(images)}

    truth = run_pytorch(model, input_shape)
    return compare(truth, {name: named(run) for name, run in runners.items()}).outputs["logits"]


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

    with contextlib.suppress(ExportError):  # it gives what another model gives
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
        if len(images) > 1:
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
        lambda logits: np.where(logits == logits.max(), np.nan, logits),
        lambda logits: np.where(logits == logits.max(), np.inf, logits),
        lambda logits: np.full_like(logits, np.nan),
        np.zeros_like,
    ],
    ids=["a NaN", "infinite", "NaN", "zeros"],
)
def test_spoilt_logits_fail(
    model: nn.Module, right: Runner, spoil: Callable[[Array], Array]
) -> None:
    result = verify(model, SHAPE, {"spoilt": lambda images: spoil(right(images))})
    assert not result.passes(RTOL)
    assert not result.passes(0.9)
    assert not np.isnan(result.errors["spoilt"])  # NaN is neither the largest nor the smallest


@pytest.mark.parametrize(
    ("spoil", "shape"),
    [
        (lambda logits: logits[:, :2], "[3, 2]"),
        (lambda logits: logits[:1], "[1, 3]"),
        (lambda logits: logits[..., None], "[3, 3, 1]"),
        (lambda logits: logits.ravel(), "[9]"),
    ],
    ids=["class less", "image less", "dimension more", "flat"],
)
def test_other_shapes_are_named(
    model: nn.Module, right: Runner, spoil: Callable[[Array], Array], shape: str
) -> None:
    message = f"spoilt gives logits as {shape}; PyTorch gives [3, 3]"
    with pytest.raises(ExportError, match=re.escape(message)):
        verify(model, SHAPE, {"spoilt": lambda images: spoil(right(images))})


def test_broadcastable_logits_are_of_another_shape(model: nn.Module) -> None:
    """Equal rows would be equal to a single one, if shapes were not compared."""
    constant = nn.Sequential(model, nn.Threshold(1e9, 3.0))
    with pytest.raises(ExportError, match=re.escape("as [1, 3]; PyTorch gives [3, 3]")):
        verify(constant, SHAPE, {"one": lambda images: np.full((1, 3), 3.0)})


def test_an_image_alone_is_compared_as_well(model: nn.Module, right: Runner) -> None:
    """By its values: a model's code may drop the axis of a batch of one."""
    squeezed = nn.Sequential(model)
    squeezed.register_forward_hook(lambda _, __, y: y.squeeze())
    assert verify(squeezed, SHAPE, {"right": right}).passes(RTOL)

    def run(images: Array) -> Array:
        return right(images) + (len(images) == 1)

    assert verify(squeezed, SHAPE, {"off": run}).errors["off"] == pytest.approx(1)


def test_fixed_batch_is_compared_as_it_is(model: nn.Module, right: Runner) -> None:
    sizes: list[int] = []

    def run(images: Array) -> dict[str, Array]:
        sizes.append(len(images))
        return {"logits": right(images)}

    truth = run_pytorch(model, SHAPE, batch_size=4)
    assert truth.alone is None
    assert compare(truth, {"right": run}).passes(RTOL)
    assert sizes == [4]


class Mixed(nn.Module):
    """Makes zeros of float32, whatever it is given."""

    def __init__(self, inner: nn.Module, spoil: float = 0.0) -> None:
        super().__init__()
        self.inner, self.linear, self.spoil = inner, nn.Linear(3, 3), spoil

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x)
        return self.linear(torch.zeros(y.shape) + self.spoil) * 0 + y  # type: ignore[no-any-return]


def test_model_that_runs_in_float32_only_is_compared_in_that(
    model: nn.Module, right: Runner
) -> None:
    truth = run_pytorch(Mixed(model), SHAPE)
    assert truth.reference == "float32"
    assert truth.why_not_float64 is not None
    assert "float64" in truth.why_not_float64
    assert all(y.dtype == np.float32 for y in truth.outputs.values())
    result = compare(truth, {"right": lambda x: {"logits": right(x)}}, {"logits": 1e-5})
    assert result.passes()
    assert result.outputs["logits"].allowed() == pytest.approx(
        max(3e-5, 1e-4 * result.outputs["logits"].scale)
    )
    off = compare(truth, {"off": lambda x: {"logits": right(x) + 1}}, {"logits": 1e-5})
    with pytest.raises(ExportError, match="off differs from PyTorch by 1"):
        off.check()


def test_model_that_casts_its_values_is_no_float64_reference(model: nn.Module) -> None:
    cast = nn.Sequential(model)
    cast.register_forward_hook(lambda _, __, y: y.float())
    assert run_pytorch(cast, SHAPE).why_not_float64 == "it turns its values into float32"


def test_model_that_cannot_be_copied_runs_in_float32(model: nn.Module) -> None:
    locked = nn.Sequential(model)
    locked.lock = threading.Lock()  # type: ignore[assignment]
    why = run_pytorch(locked, SHAPE).why_not_float64
    assert why is not None
    assert "cannot be copied" in why


def test_model_that_does_not_run() -> None:
    with pytest.raises(DoesNotRunError, match=r"RuntimeError: .*shape"):
        run_pytorch(nn.Linear(7, 2), SHAPE)


def test_each_output_is_compared_with_its_own_scale() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"small": x * 1e-6, "large": x * 1e6}

    truth = run_pytorch(Two(), SHAPE)
    assert [*truth.outputs] == ["small", "large"]

    def run(images: Array) -> dict[str, Array]:
        return {"large": images * 1e6, "small": images * 1.001e-6}

    result = compare(truth, {"r": run})
    assert result.outputs["large"].passes()
    assert not result.outputs["small"].passes()
    with pytest.raises(ExportError, match="small: the file in r differs"):
        result.check()
    with pytest.raises(ExportError, match=r"no such output, only \['large'\]"):
        compare(truth, {"r": lambda images: {"large": images * 1e6}})


def test_whole_numbers_must_be_equal() -> None:
    class Best(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).argmax(1)

    def run(images: Array) -> dict[str, Array]:
        return {"logits": images.reshape(len(images), -1).argmax(1)}

    truth = run_pytorch(Best(), SHAPE)
    assert truth.reference == "float64"
    assert compare(truth, {"same": run}).passes()
    assert not compare(truth, {"off": lambda x: {"logits": run(x)["logits"] + 1}}).passes()


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
    assert Comparison(0.0, {"same": 0.0}, 0.0).passes(RTOL)
    assert not Comparison(0.0, {"off": 1e-30}, 0.0).passes(RTOL)


def test_runners_get_the_same_noise_each_time(model: nn.Module, right: Runner) -> None:
    seen: list[Array] = []

    def record(images: Array) -> Array:
        seen.append(images.copy())
        return right(images)

    verify(model, SHAPE, {"a": record, "b": record})
    verify(model, SHAPE, {"a": record})
    assert [images.shape for images in seen] == [(3, *SHAPE), (1, *SHAPE)] * 3
    assert all(images.dtype == np.float32 for images in seen)
    assert all(np.array_equal(images, seen[0][: len(images)]) for images in seen)
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
    assert Comparison(10.0, {"r": 0.9e-3}, 0.0).passes()
    assert not Comparison(10.0, {"r": 1.1e-3}, 0.0).passes()
    assert Comparison(10.0, {"r": 0.019}, 0.01).passes()
    assert not Comparison(10.0, {"r": 0.021}, 0.01).passes()
    assert not Comparison(10.0, {"r": 0.21}, 5.0).passes()
    assert not Comparison(10.0, {"r": 0.1}, float("inf")).passes()
    assert not Comparison(10.0, {"r": 0.019}, 0.01).passes(1e-4)
