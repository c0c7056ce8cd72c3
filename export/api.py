"""`export_onnx`: from a PyTorch model to a verified file."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from adder_onnx.errors import ExportError
from adder_onnx.export.conversion import convert_adder_layers
from adder_onnx.export.exporter import DEFAULT_OPSET, export_model
from adder_onnx.export.verification import Verification, verify
from adder_onnx.files import check_writable, write_atomically
from adder_onnx.metadata import ModelMetadata

__all__ = ["Exported", "export_onnx"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        bytes: its size.
        nodes: number of nodes in its graph.
        adder_nodes: how many of them are AdderConv.
        verification: how far it is from PyTorch, or None where that was not asked for.
    """

    path: Path
    bytes: int
    nodes: int
    adder_nodes: int
    verification: Verification | None


def export_onnx(
    model: nn.Module,
    path: str | Path,
    input_shape: tuple[int, int, int],
    *,
    opset: int = DEFAULT_OPSET,
    metadata: ModelMetadata | None = None,
    rtol: float | None = None,
    no_verify: bool = False,
) -> Exported:
    """Writes a model as ONNX, after comparing the file with PyTorch.

    Layers that look like the reference implementation's ``adder2d`` become AdderConv nodes, as
    `AdderConv2d` does. The file is compared with the model as it was given, in our runtime and in
    onnxruntime by the function bodies.

    Args:
        model: maps images (N, C, H, W) to logits (N, classes); is not changed.
        path: where the file goes; written under another name and renamed.
        input_shape: C, H and W.
        opset: version of the standard operator set, 18 to 23.
        metadata: what the file says about itself, such as the preprocessing.
        rtol: largest difference from PyTorch in float64, relative to the largest logit; by default
            as `Verification.allowed` says.
        no_verify: leave the comparison out.

    Raises:
        ExportError: PyTorch cannot export the model, the file differs from it, or the number of
            labels is not that of the classes; nothing is written.
    """
    path = Path(path)
    check_writable(path)
    original = copy.deepcopy(model).eval().float()
    converted = convert_adder_layers(copy.deepcopy(original)).eval()
    props = (metadata or ModelMetadata()).to_props()
    proto = export_model(converted, input_shape, opset=opset, metadata=props)
    _check_labels(metadata, proto)
    data = proto.SerializeToString()
    result = None if no_verify else _verify(original, converted, data, input_shape, rtol)
    write_atomically(path, data)
    adder_nodes = sum(node.op_type == "AdderConv" for node in proto.graph.node)
    return Exported(path, len(data), len(proto.graph.node), adder_nodes, result)


def _check_labels(metadata: ModelMetadata | None, proto: onnx.ModelProto) -> None:
    shape = proto.graph.output[0].type.tensor_type.shape.dim
    labels = metadata.labels if metadata is not None else None
    if labels is not None and len(shape) == 2 and shape[1].dim_value != len(labels):
        raise ExportError(
            f"there are {len(labels)} labels; the network has {shape[1].dim_value} classes"
        )


def _verify(
    original: nn.Module,
    converted: nn.Module,
    data: bytes,
    input_shape: tuple[int, int, int],
    rtol: float | None,
) -> Verification:
    # The one place where exporting needs the runtime; it imports nothing of ours in return.
    from adder_onnx.runtime import InferenceSession
    from adder_onnx.runtime.onnxruntime_step import import_onnxruntime

    ours = InferenceSession(data, arithmetic="exact")  # what is judged is the file
    stock = import_onnxruntime().InferenceSession(data, providers=["CPUExecutionProvider"])

    def runner(session: Any) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
        return lambda images: session.run(["logits"], {"input": images})[0]

    runners = {"adder-onnx": runner(ours), "onnxruntime": runner(stock)}
    try:
        result = verify(original, input_shape, runners)
    except Exception as error:  # layers of others may need a GPU, or refuse float64
        _logger.warning(
            "the model as it was given does not run here (%s: %s); the file is compared with the "
            "converted one",
            type(error).__name__,
            " ".join(str(error).split()),
        )
        result = verify(converted, input_shape, runners)
    if not result.passes(rtol):
        worst = max(result.errors, key=lambda name: result.errors[name])
        raise ExportError(
            f"the file in {worst} differs from PyTorch by {result.errors[worst]:.2g}, more than "
            + ("the" if rtol is None else f"--rtol {rtol:g} of the largest logit, the")
            + f" {result.allowed(rtol):.2g} allowed with logits up to {result.scale:.3g}; nothing "
            "was written"
        )
    return result
