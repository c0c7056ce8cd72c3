"""The graph of a PyTorch model, for any size of the batch where its code allows that."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from adder_onnx.errors import ExportError

__all__ = ["TRACED_BATCH", "capture", "error_line", "fixed_batch", "quiet"]

TRACED_BATCH = 5
"""Images that a model is traced with for any size of the batch: not those it is verified with."""

# Of what is raised as well, of operators of torchvision that nobody asks for, and of guards.
_LOGS = ("torch.onnx", "torch.export", "torch._guards", "torch._dynamo", "torch.fx")


def capture(
    model: nn.Module, input_shape: tuple[int, int, int], batch_size: int | None = None
) -> ExportedProgram:
    """The graph of a model, by ``torch.export``.

    Without ``batch_size`` the batch is symbolic if that is possible. PyTorch has two ways to trace,
    and each can see through code that the other cannot, such as ``int(x.size(0))``: both are tried.
    Where both find the batch made a constant, the graph is that of one image.

    Args:
        model: in evaluation mode, on the CPU, float32.
        input_shape: C, H and W of its input.
        batch_size: the only size that the graph takes; None for any.

    Raises:
        ExportError: PyTorch cannot trace the model.
    """
    attempts: list[tuple[int, Any]] = []
    if batch_size is None:
        # A dimension that is named must allow all sizes, one that is not may have bounds.
        attempts += [(TRACED_BATCH, Dim("batch")), (TRACED_BATCH, Dim.DYNAMIC)]
    attempts.append((batch_size or 1, None))
    errors = []
    for batch, dim in attempts:
        for strict in (False, True):
            try:
                return _export(model, torch.zeros(batch, *input_shape), dim, strict)
            except Exception as error:  # PyTorch raises many kinds, and the model any
                errors.append(error)
    raise ExportError(
        f"PyTorch cannot export the model with inputs of {input_shape}: {error_line(errors[-2])}"
    ) from errors[-2]


def _export(model: nn.Module, example: torch.Tensor, dim: Any, strict: bool) -> ExportedProgram:
    shapes = None if dim is None else ({0: dim},)
    with quiet():
        return torch.export.export(model, (example,), dynamic_shapes=shapes, strict=strict)


def fixed_batch(program: ExportedProgram) -> int | None:
    """The only batch that a graph takes; None if it takes any."""
    (name,) = program.graph_signature.user_inputs
    node = next(n for n in program.graph.nodes if n.op == "placeholder" and n.name == name)
    size = node.meta["val"].shape[0]
    return size if isinstance(size, int) else None


@contextmanager
def quiet() -> Iterator[None]:
    """Within it PyTorch's exporters keep to themselves what they print; they raise what matters."""
    logs = [logging.getLogger(name) for name in _LOGS]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()) as printed,
            redirect_stderr(printed),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def error_line(error: BaseException) -> str:
    """The first line of what an error comes from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
