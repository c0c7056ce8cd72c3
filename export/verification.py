"""Comparing an exported file with the model that it was made from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from adder_onnx.errors import ExportError
from adder_onnx.export.capture import error_line
from adder_onnx.export.layer.selection import without_native_kernels
from adder_onnx.export.outputs import named_outputs

__all__ = [
    "DEFAULT_RTOL",
    "MAX_RTOL",
    "VERIFIED_BATCH",
    "Comparison",
    "DoesNotRunError",
    "Truth",
    "Verification",
    "as_for_inference",
    "compare",
    "run_pytorch",
]

DEFAULT_RTOL = 1e-4
MAX_RTOL = 0.02

VERIFIED_BATCH = 3
"""Images that a file is compared with; another number than the model is traced with."""

_HALVES = (torch.float16, torch.bfloat16)

Outputs = Mapping[str, NDArray[Any]]
Runner = Callable[[NDArray[np.float32]], Outputs]
"""From an input (N, C, H, W) to the outputs, by name."""


class DoesNotRunError(Exception):
    """A model raises an error where it is run; the message is its first line."""


@dataclass(frozen=True)
class Truth:
    """What a model gives in PyTorch.

    Attributes:
        images: (N, C, H, W), float32, what it was given.
        outputs: what it gives, in float64 where it runs in that.
        alone: the same of the first image alone; None where the model does not take it.
        float32: what it gives for all images in float32.
        why_not_float64: why ``outputs`` are in float32; None if they are in float64.
    """

    images: NDArray[np.float32]
    outputs: Outputs
    alone: Outputs | None
    float32: Outputs
    why_not_float64: str | None = None

    @property
    def reference(self) -> str:
        """The precision of ``outputs``."""
        return "float32" if self.why_not_float64 else "float64"

    def renamed(self, names: Sequence[str]) -> Truth:
        """The same with other names of the outputs, in their order."""

        def rename(outputs: Outputs) -> Outputs:
            return dict(zip(names, outputs.values(), strict=True))

        alone = None if self.alone is None else rename(self.alone)
        return replace(
            self, outputs=rename(self.outputs), alone=alone, float32=rename(self.float32)
        )

    def of_one_image(self) -> Truth:
        """What it gives for the first image alone.

        Raises:
            ExportError: it does not take one image.
        """
        if self.alone is None:
            raise ExportError("the model takes one image at a time, but does not run on one")
        return replace(self, images=self.images[:1], outputs=self.alone, alone=None)

    def rounding(self) -> dict[str, float]:
        """The largest difference between float32 and ``outputs``, by output."""
        return {name: _error(self.float32[name], y) for name, y in self.outputs.items()}


@dataclass(frozen=True)
class Comparison:
    """Largest differences of one output from what PyTorch computes.

    Attributes:
        scale: the largest absolute value of the output.
        errors: largest absolute difference of each runner, by its name.
        pytorch_float32: how far PyTorch's own float32 is from its float64; of our conversion of the
            model where the model itself does not run in float64.
        reference: the precision of what the runners are compared with, ``float64`` or ``float32``.
    """

    scale: float
    errors: dict[str, float]
    pytorch_float32: float
    reference: str = "float64"

    @property
    def relative_error(self) -> float:
        """The largest difference of a runner, relative to the largest value if that is not 0."""
        error = max(self.errors.values())
        return error / self.scale if self.scale else error

    def allowed(self, rtol: float | None = None) -> float:
        """The largest difference that passes.

        It is ``rtol`` times the largest value. Without ``rtol`` it is 1e-4 times that, or twice
        PyTorch's own error where that is more: a deep network with random weights magnifies the
        rounding of any float32 arithmetic. Where what is compared with is float32 itself, its
        rounding comes on top: three times. It is never more than 0.02 times the largest value.
        """
        if rtol is not None:
            return rtol * self.scale
        times = 3 if self.reference == "float32" else 2
        own = times * self.pytorch_float32 if np.isfinite(self.pytorch_float32) else 0.0
        return min(max(DEFAULT_RTOL * self.scale, own), MAX_RTOL * self.scale)

    def passes(self, rtol: float | None = None) -> bool:
        """Whether the output is finite and no runner differs by more than is allowed."""
        allowed = self.allowed(rtol)
        return bool(np.isfinite(self.scale)) and all(e <= allowed for e in self.errors.values())


@dataclass(frozen=True)
class Verification:
    """The comparisons of all outputs.

    Attributes:
        outputs: by the output's name.
        why_not_float64: why they are compared with PyTorch in float32; None if in float64.
    """

    outputs: dict[str, Comparison]
    why_not_float64: str | None = None

    def passes(self, rtol: float | None = None) -> bool:
        """Whether all outputs do."""
        return all(comparison.passes(rtol) for comparison in self.outputs.values())

    def check(self, rtol: float | None = None) -> None:
        """Raises an error if an output does not pass.

        Raises:
            ExportError: it says which, and by how much.
        """
        for name, output in self.outputs.items():
            which = f"{name}: " if len(self.outputs) > 1 else ""
            if not np.isfinite(output.scale):
                raise ExportError(
                    f"{which}PyTorch itself gives values that are not finite for images of noise; "
                    "nothing was written (--no-verify leaves the comparison out)"
                )
            worst = max(output.errors, key=lambda runner: output.errors[runner])
            if output.errors[worst] > output.allowed(rtol):
                raise ExportError(
                    f"{which}the file in {worst} differs from PyTorch by "
                    f"{output.errors[worst]:.2g}, more than "
                    + ("the" if rtol is None else f"--rtol {rtol:g} of the largest value, the")
                    + f" {output.allowed(rtol):.2g} allowed with values up to {output.scale:.3g}; "
                    "nothing was written"
                )


def run_pytorch(
    model: nn.Module, input_shape: tuple[int, int, int], batch_size: int | None = None
) -> Truth:
    """Runs noise of unit variance (seeded) through a model, in float32 first, then in float64.

    Args:
        model: is in evaluation mode and float32 afterwards; one of several precisions keeps them
            if it runs so.
        input_shape: C, H and W.
        batch_size: the only number of images that the model takes; None for any.

    Raises:
        DoesNotRunError: the model raises an error in float32.
        ExportError: it gives something else than tensors.
    """
    shape = (batch_size or VERIFIED_BATCH, *input_shape)
    try:
        images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    except (MemoryError, ValueError) as error:
        raise ExportError(f"images of {input_shape} are too large: {error_line(error)}") from error
    float32 = _run_float32(model, images)
    why = None
    try:
        double = _double(model)
        outputs = _run(double, images.astype(np.float64))
        alone = _alone(double, images.astype(np.float64)) if batch_size is None else None
        if any(y.dtype == np.float32 for y in outputs.values()):
            why = "it turns its values into float32"
        elif not _alike(outputs, float32):
            why = "it gives other outputs in float64"
    except DoesNotRunError as error:
        why = f"in float64 it does not run: {error}"
    if why:
        outputs, alone = float32, (_alone(model, images) if batch_size is None else None)
    return Truth(images, outputs, alone, float32, why)


def as_for_inference(model: nn.Module) -> None:
    """Brings a model into evaluation mode and float32; one of several precisions keeps them.

    Raises:
        DoesNotRunError: its code raises an error.
    """
    try:
        model.eval()
        if not _is_mixed(model):
            model.float()
    except Exception as error:  # the model's code may raise anything
        raise DoesNotRunError(f"{type(error).__name__}: {error_line(error)}") from error


def compare(
    truth: Truth,
    runners: Mapping[str, Runner],
    rounding: Mapping[str, float] | None = None,
    phase: Callable[[str], None] = lambda name: None,
) -> Verification:
    """Runs the same images through each runner.

    Args:
        truth: what they are compared with, for all images and for the first alone.
        runners: by name.
        rounding: by output, how far float32 is from float64; None for what ``truth`` itself says.
        phase: is called with what is done next, for each runner.

    Raises:
        ExportError: a runner gives other outputs, or outputs of another shape.
    """
    rounding = truth.rounding() if rounding is None else rounding
    errors: dict[str, dict[str, float]] = {name: {} for name in truth.outputs}
    for runner, run in runners.items():
        phase(f"running the file in {runner}")
        for name, error in _errors(truth.outputs, run(truth.images), runner).items():
            errors[name][runner] = error
        if truth.alone is not None:
            # An image alone may lose its axis in the code of the model, but not in the file.
            got = {name: y.ravel() for name, y in run(truth.images[:1]).items()}
            alone = {name: y.ravel() for name, y in truth.alone.items()}
            for name, error in _errors(alone, got, f"{runner}, given one image alone,").items():
                errors[name][runner] = max(errors[name][runner], error)
    return Verification(
        {
            name: Comparison(_largest(y), errors[name], rounding[name], truth.reference)
            for name, y in truth.outputs.items()
        },
        truth.why_not_float64,
    )


def _run(model: nn.Module, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
    try:
        with torch.no_grad(), without_native_kernels():
            result = model(torch.from_numpy(images.copy()))  # which it may change
    except Exception as error:  # the model's code may raise anything
        raise DoesNotRunError(f"{type(error).__name__}: {error_line(error)}") from error
    tensors = named_outputs(result)
    return {
        name: (y.float() if y.dtype in _HALVES else y).numpy(force=True)
        for name, y in tensors.items()
    }


def _is_mixed(model: nn.Module) -> bool:
    return len({p.dtype for p in model.parameters() if p.is_floating_point()}) > 1


def _run_float32(model: nn.Module, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    as_for_inference(model)
    try:
        return _run(model, images)
    except DoesNotRunError:
        if not _is_mixed(model):
            raise
    model.float()  # of several precisions, and without the code that takes them together
    return _run(model, images)


def _double(model: nn.Module) -> nn.Module:
    """A copy in float64; what the model may keep of a run in it does not come into the model."""
    try:
        double = copy.deepcopy(model)
        double.double()  # which a model may have its own of, that does not give it back
        return double
    except Exception as error:  # of an attribute that refuses
        raise DoesNotRunError(
            f"it cannot be copied: {type(error).__name__}: {error_line(error)}"
        ) from error


def _alone(model: nn.Module, images: NDArray[Any]) -> dict[str, NDArray[Any]] | None:
    try:
        return _run(model, images[:1])
    except (DoesNotRunError, ExportError):
        return None


def _alike(first: Outputs, second: Outputs) -> bool:
    return [(n, y.shape) for n, y in first.items()] == [(n, y.shape) for n, y in second.items()]


def _errors(expected: Outputs, got: Outputs, runner: str) -> dict[str, float]:
    for name, y in expected.items():
        if name not in got or got[name].shape != y.shape:
            found = list(got[name].shape) if name in got else f"no such output, only {[*got]}"
            raise ExportError(
                f"the file in {runner} gives {name} as {found}; PyTorch gives {list(y.shape)}; "
                "nothing was written"
            )
    return {name: _error(got[name], y) for name, y in expected.items()}


def _error(got: NDArray[Any], expected: NDArray[Any]) -> float:
    if not expected.size:
        return 0.0
    with np.errstate(invalid="ignore"):  # infinity less infinity
        error = float(np.abs(got.astype(np.float64) - expected).max())
    return error if np.isfinite(error) else float("inf")


def _largest(values: NDArray[Any]) -> float:
    return float(np.abs(values.astype(np.float64)).max(initial=0.0))
